"""Loss laws of how large a vocabulary is."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, COEFFICIENTS, COUPLING, EXPONENTS, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law
from fitting.laws.params_and_tokens import coupled, power_units


def _vocabulary(shape: Sequence[Any], params_non_vocab: Any, params_vocab: Any, tokens: Any) -> Sequence[Any]:
    alpha_1, alpha_2, beta = shape
    return 1.0, exp(-alpha_1 * log(params_non_vocab)), exp(-alpha_2 * log(params_vocab)), exp(-beta * log(tokens))


def _vocabulary_coupled(shape: Sequence[Any], params_non_vocab: Any, params_vocab: Any, tokens: Any) -> Sequence[Any]:
    A, B, alpha, beta, gamma, delta, kappa = shape
    log_V = log(params_vocab)
    return coupled((A * exp(-gamma * log_V), B * exp(delta * log_V), alpha, beta, kappa), params_non_vocab, tokens)


def _vocabulary_coupled_units(
    shape: Sequence[Any], loss: Any, params_non_vocab: Any, params_vocab: Any, tokens: Any
) -> Mapping[str, Any]:
    *_, gamma, delta, _ = shape
    units = power_units(shape, loss, params_non_vocab, tokens)
    return {"A": units["A"] * params_vocab**gamma, "B": units["B"] * params_vocab**-delta}


_SMALL = "small beside the exponents of size and data"

LAWS = (
    Law(
        name="vocabulary",
        inputs=("params_non_vocab", "params_vocab", "tokens"),
        linear=("E", "A_1", "A_2", "B"),
        shapes={
            "alpha_1": EXPONENTS["alpha"],
            "alpha_2": exponent(0.5, CHINCHILLA, 1.0),
            "beta": EXPONENTS["beta"],
        },
        terms=_vocabulary,
        latex=r"L_u = {E} + {A_1}\,N_{{nv}}^{{-{alpha_1}}} + {A_2}\,N_v^{{-{alpha_2}}} + {B}\,D^{{-{beta}}}",
        citation="Tao et al. 2024, arXiv:2407.13623: L_u is less a unigram model's loss, and N_v is vocabulary "
        "times width; ours has L_u plus a constant, so that it is positive, and alpha_1 free of beta",
        chosen=("params_vocab",),
    ),
    Law(
        name="vocabulary_coupled",
        inputs=("params_non_vocab", "params_vocab", "tokens"),
        linear=("E",),
        shapes={
            **COEFFICIENTS,
            **EXPONENTS,
            "gamma": exponent(0.1, _SMALL, 1.0),
            "delta": exponent(0.1, _SMALL, 1.0),
            **COUPLING,
        },
        terms=_vocabulary_coupled,
        latex=r"L_u = {E} + \left(({A}\,N_{{nv}}^{{-{alpha}}} N_v^{{-{gamma}}})^{{1/{kappa}}} + "
        r"({B}\,D^{{-{beta}}} N_v^{{{delta}}})^{{1/{kappa}}}\right)^{{{kappa}}}",
        citation="ours: as coupled; a larger vocabulary adds to size, and each of its entries is seen less often. L_u "
        "is Tao et al. 2024's, arXiv:2407.13623, plus a constant above any unigram model's loss: E is positive",
        units=_vocabulary_coupled_units,
        chosen=("params_vocab",),
    ),
)
