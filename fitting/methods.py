"""Testbed × laws → FittedLaw: which runs are fitted, by which objective, and how far off the targets it lands."""

import dataclasses
import datetime
import math
import typing
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from fitting import choice, forms, linear, uncertainty
from fitting.artifacts import provenance
from fitting.artifacts.fitted import FittedLaw, LawFit, LeftOut, Point, Prediction, central
from fitting.laws import catalogue, objectives
from fitting.laws.law import Law
from fitting.prediction import predict
from fitting.priors import PUBLISHED, believed
from fitting.solution import Solution
from fitting.testbeds.suspicions import suspicions
from fitting.testbeds.testbed import Testbed, is_average, is_task
from fitting.uncertainty import Prior

if typing.TYPE_CHECKING:
    import pandas as pd


_MANY_TASKS = 12  # between the 9 whose average is better foretold by the logistic and the 17 whose is not


@dataclasses.dataclass(frozen=True)
class Method:
    """How a law is fitted to runs.

    `paper` is Gadre et al. 2024: least squares of loss and of error, all parameters free, of either sign. Its intervals
    are what the same procedure gives on runs that are simulated by its fit (`fitting.best.fit_freely`).

    `default` is for what a ladder is: few runs, scattered by about 1 % of the loss, whose law must reach far.
    - Residuals of the loss are relative, those of the error absolute: a fraction has no scale of its own. Runs of a
      higher loss weigh less (`fitting.uncertainty`, growth): small, cheap rungs are the least telling.
    - Coefficients are positive: a law with a negative term falls below zero, or rises with size, where it extrapolates.
    - Shapes (the exponent of the loss law, the rate of the error law) are posterior means (`fitting.uncertainty`), not
      best fits. With one to four degrees of freedom the best exponent follows the scatter, and an extrapolation follows
      the exponent. Given the shapes, least squares has one minimum. With many runs, or no scatter, it is the best fit.

    `published` is the default with priors of the shapes learned from published testbeds (`fitting.priors`), narrower
    than the default's. They hold for decoders of 10 million to 13 billion parameters on web text, losses in nats a
    token, and errors averaged over many tasks; a ladder unlike that, such as one of tiny models, wants the default.

    `best` is the plain best fit of any law by any objective, coefficients positive, intervals by the bootstrap
    (`fitting.best`): for testbeds of many runs, and for what others' procedures give.
    """

    relative_loss: bool
    posterior_exponents: bool
    objective_loss: str
    objective_error: str
    law: str = "coupled_tied"
    learned: bool = False
    any_objective: bool = False


_OBJECTIVE_LOSS = "sum of squared relative residuals, less of runs of higher loss, coefficients positive"
_OBJECTIVE_ERROR = "sum of squared residuals, less of runs of higher loss, coefficients positive"
METHODS: Mapping[str, Method] = {
    "default": Method(
        relative_loss=True,
        posterior_exponents=True,
        objective_loss=f"{_OBJECTIVE_LOSS}, exponent at its posterior mean",
        objective_error=f"{_OBJECTIVE_ERROR}, rate at its posterior mean",
    ),
    "published": Method(
        relative_loss=True,
        posterior_exponents=True,
        objective_loss=f"{_OBJECTIVE_LOSS}, exponent at its posterior mean, its prior learned from published testbeds",
        objective_error=f"{_OBJECTIVE_ERROR}, rate at its posterior mean, its prior learned from published testbeds",
        learned=True,
    ),
    "paper": Method(
        relative_loss=False,
        posterior_exponents=False,
        objective_loss="sum of squared residuals of the loss",
        objective_error="sum of squared residuals of the error",
        law="over_training",
    ),
    "best": Method(
        relative_loss=True,
        posterior_exponents=False,
        objective_loss="log_huber",
        objective_error="squares",
        law="over_training",
        any_objective=True,
    ),
}


def fit(
    testbed: Testbed,
    *,
    loss: str | Sequence[str],
    error: str | None = None,
    select: str = "role == 'rung'",
    select_error: str | None = None,
    method: str = "default",
    law: str | None = None,
    error_law: str | None = None,
    objective: str | None = None,
    params_column: str = "params",
    best_of_size: bool = False,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    independent: bool = False,
    command: str = "",
    priors: Mapping[str, Prior] = PUBLISHED,
) -> FittedLaw:
    """Fits the loss law, perhaps the error law on top of it, and predicts and scores the testbed's targets.

    >>> import fitting
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> [f"{p.run}: {p.loss:.2f}, measured {p.measured_loss:.2f}" for p in law.predictions]
    ['rpj-open_lm_1b-32.0: 2.51, measured 2.50', 'rpj-open_lm_7b-1.0: 2.43, measured 2.42']

    Args:
      testbed: the runs.
      loss: the loss to fit, such as `c4_val` or `loss/c4_val`; or several, which get a law each of one form, fitted to
        the runs that have all of them and, by method `best`, to the same resamples, so that their draws are joint.
      error: the error to fit, such as `average` or `error/average`; None for no error law.
      select: which rows to fit, as a pandas query.
      select_error: which rows to fit the error law to, where not the same.
      method: `default`, `published`, `paper` or `best`; see `Method`.
      law: the loss law's name in `fitting.laws.catalogue`, or a family's, such as `mixture`; None is `coupled_tied`
        where shapes are believed, and `over_training` where not.
      error_law: the error law's; None is `exponential_decay` for an average of many tasks, as in the paper, and by its
        method, and `logistic` for one task or an average of few (docs/laws.md scores both).
      objective: what the method `best` minimises of the loss, a name in `fitting.laws.objectives`; by default
        `log_huber`.
      params_column: the column that N is taken from, such as `params_non_embedding`.
      best_of_size: whether of runs of one size, as of a sweep, that of the lowest loss stands for all.
      level: nominal coverage of every interval.
      seed: of the posterior's draws. Fitted parameters and predictions do not depend on it, intervals by a hair.
      resamples: of the runs, or of `paper` simulations of them, whose best fits are the intervals of the methods `best`
        and `paper`; with 0 intervals are NaN.
      independent: whether the method `best` takes it that the law is right, and each run's scatter its own: what the
        bootstraps of others do, whose intervals are too narrow where many runs lie close together.
      command: what to record as the command that made this law.
      priors: of the laws, by name: what `published` believes.

    Raises:
      ValueError: no such column or method, a bad or empty selection, a selection that takes in targets, fewer runs than
        parameters, runs that cannot tell the parameters apart.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; methods are {', '.join(METHODS)}")
    form = catalogue.loss_law(law or METHODS[method].law, testbed.table.columns)
    if error_law is not None:
        _refuse_unknown("error law", error_law, catalogue.ERROR_LAWS)
    if objective is not None and not METHODS[method].any_objective:
        raise ValueError(f"method {method} has an objective of its own; to minimise {objective}, take method best")
    if independent and not METHODS[method].any_objective:
        raise ValueError(f"method {method} has its own way with what runs share; independent is of the method best")
    for one in (form, catalogue.ERROR_LAWS[error_law] if error and error_law else None):
        _refuse_beyond_the_grid(one, method)
    loss_objective = objectives.named(objective or METHODS["best"].objective_loss)
    if resamples < 0 or seed < 0:
        name, value = ("resamples", resamples) if resamples < 0 else ("seed", seed)
        raise ValueError(f"{name} is {value}: it must be zero or more")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: the coverage of an interval lies between 0 and 1, such as 0.95")
    names = [loss] if isinstance(loss, str) else list(loss)
    loss_columns = [testbed.column(name, "loss") for name in names]
    if len(set(loss_columns)) < len(loss_columns):
        raise ValueError(f"losses {', '.join(names)}: name each once")
    loss_column = loss_columns[0]
    error_column = None if error is None else testbed.column(error, "error")
    judged = () if form.name in catalogue.TASK_LAWS else loss_columns  # a share solved is no loss a token
    for suspicion in dict.fromkeys(s for name in judged for s in suspicions(testbed, name, error_column)):
        warnings.warn(suspicion, stacklevel=2)
    sha256, testbed = testbed.sha256, choice.counted(testbed, params_column)
    loss_rows, loss_left_out = choice.chosen(testbed, select, loss_columns, best_of_size)
    for column in loss_columns:
        if scattered := choice.scattered(loss_rows, column, form.inputs):
            warnings.warn(scattered, stacklevel=2)
    how = _How(METHODS[method], loss_objective, level, seed, resamples, independent, priors)
    loss_fit, *others = (_fit_loss(testbed, loss_rows, column, form, how) for column in loss_columns)
    error_fit, left_out, tasks = None, loss_left_out, {}
    if error_column is not None:
        error_rows, error_left_out = choice.chosen(
            testbed, select_error or select, (loss_column, error_column), best_of_size
        )
        form = catalogue.ERROR_LAWS[error_law or _error_law_of(error_column, testbed.table, method)]
        how = dataclasses.replace(how, objective=objectives.named(METHODS["best"].objective_error), seed=seed + 1)
        error_fit = _fit_error(testbed, error_rows, loss_column, error_column, form, how)
        tasks = _foretold(error_rows, loss_column)
        left_out = {run: reason for run, reason in loss_left_out.items() if run in error_left_out}
    fitted = FittedLaw(
        method=method,
        loss=loss_fit,
        error=error_fit,
        left_out=tuple(LeftOut(run, reason) for run, reason in left_out.items()),
        others=tuple(others),
        predictions=(),
        level=level,
        seed=seed,
        select=select,
        select_error=select_error,
        objective=objective,
        params_column=params_column,
        tasks=tasks,
        testbed_sha256=sha256,
        command=command,
        versions=provenance.versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    corpora = set(loss_rows["corpus"]) if "corpus" in loss_rows else set()
    scored = testbed.table[testbed.table["role"] == "target"]
    if corpora:
        scored = scored[scored["corpus"].isin(corpora)]
    if best_of_size:
        scored = scored[~scored["run"].isin(choice.beaten(scored, loss_column))]
    return dataclasses.replace(fitted, predictions=_score(fitted, scored, loss_columns, error_column))


def _error_law_of(column: str, table: "pd.DataFrame", method: str) -> str:
    """The exponential decay for averages of many tasks and in the paper's method, else the logistic.

    An average of few bends towards its floor as one task does. Nothing says how many it is of but the table's tasks.
    """
    tasks = sum(is_task(name) for name in table)
    of_few = not is_average(column) or 0 < tasks < _MANY_TASKS
    return "logistic" if of_few and method != "paper" else "exponential_decay"


def _foretold(rows: "pd.DataFrame", loss_column: str) -> dict[str, float]:
    """How well each task's law foretells a run left out; of none where the runs are too few to leave one out."""
    law = catalogue.ERROR_LAWS["logistic"]
    if len(rows) < len(law.parameters) + 2:
        return {}
    tasks = [name for name in rows if is_task(name) and rows[name].notna().all()]
    loss_N = rows[loss_column].to_numpy(float)
    return {name: forms.foretold(law, [loss_N], rows[name].to_numpy(float)) for name in tasks}


def _refuse_unknown(what: str, name: str, known: Mapping[str, Law]) -> None:
    if name not in known:
        raise ValueError(f"{what} {name!r} is unknown; there are {', '.join(known)}")


def _refuse_beyond_the_grid(law: Law | None, method: str) -> None:
    if law is not None and METHODS[method].posterior_exponents and not law.fits_a_grid:
        raise ValueError(f"method {method} cannot hold the law {law.name}; take method best")


@dataclasses.dataclass(frozen=True)
class _How:
    """How to fit either law: see `fit`. `objective` is for methods of any objective."""

    method: Method
    objective: objectives.Objective
    level: float
    seed: int
    resamples: int
    independent: bool
    priors: Mapping[str, Prior]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A law, and what it is fitted to: a column of N runs, from the law's inputs at each.

    `relative` says whether residuals are shares of what was measured, `noise` what they scatter by before any is seen,
    and `objective` in words what a method with one of its own minimises.
    """

    law: Law
    column: str
    rows: "pd.DataFrame"
    x: Sequence[np.ndarray]
    stderr_N: np.ndarray
    relative: bool
    noise: float
    objective: str

    @property
    def y_N(self) -> np.ndarray:
        return self.rows[self.column].to_numpy(float)


def _fit_loss(testbed: Testbed, rows: "pd.DataFrame", column: str, law: Law, how: _How) -> LawFit:
    choice.refuse_inputs(law, rows)
    x = tuple(rows[name].to_numpy(float) for name in law.inputs)
    relative = how.objective.relative if how.method.any_objective else how.method.relative_loss
    objective = how.method.objective_loss
    noise = uncertainty.NOISE * (1 if relative else rows[column].min())
    return _fit_by_method(_Asked(law, column, rows, x, _stderr(testbed, rows, column), relative, noise, objective), how)


def _fit_error(testbed: Testbed, rows: "pd.DataFrame", loss_column: str, column: str, law: Law, how: _How) -> LawFit:
    x, stderr_N = (rows[loss_column].to_numpy(float),), _stderr(testbed, rows, column)
    # Sampling decides each question's answer anew for every run, so unlike a loss an error does carry it as noise.
    sampling = np.linalg.norm(np.nan_to_num(stderr_N)) / math.sqrt(max(len(rows), 1))
    noise = math.hypot(uncertainty.NOISE, sampling)
    return _fit_by_method(_Asked(law, column, rows, x, stderr_N, False, noise, how.method.objective_error), how)


def _fit_by_method(asked: _Asked, how: _How) -> LawFit:
    if how.method.any_objective:
        fitted = _fit_best(asked, how)
    elif how.method.posterior_exponents:
        fitted = _fit(asked, how)
    else:
        fitted = _fit_freely(asked, how)
    return dataclasses.replace(fitted, points=_points(asked, fitted))


def _fit_best(asked: _Asked, how: _How) -> LawFit:
    from fitting import best  # brings jax, which the default method need not wait for

    law, y_N = asked.law, asked.y_N
    choice.refuse_too_few(law, asked.column, asked.x, y_N)
    run_N = asked.rows["run"].str.partition("@")[0]  # checkpoints are named <run>@<step>
    found = best.fit(
        law,
        asked.x,
        y_N,
        asked.stderr_N,
        how.objective,
        run_N=run_N,
        place_NxF=choice.places(asked.rows, law),
        noise=asked.noise,
        independent=how.independent,
        draws=how.resamples,
        seed=how.seed,
    )
    words = how.objective.words.format(quantity=asked.column.partition("/")[0])
    words += f", and {len(law.ideal)} ideal point" if law.ideal else ""
    return _of_best(asked, found, how, f"{words}, coefficients positive", len(y_N) + len(law.ideal))


def _fit_freely(asked: _Asked, how: _How) -> LawFit:
    from fitting import best  # brings jax, which the default method need not wait for

    y_N = asked.y_N
    choice.refuse_too_few(asked.law, asked.column, asked.x, y_N)
    found = best.fit_freely(asked.law, asked.x, y_N, noise=asked.noise, draws=how.resamples, seed=how.seed)
    return _of_best(asked, found, how, asked.objective, len(y_N))


def _of_best(asked: _Asked, found: typing.Any, how: _How, objective: str, points: int) -> LawFit:
    law = asked.law
    loss_N = asked.x[law.inputs.index("loss")] if "loss" in law.inputs else asked.y_N
    return _law_fit(
        asked,
        found.solution,
        found.theta_SxP,
        how.level,
        noise=found.noise,
        noise_is_relative=found.noise_is_relative,
        noise_growth=0.0,
        lowest_loss=float(loss_N.min()),
        misfit=found.misfit,
        beliefs={},
        objective=objective,
        degrees_of_freedom=points - len(law.parameters),
    )


def _fit(asked: _Asked, how: _How) -> LawFit:
    law, x, y_N = asked.law, asked.x, asked.y_N
    choice.refuse_too_few(law, asked.column, x, y_N, believed=max(len(law.shapes) - 2, 0))
    prior, sizes_NxF = believed(law, how.priors if how.method.learned else {}), choice.places(asked.rows, law)
    posterior = uncertainty.posterior(
        law, x, y_N, prior, relative=asked.relative, log_size_NxF=sizes_NxF, noise=asked.noise, seed=how.seed
    )
    whiten_NxN = posterior.runs.whiten_NxN(posterior.misfit)
    solution = linear.least_squares(law, x, y_N, whiten_NxN, posterior.shape_Q)
    return _law_fit(
        asked,
        solution,
        posterior.theta_SxP,
        how.level,
        noise=posterior.noise,
        noise_is_relative=asked.relative,
        noise_growth=posterior.runs.growth,
        lowest_loss=posterior.runs.lowest_loss,
        misfit=posterior.misfit,
        beliefs=dict(prior.shapes),
        objective=asked.objective,
        degrees_of_freedom=len(y_N) - len(law.parameters),
    )


def _law_fit(asked: _Asked, solution: Solution, theta_SxP: np.ndarray, level: float, **others: typing.Any) -> LawFit:
    names = asked.law.parameters
    return LawFit(
        column=asked.column,
        law=asked.law.name,
        theta=dict(zip(names, solution.theta_BxP[0].tolist(), strict=True)),
        theta_intervals={name: central(theta_S, level) for name, theta_S in zip(names, theta_SxP.T, strict=True)},
        theta_draws=tuple(map(tuple, theta_SxP.tolist())),
        objective_value=float(solution.objective_B[0]),
        starts=solution.starts,
        share_at_optimum=float(solution.share_at_optimum_B[0]),
        at_bound=solution.at_bound,
        points=(),
        **others,
    )


def _points(asked: _Asked, fitted: LawFit) -> tuple[Point, ...]:
    law, x = asked.law, asked.x
    given = {name: values for name, values in zip(law.inputs, x, strict=True) if name not in ("params", "tokens")}
    fitted_N = law.evaluate(tuple(fitted.theta.values()), *x)
    return tuple(
        Point(
            run=row["run"],
            params=float(row["params"]),
            tokens=float(row["tokens"]),
            measured=float(row[asked.column]),
            measured_stderr=float(asked.stderr_N[i]),
            fitted=float(fitted_N[i]),
            columns=_other_columns(row) | {name: float(values[i]) for name, values in given.items()},
        )
        for i, row in enumerate(asked.rows.to_dict("records"))
    )


def _other_columns(row: Mapping[str, typing.Any]) -> dict[str, float]:
    """What else the table counts of a run's size, where it does."""
    counted = {name: float(row[name]) for name in ("params_non_embedding", "flops") if name in row}
    return {name: value for name, value in counted.items() if math.isfinite(value)}


def _stderr(testbed: Testbed, rows: "pd.DataFrame", column: str) -> np.ndarray:
    stderr_column = testbed.stderr_column(column)
    return rows[stderr_column].to_numpy(float) if stderr_column in rows else np.full(len(rows), math.nan)


def _score(law: FittedLaw, targets: "pd.DataFrame", losses: Sequence[str], error: str | None) -> tuple[Prediction, ...]:
    """Every target predicted, with what was measured beside it.

    Quarantine keeps a run out of the fit, not from being predicted: a published target is scored though its record is
    flawed, and one that diverged has no measurement and so becomes a projection.
    """
    predictions = []
    loss, *others = losses
    for row in targets.to_dict("records"):
        more = [name for name in catalogue.named(law.loss.law).inputs if name not in ("params", "tokens")]
        given = {name: float(row[name]) for name in more}
        prediction = predict(law, float(row["params"]), float(row["tokens"]), row["run"], columns=given)
        measured_error = float(row[error]) if error else math.nan
        predictions.append(
            dataclasses.replace(
                prediction,
                measured_loss=float(row[loss]),
                measured_error=measured_error,
                columns=_other_columns(row) | given | {name: float(row[name]) for name in others},
            )
        )
    return tuple(predictions)
