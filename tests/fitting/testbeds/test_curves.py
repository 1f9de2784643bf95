"""Training curves: the sums of a schedule, and the annealing law's parameters recovered from curves."""

import numpy as np
import pytest

from fitting import solve
from fitting.laws import catalogue
from fitting.testbeds.curves import annealing_sums


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
