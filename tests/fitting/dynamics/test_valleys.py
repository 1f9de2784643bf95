"""The best learning rates of sweeps whose truth is known, and of Step Law's own runs; what a sweep cannot tell."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.dynamics.valleys import tune
from fitting.testbeds.testbed import Testbed

SIZES, MULTIPLIERS, FACTORS = (1e6, 3e6, 9e6), (20.0, 80.0), (0.25, 0.5, 1.0, 2.0, 4.0)


def best_rate(params, tokens, a=-0.4, b=0.2):
    return 0.004 * (params / 3e6) ** a * (tokens / 1e8) ** b


def sweep(*, a=-0.4, b=0.2, noise=0.0, seed=0, steep=0.0, centre=lambda n, d: 0.004, factors=FACTORS, sizes=SIZES):
    """Runs whose loss is a parabola over the best rate, with a steeper right wall and noise if asked for."""
    rng, rows = np.random.default_rng(seed), []
    for n, m, factor in itertools.product(sizes, MULTIPLIERS, factors):
        rate = factor * centre(n, m * n)
        x = math.log(rate / best_rate(n, m * n, a, b))
        valley = 0.02 * x**2 + steep * x**3
        loss = (2 + 5 * n**-0.1) * (1 + valley) * (1 + noise * rng.standard_normal())
        rows.append({"params": n, "tokens": m * n, "learning_rate": rate, "loss/web": loss})
    return pd.DataFrame(rows).assign(run=lambda t: [f"r{i}" for i in t.index])


@settings(max_examples=20, deadline=None)
@given(a=st.floats(-0.5, 0.2), b=st.floats(-0.3, 0.3))
def test_parabolas_without_noise_give_their_bottoms_exactly_and_the_law_but_for_what_is_believed(a, b):
    tuned = tune(Testbed(sweep(a=a, b=b, centre=lambda n, d: best_rate(n, d, a, b) * 1.3)), "loss/web")
    for valley in tuned.valleys:
        assert valley.best["learning_rate"] == pytest.approx(best_rate(valley.params, valley.tokens, a, b), rel=1e-6)
    law = tuned.laws["learning_rate"]
    sd = np.sqrt(np.diag(law.covariance))
    assert abs(law.params_exponent - a) < sd[1] / 5 and abs(law.tokens_exponent - b) < sd[2] / 5
    assert law.value == pytest.approx(best_rate(law.params, law.tokens, a, b), rel=1e-3)


def test_two_sizes_close_together_leave_the_exponent_where_it_was_believed():
    table = sweep(a=0.8, noise=0.003, sizes=(1e6, 1.1e6), centre=lambda n, d: best_rate(n, d, 0.8))
    law = tune(Testbed(table), "loss/web").laws["learning_rate"]
    assert law.params_exponent == pytest.approx(-0.4, abs=0.3)
    assert math.sqrt(law.covariance[1][1]) == pytest.approx(0.4, abs=0.05)


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = []
    for seed in range(30):
        law = tune(Testbed(sweep(noise=0.003, seed=seed)), "loss/web", seed=seed).laws["learning_rate"]
        sd = np.sqrt(np.diag(law.covariance))
        off = np.array([math.log(law.value / best_rate(law.params, law.tokens)), law.params_exponent + 0.4])
        held += list(np.abs(off) < 1.96 * sd[:2])
    assert 0.9 <= np.mean(held) <= 1


def test_a_wall_that_is_steeper_on_one_side_moves_the_bottom_by_less_than_a_step_of_the_grid():
    law = tune(Testbed(sweep(steep=0.004)), "loss/web").laws["learning_rate"]
    assert law.value / best_rate(law.params, law.tokens) == pytest.approx(1, abs=0.15)
    assert law.params_exponent == pytest.approx(-0.4, abs=0.05)


def test_runs_along_one_ray_give_the_exponent_of_n_alone():
    table = sweep(noise=1e-4)
    law = tune(Testbed(table[table["tokens"] == 20 * table["params"]]), "loss/web").laws["learning_rate"]
    assert law.tokens_exponent == 0 and law.multipliers_range == (20, 20)
    assert law.params_exponent == pytest.approx(-0.4 + 0.2, abs=0.05)  # both move along the ray
    assert np.array(law.covariance)[2].tolist() == [0, 0, 0]


def test_rate_and_batch_are_tuned_together():
    rows = []
    for n, m, rate, batch in itertools.product(SIZES, MULTIPLIERS, FACTORS, (0.25, 0.5, 1, 2, 4)):
        best_batch = 3e4 * (m * n / 1e8) ** 0.5
        x, z = math.log(rate * 0.004 / best_rate(n, m * n)), math.log(batch * 3e4 / best_batch)
        loss = 3 * (1 + 0.02 * x**2 - 0.01 * x * z + 0.01 * z**2)
        rows.append((n, m * n, rate * 0.004, batch * 3e4, loss))
    table = pd.DataFrame(rows, columns=["params", "tokens", "learning_rate", "batch_tokens", "loss/web"])
    laws = tune(Testbed(table.assign(run=table.index.astype(str))), "loss/web", ("learning_rate", "batch_tokens")).laws
    rate, batch = laws["learning_rate"], laws["batch_tokens"]
    assert (rate.params_exponent, rate.tokens_exponent) == (pytest.approx(-0.4, abs=1e-3), pytest.approx(0.2, abs=1e-3))
    assert (batch.params_exponent, batch.tokens_exponent) == (pytest.approx(0, abs=1e-3), pytest.approx(0.5, abs=1e-3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[t["learning_rate"] < 0.005], "largest learning_rate of the grid, 0.004: widen the grid that way"),
        (lambda t: t[t["learning_rate"] > 0.003], "least learning_rate of the grid, 0.004: widen the grid that way"),
        (
            lambda t: t.assign(quarantine=np.where(t["learning_rate"] > 0.005, "diverged at step 3", "")),
            "did not diverge, 0.004; add values between that and 0.008",
        ),
        (lambda t: t[t["learning_rate"].isin([0.004, 0.002])], "2 runs; a valley over learning_rate takes 3 at least"),
        (lambda t: t[t["params"] == 3e6], "one size, of 3e+06 parameters, cannot tell how"),
        (lambda t: t.assign(**{"loss/web": 3 + 1e-5 * (t["learning_rate"] - 0.004) ** 2}), "flat as far as the noise"),
    ],
    ids=["edge above", "edge below", "diverged above", "too few rates", "one size", "flat"],
)
def test_a_sweep_that_cannot_tell_says_what_to_add(change, words):
    table = sweep(a=0, b=0)
    with pytest.raises(ValueError, match=words.replace("+", r"\+")):
        tune(Testbed(change(table)), "loss/web")


def test_a_diverged_run_beside_a_bracketed_valley_is_left_out():
    table = sweep(a=0, b=0)
    diverged = table["learning_rate"] > 0.01
    cut = table.assign(
        quarantine=np.where(diverged, "diverged at step 3", ""),
        **{"loss/web": table["loss/web"].where(~diverged)},
    )
    assert tune(Testbed(cut), "loss/web").laws["learning_rate"].value == pytest.approx(0.004, rel=0.01)


def test_step_laws_exponents_come_back_from_its_runs_within_their_intervals(shared):
    parts = [pd.read_parquet(shared / f"testbeds/scalebench2026/lr_bsz.{part}.parquet") for part in ("train", "test")]
    table = pd.concat(parts, ignore_index=True)
    table = table.rename(columns={"lr": "learning_rate", "data_size": "tokens", "non_embedding_param_size": "params"})
    table = table.assign(
        batch_tokens=2048 * table["bsz"], run=table.index.astype(str), **{"loss/web": table["lm_loss"]}
    )
    columns = ["run", "params", "tokens", "learning_rate", "batch_tokens", "loss/web"]
    whole = table.groupby(["params", "tokens"])["run"].transform("size") > 80  # grids that hold their best well inside
    law = tune(Testbed(table[columns][whole]), "loss/web", ("learning_rate", "batch_tokens")).laws
    rate, batch = law["learning_rate"], law["batch_tokens"]
    sd = np.sqrt(np.diag(rate.covariance))
    assert abs(rate.params_exponent + 0.713) < 1.96 * sd[1] < 0.12
    assert abs(rate.tokens_exponent - 0.307) < 1.96 * sd[2] < 0.12
    assert rate.value == pytest.approx(1.79 * rate.params**-0.713 * rate.tokens**0.307, rel=0.15)
    assert batch.value == pytest.approx(0.58 * batch.tokens**0.571, rel=0.15)  # theirs is of D alone
