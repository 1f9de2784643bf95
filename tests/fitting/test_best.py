"""The best fit and its intervals: of every ladder that can be fitted, around their point, as wide as they should be."""

import math

import numpy as np
import pandas as pd
import pytest

from fitting import best
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.prediction import predict
from fitting.testbeds import importers
from fitting.testbeds.testbed import Testbed
from fitting.uncertainty import alike, apart

OLMO = "role == 'rung' and model in ('190M', '370M', '760M', '1B') and not run.str.contains('rerun')"
THETA = (1.2, 150.0, 300.0, 0.15)
KAPLAN = (8.8e13, 5.4e13, 0.076, 0.095)  # Kaplan et al. 2020, Table 2


def _runs(noise: float, seed: int = 0, sizes=(1e7, 2e7, 4e7, 8e7), multipliers=(20, 80, 320)):
    params, multiplier = (grid.ravel() for grid in np.meshgrid(sizes, multipliers))
    x = (params, params * multiplier)
    loss = catalogue.OVER_TRAINING.evaluate(THETA, *x)
    return x, loss + noise * np.random.default_rng(seed).standard_normal(len(loss))


def _ladder(x, y_N, **columns) -> Testbed:
    rows = {"run": [f"r{i}" for i in range(len(y_N))], "params": x[0], "tokens": x[1], "loss/x": y_N}
    target = {"run": ["t"], "role": "target", "params": [1e9], "tokens": [2e10], "loss/x": [2.5]}
    return Testbed(pd.concat([pd.DataFrame(rows | columns).assign(role="rung"), pd.DataFrame(target)]))


def test_the_spread_of_simulated_fits_is_that_of_linear_theory():
    """sigma² (J'J)⁻¹ (Seber & Wild 1989, Eq. 2.20), where noise is small enough for the law to be linear in it."""
    x, y_N = _runs(noise=1e-4)
    found = best.fit_freely(catalogue.OVER_TRAINING, x, y_N, noise=1e-4, draws=2000)
    theta_P = found.solution.theta_BxP[0]
    step_P = 1e-5 * theta_P
    columns = [
        (catalogue.OVER_TRAINING.evaluate(theta_P + d, *x) - catalogue.OVER_TRAINING.evaluate(theta_P - d, *x)) / 2
        for d in np.diag(step_P)
    ]
    slope_NxP = np.stack(columns, -1) / step_P
    expected_P = found.noise * np.sqrt(np.diag(np.linalg.inv(slope_NxP.T @ slope_NxP)))
    np.testing.assert_allclose(found.theta_SxP.std(0), expected_P, rtol=0.1)
    np.testing.assert_allclose(found.theta_SxP.mean(0), theta_P, atol=0.1 * expected_P.max(), rtol=0.1)
    assert found.noise == pytest.approx(1e-4, rel=0.6)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("unseen2026/marin_dclm.csv", {"loss": "paloma_macro"}),
        ("olmo_ladder2024/ladder-runs", {"loss": "bpb/csqa_val", "error": "csqa_val", "select": OLMO}),
    ],
)
def test_a_point_of_the_papers_method_lies_within_its_interval(shared, table, options):
    """Whose parameters have either sign: that of csqa's irreducible loss is negative, as in no positive posterior."""
    kind = "csv" if table.endswith(".csv") else "olmo-ladder"
    law = fit(importers.read(kind, shared / "testbeds" / table), method="paper", level=0.8, **options)
    for target in law.predictions:
        assert target.loss_interval[0] < target.loss < target.loss_interval[1]
        assert target.error is None or target.error_interval[0] < target.error < target.error_interval[1]
    for name, (low, high) in law.loss.theta_intervals.items():
        assert low < law.loss.theta[name] < high


@pytest.mark.parametrize("method", ["paper", "best"])
def test_a_law_that_no_grid_holds_is_fitted(method):
    kaplan, (x, _) = catalogue.LOSS_LAWS["kaplan"], _runs(noise=0)
    y_N, truth = (kaplan.evaluate(KAPLAN, *at) for at in (x, (1e9, 2e10)))
    y_N = y_N + 0.01 * np.random.default_rng(0).standard_normal(12)
    law = fit(_ladder(x, y_N), loss="x", law="kaplan", method=method, resamples=20)
    assert law.predictions[0].loss == pytest.approx(truth, rel=0.05)
    assert law.predictions[0].loss_interval[0] < law.predictions[0].loss < law.predictions[0].loss_interval[1]


def test_a_small_ladder_is_resampled_as_far_as_it_can_be_fitted():
    """Of five runs two resamples in five hold four different ones, as many as the law has parameters."""
    x, y_N = (v[..., [0, 1, 2, 3, 8]] for v in map(np.asarray, _runs(noise=0.01)))
    drawn = best._resamples(catalogue.OVER_TRAINING, x, [f"r{i}" for i in range(5)], 200, seed=0)
    assert drawn.shape == (200, 5) and ((drawn > 0).sum(1) >= 4).all() and (drawn.sum(1) == 5).all()
    law = fit(_ladder(x, y_N), loss="x", method="best", resamples=50)
    assert law.predictions[0].loss_interval[0] < law.predictions[0].loss < law.predictions[0].loss_interval[1]


def test_as_many_sizes_as_parameters_have_no_resample_and_a_fit_without_intervals():
    x, y_N = (v[..., [0, 1, 2, 8]] for v in map(np.asarray, _runs(noise=0.01)))
    with pytest.raises(
        ValueError, match=r"4 sizes are too few to bootstrap over_training.*--resamples 0 gives the fit"
    ):
        fit(_ladder(x, y_N), loss="x", method="best")
    law = fit(_ladder(x, y_N), loss="x", method="best", resamples=0)
    assert law.predictions[0].loss > 0 and all(map(math.isnan, law.predictions[0].loss_interval))
    assert all(math.isnan(end) for ends in law.loss.theta_intervals.values() for end in ends)


def test_without_resamples_the_point_is_the_same():
    ladder = _ladder(*_runs(noise=0.01))
    for method in ("paper", "best"):
        without, with_ = (fit(ladder, loss="x", method=method, resamples=draws) for draws in (0, 20))
        assert without.loss.theta == with_.loss.theta and without.loss.noise == with_.loss.noise


def test_checkpoints_of_one_run_are_drawn_together():
    x, _ = _runs(noise=0.01)
    drawn = best._resamples(catalogue.OVER_TRAINING, x, ["one"] * 6 + ["two"] * 6, 50, seed=0)
    assert (drawn[:, :6] == drawn[:, :1]).all() and (drawn[:, 6:] == 2 - drawn[:, :1]).all()
    assert set(drawn[:, 0]) == {0, 1, 2}


def _misfitting(misfit: float, seed: int) -> tuple[Testbed, float]:
    """80 runs and a target four times as large, off their law by 1 %, so much of that smooth; the target's loss."""
    x, _ = _runs(noise=0, sizes=np.geomspace(1e7, 1.6e8, 10), multipliers=np.geomspace(10, 640, 8))
    x = tuple(np.append(v, ends) for v, ends in zip(x, (6.4e8, 2.56e10), strict=True))
    place = np.log(np.stack(x, 1))
    correlation = misfit * alike(apart(place, place)) + (1 - misfit) * np.eye(81)
    off = 0.01 * np.linalg.cholesky(correlation) @ np.random.default_rng(seed).standard_normal(81)
    y_N = catalogue.OVER_TRAINING.evaluate(THETA, *x) * (1 + off)
    return _ladder(tuple(v[:-1] for v in x), y_N[:-1]), y_N[-1]


def test_intervals_cover_where_runs_are_off_the_law_alike_and_fewer_where_they_are_taken_for_independent():
    covered = np.zeros(2)
    for seed in range(20):
        ladder, truth = _misfitting(0.9, seed)
        for i, independent in enumerate((False, True)):
            law = fit(ladder, loss="x", method="best", resamples=50, independent=independent, level=0.8)
            low, high = predict(law, 6.4e8, 2.56e10).loss_interval
            covered[i] += low <= truth <= high
    assert covered[0] / 20 >= 0.75
    assert covered[1] / 20 <= 0.65


@pytest.mark.parametrize("misfit", [0.0, 0.9])
def test_the_misfit_and_the_noise_are_those_of_the_runs(misfit):
    found = [fit(_misfitting(misfit, seed)[0], loss="x", method="best", resamples=0).loss for seed in range(12)]
    assert np.mean([law.noise for law in found]) == pytest.approx(0.01, rel=0.3)
    assert (np.mean([law.misfit for law in found]) > 0.5) == (misfit > 0.5)


def test_misfits_of_more_places_than_are_counted_are_as_alike_as_they_should_be(monkeypatch):
    place = np.log(np.array([(n, m * n) for n in np.geomspace(1e7, 1e9, 12) for m in (10, 20, 40, 80, 160)]))
    place = place[np.random.default_rng(0).permutation([*range(60), 3, 7])]  # seeds of two sizes among them
    monkeypatch.setattr(best, "_MOST_PLACES", 40)
    off = best._misfits(place, 20_000, seed=1)
    np.testing.assert_allclose(off.T @ off / 20_000, alike(apart(place, place)), atol=0.12)
    np.testing.assert_allclose(off.var(0), 1, atol=0.05)
