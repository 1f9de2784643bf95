"""Loss laws of one run's learning rate, step by step."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law


def _annealing(shape: Sequence[Any], lr_area: Any, lr_annealing: Any) -> Sequence[Any]:
    (alpha,) = shape
    return 1.0, exp(-alpha * log(lr_area)), -lr_annealing


LAWS = (
    Law(
        name="annealing",
        inputs=("lr_area", "lr_annealing"),
        linear=("L_0", "A", "C"),
        shapes={"alpha": exponent(0.5, "0.4 to 0.6 (Tissue et al. 2024)")},
        terms=_annealing,
        latex=r"L = {L_0} + {A}\,S_1^{{-{alpha}}} - {C}\,S_2",
        signed=("lr_annealing",),  # nothing while the rate is constant, less while it rises
        citation="Tissue et al. 2024, arXiv:2408.11029: S1 and S2 as in `fitting.testbeds.curves`",
    ),
)
