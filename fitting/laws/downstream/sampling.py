"""Laws of how often a task is solved: their y is minus the logarithm of the share solved, a loss in nats a task."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law


def _power(shape: Sequence[Any], size: Any) -> Sequence[Any]:
    (alpha,) = shape
    return (exp(-alpha * log(size)),)


def _coverage_of_size(shape: Sequence[Any], params: Any, tries: Any) -> Sequence[Any]:
    alpha, b = shape
    return (exp(-alpha * log(params) - b * log(tries)),)


_TRIES = "about 0.4 of some tasks (Brown et al. 2024): a starting range"
_SIZE = "a starting range"

LAWS = (
    Law(
        name="coverage",
        inputs=("tries",),
        linear=("A",),
        shapes={"b": exponent(0.4, _TRIES, 0.7)},
        terms=_power,
        latex=r"-\ln C = {A}\,k^{{-{b}}}",
        citation="Brown et al. 2024, arXiv:2407.21787: C = exp(a k^b) of the tasks are solved by one of k tries; ours "
        "has the signs written out",
        least={"tries": 1.0},
    ),
    Law(
        name="pass_until",
        inputs=("params",),
        linear=("A",),
        shapes={"alpha": exponent(0.3, _SIZE, 1.0)},
        terms=_power,
        latex=r"-\ln P = {A}\,N^{{-{alpha}}}",
        citation="PassUntil, Hu et al. 2023, arXiv:2310.03262, Eq. 3: P of tries pass, at one D/N",
    ),
    Law(
        name="coverage_of_size",
        inputs=("params", "tries"),
        linear=("A",),
        shapes={"alpha": exponent(0.3, _SIZE, 1.0), "b": exponent(0.4, _TRIES, 0.7)},
        terms=_coverage_of_size,
        latex=r"-\ln C = {A}\,N^{{-{alpha}}}\,k^{{-{b}}}",
        citation="ours: coverage and pass_until in one",
        least={"tries": 1.0},
    ),
)
