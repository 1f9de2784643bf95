"""Loss laws of models that read their input in several parallel streams."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import EXPONENTS
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape


def _parallel_streams(shape: Sequence[Any], params: Any, streams: Any) -> Sequence[Any]:
    alpha, k = shape
    return 1.0, exp(-alpha * (log(params) + log(1 + k * log(streams))))


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
)
