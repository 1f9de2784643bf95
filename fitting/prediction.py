"""From a fitted law alone to what a run will give: loss law, then error law, each with its interval."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fitting.artifacts.fitted import FittedLaw, LawFit, Prediction, central, inputs_of
from fitting.laws import catalogue
from fitting.uncertainty import alike, apart, growth_beyond, normal_scores, place

NOTHING: Mapping[str, float] = types.MappingProxyType({})
# By how much a size may lie below a ladder's smallest and above its largest before a slip is likelier than a wish. The
# dearest target of Gadre et al. 2024 has 17 times the parameters and 110 times the tokens of their five rungs.
_FAR = {"flops": (1e4, 1e6), "served_tokens": (1e2, math.inf)}
_FAR_OF_A_SIZE = (1e2, 1e3)
_NEAR = 500  # runs that tell what a run is off the law by, of more those nearest
_UNITS = (1e3, 1e6, 1e9, 1e12, 1e15, 1e18, 1e21)


def predict(
    law: FittedLaw,
    params: float,
    tokens: float,
    run: str = "",
    *,
    columns: Mapping[str, float] = NOTHING,
    nearby: bool = False,
) -> Prediction:
    """The loss and error of a run of `params` parameters (N) trained on `tokens` tokens (D).

    >>> import fitting
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> prediction = fitting.predict(law, params=70e9, tokens=1.4e12)
    >>> prediction.loss_interval[0] < prediction.loss < prediction.loss_interval[1]
    True

    The intervals are of what would be measured on that one run: they hold the parameters' uncertainty and the run's own
    scatter around the law, the larger the farther it is from the ladder. Draws of the loss, scatter included, are what
    the draws of the error law are given.

    A law of more than these two takes the rest from `columns`; data is new, and weights have 16 bits, unless they say.

    With `nearby` the loss is off the law as runs of like sizes are: of a sweep or a dense ladder nearer the truth, and
    surer; far from all runs it makes no difference (kriging: Rasmussen & Williams 2006, Eqs. 2.25 and 2.26).

    Raises:
      ValueError: a size that is not positive and finite, or one that the law needs and is not told, or is not of;
        `nearby` of a law fitted by a method that knows no misfit.
    """
    for name, value in (("params", params), ("tokens", tokens), *columns.items()):
        bad, must = catalogue.named(law.loss.law).refuse(name, value)
        if bad:
            raise ValueError(f"{name} is {value}: it must be {must}")
    if math.isinf(6.0 * params * tokens):
        raise ValueError(f"params is {params:g} and tokens {tokens:g}: no number is as large as the FLOPs of it")
    x = inputs(law, params, tokens, columns)
    near = _Nearby.of(law, params, tokens, columns) if nearby else None
    loss = float(catalogue.named(law.loss.law).evaluate(tuple(law.loss.theta.values()), *x))
    if near:
        loss += float(near.off(np.array([*law.loss.theta.values()])[:, None], loss)[0])
    loss_S, error_S = _draws(law, params, tokens, columns, near)
    error = error_interval = None
    if law.error is not None and error_S is not None:
        error = float(np.clip(catalogue.named(law.error.law).evaluate(tuple(law.error.theta.values()), loss), 0, 1))
        error_interval = central(error_S, law.level)
    return Prediction(
        run=run,
        params=float(params),
        tokens=float(tokens),
        level=law.level,
        loss=loss,
        loss_interval=central(loss_S, law.level),
        error=error,
        error_interval=error_interval,
        measured_loss=math.nan,
        measured_error=math.nan,
        columns=dict(columns),
    )


def pooled_error(
    some: Sequence[FittedLaw], params: float, tokens: float, *, columns: Mapping[str, float] = NOTHING
) -> tuple[float, tuple[float, float]]:
    """One error that several laws predict, each through a loss of its own: the median, and the interval of all draws.

    >>> import fitting
    >>> testbed, rungs = fitting.read("gadre2024"), "corpus == 'rpj' and role == 'rung'"
    >>> some = [fitting.fit(testbed, loss="c4_val", error="average", select=rungs, seed=seed) for seed in (0, 1)]
    >>> error, (low, high) = fitting.pooled_error(some, params=6.9e9, tokens=138e9)
    >>> low < error < high
    True

    Which validation set foretells an error best is not known beforehand, and a set unlike the corpus can be far off;
    the median of many is never the worst. Draws of all laws are pooled (Stone 1961).

    Raises:
      ValueError: no laws, laws of different errors or levels, or what `predict` refuses.
    """
    errors = sorted({law.error.column if law.error else "no error" for law in some})
    if len(errors) != 1 or errors == ["no error"] or len({law.level for law in some}) != 1:
        raise ValueError(f"laws to pool predict the same error at the same level; these predict {errors or 'nothing'}")
    points = np.array([predict(law, params, tokens, columns=columns).error for law in some], float)
    error_S = np.concatenate([_draws(law, params, tokens, columns)[1] for law in some])
    return float(np.median(points)), central(error_S, some[0].level)


def ladder_of(law: FittedLaw) -> dict[str, list[float]]:
    """The sizes of the runs that the loss law was fitted to, by name; those `strays` is told."""
    points = law.loss.points
    sizes = {name: [getattr(point, name) for point in points] for name in ("params", "tokens", "flops")}
    others = {name for point in points for name in point.columns} - {*sizes, "loss"}
    return sizes | {name: [point.columns[name] for point in points if name in point.columns] for name in sorted(others)}


def strays(asked: Mapping[str, float], ladder: Mapping[str, Sequence[float]]) -> list[str]:
    """Where what is asked about lies absurdly far off a ladder, as in other units: a sentence each, with a remedy.

    Args:
      asked: sizes by name: `params`, `tokens`, `flops`, `served_tokens` or another column; 0 is not judged.
      ladder: the sizes of its runs, by name; what it does not have is not judged.
    """
    said = []
    for name, value in asked.items():
        sizes = ladder.get("tokens" if name == "served_tokens" else name)
        if not sizes or not 0 < value < math.inf:
            continue
        (below, beyond), low, high = _FAR.get(name, _FAR_OF_A_SIZE), min(sizes), max(sizes)
        if value < low / below:
            what, times = f"times less than the smallest run fitted has ({low:.3g})", low / value
            meant = [value * unit for unit in _UNITS if low <= 10 * value * unit and value * unit <= 100 * high]
        elif value > high * beyond:
            what, times = f"times more than the largest run fitted has ({high:.3g})", value / high
            meant = [value / unit for unit in _UNITS if low <= 10 * value / unit and value / unit <= 100 * high]
        else:
            continue
        was = f"; was {' or '.join(f'{v:g}' for v in meant[:2])} meant?" if meant else ""
        said.append(f"{name} is {value:g}, {_rounded(times)} {what}, where the law is a guess{was}")
    return said


def inputs(law: FittedLaw, params: Any, tokens: Any, columns: Mapping[str, float]) -> list[Any]:
    """What the loss law is of, in its order, for runs of N and D, which may be arrays."""
    loss_law = catalogue.named(law.loss.law)
    given = {"unique_tokens": tokens, "weight_bits": 16.0, **columns, "params": params, "tokens": tokens}
    if strange := [name for name in columns if name not in loss_law.inputs]:
        raise ValueError(f"{loss_law.name} is a law of {', '.join(loss_law.inputs)}, not of {', '.join(strange)}")
    if missing := [name for name in loss_law.inputs if name not in given]:
        raise ValueError(f"{loss_law.name} is a law of {', '.join(loss_law.inputs)}: say {', '.join(missing)} as well")
    if (off := loss_law.off_one(given)).any():
        raise ValueError(f"proportions sum to {1 + off.flat[0]:.4g}: they must sum to one")
    return [given[name] for name in loss_law.inputs]


def noise_of_loss(
    law: FittedLaw, params: float, tokens: float, loss: Any, *, columns: Mapping[str, float] = NOTHING
) -> Any:
    """Standard deviation around a law's `loss`, or losses, of what a run of N, D and `columns` will measure."""
    fit = law.loss
    if not fit.misfit:
        return fit.noise_at(loss, loss)
    place_1xF, place_NxF = _places(law, params, tokens, columns)
    return fit.noise_at(loss, loss) * growth_beyond(fit.misfit, place_NxF, place_1xF[0])


def _places(
    law: FittedLaw, params: float, tokens: float, columns: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Where a run lies, [1, F], and where those do that the loss law was fitted to, [N, F]."""
    form = catalogue.named(law.loss.law)
    x = dict(zip(form.inputs, inputs(law, params, tokens, columns), strict=True))
    asked = {"params": params, "tokens": tokens, **x}
    return place(form, {name: [v] for name, v in asked.items()}), place(form, inputs_of(law.loss.points, asked))


@dataclasses.dataclass(frozen=True)
class _Nearby:
    """What the N fitted runs next to a size tell of by how much a run of that size is off the law.

    Attributes:
      fit: the law.
      x: its inputs at those runs, each [N].
      y_N: what they measured.
      weight_N: of how far each is off, in units of its noise.
      told: of the misfit's variance at that size, how much that takes, as a share of the noise's there.
    """

    fit: LawFit
    x: Sequence[np.ndarray]
    y_N: np.ndarray
    weight_N: np.ndarray
    told: float

    @classmethod
    def of(cls, law: FittedLaw, params: float, tokens: float, columns: Mapping[str, float]) -> "_Nearby":
        """Of a run of this size."""
        fit = law.loss
        if not fit.misfit or catalogue.named(fit.law).signed:
            raise ValueError(
                f"nearby: the law {fit.law} of {fit.column} was fitted as if each run were off it by its own, or is of "
                "a run's steps; the default method tells what runs share, and best without --independent"
            )
        place_1xF, place_NxF = _places(law, params, tokens, columns)
        apart_N = apart(place_1xF, place_NxF)[0]
        near_N = np.argsort(apart_N, kind="stable")[:_NEAR]
        shared_NxN = fit.misfit * alike(apart(place_NxF[near_N], place_NxF[near_N]))
        shared_N = fit.misfit * alike(apart_N[near_N])
        weight_N = np.linalg.solve(shared_NxN + max(1 - fit.misfit, 1e-9) * np.eye(len(near_N)), shared_N)
        points = [fit.points[n] for n in near_N]
        x = [*inputs_of(points, catalogue.named(fit.law).inputs).values()]
        told = float(weight_N @ shared_N) / growth_beyond(fit.misfit, place_NxF, place_1xF[0]) ** 2
        return cls(fit, x, np.array([point.measured for point in points]), weight_N, told)

    def off(self, theta_PxS: np.ndarray, loss_S: Any) -> np.ndarray:
        """By how much a run of that size is off each of S losses that the law gives it."""
        fitted_SxN = catalogue.named(self.fit.law).evaluate(theta_PxS[..., None], *self.x)
        noise_N = self.fit.noise_at(self.y_N, self.y_N)
        return self.fit.noise_at(loss_S, loss_S) * (((self.y_N - fitted_SxN) / noise_N) @ self.weight_N)


def _draws(
    law: FittedLaw, params: float, tokens: float, columns: Mapping[str, float], near: _Nearby | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draws of the loss and, through them, of the error that one run of this size would measure."""
    scores = run_scores(law)
    loss_law, theta_PxS = catalogue.named(law.loss.law), np.asarray(law.loss.theta_draws).T
    loss_S = loss_law.evaluate(theta_PxS, *inputs(law, params, tokens, columns))
    noise_S = noise_of_loss(law, params, tokens, loss_S, columns=columns)
    if near:
        loss_S, noise_S = loss_S + near.off(theta_PxS, loss_S), noise_S * math.sqrt(max(1 - near.told, 0))
    loss_S = loss_S + scores["loss"] * noise_S
    if law.error is None:
        return loss_S, None
    error_S = catalogue.named(law.error.law).evaluate(np.asarray(law.error.theta_draws).T, loss_S)
    error_S = error_S + scores["error"] * law.error.noise_at(error_S, loss_S)
    return loss_S, np.clip(error_S, 0, 1)


def run_scores(law: FittedLaw) -> dict[str, np.ndarray]:
    """For each draw of the `loss` and of the `error` law, by how many standard deviations of noise one run lies off."""
    rng = np.random.default_rng(law.seed)
    return {part: normal_scores(len(fit.theta_draws), rng) for part, fit in law.fits.items()}


def _rounded(times: float) -> str:
    return f"{times:.2g}" if times >= 1e9 else f"{float(f'{times:.2g}'):,.0f}"
