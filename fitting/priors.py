"""What is believed of a law before its runs are seen: from the literature, or learned from published testbeds.

`python -m fitting.priors FOLDER` learns `PUBLISHED` again from the testbeds in FOLDER (`fitting.testbeds.published`)
and prints it.

Each published ladder is fitted to all of its runs, targets included. The mean and the standard deviation over ladders
of the logarithms of their shapes are the belief about the next ladder's, and with that belief they are fitted again,
three times. Each corpus weighs the same, however many losses were measured on it. (Empirical Bayes by
expectation-maximisation: Dempster, Laird & Rubin 1977; Efron & Morris 1975.)

To score a method that uses them on a published ladder, learn without the corpus of that ladder, as
`benchmarks/extrapolation.py` does.
"""

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

_SOURCE = "python -m fitting.priors, on the testbeds of Gadre 2024, Bhagia 2024, Hoffmann 2022 and Muennighoff 2023"
PUBLISHED: Mapping[str, Prior] = {
    "over_training": Prior(shapes={"eta": (0.152, 0.167)}, source=_SOURCE),
    "exponential_decay": Prior(shapes={"gamma": (0.875, 0.289)}, source=_SOURCE),
}


def believed(law: Law, priors: Mapping[str, Prior]) -> Prior:
    """What to believe of a law: what `priors` say of it, or else its own shapes' medians and widths."""
    own = {name: (shape.median, shape.log_sd) for name, shape in law.shapes.items()}
    return priors.get(law.name, Prior(own))


def learn(law: Law, examples: "Sequence[Example]", source: str = "") -> Prior:
    """The prior of `law` that published ladders teach; see the module for how.

    Raises:
      ValueError: fewer than two corpora, which cannot tell how different the next one may be.
    """
    corpora = sorted({example.corpus for example in examples})
    if len(corpora) < 2:
        raise ValueError(f"a prior is learned from at least two corpora; there is {', '.join(corpora) or 'none'}")
    weight_E = np.array([1 / sum(e.corpus == example.corpus for e in examples) for example in examples]) / len(corpora)
    prior = believed(law, {})
    for _ in range(_STEPS):
        draws = [np.log(_shape_draws(law, example, prior)) for example in examples]
        mean_Q = weight_E @ [draw_SxQ.mean(0) for draw_SxQ in draws]
        log_sd_Q = np.sqrt(weight_E @ [((draw_SxQ - mean_Q) ** 2).mean(0) for draw_SxQ in draws])
        shapes = zip(law.shapes, np.exp(mean_Q).tolist(), log_sd_Q.tolist(), strict=True)
        prior = Prior({name: (median, log_sd) for name, median, log_sd in shapes}, source=source)
    return prior


def _shape_draws(law: Law, example: "Example", prior: Prior) -> np.ndarray:
    posterior = uncertainty.posterior(law, example.x, example.y_N, prior, relative=example.relative)
    return posterior.theta_SxP[:, len(law.linear) :]


def main() -> None:
    """Prints `PUBLISHED` as learned from the testbeds in the folder on the command line."""
    from fitting.testbeds import published

    if len(sys.argv) != 2:
        sys.exit("usage: python -m fitting.priors FOLDER, the folder of published testbeds")
    for law, examples in published.examples(published.ladders(sys.argv[1])).items():
        print(law, learn(catalogue.named(law), examples))


if __name__ == "__main__":
    main()
