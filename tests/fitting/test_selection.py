"""What is refitted is the same runs with one thing changed, from the artifact alone."""

import dataclasses
import logging
import math

import jax
import numpy as np
import pandas as pd
import pytest

from fitting import selection, solve
from fitting.artifacts import fitted
from fitting.laws import catalogue
from fitting.laws.objectives import OBJECTIVES
from fitting.methods import fit
from fitting.testbeds.testbed import Testbed

TRUTH = (1.2, 150.0, 300.0, 0.15)
RUNGS = [(1e7, 20), (2e7, 20), (4e7, 20), (8e7, 20), (1e7, 320), (2e7, 80)]
TARGETS = [(5e8, 20)]


@pytest.fixture(scope="module")
def table():
    params, multiplier = np.array(RUNGS + TARGETS).T
    loss = catalogue.OVER_TRAINING.evaluate(TRUTH, params, params * multiplier)
    return pd.DataFrame(
        {
            "run": [f"n{n / 1e6:g}m-m{m:g}" for n, m in RUNGS + TARGETS],
            "role": ["rung"] * len(RUNGS) + ["target"],
            "params": params,
            "params_non_embedding": params - 256 * params**0.5,
            "tokens": params * multiplier,
            "loss/x": loss * (1 + 0.003 * np.resize([1, -1, -1, 1, 0.5], len(loss))),
            "error/average": 0.8 - 2.5 * np.exp(-0.8 * loss),
        }
    )


@pytest.fixture(scope="module")
def law(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("fit") / "law.json"
    fitted.save(fit(Testbed(table), loss="x", error="average"), path)
    return fitted.load(path)


@pytest.fixture(scope="module")
def compiled():
    """What JAX says it compiles, as it does so."""
    lines, logger = [], logging.getLogger("jax")
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    jax.config.update("jax_log_compiles", True)  # in every thread
    yield lines
    jax.config.update("jax_log_compiles", False)
    logger.removeHandler(handler)


@pytest.fixture(scope="module")
def checks(law, compiled):
    solve._program.cache_clear()
    return selection.checks(law)


def test_refits_share_one_program_for_each_law_whatever_they_leave_out_or_minimise(checks, compiled):
    """Of the method paper and of any objective; those that hold the shapes need none."""
    programs = [line for line in compiled if line.startswith("Finished XLA compilation")]
    laws = {"over_training", "coupled_tied", "exponential_decay"}
    assert len(checks.influence) + len(checks.roll_outs) + len(checks.sensitivity) > 2 * len(laws)
    assert 0 < len(programs) <= len(laws)


def test_leaving_out_the_largest_run_is_a_fit_without_it_that_predicts_it(table, checks):
    again = table.assign(role=table["role"].mask(table["run"] == "n80m-m20", "target"))
    expected = fit(Testbed(again), loss="x", select="role == 'rung'").predictions[0]
    last = checks.roll_outs[-1]
    assert [p.run for p in last.predictions] == ["n80m-m20"] and last.name == "5 cheapest runs"
    assert last.predictions[0].loss == pytest.approx(expected.loss)
    assert last.predictions[0].measured_loss == table["loss/x"][3]


def test_roll_outs_take_the_cheapest_runs_and_predict_all_others(checks):
    for rolled in checks.roll_outs:
        fitted_runs = int(rolled.name.split()[0])
        assert rolled.problem or len(rolled.predictions) == len(RUNGS) - fitted_runs


def test_influence_is_a_fit_without_the_run_and_the_most_telling_come_first(table, law, checks):
    assert {refit.name for refit in checks.influence} == {f"without {run}" for run in table["run"][: len(RUNGS)]}
    without = next(refit for refit in checks.influence if refit.name == "without n20m-m80")
    expected = fit(Testbed(table[table["run"] != "n20m-m80"]), loss="x")
    assert without.theta == pytest.approx(expected.loss.theta)
    moved = [abs(refit.predictions[0].loss - law.predictions[0].loss) for refit in checks.influence]
    assert moved == sorted(moved, reverse=True)


def test_the_panel_refits_with_other_counts_and_methods(table, law, checks):
    panel = {refit.name: refit for refit in checks.sensitivity}
    assert list(panel) == [
        *("as fitted", "N without embeddings", "method published", "method paper"),
        *(f"best fit by {name}" for name in OBJECTIVES if name != "noise_squares"),
        *("law over_training", "law chinchilla", "law chinchilla_tied"),
    ]
    assert not any(refit.problem for refit in checks.sensitivity)
    assert panel["as fitted"].predictions == law.predictions
    counted = table.drop(columns="params").rename(columns={"params_non_embedding": "params"})
    expected = fit(Testbed(counted), loss="x", error="average")
    assert panel["N without embeddings"].theta == pytest.approx(expected.loss.theta)
    assert panel["N without embeddings"].predictions[0].error == pytest.approx(expected.predictions[0].error)
    assert panel["method paper"].theta == pytest.approx(fit(Testbed(table), loss="x", method="paper").loss.theta)


def test_other_laws_of_the_panel_are_fitted_as_the_law_itself_is(table, checks):
    panel = {refit.name: refit for refit in checks.sensitivity}
    assert panel["law chinchilla"].theta == pytest.approx(fit(Testbed(table), loss="x", law="chinchilla").loss.theta)


def test_the_best_fits_of_the_panel_are_those_of_the_solver(table, checks):
    """Which needs no resamples, and so no more runs than parameters."""
    x = [table[name].to_numpy(float)[: len(RUNGS)] for name in ("params", "tokens")]
    y_N = table["loss/x"].to_numpy()[: len(RUNGS)]
    panel = {refit.name: refit for refit in checks.sensitivity}
    found = solve.minimise(
        catalogue.LOSS_LAWS["coupled_tied"], x, y_N, np.ones(6), objective=OBJECTIVES["log_huber"], positive=True
    )
    assert list(panel["best fit by log_huber"].theta.values()) == pytest.approx(found.theta_BxP[0], rel=1e-6)
    assert panel["best fit by squares"].theta != panel["best fit by relative_squares"].theta


def test_another_rule_of_flops_is_tried_where_the_table_has_one(table, law):
    points = tuple(
        dataclasses.replace(p, columns={**p.columns, "flops": 6 * p.params * p.tokens * 1.2}) for p in law.loss.points
    )
    assert law.error is not None
    bare = dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points), error=None, predictions=())
    names = [refit.name for refit in selection._sensitivity(bare, selection._table(bare))]
    assert "N from the table’s FLOPs, C / 6D" in names


def test_what_cannot_be_fitted_says_why(table):
    five = table.drop(index=5)
    law = fit(Testbed(five), loss="x", law="over_training")
    problems = {refit.name: refit.problem for refit in selection._influence(law, selection._table(law))}
    assert "cannot tell the parameters" in problems["without n10m-m320"]
    assert problems["without n10m-m20"] == ""


def test_aicc_is_the_likelihoods_whatever_the_noise_is_relative_to(law):
    """Against scipy's normal density, for a law with enough runs."""
    scipy_stats = pytest.importorskip("scipy.stats")
    points = law.loss.points * 2
    loss = dataclasses.replace(law.loss, points=points)
    residual, scale = np.array([(p.measured - p.fitted, p.fitted) for p in points]).T
    for relative, scales in ((True, scale), (False, np.ones_like(scale))):
        sigma = np.sqrt(np.mean((residual / scales) ** 2))
        log_likelihood = scipy_stats.norm.logpdf(residual, scale=sigma * scales).sum()
        n, k = len(points), len(law.loss.theta) + 1
        expected = 2 * k - 2 * log_likelihood + 2 * k * (k + 1) / (n - k - 1)
        assert selection.aicc(dataclasses.replace(loss, noise_is_relative=relative)) == pytest.approx(expected)
    assert math.isnan(selection.aicc(law.loss))
