"""Two ladders compared: which recipe is better where it matters, by how much, and how sure that is.

Everything is of one run of each recipe and of what it would measure, as in `fitting.prediction.predict`: its own noise
is in every interval. What the two ladders' runs of one size have in common, `fitting.pairs` learns and takes out.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from fitting.advice import compute_optimal_params
from fitting.artifacts.fitted import FittedLaw, LawFit, Point, Prediction
from fitting.laws import catalogue
from fitting.pairs import Joint, can_pair, joint, pairs_of
from fitting.prediction import NOTHING, inputs, noise_of_loss, predict

MOST_TIMES = 1e4  # beyond so many times the compute, or so little, no multiplier is sought
MOST_PAIRS = 1000
_CURVE = 33
_SIZES = 33

Path = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Difference:
    """B less A in one measurement, of one run of each.

    Attributes:
      column: what is measured, such as `loss/c4_val`.
      a: A's, in nats a token or as a fraction; this and the next are medians of the joint draws.
      b: B's.
      difference: b - a.
      interval: of the difference, at the comparison's level.
      probability: that B's is the lower, and so the better.
      pairs: how many sizes both ladders have a run of.
      shared: the correlation of a pair's noise, the mean of what is known of it; 0 without pairs.
    """

    column: str
    a: float
    b: float
    difference: float
    interval: tuple[float, float]
    probability: float
    pairs: int
    shared: float


@dataclasses.dataclass(frozen=True)
class Along:
    """What the laws say at one compute, without the noise of a run: the losses, and B's less A's with its interval."""

    flops: float
    a: float
    b: float
    difference: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` says of two ladders, A and B.

    Attributes:
      a: the run of A compared, as `predict` says it of A alone.
      b: that of B.
      budget_flops: the compute at which both are compute-optimal; None where N and D were given.
      level: nominal coverage of every interval.
      loss: the difference in loss.
      error: that in error; None where the laws do not both have one of the same column.
      multiplier: the effective compute multiplier: how many times its compute A takes to measure B's loss, as N and D
        grow alike, or for a budget along A's own compute-optimal sizes. Above 1 where B is better; infinite where A
        does not get there with 10,000 times as much.
      multiplier_interval: of the joint draws.
      more_pairs: how many more pairs, of sizes spread as the ladders' are, would leave zero out of the interval of the
        loss, if the difference is what it seems: of an interval's square, the part that the laws' parameters cause
        falls as one over the pairs. 0 where zero is out already; None where no number would do, because one run of each
        scatters by as much as they differ.
      along: the laws from the smallest run to ten times the compute of the run compared.
      cautions: where the two were not measured, counted or fitted alike.
      params_column: what N counts in A.
    """

    a: Prediction
    b: Prediction
    budget_flops: float | None
    level: float
    loss: Difference
    error: Difference | None
    multiplier: float
    multiplier_interval: tuple[float, float]
    more_pairs: int | None
    along: tuple[Along, ...] = dataclasses.field(repr=False)
    cautions: tuple[str, ...]
    params_column: str


def compare(
    law_a: FittedLaw,
    law_b: FittedLaw,
    *,
    params: float | None = None,
    tokens: float | None = None,
    budget_flops: float | None = None,
    columns: Mapping[str, float] = NOTHING,
) -> Comparison:
    """How much better the recipe of ladder B is than that of A, at N and D or for a budget.

    >>> import fitting
    >>> runs, rungs = fitting.read("gadre2024"), "role == 'rung' and params < 1e9 and corpus == '{}'"
    >>> a, b = (fitting.fit(runs, loss="c4_val", select=rungs.format(name)) for name in ("rpj", "c4_original"))
    >>> compared = fitting.compare(a, b, params=6.9e9, tokens=138e9)
    >>> compared.loss.difference < 0 and compared.multiplier > 1
    True

    Args:
      law_a: fitted to one ladder.
      law_b: fitted to the other, to the same column of the loss. Runs of equal N and D are taken as pairs.
      params: N, as the laws count it; with `tokens`.
      tokens: D.
      budget_flops: in their place C = 6ND: each recipe at the N and D that its own law holds to be optimal.
      columns: what else the laws are of, as in `predict`.

    Raises:
      ValueError: neither a size nor a budget, or both; laws of different losses, or of the same runs; a law without
        draws; what `predict` refuses; sizes at which the laws have no value, or without a compute-optimal one.
    """
    if (params is None) != (tokens is None) or (params is None) == (budget_flops is None):
        raise ValueError("say where to compare: params and tokens, or budget_flops alone")
    _refuse(law_a, law_b)
    if params is not None and tokens is not None:
        path_a = path_b = _grown(params, tokens)
    else:
        path_a, path_b = (_optimal(law, float(budget_flops or 0)) for law in (law_a, law_b))
    both = joint(law_a.loss, law_b.loss, seed=law_a.seed)
    a, b = (_run(law, path, columns) for law, path in ((law_a, path_a), (law_b, path_b)))

    def loss_a(times: np.ndarray, noise: float = 1.0) -> np.ndarray:
        return _loss(law_a, a, path_a(times), both.theta_a_PxS, noise * both.score_a_S)

    def loss_b(times: np.ndarray, noise: float = 1.0) -> np.ndarray:
        return _loss(law_b, b, path_b(times), both.theta_b_PxS, noise * both.score_b_S)

    once = np.ones(())
    loss_a_S, loss_b_S = loss_a(once), loss_b(once)
    if not (np.isfinite(loss_a_S).all() and np.isfinite(loss_b_S).all()):
        raise ValueError(
            f"the laws have no finite loss at N = {a.params:.4g}, D = {a.tokens:.4g}: was another size meant?"
        )
    loss = _difference(law_a.loss.column, loss_a_S, loss_b_S, law_a.level, both)
    multiplier_S = _times_to_reach(loss_b_S, loss_a)
    smallest_flops = min(point.flops for law in (law_a, law_b) for point in law.loss.points)
    return Comparison(
        a=a,
        b=b,
        budget_flops=budget_flops,
        level=law_a.level,
        loss=loss,
        error=_error(law_a, law_b, loss_a_S, loss_b_S),
        multiplier=float(np.median(multiplier_S)),
        multiplier_interval=_interval(multiplier_S, law_a.level),
        more_pairs=_more_pairs(loss, _interval(loss_b(once, 0) - loss_a(once, 0), law_a.level), law_a, law_b),
        along=tuple(
            _along(a.flops * times, loss_a(times, 0), loss_b(times, 0), law_a.level)
            for times in np.geomspace(min(smallest_flops / a.flops, 1), 10, _CURVE)
        ),
        cautions=tuple(_cautions(law_a, law_b)),
        params_column=law_a.params_column,
    )


def _refuse(law_a: FittedLaw, law_b: FittedLaw) -> None:
    if law_a.loss.column != law_b.loss.column:
        raise ValueError(
            f"A is a law of {law_a.loss.column} and B of {law_b.loss.column}: only one loss on one set can be "
            "compared; fit both ladders to a set that both measured"
        )
    runs_a, runs_b = ([(p.params, p.tokens, p.measured) for p in law.loss.points] for law in (law_a, law_b))
    if sorted(runs_a) == sorted(runs_b):
        raise ValueError("A and B are laws of the same runs: there is nothing to compare")


def _grown(params: float, tokens: float) -> Path:
    """N and D at so many times the compute, both grown alike."""
    return lambda times: (params * np.sqrt(times), tokens * np.sqrt(times))


def _optimal(law: FittedLaw, budget_flops: float) -> Path:
    """N and D that the fitted law holds to be optimal at so many times the budget."""
    form = catalogue.named(law.loss.law)
    if form.inputs != ("params", "tokens"):
        raise ValueError(
            f"{form.name} is a law of {', '.join(form.inputs)}: a budget needs laws of params and tokens alone; "
            "compare at params and tokens"
        )
    if not (math.isfinite(budget_flops) and budget_flops > 0):
        raise ValueError(f"budget_flops is {budget_flops}: it must be a positive number, such as 1e21")
    theta_Px1 = np.array([list(law.loss.theta.values())]).T
    # An odd number of sizes, so that the budget itself is one; between them N is a power of the compute.
    times_K = np.geomspace(1 / MOST_TIMES, MOST_TIMES, _SIZES)
    params_K = [compute_optimal_params(form, theta_Px1, budget_flops * times)[0] for times in times_K]

    def path(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        params = np.exp(np.interp(np.log(times), np.log(times_K), np.log(params_K)))
        return params, budget_flops * times / 6 / params

    return path


def _run(law: FittedLaw, path: Path, columns: Mapping[str, float]) -> Prediction:
    params, tokens = path(np.ones(()))
    return predict(law, float(params), float(tokens), columns=columns)


def _loss(
    law: FittedLaw,
    run: Prediction,
    size: tuple[np.ndarray, np.ndarray],
    theta_PxS: np.ndarray,
    score_S: np.ndarray,
) -> np.ndarray:
    """Draws of the loss that a run of this size measures, each so many deviations of `run` off its law.

    That a larger run is farther from the ladder does not count, or more compute might make it worse.
    """
    loss_S = catalogue.named(law.loss.law).evaluate(theta_PxS, *inputs(law, *size, run.columns))
    with np.errstate(all="ignore"):  # where the law has no value
        return loss_S + score_S * noise_of_loss(law, run.params, run.tokens, loss_S, columns=run.columns)


def _error(law_a: FittedLaw, law_b: FittedLaw, loss_a_S: np.ndarray, loss_b_S: np.ndarray) -> Difference | None:
    """The difference in error, through the draws of the losses."""
    if law_a.error is None or law_b.error is None or law_a.error.column != law_b.error.column:
        return None
    both = joint(law_a.error, law_b.error, seed=law_a.seed + 1)
    error_a_S = _error_of(law_a.error, loss_a_S, both.theta_a_PxS, both.score_a_S)
    error_b_S = _error_of(law_b.error, loss_b_S, both.theta_b_PxS, both.score_b_S)
    return _difference(law_a.error.column, error_a_S, error_b_S, law_a.level, both)


def _error_of(fit: LawFit, loss_S: np.ndarray, theta_PxS: np.ndarray, score_S: np.ndarray) -> np.ndarray:
    error_S = catalogue.named(fit.law).evaluate(theta_PxS, loss_S)
    return np.clip(error_S + score_S * fit.noise_at(error_S, loss_S), 0, 1)


def _difference(column: str, a_S: np.ndarray, b_S: np.ndarray, level: float, both: Joint) -> Difference:
    return Difference(
        column=column,
        a=float(np.median(a_S)),
        b=float(np.median(b_S)),
        difference=float(np.median(b_S - a_S)),
        interval=_interval(b_S - a_S, level),
        probability=float(np.mean((b_S < a_S) + 0.5 * (b_S == a_S))),
        pairs=both.pairs,
        shared=both.shared,
    )


def _times_to_reach(loss_S: np.ndarray, loss_at: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """How many times the compute takes the loss to `loss_S`, draw by draw: bisection of its logarithm."""
    low_S, high_S = np.full_like(loss_S, -math.log(MOST_TIMES)), np.full_like(loss_S, math.log(MOST_TIMES))
    reached_S = loss_at(np.exp(high_S)) <= loss_S
    for _ in range(40):
        middle_S = (low_S + high_S) / 2
        enough_S = loss_at(np.exp(middle_S)) <= loss_S
        low_S, high_S = np.where(enough_S, low_S, middle_S), np.where(enough_S, middle_S, high_S)
    return np.where(reached_S, np.exp(high_S), np.inf)


def _more_pairs(loss: Difference, of_laws: tuple[float, float], law_a: FittedLaw, law_b: FittedLaw) -> int | None:
    if not loss.interval[0] <= 0 <= loss.interval[1]:
        return 0
    pairs = loss.pairs or min(len(law.loss.points) for law in (law_a, law_b))
    # From the median to the end of the interval that holds zero, squared: all of it, and what the parameters cause.
    end = 1 if loss.difference < 0 else 0
    whole = (loss.interval[end] - loss.difference) ** 2
    of_parameters = min((of_laws[end] - loss.difference) ** 2, whole)
    room = loss.difference**2 - (whole - of_parameters)
    if room * (pairs + MOST_PAIRS) <= of_parameters * pairs:
        return None
    return max(1, math.ceil(pairs * (of_parameters / room - 1)))


def _along(flops: float, loss_a_S: np.ndarray, loss_b_S: np.ndarray, level: float) -> Along:
    differences_S = loss_b_S - loss_a_S
    a, b, difference = (float(np.median(value_S)) for value_S in (loss_a_S, loss_b_S, differences_S))
    return Along(float(flops), a, b, difference, _interval(differences_S, level))


def _cautions(law_a: FittedLaw, law_b: FittedLaw) -> Iterator[str]:
    """Where the two were not measured, counted or fitted alike: a sentence each."""
    if law_a.params_column != law_b.params_column:
        yield (
            f"N counts {law_a.params_column} in A and {law_b.params_column} in B, so equal N are not equal models; fit "
            "both with one --params-column"
        )
    pairs = pairs_of(law_a.loss.points, law_b.loss.points)
    if not pairs:
        yield "no run of A has the size of one of B: what both are off their laws by alike stays in the intervals"
    elif not can_pair(law_a.loss, law_b.loss):
        yield (
            f"{law_a.loss.law} and {law_b.loss.law} cannot stand for each other, so pairs are not used and intervals "
            "are wide; fit both ladders by one law whose coefficients are linear, such as over_training"
        )
    inner = "params_non_embedding"
    if law_a.loss.column.startswith("loss/") and any(
        not math.isclose(one.params - one.columns[inner], other.params - other.columns[inner], rel_tol=0.01)
        for one, other in _of_one_body(law_a, law_b)
    ):
        yield (
            "models that are equal but for their embeddings differ in these, so perhaps in vocabulary: losses in nats "
            "a token of two tokenizers do not compare; fit bits a byte, bpb/<set>, instead"
        )
    ratios = [one.measured_stderr / other.measured_stderr for one, other in pairs if other.measured_stderr > 0]
    if ratios and not 1 / 1.5 < np.median(ratios) < 1.5:
        yield (
            f"the standard errors of A's measurements are {np.median(ratios):.2g} times those of B's: was "
            f"{law_a.loss.column} one set, and all of it read, in both?"
        )
    if law_a.method != law_b.method:
        yield f"A is fitted by the method {law_a.method} and B by {law_b.method}: part of the difference may be theirs"
    if law_a.error is None or law_b.error is None:
        without = [name for name, law in (("A", law_a), ("B", law_b)) if law.error is None]
        if len(without) == 1:
            yield f"{without[0]} has no error law, so errors are not compared: fit it with an error column"
    elif law_a.error.column != law_b.error.column:
        yield f"A's error law is of {law_a.error.column} and B's of {law_b.error.column}, so errors are not compared"


def _of_one_body(law_a: FittedLaw, law_b: FittedLaw) -> Iterator[tuple[Point, Point]]:
    """Runs of one count of parameters without embeddings, where N counts these too."""
    inner = "params_non_embedding"
    for one, other in itertools.product(law_a.loss.points, law_b.loss.points):
        counts = [point.columns.get(inner, point.params) for point in (one, other)]
        if all(c != p.params for c, p in zip(counts, (one, other), strict=True)) and counts[0] == counts[1]:
            yield one, other


def _interval(value_S: np.ndarray, level: float) -> tuple[float, float]:
    """The central interval of draws, of which some may be infinite."""
    low, high = np.quantile(value_S, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return float(low), float(high)
