"""From a fitted law alone to what a run will give: loss law, then error law, each with its interval."""

import math
import types
from collections.abc import Mapping

import numpy as np

from fitting import laws
from fitting.fitted import FittedLaw, LawFit, Prediction

NOTHING: Mapping[str, float] = types.MappingProxyType({})


def predict(
    law: FittedLaw, params: float, tokens: float, run: str = "", *, columns: Mapping[str, float] = NOTHING
) -> Prediction:
    """The loss and error of a run of `params` parameters (N) trained on `tokens` tokens (D).

    The intervals are of what would be measured on that one run: they hold the parameters' uncertainty and the run's own
    scatter around the law. Draws of the loss, scatter included, are what the draws of the error law are given.

    A law of more than these two takes the rest from `columns`; data is new, and weights have 16 bits, unless they say.

    Raises:
      ValueError: a size that is not positive and finite, or one that the law needs and is not told.
    """
    for name, value in (("params", params), ("tokens", tokens)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: it must be a positive number")
    loss_law = laws.named(law.loss.law)
    given = {"unique_tokens": tokens, "weight_bits": 16.0, **columns, "params": params, "tokens": tokens}
    if missing := [name for name in loss_law.inputs if name not in given]:
        raise ValueError(f"{loss_law.name} is a law of {', '.join(loss_law.inputs)}: say {', '.join(missing)} as well")
    x = [given[name] for name in loss_law.inputs]
    loss = float(loss_law.evaluate(tuple(law.loss.theta.values()), *x))
    noise = run_noise(law)
    loss_S = _scattered(law.loss, loss_law.evaluate(np.asarray(law.loss.theta_draws).T, *x), noise["loss"])
    error = error_interval = None
    if law.error is not None:
        error_law = laws.named(law.error.law)
        error = _fraction(float(error_law.evaluate(tuple(law.error.theta.values()), loss)))
        error_S = _scattered(law.error, error_law.evaluate(np.asarray(law.error.theta_draws).T, loss_S), noise["error"])
        error_interval = tuple(_fraction(bound) for bound in _interval(error_S, law.level))
    return Prediction(
        run=run,
        params=params,
        tokens=tokens,
        level=law.level,
        loss=loss,
        loss_interval=_interval(loss_S, law.level),
        error=error,
        error_interval=error_interval,
        measured_loss=math.nan,
        measured_error=math.nan,
    )


def run_noise(law: FittedLaw) -> dict[str, np.ndarray]:
    """For each draw of the `loss` and of the `error` law, how far one run lies off it, in the unit of its noise."""
    rng = np.random.default_rng(law.seed)
    fits = {"loss": law.loss} | ({"error": law.error} if law.error else {})
    return {part: fit.noise * _normal_scores(len(fit.theta_draws), rng) for part, fit in fits.items()}


def _scattered(fit: LawFit, value_S: np.ndarray, noise_S: np.ndarray) -> np.ndarray:
    """The law's values as measured on one run each: with the noise of a run added."""
    return value_S * (1 + noise_S) if fit.noise_is_relative else value_S + noise_S


def _normal_scores(count: int, rng: np.random.Generator) -> np.ndarray:
    """Normal draws without luck: the quantiles of the normal distribution, in random order."""
    from statistics import NormalDist

    return rng.permutation([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])


def _interval(value_S: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(value_S, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _fraction(error: float) -> float:
    return min(max(error, 0.0), 1.0)
