"""What is believed of a law before its runs are seen: from the literature, or learned from published testbeds.

`python -m fitting.priors FOLDER` learns `PUBLISHED` again from the testbeds in FOLDER (`fitting.testbeds.published`)
and prints it.

Each published ladder is fitted to all of its runs, targets included. The mean and the standard deviation over ladders
of the logarithms of their shapes are the belief about the next ladder's; under that belief the draws of each ladder's
posterior weigh otherwise, and so on, three times. Each testbed weighs the same, however many ladders it has. (Empirical
Bayes by expectation-maximisation: Dempster, Laird & Rubin 1977; Efron & Morris 1975.)

To score a method that uses them on a published ladder, learn without its testbed, as `benchmarks/extrapolation.py`
does.
"""

import functools
import sys
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from fitting import uncertainty
from fitting.laws import catalogue
from fitting.laws.law import Law
from fitting.uncertainty import Prior

if typing.TYPE_CHECKING:
    from fitting.testbeds.published import Example

_STEPS = 3

_SOURCE = (
    "python -m fitting.priors, on the testbeds of Gadre 2024, Bhagia 2024, Hoffmann 2022, Muennighoff 2023, "
    "Porian 2024, Gemstones, Marin, Farseer and Step Law 2025"
)
PUBLISHED: Mapping[str, Prior] = {
    "coupled_tied": Prior(
        shapes={"alpha": (0.239, 0.310), "kappa": (0.397, 0.303), "M_opt": (23.7, 0.443)}, source=_SOURCE
    ),
    "over_training": Prior(shapes={"eta": (0.147, 0.275)}, source=_SOURCE),
    "exponential_decay": Prior(shapes={"gamma": (1.266, 0.354)}, source=_SOURCE),
}


def believed(law: Law, priors: Mapping[str, Prior]) -> Prior:
    """What to believe of a law: what `priors` say of it, or else its own shapes' medians and widths."""
    own = {name: (shape.median, shape.log_sd) for name, shape in law.shapes.items()}
    return priors.get(law.name, Prior(own))


def learn(law: Law, examples: "Sequence[Example]", source: str = "") -> Prior:
    """The prior of `law` that published ladders teach; see the module for how.

    Raises:
      ValueError: fewer than two testbeds, which cannot tell how different the next one may be.
    """
    testbeds = sorted({example.testbed for example in examples})
    if len(testbeds) < 2:
        raise ValueError(f"a prior is learned from at least two testbeds; there is {', '.join(testbeds) or 'none'}")
    votes_E = np.array([1 / sum(e.testbed == example.testbed for e in examples) for example in examples])
    vote_E = votes_E / len(testbeds)
    log_shape_ExSxQ = np.array([_log_shape_draws(law, example) for example in examples])
    begun_Qx2 = np.array([(np.log(median), log_sd) for median, log_sd in believed(law, {}).shapes.values()])
    mean_Q, log_sd_Q = begun_Qx2.T
    for _ in range(_STEPS):
        log_weight_ExS = _log_density(log_shape_ExSxQ, mean_Q, log_sd_Q) - _log_density(log_shape_ExSxQ, *begun_Qx2.T)
        weight_ExS = np.exp(log_weight_ExS - log_weight_ExS.max(1, keepdims=True))
        weight_ExS *= vote_E[:, None] / weight_ExS.sum(1, keepdims=True)
        mean_Q = np.einsum("es,esq->q", weight_ExS, log_shape_ExSxQ)
        log_sd_Q = np.sqrt(np.einsum("es,esq->q", weight_ExS, (log_shape_ExSxQ - mean_Q) ** 2))
    shapes = zip(law.shapes, np.exp(mean_Q).tolist(), log_sd_Q.tolist(), strict=True)
    return Prior({name: (median, log_sd) for name, median, log_sd in shapes}, source=source)


def _log_density(log_shape_ExSxQ: np.ndarray, mean_Q: np.ndarray, log_sd_Q: np.ndarray) -> np.ndarray:
    return -np.square((log_shape_ExSxQ - mean_Q) / log_sd_Q).sum(-1) / 2


@functools.cache  # learned from once for every testbed that is left out
def _log_shape_draws(law: Law, example: "Example") -> np.ndarray:
    prior = believed(law, {})
    posterior = uncertainty.posterior(
        law, example.x, example.y_N, prior, relative=example.relative, log_size_NxF=example.log_size_NxF
    )
    return np.log(posterior.theta_SxP[:, len(law.linear) :])


def main() -> None:
    """Prints `PUBLISHED` as learned from the testbeds in the folder on the command line."""
    from fitting.testbeds import published

    if len(sys.argv) != 2:
        sys.exit("usage: python -m fitting.priors FOLDER, the folder of published testbeds")
    for law, examples in published.examples(published.ladders(sys.argv[1])).items():
        print(law, learn(catalogue.named(law), examples))


if __name__ == "__main__":
    main()
