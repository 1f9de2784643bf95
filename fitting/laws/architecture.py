"""Loss laws of how a model's parameters are laid out."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, EXPONENTS, SCALE_ONLY, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law
from fitting.laws.params_and_tokens import chinchilla


def _width_depth(shape: Sequence[Any], width: Any, depth: Any, tokens: Any) -> Sequence[Any]:
    alpha, beta, zeta = shape
    return 1.0, exp(-alpha * log(width)), exp(-beta * log(depth)), exp(-zeta * log(tokens))


LAWS = (
    Law(
        name="width_depth",
        inputs=("width", "depth", "tokens"),
        linear=("E", "A", "B", "C"),
        shapes={
            "alpha": exponent(0.7, "width is about the root of N: twice N's exponent", 0.7),
            "beta": exponent(0.5, SCALE_ONLY, 1.0),
            "zeta": exponent(0.34, CHINCHILLA),
        },
        terms=_width_depth,
        latex=r"L = {E} + {A}\,w^{{-{alpha}}} + {B}\,d^{{-{beta}}} + {C}\,D^{{-{zeta}}}",
        citation="Gemstones, McLeish et al. 2025, arXiv:2502.06857: width w, depth d; without a term in N",
    ),
    Law(
        name="average_params",
        inputs=("params_average", "tokens"),
        linear=("E", "A", "B"),
        shapes=EXPONENTS,
        terms=chinchilla,
        latex=r"L = {E} + {A}\,\bar{{N}}^{{-{alpha}}} + {B}\,D^{{-{beta}}}",
        citation="Jin et al. 2025, arXiv:2501.12486: pruned while training, N averaged over its tokens",
    ),
)
