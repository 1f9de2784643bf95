"""Training curves: the sums of a schedule, and the annealing law's parameters recovered from curves."""

import numpy as np
import pandas as pd
import pytest

from fitting import solve
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.testbeds.curves import annealed, annealing_sums
from fitting.testbeds.testbed import Testbed


def test_sums_equal_the_papers_double_sum():
    rate_S, decay = np.random.default_rng(0).uniform(1e-4, 1e-3, 40), 0.9
    area_S, annealing_S = annealing_sums(rate_S, decay=decay)
    fall_S = np.concatenate([[0], rate_S[:-1] - rate_S[1:]])
    double_sum_S = [
        sum(fall_S[k] * decay ** (i - k) for i in range(step + 1) for k in range(i + 1)) for step in range(len(rate_S))
    ]
    np.testing.assert_allclose(area_S, [rate_S[: step + 1].sum() for step in range(len(rate_S))], rtol=1e-12)
    np.testing.assert_allclose(annealing_S, double_sum_S, rtol=1e-9, atol=1e-18)


def test_a_constant_rate_anneals_nothing():
    assert not annealing_sums(np.full(10, 3e-4))[1].any()


def test_a_rate_may_begin_and_end_at_zero():
    area_S, annealing_S = annealing_sums(np.array([0.0, 2e-3, 1e-3, 0.0]), decay=0.5)
    np.testing.assert_allclose(area_S, [0, 2e-3, 3e-3, 3e-3], rtol=1e-12)
    np.testing.assert_allclose(annealing_S, [0, -2e-3, -2e-3, -1e-3], rtol=1e-12)


def test_annealing_law_is_recovered_from_the_curves_of_two_schedules():
    steps = np.arange(400)
    schedules = [np.full(400, 1e-3), 1e-4 + 4.5e-4 * (1 + np.cos(np.pi * steps / 400))]
    sums = [annealing_sums(rate_S) for rate_S in schedules]
    x = [np.concatenate(columns)[::20] for columns in zip(*sums, strict=True)]
    law = catalogue.LOSS_LAWS["annealing"]
    theta = {"L_0": 2.5, "A": 0.4, "C": 3.0, "alpha": 0.5}
    y_N = law.evaluate([theta[name] for name in law.parameters], *x)
    found = solve.minimise(law, x, y_N, np.ones_like(y_N), positive=True)
    np.testing.assert_allclose(found.theta_BxP[0], [theta[name] for name in law.parameters], rtol=1e-4)


@pytest.mark.parametrize(
    ("rate_S", "decay"), [([], 0.9), ([1e-3, -1e-4], 0.9), ([0.0], 0.9), ([[1e-3]], 0.9), ([1e-3], 1.0)]
)
def test_what_is_no_schedule_is_refused(rate_S, decay):
    with pytest.raises(ValueError, match=r"schedule|decay"):
        annealing_sums(np.asarray(rate_S), decay=decay)


def test_the_rate_between_two_rows_lies_on_their_line_and_before_the_first_is_as_there():
    rows = {"run": ["b@4", "a@2", "a@4", "a"], "params": 1e6, "tokens": [4e4, 2e4, 4e4, 4e4]}
    table = annealed(Testbed(pd.DataFrame(rows | {"learning_rate": [1.0, 0.4, 0.2, np.nan]})), decay=0.5).table
    area_S, annealing_S = annealing_sums(np.array([0.4, 0.4, 0.3, 0.2]), decay=0.5)
    np.testing.assert_allclose(table["lr_area"], [4, area_S[1], area_S[3], np.nan])
    np.testing.assert_allclose(table["lr_annealing"], [0, annealing_S[1], annealing_S[3], np.nan], atol=1e-12)


def test_a_table_without_the_rate_of_any_step_is_refused():
    with pytest.raises(ValueError, match="no row <run>@<step> has a learning_rate"):
        annealed(Testbed(pd.DataFrame({"run": ["a@1"], "params": 1e6, "tokens": 1e4})))


def test_a_constant_rate_alone_cannot_tell_what_annealing_does():
    rows = {"run": [f"a@{step}" for step in range(10, 110, 10)], "params": 1e6, "tokens": np.arange(1, 11) * 1e4}
    rows |= {"learning_rate": 1e-3, "loss/x": 3 - np.arange(10) / 10}
    with pytest.raises(ValueError, match="cannot tell the parameters of annealing apart"):
        fit(annealed(Testbed(pd.DataFrame(rows))), loss="x", law="annealing")
