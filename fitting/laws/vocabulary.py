"""Loss laws of how large a vocabulary is."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, COEFFICIENTS, COUPLING, EXPONENTS, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape
from fitting.laws.params_and_tokens import coupled, power_units


def _vocabulary(shape: Sequence[Any], params_non_vocab: Any, params_vocab: Any, tokens: Any) -> Sequence[Any]:
    alpha_1, alpha_2, beta = shape
    return 1.0, exp(-alpha_1 * log(params_non_vocab)), exp(-alpha_2 * log(params_vocab)), exp(-beta * log(tokens))


def _vocabulary_valley(
    shape: Sequence[Any], params_non_vocab: Any, params_vocab: Any, width: Any, tokens: Any
) -> Sequence[Any]:
    A, B, alpha, beta, gamma, kappa, V_0 = shape
    size = A * exp(-gamma * log(params_vocab))
    irreducible, reducible = coupled((size, B, alpha, beta, kappa), params_non_vocab, tokens)
    return irreducible, (log(params_vocab) - log(width) - log(V_0)) ** 2, reducible


def _vocabulary_valley_units(
    shape: Sequence[Any], loss: Any, params_non_vocab: Any, params_vocab: Any, width: Any, tokens: Any
) -> Mapping[str, Any]:
    _, _, alpha, beta, gamma, _, _ = shape
    units = power_units((None, None, alpha, beta), loss, params_non_vocab, tokens)
    return {"A": units["A"] * params_vocab**gamma, "B": units["B"], "V_0": params_vocab / width}


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
        name="vocabulary_valley",
        inputs=("params_non_vocab", "params_vocab", "width", "tokens"),
        linear=("E", "F"),
        shapes={
            **COEFFICIENTS,
            **EXPONENTS,
            "gamma": exponent(0.1, "small beside the exponents of size and data", 1.0),
            **COUPLING,
            "V_0": Shape(1e-3, 1e3, 1.0, 2.3, "amid the vocabularies tried, give or take a factor of ten"),
        },
        terms=_vocabulary_valley,
        latex=r"L_u = {E} + {F}\,\ln^2(V/{V_0}) + \left(({A}\,N_{{nv}}^{{-{alpha}}} N_v^{{-{gamma}}})^{{1/{kappa}}} + "
        r"({B}\,D^{{-{beta}}})^{{1/{kappa}}}\right)^{{{kappa}}}",
        citation="ours: as coupled; a larger vocabulary V = N_v / width adds to size, and to what no size or data "
        "takes away. L_u is Tao et al. 2024's, arXiv:2407.13623, plus a constant above any unigram model's loss",
        units=_vocabulary_valley_units,
        chosen=("params_vocab",),
    ),
)
