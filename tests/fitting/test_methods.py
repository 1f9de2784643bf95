"""The published procedure to its printed digits, the default method better than it, and every refusal clear."""

import functools
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

import gadre2024
from fitting import choice
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.prediction import predict
from fitting.testbeds.testbed import Testbed

TRUTH = {"E": 1.2, "a": 150.0, "b": 300.0, "eta": 0.15}
ERROR_TRUTH = {"eps": 0.8, "k": 2.5, "gamma": 0.8}
RUNGS = [(1e7, 20), (2e7, 20), (4e7, 20), (8e7, 20), (1e7, 320), (1e7, 80)]
TARGETS = [(5e8, 20), (1e8, 320)]


def _table(noise=0.0, seed=0, multipliers=()) -> pd.DataFrame:
    """Rungs and two targets on the law, with relative noise in the loss; `multipliers` makes a full grid of rungs."""
    rungs = [(n, m) for n in (1e7, 2e7, 4e7, 8e7) for m in multipliers] or RUNGS
    params, multiplier = np.array(rungs + TARGETS).T
    loss = catalogue.OVER_TRAINING.evaluate(tuple(TRUTH.values()), params, params * multiplier)
    loss = loss * (1 + noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return pd.DataFrame(
        {
            "run": [f"n{n / 1e6:g}m-m{m:g}" for n, m in rungs + TARGETS],
            "role": ["rung"] * len(rungs) + ["target"] * 2,
            "params": params,
            "tokens": params * multiplier,
            "loss/x": loss,
            "error/average": catalogue.EXPONENTIAL_DECAY.evaluate(tuple(ERROR_TRUTH.values()), loss),
        }
    )


def _changed(**cells) -> Testbed:
    """The table with cells changed: column=(row, value), dots in place of slashes."""
    table = _table()
    table["quarantine"] = ""
    for column, (row, value) in cells.items():
        table.loc[row, column.replace("__", "/")] = value
    return Testbed(table)


@functools.cache
def _published(corpus: str, loss: str, method: str):
    return fit(
        gadre2024.testbed(corpus),
        loss=loss,
        error="average_17",
        select=gadre2024.FIVE,
        select_error=gadre2024.SIX,
        method=method,
    )


def _relative_errors(method: str, sets=tuple(gadre2024.SETS)) -> np.ndarray:
    """Of the loss of the held-out targets: 3 corpora × the sets × 2 targets."""
    laws_fitted = [_published(corpus, loss, method) for corpus in gadre2024.CORPORA for loss in sets]
    return np.array([p.loss / p.measured_loss - 1 for law in laws_fitted for p in law.predictions])


def test_paper_method_gives_the_published_parameters():
    law = _published("rpj", "c4_val", "paper")
    theta = law.loss.theta
    assert -2 * theta["eta"] == pytest.approx(-0.27285071, rel=1e-6)
    assert theta["a"] / 6 ** theta["eta"] == pytest.approx(166.210992, rel=1e-6)
    assert theta["b"] == pytest.approx(366.687198, rel=1e-6)
    assert theta["E"] == pytest.approx(1.83664841, rel=1e-6)
    assert dict(law.error.theta) == pytest.approx({"eps": 0.856992, "k": 2.206490, "gamma": 0.714591}, rel=1e-6)
    assert law.loss.degrees_of_freedom == 1 and law.loss.share_at_optimum == 1 and not law.loss.at_bound


def test_paper_method_gives_the_published_headline_errors():
    overtrained, large = _published("rpj", "c4_val", "paper").predictions
    assert f"{overtrained.loss / overtrained.measured_loss - 1:.4%}" == "0.7103%"
    assert f"{large.loss / large.measured_loss - 1:.4%}" == "0.7320%"
    assert f"{overtrained.error / overtrained.measured_error - 1:.4%}" == "3.6365%"
    assert f"{large.error / large.measured_error - 1:.4%}" == "0.0464%"


def _profiled(params, tokens, loss, targets):
    """The paper's least squares another way: the exponent by a scalar search, the rest by a linear solve, in scipy."""

    def columns(eta, params, tokens):
        return np.stack([np.ones_like(params), (params / 1e8) ** (-2 * eta), (tokens / 1e9) ** (-2 * eta)], -1)

    def solution(eta):
        return np.linalg.lstsq(columns(eta, params, tokens), loss, rcond=None)[0]

    def objective(eta):
        return np.sum((columns(eta, params, tokens) @ solution(eta) - loss) ** 2)

    nodes = np.geomspace(0.02, 1, 100)
    best = int(np.clip(np.argmin([objective(eta) for eta in nodes]), 1, 98))
    bounds = (nodes[best - 1], nodes[best + 1])
    eta = scipy.optimize.minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    return columns(eta, *targets) @ solution(eta)


@pytest.mark.parametrize("corpus", gadre2024.CORPORA)
def test_paper_method_agrees_with_scipy_on_the_published_testbed(corpus):
    testbed = gadre2024.testbed(corpus)
    rungs = testbed.table[testbed.select(gadre2024.FIVE)]
    for loss in gadre2024.SETS:
        law = _published(corpus, loss, "paper")
        targets = np.array([(p.params, p.tokens) for p in law.predictions]).T
        expected = _profiled(*rungs[["params", "tokens", f"loss/{loss}"]].to_numpy(float).T, targets)
        np.testing.assert_allclose([p.loss for p in law.predictions], expected, rtol=1e-6)


def test_default_method_lands_closer_to_the_held_out_runs_than_the_papers():
    """Over all 48 predictions: 5.46 % for the paper's method, as published with its data."""
    paper, default = (np.abs(_relative_errors(method)) for method in ("paper", "default"))
    assert f"{paper.mean():.2%}" == "5.46%"
    assert default.mean() < 0.8 * paper.mean()
    assert np.median(default) < 0.8 * np.median(paper)
    assert default.max() < paper.max()


def test_default_method_recovers_the_law_from_runs_without_noise():
    law = fit(Testbed(_table(multipliers=(20, 80, 320))), loss="x", error="average", law="over_training")
    for prediction in law.predictions:
        assert prediction.loss == pytest.approx(prediction.measured_loss, rel=1e-3)
        assert prediction.error == pytest.approx(prediction.measured_error, abs=1e-3)
    assert law.loss.theta["eta"] == pytest.approx(TRUTH["eta"], rel=0.01)


def test_paper_method_recovers_the_law_from_runs_without_noise():
    law = fit(Testbed(_table()), loss="x", error="average", method="paper")
    assert dict(law.loss.theta) == pytest.approx(TRUTH, rel=1e-4)
    assert dict(law.error.theta) == pytest.approx(ERROR_TRUTH, rel=1e-4)


def test_intervals_hold_the_fit_and_draws_are_joint():
    law = fit(Testbed(_table(0.005)), loss="x", error="average", law="over_training")
    for part in (law.loss, law.error):
        draws_SxP = np.array(part.theta_draws)
        assert draws_SxP.shape == (1000, len(part.theta)) and (draws_SxP > 0).all()
        for name, (low, high) in part.theta_intervals.items():
            assert low < part.theta[name] < high
    E, eta = np.array(law.loss.theta_draws)[:, [0, 3]].T
    assert np.corrcoef(E, eta)[0, 1] > 0.8
    loss_eta, gamma = np.array(law.loss.theta_draws)[:, 3], np.array(law.error.theta_draws)[:, 2]
    assert abs(np.corrcoef(loss_eta, gamma)[0, 1]) < 0.15


def test_the_seed_moves_draws_but_neither_parameters_nor_predictions():
    testbed = Testbed(_table(0.005))
    first, again, other = (fit(testbed, loss="x", seed=seed) for seed in (0, 0, 1))
    assert repr(again.loss) == repr(first.loss)
    assert [p.loss_interval for p in again.predictions] == [p.loss_interval for p in first.predictions]
    assert other.loss.theta == first.loss.theta
    assert other.loss.theta_draws != first.loss.theta_draws
    for a, b in zip(first.predictions, other.predictions, strict=True):
        assert b.loss_interval == pytest.approx(a.loss_interval, rel=0.01)


def test_what_was_fitted_and_what_was_not_is_recorded():
    testbed = _changed(quarantine=(0, "diverged at step 7"), loss__x=(7, np.nan))
    law = fit(testbed, loss="loss/x", select="role == 'rung' and token_multiplier != 80", command="ladder fit t.csv")
    assert [(row.run, row.reason) for row in law.left_out] == [
        ("n10m-m20", "quarantined: diverged at step 7"),
        ("n10m-m80", "not selected by role == 'rung' and token_multiplier != 80"),
    ]
    assert [point.run for point in law.loss.points] == ["n20m-m20", "n40m-m20", "n80m-m20", "n10m-m320"]
    assert law.testbed_sha256 == testbed.sha256 and law.command == "ladder fit t.csv"
    assert not np.isnan(law.predictions[0].measured_loss) and np.isnan(law.predictions[1].measured_loss)


def test_the_artifact_keeps_what_else_the_table_counts_of_a_run():
    table = _table().assign(params_non_embedding=5e6)
    law = fit(Testbed(table), loss="x", error="average")
    assert set(law.loss.points[0].columns) == {"params_non_embedding", "flops"}
    assert law.error.points[0].columns["loss"] == law.loss.points[0].measured
    assert law.predictions[0].columns == {"params_non_embedding": 5e6, "flops": 6 * 5e8 * 1e10}


def test_a_selection_that_names_quarantine_decides_on_quarantined_runs():
    testbed = _changed(quarantine=(0, "batch of 1 sequence"))
    law = fit(testbed, loss="x", select="role == 'rung' and quarantine in ['', 'batch of 1 sequence']")
    assert law.loss.points[0].run == "n10m-m20" and law.left_out == ()


def test_a_quarantined_target_is_predicted_and_scored():
    law = fit(_changed(quarantine=(6, "batch of 1 sequence")), loss="x")
    assert [prediction.run for prediction in law.predictions] == ["n500m-m20", "n100m-m320"]
    assert not np.isnan(law.predictions[0].measured_loss)


def test_a_law_is_of_one_corpus_and_predicts_that_corpus_alone():
    table = pd.concat([_table().assign(corpus=name, run=lambda t, c=name: c + t["run"]) for name in ("web", "code")])
    with pytest.raises(ValueError, match=r"mixes runs on 2 corpora \(code, web\)"):
        fit(Testbed(table), loss="x")
    law = fit(Testbed(table), loss="x", select="role == 'rung' and corpus == 'web'")
    assert [prediction.run for prediction in law.predictions] == ["webn500m-m20", "webn100m-m320"]


def test_error_law_has_its_own_rows_and_records_the_loss_it_was_given():
    law = fit(Testbed(_table()), loss="x", error="average", select_error="role == 'rung' and token_multiplier == 20")
    assert len(law.loss.points) == 6 and len(law.error.points) == 4
    assert law.error.points[0].loss == law.loss.points[0].measured
    assert law.left_out == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "y"}, "no column 'loss/y' in the testbed; it has loss/x"),
        ({"loss": "x", "error": "recall"}, "no column 'error/recall' in the testbed; it has error/average"),
        ({"loss": "x", "method": "finest"}, "method 'finest' is unknown; methods are default, published, paper, best"),
        ({"loss": "x", "level": 95}, "level is 95"),
        ({"loss": "x", "select": "params > 0"}, "takes in the target n500m-m20, n100m-m320"),
        (
            {"loss": "x", "select": "role == 'rung' and params < 3e7 and token_multiplier < 100"},
            "3 runs cannot fit the 5",
        ),
        (
            {"loss": "x", "error": "average", "select_error": "role == 'rung' and params > 3e7"},
            "2 runs cannot fit the 3",
        ),
        (
            {"loss": "x", "select": "role == 'rung' and token_multiplier == 20", "law": "over_training"},
            "cannot tell the parameters",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        fit(Testbed(_table()), **arguments)
    assert message in str(error.value)


def test_an_error_of_zero_can_be_fitted_and_errors_of_nothing_but_zero_cannot():
    table = _table(0.005)
    table.loc[table["loss/x"] < 2.2, "error/average"] = 0.0
    law = fit(Testbed(table), loss="x", error="average")
    assert all(np.isfinite(list(law.error.theta.values())))
    with pytest.raises(ValueError, match="error/average is 0 for all 6 runs"):
        fit(Testbed(table.assign(**{"error/average": 0.0})), loss="x", error="average")


def test_runs_of_one_size_cannot_tell_the_parameters_apart():
    table = pd.DataFrame(
        {"run": list("abcd"), "params": 1e7, "tokens": [1e8, 2e8, 4e8, 8e8], "loss/x": [4, 3.5, 3.2, 3.0]}
    )
    with pytest.raises(ValueError, match="add runs of other sizes and token multipliers"):
        fit(Testbed(table), loss="x", law="over_training")


def test_repeats_of_the_same_run_do_not_count_as_different_runs():
    table = _table().iloc[[0, 0, 0, 4, 3]].assign(run=list("abcde"))
    table["loss/x"] += [0.0, 0.001, 0.002, 0.0, 0.0]
    with pytest.raises(ValueError, match="3 of 5 differ in params or tokens"):
        fit(Testbed(table), loss="x")


@pytest.mark.parametrize(("row", "message"), [(1, "the same run twice"), (6, "a target would be fitted")])
def test_a_run_that_is_there_twice_is_refused(row, message):
    table = _table()
    table = pd.concat([table, table.iloc[[row]].assign(run="again", role="rung")])
    with pytest.raises(ValueError, match=f"'again'.*{message}"):
        fit(Testbed(table), loss="x")


def test_a_suspicion_is_a_warning_and_no_more():
    table = _table(multipliers=(20, 80))
    with pytest.warns(UserWarning, match="a plain count"):
        fit(Testbed(table.assign(tokens=table["tokens"] / 1e9)), loss="x")


def test_a_law_of_more_than_sizes_needs_their_columns_and_predicts_with_them():
    rng = np.random.default_rng(0)
    table = _table(multipliers=(5, 20, 80, 320))
    table["unique_tokens"] = table["tokens"] / np.resize([1, 3, 10, 40], len(table))
    law = catalogue.LOSS_LAWS["data_constrained"]
    x = table[["params", "tokens", "unique_tokens"]].to_numpy().T
    table["loss/x"] = law.evaluate((1.8, 480, 2100, 0.35, 0.37, 5, 15), *x) * (
        1 + 1e-4 * rng.standard_normal(len(table))
    )
    with pytest.raises(ValueError, match="there is no column unique_tokens"):
        fit(Testbed(table.drop(columns="unique_tokens")), loss="x", law="data_constrained", method="best")
    fitted = fit(Testbed(table), loss="x", law="data_constrained", method="best", objective="relative_squares")
    assert fitted.loss.points[0].columns["unique_tokens"] == x[2, 0]
    for prediction in fitted.predictions:
        assert prediction.loss == pytest.approx(prediction.measured_loss, rel=0.01)
    once = predict(fitted, 1e8, 1e10).loss
    assert once < predict(fitted, 1e8, 1e10, columns={"unique_tokens": 1e8}).loss


def test_a_column_that_a_law_lacks_is_named_with_the_laws_there_are_columns_for():
    with pytest.raises(ValueError) as refused:
        fit(Testbed(_table()), loss="x", law="experts_joint", method="best")
    assert "experts_joint is of params_active, tokens, experts: there is no column params_active, experts" in str(
        refused.value
    )
    assert "chinchilla, " in str(refused.value) and "vocabulary" not in str(refused.value)


def test_fewer_experts_than_one_are_refused_in_a_fit_and_in_a_prediction():
    table = _table(multipliers=(5, 20, 80, 320))
    rng = np.random.default_rng(0)
    table = table.assign(experts=rng.choice([1.0, 4, 16, 64], len(table)), params_active=table["params"] / 3)
    law = catalogue.LOSS_LAWS["experts_power"]
    table["loss/x"] = law.evaluate((1.6, 42, 0.2, 0.07), table["params_active"], table["experts"])
    fitted = fit(Testbed(table), loss="x", law="experts_power", method="best", resamples=20)
    given = {"params_active": 1e8, "experts": 8.0}
    assert predict(fitted, 1e9, 1e10, columns=given).loss == pytest.approx(1.6 + 42 * 1e8**-0.2 * 8**-0.07, rel=1e-4)
    with pytest.raises(ValueError, match=r"experts is 0.5: it must be at least 1"):
        predict(fitted, 1e9, 1e10, columns=given | {"experts": 0.5})
    table.loc[0, "experts"] = 0
    with pytest.raises(ValueError, match=f"experts of run '{table['run'][0]}' is 0: it must be at least 1"):
        fit(Testbed(table), loss="x", law="experts_power", method="best")


def test_a_sweep_is_one_by_a_law_of_sizes_and_none_by_a_law_of_what_is_swept():
    table = pd.concat([_table().assign(learning_rate=rate, batch_size=64.0) for rate in (1e-3, 2e-3)])
    table = table.assign(run=[f"run-{i}" for i in range(len(table))])
    table["loss/x"] *= np.where(table["learning_rate"] > 1e-3, 1.1, 1.0)
    rows = table[table["role"] == "rung"]
    assert "scatter" in choice.scattered(rows, "loss/x", ("params", "tokens"))
    assert choice.scattered(rows, "loss/x", catalogue.LOSS_LAWS["step_law"].inputs) == ""


@pytest.mark.parametrize(
    ("error", "method", "law"),
    [
        ("average", "default", "exponential_decay"),
        ("average_2", "default", "exponential_decay"),
        ("a", "default", "logistic"),
        ("a", "best", "logistic"),
        ("a", "paper", "exponential_decay"),
    ],
)
def test_a_single_task_is_logistic_in_the_loss_and_an_average_and_the_paper_an_exponential(error, method, law):
    table = _table(noise=0.001).rename(columns={"error/average": f"error/{error}"})
    assert fit(Testbed(table), loss="x", error=error, method=method, resamples=0).error.law == law


@pytest.mark.parametrize(("tasks", "law"), [(0, "exponential_decay"), (3, "logistic"), (12, "exponential_decay")])
def test_an_average_of_few_tasks_takes_the_law_of_one(tasks, law):
    table = _table(noise=0.001)
    table[[f"error/task{i}" for i in range(tasks)]] = np.nan
    assert fit(Testbed(table), loss="x", error="average").error.law == law


def test_how_well_each_task_is_foretold_is_kept_with_the_law():
    table = _table()
    table["error/lawful"], table["error/even"] = table["error/average"], 0.75
    table["error/unmeasured"] = np.where(table["params"] < 2e7, np.nan, 0.7)
    law = fit(Testbed(table), loss="x", error="average")
    assert set(law.tasks) == {"error/lawful", "error/even"}
    assert law.tasks["error/lawful"] > 0.9 and law.tasks["error/even"] == 0
    assert not fit(Testbed(table), loss="x").tasks  # no error was asked about


def test_n_can_be_counted_without_embeddings():
    table = _table().assign(params_non_embedding=lambda t: t["params"] / 2)
    law = fit(Testbed(table), loss="x", method="paper", params_column="params_non_embedding")
    assert law.loss.points[0].params == 5e6 and law.predictions[0].params == 2.5e8
    assert law.loss.theta["eta"] == pytest.approx(TRUTH["eta"], rel=1e-4)
    assert law.params_column == "params_non_embedding" and law.testbed_sha256 == Testbed(table).sha256
    with pytest.raises(ValueError, match="no column 'width'"):
        fit(Testbed(table), loss="x", params_column="width")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "chinchila"}, "law 'chinchila' is unknown; there are over_training, chinchilla"),
        ({"error": "average", "error_law": "x"}, "error law 'x' is unknown"),
        ({"objective": "log_huber"}, "method default has an objective of its own"),
        ({"law": "coupled"}, "method default cannot hold the law coupled"),
        ({"law": "coupled", "method": "published"}, "method published cannot hold the law coupled; take method best"),
        ({"error": "average", "error_law": "loss_to_loss"}, "cannot hold the law loss_to_loss"),
        ({"method": "best", "objective": "x"}, "objective 'x' is unknown; objectives are squares"),
        ({"method": "best", "objective": "noise_squares"}, "needs the sampling standard error of every run"),
        (
            {"method": "best", "select": "role == 'rung' and params < 4e7"},
            "4 sizes are too few to bootstrap over_training: a resample would need all of them, as the law has "
            "4 parameters; --resamples 0 gives the fit without intervals",
        ),
        ({"law": "kaplan"}, "method default cannot hold the law kaplan; take method best"),
        (
            {"independent": True},
            "method default has its own way with what runs share; independent is of the method best",
        ),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        fit(Testbed(_table()), loss="x", **options)
    assert message in str(error.value)


def _sweep() -> pd.DataFrame:
    """Six rungs at three learning rates each, of which the second is the best, and tokens that fill whole batches."""
    table = _table().assign(corpus="web")
    worse = [
        table.assign(
            run=table["run"] + f"-lr{i}", tokens=table["tokens"] * factor, **{"loss/x": table["loss/x"] * cost}
        )
        for i, (factor, cost) in enumerate([(1.0, 1.05), (1.0004, 1.0), (0.9997, 1.08)])
    ]
    return pd.concat(worse, ignore_index=True)


def test_the_best_run_of_each_size_is_fitted_and_scored_and_the_others_say_which_it_is():
    law = fit(Testbed(_sweep()), loss="x", error="average", best_of_size=True, law="over_training")
    assert [point.run for point in law.loss.points] == [f"n{n / 1e6:g}m-m{m}-lr1" for n, m in RUNGS]
    assert [point.run for point in law.error.points] == [point.run for point in law.loss.points]
    assert [p.run for p in law.predictions] == ["n500m-m20-lr1", "n100m-m320-lr1"]
    assert [p.loss for p in law.predictions] == pytest.approx([p.measured_loss for p in law.predictions], rel=0.01)
    left_out = {row.run: row.reason for row in law.left_out}
    assert len(left_out) == 12
    assert left_out["n10m-m20-lr0"] == "not the best of its size, which is n10m-m20-lr1"


def test_the_best_of_a_size_is_the_best_of_its_corpus_among_those_selected():
    table = _sweep()
    table.loc[table["run"].str.startswith("n10m-m20-"), "corpus"] = ["web", "code", "web"]
    law = fit(Testbed(table), loss="x", select="role == 'rung' and corpus == 'web'", best_of_size=True)
    assert [point.run for point in law.loss.points if point.params == 1e7][:1] == ["n10m-m20-lr0"]


def test_a_sweep_that_is_fitted_whole_is_told_and_seeds_are_not():
    with pytest.warns(UserWarning, match=r"loss/x: runs of one size scatter by \d\.\d%.*--best-of-size"):
        fit(Testbed(_sweep()), loss="x")
    seeds = pd.concat(
        [_table(noise=0.005, seed=seed).assign(run=lambda t, s=seed: t["run"] + str(s)) for seed in (0, 1)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "loss/x is low")
        fit(Testbed(seeds), loss="x")
        fit(Testbed(_sweep()), loss="x", best_of_size=True)


@pytest.mark.parametrize(
    ("law", "shared", "tokens"),
    [
        ("compute", "D/N = 20", lambda params: 20 * params),
        ("params_only", "D = 2e+10", lambda params: np.full_like(params, 2e10)),
    ],
)
def test_a_ladder_of_one_ray_is_refused_with_the_law_along_it_and_fitted_by_that(law, shared, tokens):
    params = np.append(np.geomspace(1e7, 3e8, 6), 3e9)
    loss = catalogue.LOSS_LAWS["chinchilla"].evaluate((1.8, 480.0, 2100.0, 0.34, 0.34), params, tokens(params))
    columns = {"run": [f"r{i}" for i in range(7)], "role": ["rung"] * 6 + ["target"], "loss/x": loss}
    testbed = Testbed(pd.DataFrame(columns | {"params": params, "tokens": tokens(params)}))
    with pytest.raises(ValueError, match=rf"all runs have {re.escape(shared)}, along which --law {law} can be fitted"):
        fit(testbed, loss="x", law="over_training")
    low, high = fit(testbed, loss="x").predictions[0].loss_interval  # what size and data trade for is believed
    assert low < loss[-1] < high
    for method in ("default", "best"):
        prediction = fit(testbed, loss="x", law=law, method=method, resamples=20).predictions[0]
        assert prediction.loss == pytest.approx(loss[-1], rel=0.02)
        assert prediction.loss_interval[0] < loss[-1] < prediction.loss_interval[1] or method == "best"
