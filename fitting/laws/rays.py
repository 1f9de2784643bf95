"""Loss laws along a ray: of runs that all have one D/N, one D or one N, which cannot tell size from data.

They hold along that ray alone: what another trade between size and data would give, no run has shown.
"""

import math
from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, EXPONENTS, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law


def _power(shape: Sequence[Any], size: Any) -> Sequence[Any]:
    (exponent_of_size,) = shape
    return 1.0, exp(-exponent_of_size * log(size))


def _compute(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    (gamma,) = shape
    return 1.0, exp(-gamma * (math.log(6) + log(params) + log(tokens)))


LAWS = (
    Law(
        name="compute",
        inputs=("params", "tokens"),
        linear=("E", "c"),
        shapes={
            "gamma": exponent(0.17, f"half of that of N and of D, as N and D grow with the root of C: {CHINCHILLA}")
        },
        terms=_compute,
        latex=r"L = {E} + {c}\,C^{{-{gamma}}}",
        citation="Hoffmann et al. 2022, arXiv:2203.15556, Eq. 2 along one D/N, exponents alike; C = 6ND",
    ),
    Law(
        name="params_only",
        inputs=("params",),
        linear=("E", "A"),
        shapes={"alpha": EXPONENTS["alpha"]},
        terms=_power,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}}",
        citation="Hoffmann et al. 2022, arXiv:2203.15556, Eq. 2 at one D",
    ),
    Law(
        name="tokens_only",
        inputs=("tokens",),
        linear=("E", "B"),
        shapes={"beta": EXPONENTS["beta"]},
        terms=_power,
        latex=r"L = {E} + {B}\,D^{{-{beta}}}",
        citation="Hoffmann et al. 2022, arXiv:2203.15556, Eq. 2 at one N",
    ),
)
