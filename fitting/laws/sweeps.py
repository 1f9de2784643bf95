"""Loss laws of how a run is trained: its learning rate and its batch."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import COEFFICIENTS, COUPLING, EXPONENTS
from fitting.laws.elementary import exp, log, logaddexp
from fitting.laws.law import Law, Shape
from fitting.laws.params_and_tokens import chinchilla, coupled, power_units


def _step_law(shape: Sequence[Any], params: Any, tokens: Any, learning_rate: Any, batch_size: Any) -> Sequence[Any]:
    alpha, beta, *best = shape
    return *chinchilla((alpha, beta), params, tokens), *_off(best, params, tokens, learning_rate, batch_size)


def _off(best: Sequence[Any], params: Any, tokens: Any, learning_rate: Any, batch_size: Any) -> tuple[Any, Any]:
    """How far the rate and the batch are from the best, the squares of their logarithms."""
    eta_0, a, b, B_0, c = best
    log_rate = log(learning_rate) - log(eta_0) + a * log(params) - b * log(tokens)
    log_batch = log(batch_size) - log(B_0) - c * log(tokens)
    return log_rate**2, log_batch**2


def _rate_and_batch(
    shape: Sequence[Any], params: Any, tokens: Any, learning_rate: Any, batch_size: Any
) -> Sequence[Any]:
    *step_law, k, w = shape
    moved = learning_rate * exp(-k * log(batch_size))
    *size, rate, batch = _step_law(step_law, params, tokens, moved, batch_size)
    flatter = exp(-w * log(tokens))
    return *size, rate * flatter, batch * flatter


def _rate_and_batch_units(
    shape: Sequence[Any], loss: Any, params: Any, tokens: Any, learning_rate: Any, batch_size: Any
) -> Mapping[str, Any]:
    *step_law, k, _ = shape
    return _step_law_units(step_law, loss, params, tokens, learning_rate * batch_size**-k, batch_size)


def _step_law_units(
    shape: Sequence[Any], loss: Any, params: Any, tokens: Any, learning_rate: Any, batch_size: Any
) -> Mapping[str, Any]:
    *_, a, b, _, c = shape
    return {"eta_0": learning_rate * params**a * tokens**-b, "B_0": batch_size * tokens**-c}


def _mistuned(shape: Sequence[Any], params: Any, tokens: Any, learning_rate: Any, batch_size: Any) -> Sequence[Any]:
    A, B, alpha, beta, kappa, *best, k, C, G = shape
    rate, batch = _off(best, params, tokens, learning_rate * exp(-k * log(batch_size)), batch_size)
    return coupled((A, B, alpha, beta, kappa), params, tokens * exp(-C * rate - G * batch))


def _mistuned_units(
    shape: Sequence[Any], loss: Any, params: Any, tokens: Any, learning_rate: Any, batch_size: Any
) -> Mapping[str, Any]:
    *step_law, k, _, _ = shape
    best = _step_law_units(step_law, loss, params, tokens, learning_rate * batch_size**-k, batch_size)
    return {**power_units(shape, loss, params, tokens), **best}


def _critical_batch(shape: Sequence[Any], params: Any, tokens: Any, batch_size: Any) -> Sequence[Any]:
    alpha, beta, B_0, c = shape
    of_use = log(tokens) - logaddexp(0.0, log(batch_size) - log(B_0) - c * log(tokens))
    return 1.0, exp(-alpha * log(params)), exp(-beta * of_use)


def _critical_batch_units(
    shape: Sequence[Any], loss: Any, params: Any, tokens: Any, batch_size: Any
) -> Mapping[str, Any]:
    return {"B_0": batch_size * tokens ** -shape[3]}


_STEP_LAW = "Step Law, Li et al. 2025"
_OF_THE_BEST = "that of the best run, give or take a factor of three"

_BEST = {
    "eta_0": Shape(0.05, 20.0, 1.0, 1.0, _OF_THE_BEST),
    "a": Shape(0.01, 2.0, 0.713, 0.5, _STEP_LAW),
    "b": Shape(0.01, 2.0, 0.307, 0.5, _STEP_LAW),
    "B_0": Shape(0.05, 20.0, 1.0, 1.0, _OF_THE_BEST),
    "c": Shape(0.01, 2.0, 0.571, 0.5, _STEP_LAW),
}
_STEP_LAW_SHAPES = {**EXPONENTS, **_BEST}
_MOVES = Shape(0.01, 2.0, 0.5, 0.7, "the root of the batch (Malladi et al. 2022), or less")
_WASTED = Shape(1e-3, 3.0, 0.2, 1.0, "a fifth of the tokens, where the rate or the batch is off by a factor of e")

LAWS = (
    Law(
        name="step_law",
        inputs=("params", "tokens", "learning_rate", "batch_size"),
        linear=("E", "A", "B", "C", "G"),
        shapes=_STEP_LAW_SHAPES,
        terms=_step_law,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}} + {C}\,\ln^2(\eta/\eta^*) + {G}\,\ln^2(b/b^*),"
        r"\quad \eta^* = {eta_0}\,N^{{-{a}}} D^{{{b}}},\quad b^* = {B_0}\,D^{{{c}}}",
        citation="Step Law, Li et al. 2025, arXiv:2503.04715: the best rate and batch; the valley around them, "
        "quadratic in logarithms, is ours: they say that it is convex",
        units=_step_law_units,
        chosen=("learning_rate", "batch_size"),
    ),
    Law(
        name="rate_and_batch",
        inputs=("params", "tokens", "learning_rate", "batch_size"),
        linear=("E", "A", "B", "C", "G"),
        shapes={
            **_STEP_LAW_SHAPES,
            "k": _MOVES,
            "w": Shape(0.01, 2.0, 0.2, 1.0, "about that of the loss: what can be gained shrinks with D"),
        },
        terms=_rate_and_batch,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}} + \left({C}\,\ln^2(\eta/\eta^*) + "
        r"{G}\,\ln^2(b/b^*)\right) D^{{-{w}}},\quad \eta^* = {eta_0}\,N^{{-{a}}} D^{{{b}}} b^{{{k}}},"
        r"\quad b^* = {B_0}\,D^{{{c}}}",
        citation="as step_law, and ours: the best rate moves with the batch, and valleys flatten with D",
        units=_rate_and_batch_units,
        chosen=("learning_rate", "batch_size"),
    ),
    Law(
        name="mistuned",
        inputs=("params", "tokens", "learning_rate", "batch_size"),
        linear=("E",),
        shapes={**COEFFICIENTS, **EXPONENTS, **COUPLING, **_BEST, "k": _MOVES, "C": _WASTED, "G": _WASTED},
        terms=_mistuned,
        latex=r"L = {E} + \left(({A}\,N^{{-{alpha}}})^{{1/{kappa}}} + ({B}\,D'^{{-{beta}}})^{{1/{kappa}}}"
        r"\right)^{{{kappa}}},\quad D' = D\,e^{{-{C}\,\ln^2(\eta/\eta^*) - {G}\,\ln^2(b/b^*)}},"
        r"\quad \eta^* = {eta_0}\,N^{{-{a}}} D^{{{b}}} b^{{{k}}},\quad b^* = {B_0}\,D^{{{c}}}",
        citation="ours: as coupled, of the tokens that count: a rate or batch that is off wastes some, in the valleys "
        "of rate_and_batch",
        units=_mistuned_units,
        chosen=("learning_rate", "batch_size"),
    ),
    Law(
        name="critical_batch",
        inputs=("params", "tokens", "batch_size"),
        linear=("E", "A", "B"),
        shapes={
            **EXPONENTS,
            "B_0": Shape(1e-3, 1e3, 1.0, 2.3, "that of the best run, give or take a factor of ten"),
            "c": Shape(0.01, 2.0, 0.47, 0.5, "0.47 (Zhang et al. 2024)"),
        },
        terms=_critical_batch,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,\left(D/(1 + b/b^*)\right)^{{-{beta}}},"
        r"\quad b^* = {B_0}\,D^{{{c}}}",
        citation="Zhang et al. 2024, arXiv:2410.21676: the critical batch b*; that D tokens then count as D/(1 + b/b*) "
        "is McCandlish et al. 2018, arXiv:1812.06162, and in the loss ours",
        units=_critical_batch_units,
    ),
)
