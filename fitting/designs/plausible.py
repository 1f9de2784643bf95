"""What is foreseen of a ladder before its first run: laws drawn from what published testbeds taught.

Several forms, shapes drawn from their priors, a reducible loss drawn from that of the testbeds, and noise as
`fitting.uncertainty` believes it. What a fit will be able to tell is weighed by the same beliefs, so a design is made
for the fit that will be made of it. No loss of the ladder's own is looked at, for there is none.

`python -m fitting.designs.plausible FOLDER` learns `REDUCIBLE` again from the testbeds in FOLDER and prints it.
"""

import functools
import math
import statistics
import sys
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from fitting import uncertainty
from fitting.designs.design import FLAT, Outlook
from fitting.laws import catalogue
from fitting.laws.law import Law
from fitting.linear import slopes
from fitting.priors import PUBLISHED, believed
from fitting.uncertainty import GROWTHS, NOISE, NOISE_LOG_SD, Prior, alike, apart

if typing.TYPE_CHECKING:
    from fitting.testbeds.published import Example

FORMS = ("coupled_tied", "chinchilla", "over_training")
# The loss beyond E over E, of a compute-optimal run of `REFERENCE` parameters: median, standard deviation of the log.
REDUCIBLE = (0.63, 0.6)
REFERENCE_PARAMS = 1e9
_MISFITS = (0.1, 0.5, 0.9)
_DRAWS = 96
_COEFFICIENT_LOG_SD = 1.0  # what is known of each term's size beside the loss as a whole, of which nothing is


def outlook(
    size_Kx2: np.ndarray,
    target_Tx2: np.ndarray,
    *,
    priors: Mapping[str, Prior] = PUBLISHED,
    reducible: tuple[float, float] = REDUCIBLE,
    forms: Sequence[str] = FORMS,
    draws: int = _DRAWS,
    seed: int = 0,
) -> Outlook:
    """What plausible laws foresee of K runs (N, D) and of T targets, losses relative.

    Noise is as large as believed at the lowest loss of the K runs, and grows from there.

    Args:
      size_Kx2: the runs that could be bought.
      target_Tx2: what is to be predicted.
      priors: of the shapes of the forms, by name; where they have none the form's own.
      reducible: median, and standard deviation of the logarithm, of the loss beyond E over E at `REFERENCE_PARAMS`.
      forms: names of laws of N and D.
      draws: how many laws, the forms taking turns.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    log_noise = uncertainty.normal_scores(draws, rng)
    log_reducible = uncertainty.normal_scores(draws, rng)
    log_multiplier = uncertainty.normal_scores(draws, rng)
    growth_H = rng.permutation(np.resize(GROWTHS, draws))
    misfit_H = rng.permutation(np.resize(_MISFITS, draws))
    noise_H = NOISE * np.exp(NOISE_LOG_SD * np.asarray(log_noise))
    reducible_H = reducible[0] * np.exp(reducible[1] * np.asarray(log_reducible))
    median, log_sd = believed(catalogue.named("coupled_tied"), priors).shapes["M_opt"]
    multiplier_H = median * np.exp(log_sd * np.asarray(log_multiplier))
    everything = np.concatenate([target_Tx2, size_Kx2])
    targets = len(target_Tx2)
    slope_H: list[np.ndarray] = []
    scale_H: list[np.ndarray] = []
    most = 1 + max(len(catalogue.named(form).parameters) for form in forms)
    for h in range(draws):
        form = catalogue.named(forms[h % len(forms)])
        theta_P, sd_P = _drawn(form, priors, reducible_H[h], multiplier_H[h], rng)
        slope_1xIxP, loss_1xI = slopes(form, theta_P[None], (*everything.T,))
        relative_IxP = slope_1xIxP[0] / loss_1xI[0][:, None] * sd_P
        level_Ix1 = np.full((len(everything), 1), FLAT)
        none = np.zeros((len(everything), most - 1 - len(sd_P)))
        slope_H.append(np.concatenate([level_Ix1, relative_IxP, none], 1))
        loss_K = loss_1xI[0, targets:]
        scale_H.append(noise_H[h] * (loss_K / loss_K.min()) ** growth_H[h])
    slope_HxIxP = np.stack(slope_H)
    return Outlook(
        size_Kx2=size_Kx2,
        slope_HxKxP=slope_HxIxP[:, targets:],
        target_HxTxP=slope_HxIxP[:, :targets],
        scale_HxK=np.stack(scale_H),
        misfit_H=misfit_H,
        alike_KxK=alike(apart(np.log(size_Kx2), np.log(size_Kx2))),
        target_noise_H=noise_H,
        apart_TxK=apart(np.log(target_Tx2), np.log(size_Kx2)),
    )


def _drawn(
    form: Law, priors: Mapping[str, Prior], reducible: float, multiplier: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Parameters of one law whose E is 1, and what is known beforehand of the logarithm of each."""
    beliefs = believed(form, priors).shapes
    shapes = {name: median * np.exp(sd * rng.standard_normal()) for name, (median, sd) in beliefs.items()}
    shapes = {name: shapes[name] for name in form.shapes}
    if "M_opt" in shapes:
        shapes["M_opt"] = multiplier
    sd_P = [_COEFFICIENT_LOG_SD] * len(form.linear) + [beliefs[name][1] for name in form.shapes]
    shape_Q = np.array([*shapes.values()])
    size = np.array([[REFERENCE_PARAMS], [REFERENCE_PARAMS * multiplier]])
    _, *term_J = (float(term.ravel()[0]) for term in map(np.asarray, form.evaluate_terms(shape_Q, *size)))
    share_J = np.full(len(term_J), 1 / len(term_J))
    if form.name == "chinchilla":  # at the optimal multiplier alpha A N^-alpha is beta B D^-beta
        alpha, beta = shape_Q
        share_J = np.array([beta, alpha]) / (alpha + beta)
    return np.concatenate([[1.0], reducible * share_J / np.array(term_J), shape_Q]), np.array(sd_P)


def learn_reducible(examples: "Sequence[Example]") -> tuple[float, float]:
    """What `REDUCIBLE` says, of published ladders: over testbeds, each of them weighing the same."""
    found: dict[str, list[np.ndarray]] = {}
    for example in examples:
        found.setdefault(example.testbed, []).append(_log_reducible_draws(example))
    testbeds = [np.stack(some) for some in found.values()]
    means = [float(some.mean()) for some in testbeds]
    within = float(np.mean([some.var() for some in testbeds]))
    return math.exp(statistics.fmean(means)), math.sqrt(statistics.pvariance(means) + within)


@functools.cache  # learned from once for every testbed that is left out
def _log_reducible_draws(example: "Example") -> np.ndarray:
    law = catalogue.named("coupled_tied")
    theta_PxS = uncertainty.posterior(
        law,
        example.x,
        example.y_N,
        believed(law, {}),
        relative=example.relative,
        log_size_NxF=example.log_size_NxF,
    ).theta_SxP.T
    loss_S = law.evaluate(theta_PxS, REFERENCE_PARAMS, REFERENCE_PARAMS * theta_PxS[law.parameters.index("M_opt")])
    # A fit may leave all of E open; what nobody would believe of it does not count.
    return np.clip(np.log(loss_S / theta_PxS[0] - 1), np.log(0.05), np.log(20))


def main() -> None:
    """Prints `REDUCIBLE` as learned from the testbeds in the folder on the command line."""
    from fitting.testbeds import published

    if len(sys.argv) != 2:
        sys.exit("usage: python -m fitting.designs.plausible FOLDER, the folder of published testbeds")
    print(learn_reducible(published.examples(published.ladders(sys.argv[1]))["coupled_tied"]))


if __name__ == "__main__":
    main()
