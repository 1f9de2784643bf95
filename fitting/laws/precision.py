"""Loss laws of how many bits a number has in training."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import EXPONENTS
from fitting.laws.elementary import exp, expm1, log
from fitting.laws.law import Law, Shape
from fitting.laws.params_and_tokens import chinchilla


def _precision(shape: Sequence[Any], params: Any, tokens: Any, weight_bits: Any) -> Sequence[Any]:
    alpha, beta, gamma = shape
    return chinchilla((alpha, beta), -params * expm1(-weight_bits / gamma), tokens)


def _quantised(shape: Sequence[Any], params: Any, tokens: Any, quantised_bits: Any) -> Sequence[Any]:
    alpha, beta, gamma_D, gamma_N, gamma = shape
    harm = exp(gamma_D * log(tokens) - gamma_N * log(params) - quantised_bits / gamma)
    return *chinchilla((alpha, beta), params, tokens), harm


def _quantised_power(shape: Sequence[Any], params: Any, tokens: Any, quantised_bits: Any) -> Sequence[Any]:
    alpha, beta, gamma_D, gamma_N, gamma = shape
    harm = exp(gamma_D * log(tokens) - gamma_N * log(params) - gamma * log(quantised_bits))
    return *chinchilla((alpha, beta), params, tokens), harm


_KUMAR = "Kumar et al. 2024, Table 2"
_OUYANG = "Ouyang et al. 2024, of Pythia by GPTQ"

LAWS = (
    Law(
        name="precision",
        inputs=("params", "tokens", "weight_bits"),
        linear=("E", "A", "B"),
        shapes={
            **EXPONENTS,
            "gamma": Shape(0.1, 30.0, 2.7, 0.7, f"2.67 bits ({_KUMAR})"),
        },
        terms=_precision,
        latex=r"L = {E} + {A}\,\left(N\,(1 - e^{{-P/{gamma}}})\right)^{{-{alpha}}} + {B}\,D^{{-{beta}}}",
        citation="Kumar et al. 2024, arXiv:2411.04330: P bits a weight while training",
    ),
    Law(
        name="quantised",
        inputs=("params", "tokens", "quantised_bits"),
        linear=("E", "A", "B", "C"),
        shapes={
            **EXPONENTS,
            "gamma_D": Shape(0.01, 3.0, 0.5, 0.5, f"0.507 ({_KUMAR})"),
            "gamma_N": Shape(0.01, 3.0, 0.34, 0.5, f"0.344 ({_KUMAR})"),
            "gamma": Shape(0.05, 10.0, 0.59, 0.5, f"0.591 bits ({_KUMAR})"),
        },
        terms=_quantised,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}} + "
        r"{C}\,D^{{{gamma_D}}}\,N^{{-{gamma_N}}}\,e^{{-P/{gamma}}}",
        citation="Kumar et al. 2024, arXiv:2411.04330: quantised to P bits a weight after training",
    ),
    Law(
        name="quantised_power",
        inputs=("params", "tokens", "quantised_bits"),
        linear=("E", "A", "B", "C"),
        shapes={
            **EXPONENTS,
            "gamma_D": Shape(0.01, 3.0, 0.53, 0.5, f"0.525 ({_OUYANG})"),
            "gamma_N": Shape(0.01, 3.0, 0.23, 0.5, f"0.226 ({_OUYANG})"),
            "gamma": Shape(0.1, 20.0, 5.5, 0.5, f"5.50 ({_OUYANG})"),
        },
        terms=_quantised_power,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}} + "
        r"{C}\,D^{{{gamma_D}}}\,N^{{-{gamma_N}}}\,P^{{-{gamma}}}",
        citation="Ouyang et al. 2024, arXiv:2411.17691: what P bits after training harm; the law beneath is ours",
    ),
)
