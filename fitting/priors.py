"""What is believed of a law before its runs are seen: from the literature, or learned from published testbeds.

`python -m fitting.priors FOLDER` learns `PUBLISHED` again from the testbeds in FOLDER (`fitting.published`) and prints
it. What is learned, and how:

- Shapes: each published ladder is fitted to all of its runs, targets included. The mean and the standard deviation over
  ladders of the logarithms of their shapes are the belief about the next ladder's, and with that belief they are fitted
  again, three times. Each corpus weighs the same, however many losses were measured on it. (Empirical Bayes by
  expectation-maximisation: Dempster, Laird & Rubin 1977; Efron & Morris 1975.)
- Growth, how much less a run is trusted the higher its loss: of 0, 1, 2, 3 and 4, the one with which a ladder's rungs
  predict its held-out targets best by the continuous ranked probability score (Gneiting & Raftery 2007, Eq. 20), a
  proper score in the unit of the miss, which one freak target does not decide as it would a likelihood.

To score a method that uses them on a published ladder, learn without the corpus of that ladder, as
`benchmarks/extrapolation.py` does.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from fitting import laws, uncertainty
from fitting.laws import Law
from fitting.uncertainty import Prior

GROWTHS = (0.0, 1.0, 2.0, 3.0, 4.0)
_STEPS = 3

_SOURCE = "python -m fitting.priors, on the testbeds of Gadre 2024, Bhagia 2024, Hoffmann 2022 and Muennighoff 2023"
PUBLISHED: Mapping[str, Prior] = {
    "over_training": Prior(shapes={"eta": (0.141, 0.142)}, growth=4.0, source=_SOURCE),
    "exponential_decay": Prior(shapes={"gamma": (0.859, 0.269)}, growth=0.0, source=_SOURCE),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One published ladder as a law sees it.

    Attributes:
      corpus: what it shares with other examples; each corpus weighs the same.
      x: the law's inputs at the N rungs, each [N].
      y_N: measurements.
      x_held_out: the law's inputs at the T targets, each [T].
      y_held_out_T: what the targets measured.
      relative: whether misses are relative to the measurement.
    """

    corpus: str
    x: tuple[np.ndarray, ...]
    y_N: np.ndarray
    x_held_out: tuple[np.ndarray, ...]
    y_held_out_T: np.ndarray
    relative: bool


def believed(law: Law, priors: Mapping[str, Prior], *, learned: bool) -> Prior:
    """What to believe of a law: its own shapes' medians and widths, or where `learned` those of `priors`, if there.

    How a run's noise grows with its loss is not of one recipe or unit, so it is that of `priors` in any case: for an
    error law that of the exponential decay, for a loss law that of the over-training law.
    """
    if learned and law.name in priors:
        return priors[law.name]
    kin = priors["exponential_decay" if "loss" in law.inputs else "over_training"]
    return Prior({name: (shape.median, shape.log_sd) for name, shape in law.shapes.items()}, kin.growth)


def learn(law: Law, examples: Sequence[Example], source: str = "") -> Prior:
    """The prior of `law` that published ladders teach; see the module for how.

    Raises:
      ValueError: fewer than two corpora, which cannot tell how different the next one may be.
    """
    corpora = sorted({example.corpus for example in examples})
    if len(corpora) < 2:
        raise ValueError(f"a prior is learned from at least two corpora; there is {', '.join(corpora) or 'none'}")
    weight_E = np.array([1 / sum(e.corpus == example.corpus for e in examples) for example in examples]) / len(corpora)
    options = [_with_growth(law, examples, weight_E, growth, source) for growth in GROWTHS]
    scores = [weight_E @ [_miss(law, example, prior) for example in examples] for prior in options]
    return options[int(np.argmin(scores))]


def _with_growth(law: Law, examples: Sequence[Example], weight_E: np.ndarray, growth: float, source: str) -> Prior:
    prior = Prior({name: (shape.median, shape.log_sd) for name, shape in law.shapes.items()}, growth, source)
    for _ in range(_STEPS):
        draws = [np.log(_with_targets(law, example, prior)) for example in examples]
        mean_Q = weight_E @ [draw_SxQ.mean(0) for draw_SxQ in draws]
        log_sd_Q = np.sqrt(weight_E @ [((draw_SxQ - mean_Q) ** 2).mean(0) for draw_SxQ in draws])
        shapes = zip(law.shapes, np.exp(mean_Q).tolist(), log_sd_Q.tolist(), strict=True)
        prior = dataclasses.replace(prior, shapes={name: (median, log_sd) for name, median, log_sd in shapes})
    return prior


def _with_targets(law: Law, example: Example, prior: Prior) -> np.ndarray:
    """Draws of the shapes given all runs of a ladder, its targets too."""
    x = [np.concatenate(pair) for pair in zip(example.x, example.x_held_out, strict=True)]
    y_N = np.concatenate([example.y_N, example.y_held_out_T])
    posterior = uncertainty.posterior(law, x, y_N, prior, relative=example.relative)
    return posterior.theta_SxP[:, len(law.linear) :]


def _miss(law: Law, example: Example, prior: Prior) -> float:
    """Mean continuous ranked probability score of a ladder's targets, predicted from its rungs."""
    posterior = uncertainty.posterior(law, example.x, example.y_N, prior, relative=example.relative)
    value_SxT = law.evaluate(posterior.theta_SxP.T[..., None], *example.x_held_out)
    size_SxT = value_SxT if example.relative else np.ones_like(value_SxT)
    value_SxT = (
        value_SxT
        + posterior.noise * size_SxT * uncertainty.normal_scores(len(value_SxT), np.random.default_rng(0))[:, None]
    )
    unit_T = example.y_held_out_T if example.relative else np.ones_like(example.y_held_out_T)
    return float(np.mean(ranked_probability_score(value_SxT, example.y_held_out_T) / unit_T))


def ranked_probability_score(value_SxT: np.ndarray, measured_T: np.ndarray) -> np.ndarray:
    """Of each target, mean |draw - measured| less half of mean |draw - other draw| (Gneiting & Raftery, Eq. 21)."""
    draws = len(value_SxT)
    rank_S = 2 * np.arange(1, draws + 1) - draws - 1
    return np.abs(value_SxT - measured_T).mean(0) - rank_S @ np.sort(value_SxT, 0) / draws**2


def main() -> None:
    """Prints `PUBLISHED` as learned from the testbeds in the folder on the command line."""
    from fitting import published

    if len(sys.argv) != 2:
        sys.exit("usage: python -m fitting.priors FOLDER, the folder of published testbeds")
    for law, examples in published.examples(published.ladders(sys.argv[1])).items():
        print(law, learn(laws.named(law), examples))


if __name__ == "__main__":
    main()
