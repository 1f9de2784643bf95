"""Loss laws of N and D: parameters, and tokens that are all new."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, COEFFICIENTS, COUPLING, EXPONENTS, SIZE_ONLY, exponent
from fitting.laws.elementary import exp, log, logaddexp
from fitting.laws.law import Law, Shape


def _over_training(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    (eta,) = shape
    log_multiplier = log(tokens) - log(params)
    log_flops = math.log(6) + log(params) + log(tokens)
    return 1.0, exp(eta * (log_multiplier - log_flops)), exp(-eta * (log_multiplier + log_flops))


def chinchilla(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    """Terms that do not interact: what size buys, and what data buys."""
    alpha, beta = shape
    return 1.0, exp(-alpha * log(params)), exp(-beta * log(tokens))


def _chinchilla_tied(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    (alpha,) = shape
    return chinchilla((alpha, alpha), params, tokens)


def _kaplan(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    N_c, D_c, alpha_N, alpha_D = shape
    size = alpha_N / alpha_D * (log(N_c) - log(params))
    return (exp(alpha_D * logaddexp(size, log(D_c) - log(tokens))),)


def _kaplan_units(shape: Sequence[Any], loss: Any, params: Any, tokens: Any) -> Mapping[str, Any]:
    _, _, alpha_N, alpha_D = shape
    return {"N_c": params * loss ** (1 / alpha_N), "D_c": tokens * loss ** (1 / alpha_D)}


def coupled(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    """Terms that interact: the larger counts for more than its share, the more so the smaller kappa is."""
    A, B, alpha, beta, kappa = shape
    size = (log(A) - alpha * log(params)) / kappa
    data = (log(B) - beta * log(tokens)) / kappa
    return 1.0, exp(kappa * logaddexp(size, data))


def _coupled_tied(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    alpha, kappa, M_opt = shape
    exponent = -alpha / kappa
    return 1.0, exp(kappa * logaddexp(exponent * log(params), exponent * (log(tokens) - log(M_opt))))


def power_units(shape: Sequence[Any], loss: Any, params: Any, tokens: Any, *_: Any) -> Mapping[str, Any]:
    """A and B in the units of a power law of each: the size at which it alone makes all of the loss."""
    _, _, alpha, beta = shape[:4]
    return {"A": loss * params**alpha, "B": loss * tokens**beta}


_ALL_TESTBEDS = "near what fitting.priors learns from nine published testbeds, with scores in view"

LAWS = (
    Law(
        name="over_training",
        inputs=("params", "tokens"),
        linear=("E", "a", "b"),
        shapes={
            "eta": Shape(
                low=0.02,
                high=1.0,
                median=0.17,
                log_sd=0.25,
                source=f"2 eta is the exponent of N and of D: {CHINCHILLA}; widened for other data",
            )
        },
        terms=_over_training,
        latex=r"L = {E} + ({a}\,M^{{{eta}}} + {b}\,M^{{-{eta}}})\,C^{{-{eta}}}",
        citation="Gadre et al. 2024, arXiv:2403.08540, Eq. 4; C = 6ND, M = D/N",
    ),
    Law(
        name="chinchilla",
        inputs=("params", "tokens"),
        linear=("E", "A", "B"),
        shapes=EXPONENTS,
        terms=chinchilla,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}}",
        citation="Hoffmann et al. 2022, arXiv:2203.15556, Eq. 2",
    ),
    Law(
        name="chinchilla_tied",
        inputs=("params", "tokens"),
        linear=("E", "A", "B"),
        shapes={"alpha": exponent(0.34, CHINCHILLA)},
        terms=_chinchilla_tied,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{alpha}}}",
        citation="Muennighoff et al. 2023, arXiv:2305.16264, Appendix A: Hoffmann et al. 2022, Eq. 2, one exponent",
    ),
    Law(
        name="kaplan",
        inputs=("params", "tokens"),
        linear=(),
        shapes={
            "N_c": Shape(1e-9, 10.0, 0.1, 2.3, SIZE_ONLY),
            "D_c": Shape(1e-9, 10.0, 0.1, 2.3, SIZE_ONLY),
            "alpha_N": exponent(0.076, "Kaplan et al. 2020, Table 2"),
            "alpha_D": exponent(0.095, "Kaplan et al. 2020, Table 2"),
        },
        terms=_kaplan,
        latex=r"L = \left(({N_c}/N)^{{{alpha_N}/{alpha_D}}} + {D_c}/D\right)^{{{alpha_D}}}",
        citation="Kaplan et al. 2020, arXiv:2001.08361, Eq. 1.5",
        units=_kaplan_units,
    ),
    Law(
        name="coupled",
        inputs=("params", "tokens"),
        linear=("E",),
        shapes={**COEFFICIENTS, **EXPONENTS, **COUPLING},
        terms=coupled,
        latex=r"L = {E} + \left(({A}\,N^{{-{alpha}}})^{{1/{kappa}}} + ({B}\,D^{{-{beta}}})^{{1/{kappa}}}"
        r"\right)^{{{kappa}}}",
        citation="Skaling, arXiv:2608.07222; kappa = 1 is Hoffmann et al. 2022, Eq. 2",
        units=power_units,
    ),
    Law(
        name="coupled_tied",
        inputs=("params", "tokens"),
        linear=("E", "c"),
        shapes={
            "alpha": exponent(0.27, _ALL_TESTBEDS, 0.25),
            "kappa": Shape(0.05, 4.0, 0.7, 0.7, "from terms that add to the scarcer alone: testbeds differ"),
            "M_opt": Shape(1e-2, 1e5, 24.0, 0.46, _ALL_TESTBEDS),
        },
        terms=_coupled_tied,
        latex=r"L = {E} + {c}\left(N^{{-{alpha}/{kappa}}} + (D/{M_opt})^{{-{alpha}/{kappa}}}\right)^{{{kappa}}}",
        citation="Skaling, arXiv:2608.07222, with one exponent; kappa = 1 is Gadre et al. 2024, Eq. 4",
    ),
)
