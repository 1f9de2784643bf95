"""Loss laws of models that read their input in several parallel streams."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import EXPONENTS, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape


def _parallel_streams(shape: Sequence[Any], params: Any, streams: Any) -> Sequence[Any]:
    alpha, k = shape
    return 1.0, exp(-alpha * (log(params) + log(1 + k * log(streams))))


def _streams_power(shape: Sequence[Any], params: Any, streams: Any) -> Sequence[Any]:
    alpha, beta = shape
    size, of_streams = exp(-alpha * log(params)), exp(-beta * log(streams))
    return 1.0, size, of_streams, size * of_streams


LAWS = (
    Law(
        name="parallel_streams",
        inputs=("params", "streams"),
        linear=("E", "A"),
        shapes={
            "alpha": EXPONENTS["alpha"],
            "k": Shape(1e-3, 20.0, 0.37, 0.7, "0.33 to 0.39 (Chen et al. 2025)"),
        },
        terms=_parallel_streams,
        latex=r"L = {E} + {A}\,\left(N\,(1 + {k}\,\ln P)\right)^{{-{alpha}}}",
        citation="ParScale, Chen et al. 2025, arXiv:2505.10475: P streams, at one D; our A is their A^alpha",
        least={"streams": 1.0},
    ),
    Law(
        name="streams_power",
        inputs=("params", "streams"),
        linear=("E", "A", "B", "C"),
        shapes={"alpha": EXPONENTS["alpha"], "beta": exponent(0.34, "like that of size")},
        terms=_streams_power,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,P^{{-{beta}}} + {C}\,N^{{-{alpha}}} P^{{-{beta}}}",
        citation="ScaleBench, Li et al. 2026, arXiv:2604.22753: P streams, at one D; ours has no negative term",
        least={"streams": 1.0},
    ),
)
