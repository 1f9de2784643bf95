"""Loss laws of how long a run may take."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import EXPONENTS
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape


def _wall_clock(shape: Sequence[Any], params: Any, seconds: Any) -> Sequence[Any]:
    alpha, beta, k = shape
    log_N = log(params)
    return 1.0, exp(-alpha * log_N), exp(-beta * (log(seconds) - k * log_N))


LAWS = (
    Law(
        name="wall_clock",
        inputs=("params", "seconds"),
        linear=("E", "A", "B"),
        shapes={**EXPONENTS, "k": Shape(0.1, 2.0, 0.8, 0.5, "1 where compute binds, less where copies do")},
        terms=_wall_clock,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,(t/N^{{{k}}})^{{-{beta}}}",
        citation="Time Matters, Inbar & Sernau 2024, arXiv:2406.18922: tokens are what t seconds allow; theirs counts "
        "memory copies by width and depth, ours has a token take N^k",
    ),
)
