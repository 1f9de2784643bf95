"""How far to trust a law: what it says of runs it was not shown, and what it says when something else is chosen.

All from law.json alone: its runs are fitted again with one thing changed.
"""

import dataclasses
import math
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from fitting import doubts
from fitting.artifacts.fitted import FittedLaw, LawFit, Point, Prediction
from fitting.forms import Form
from fitting.laws import catalogue, rays
from fitting.laws.objectives import OBJECTIVES
from fitting.methods import METHODS, fit
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd

MOST_ROLL_OUTS = 4
MOST_INFLUENCES = 30
# What was fitted is fitted again, though a quality gate be against it.
_ANY = "(quarantine == '' or quarantine != '')"


@dataclasses.dataclass(frozen=True)
class Refit:
    """A law fitted again with one thing changed.

    Attributes:
      name: what was changed.
      theta: the loss law's parameters; empty where it could not be fitted.
      predictions: of the targets, or in a roll-out of the ladder's own dearer runs; without errors, except where the
        way of counting or fitting is what was changed.
      problem: why it could not be fitted; empty where it was.
    """

    name: str
    theta: Mapping[str, float]
    predictions: tuple[Prediction, ...]
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Checks:
    """What `checks` finds.

    Attributes:
      aicc: the loss law's corrected Akaike criterion; NaN with no more runs than parameters and noise take.
      forms: the loss laws that the runs can tell apart, by weight (`fitting.forms`).
      roll_outs: fitted on the cheapest runs, predicting the dearer ones; the last leaves out the largest alone.
      influence: each run left out in turn, by how far that moves the dearest target.
      sensitivity: other ways to count, weigh or fit.
    """

    aicc: float
    forms: tuple[Form, ...]
    roll_outs: tuple[Refit, ...]
    influence: tuple[Refit, ...]
    sensitivity: tuple[Refit, ...]


def checks(law: FittedLaw) -> Checks:
    """Refits the law's runs with one thing changed at a time; takes seconds."""
    table = _table(law)
    # The fit itself has said what there is to say of the runs. Other methods and laws compile, the law itself need not.
    with warnings.catch_warnings(action="ignore"), futures.ThreadPoolExecutor(1) as beside:
        sensitivity = beside.submit(lambda: tuple(_sensitivity(law, table)))
        return Checks(
            aicc=aicc(law.loss),
            forms=doubts.ranked(law.loss),
            roll_outs=tuple(_roll_outs(law, table)),
            influence=_influence(law, table),
            sensitivity=sensitivity.result(),
        )


def aicc(fitted: LawFit) -> float:
    """-2 log likelihood + 2k + 2k(k+1)/(n-k-1) (Hurvich & Tsai 1989), the noise normal and one of the k parameters.

    Comparable between laws of the same runs, whether their noise is absolute or relative. NaN where n <= k + 1.
    """
    n, k = len(fitted.points), len(fitted.theta) + 1
    scales = [point.fitted if fitted.noise_is_relative else 1.0 for point in fitted.points]
    squares = sum(((p.measured - p.fitted) / scale) ** 2 for p, scale in zip(fitted.points, scales, strict=True))
    if n <= k + 1 or not squares:
        return math.nan
    log_likelihood = -n / 2 * (math.log(2 * math.pi * squares / n) + 1) - sum(math.log(abs(scale)) for scale in scales)
    return -2 * log_likelihood + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def _table(law: FittedLaw) -> "pd.DataFrame":
    """The runs that were fitted and the targets, as a testbed; `in_loss` and `in_error` say which law took a run."""
    import pandas as pd

    rows: dict[str, dict[str, Any]] = {}
    for part, fitted in law.fits.items():
        for point in fitted.points:
            row = rows.setdefault(point.run, {**_sizes(point), "role": "rung", "in_loss": 0, "in_error": 0})
            row |= {f"in_{part}": 1, fitted.column: point.measured}
            row[fitted.column.replace("/", "_stderr/", 1)] = point.measured_stderr
            if part == "error":
                row.setdefault(law.loss.column, point.loss)
    for target in law.predictions:
        row = rows.setdefault(target.run, {**_sizes(target), "role": "target", "in_loss": 0, "in_error": 0})
        row.setdefault(law.loss.column, target.measured_loss)
        if law.error:
            row.setdefault(law.error.column, target.measured_error)
    return pd.DataFrame(list(rows.values()))


def _sizes(run: Point | Prediction) -> dict[str, Any]:
    given = {name: value for name, value in run.columns.items() if name not in ("loss", "flops")}
    return {"run": run.run, "params": run.params, "tokens": run.tokens, **given}


def _refit(
    law: FittedLaw,
    table: "pd.DataFrame",
    name: str,
    *,
    with_error: bool = False,
    law_name: str = "",
    resamples: int = 0,
    **options: Any,
) -> Refit:
    error_column = law.error.column if law.error and with_error else None
    error_law = {"error_law": law.error.law} if law.error else {}
    objective = law.objective if "method" not in options else None
    options = {**error_law, "method": law.method, "objective": objective, **options}
    options["independent"] = options["method"] == "best" and not law.loss.misfit
    try:
        refitted = fit(
            Testbed(table),
            loss=law.loss.column,
            error=error_column,
            select=f"in_loss == 1 and {_ANY}",
            select_error=f"in_error == 1 and {_ANY}" if error_column else None,
            level=law.level,
            seed=law.seed,
            law=law_name or law.loss.law,
            resamples=resamples,
            **options,
        )
    except ValueError as error:
        return Refit(name, {}, (), str(error))
    return Refit(name, refitted.loss.theta, refitted.predictions)


def _roll_outs(law: FittedLaw, table: "pd.DataFrame") -> Iterator[Refit]:
    """Fitted on the k cheapest sizes, predicting the rest, for a few k up to all but the dearest size.

    All seeds of a size are held out together: who knows one knows what the others measure.
    """
    sizes = sorted({(point.flops, point.params) for point in law.loss.points})
    runs = "runs" if len(sizes) == len(law.loss.points) else "sizes"
    fewest, most = len(law.loss.theta), len(sizes) - 1
    steps = sorted({round(most - i * (most - fewest) / (MOST_ROLL_OUTS - 1)) for i in range(MOST_ROLL_OUTS)})
    for k in (step for step in steps if fewest <= step <= most):
        held_out = {point.run for point in law.loss.points if (point.flops, point.params) in sizes[k:]}
        rolled = table[table["in_loss"] == 1].copy()
        rolled.loc[rolled["run"].isin(held_out), ["role", "in_loss"]] = ["target", 0]
        refitted = _refit(
            law, rolled, f"{k} cheapest {runs}", resamples=draws if (draws := len(law.loss.theta_draws)) > 1 else 0
        )
        if not refitted.problem or k == most:
            yield refitted


def _influence(law: FittedLaw, table: "pd.DataFrame") -> tuple[Refit, ...]:
    """Each run left out; of many runs, those that lie farthest off the law."""
    farthest = sorted(law.loss.points, key=lambda point: -abs(point.measured / point.fitted - 1))[:MOST_INFLUENCES]
    refits = [_refit(law, table[table["run"] != point.run], f"without {point.run}") for point in farthest]
    if not law.predictions:
        return tuple(refits)
    dearest = max(range(len(law.predictions)), key=lambda i: law.predictions[i].flops)
    expected = law.predictions[dearest].loss

    def moved(refit: Refit) -> float:
        return math.inf if refit.problem else abs(refit.predictions[dearest].loss - expected)

    return tuple(sorted(refits, key=moved, reverse=True))


def _sensitivity(law: FittedLaw, table: "pd.DataFrame") -> Iterator[Refit]:
    """Other counts of N, other methods and objectives, and other laws where there are more sizes than parameters."""
    yield Refit("as fitted", law.loss.theta, law.predictions)
    counted: dict[str, Callable[[Point | Prediction], float]] = {
        "N without embeddings": lambda run: run.columns.get("params_non_embedding", math.nan),
        "N from the table’s FLOPs, C / 6D": lambda run: run.columns.get("flops", math.nan) / 6 / run.tokens,
    }
    runs: Sequence[Point | Prediction] = (*law.loss.points, *(law.error.points if law.error else ()), *law.predictions)
    for name, count in counted.items():
        params = {run.run: count(run) for run in runs}
        if any(abs(params[run.run] / run.params - 1) > 0.01 for run in runs) and all(
            math.isfinite(value) and value > 0 for value in params.values()
        ):
            yield _refit(law, table.assign(params=table["run"].map(params)), name, with_error=True)
    for method, how in METHODS.items():
        if method != law.method and not how.any_objective:
            own = METHODS[law.method].law == law.loss.law  # each method's own law, where none was asked for
            law_name = how.law if own else law.loss.law
            yield _refit(law, table, f"method {method}", with_error=True, law_name=law_name, method=method)
    for objective in OBJECTIVES.values():
        if objective.name != law.objective and (objective.scale != "noise" or _sampled(law)):
            yield _refit(law, table, f"best fit by {objective.name}", method="best", objective=objective.name)
    sizes = len(table[table["in_loss"] == 1].drop_duplicates(["params", "tokens"]))
    any_law = not METHODS[law.method].posterior_exponents
    for form in catalogue.LOSS_LAWS.values():
        if (
            form not in rays.LAWS
            and form.name != law.loss.law
            and len(form.parameters) < sizes
            and {*form.inputs} <= {*table}
            and (any_law or form.fits_a_grid)  # what the method cannot hold, `forms` ranks all the same
        ):
            yield _refit(law, table, f"law {form.name}", law_name=form.name)


def _sampled(law: FittedLaw) -> bool:
    """Whether the sampling standard error of every run is known, which an objective in units of it needs."""
    points = (*law.loss.points, *(law.error.points if law.error else ()))
    return all(point.measured_stderr > 0 for point in points)
