"""Loss laws of how many bits a number has in training."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import EXPONENTS
from fitting.laws.elementary import expm1
from fitting.laws.law import Law, Shape
from fitting.laws.params_and_tokens import chinchilla


def _precision(shape: Sequence[Any], params: Any, tokens: Any, weight_bits: Any) -> Sequence[Any]:
    alpha, beta, gamma = shape
    return chinchilla((alpha, beta), -params * expm1(-weight_bits / gamma), tokens)


LAWS = (
    Law(
        name="precision",
        inputs=("params", "tokens", "weight_bits"),
        linear=("E", "A", "B"),
        shapes={
            **EXPONENTS,
            "gamma": Shape(0.1, 30.0, 2.7, 0.7, "2.67 bits (Kumar et al. 2024)"),
        },
        terms=_precision,
        latex=r"L = {E} + {A}\,\left(N\,(1 - e^{{-P/{gamma}}})\right)^{{-{alpha}}} + {B}\,D^{{-{beta}}}",
        citation="Kumar et al. 2024, arXiv:2411.04330: P bits a weight while training",
    ),
)
