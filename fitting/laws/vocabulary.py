"""Loss laws of how large a vocabulary is."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, EXPONENTS, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law


def _vocabulary(shape: Sequence[Any], params_non_vocab: Any, params_vocab: Any, tokens: Any) -> Sequence[Any]:
    alpha_1, alpha_2, beta = shape
    return 1.0, exp(-alpha_1 * log(params_non_vocab)), exp(-alpha_2 * log(params_vocab)), exp(-beta * log(tokens))


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
)
