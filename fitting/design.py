"""Which run to add to a ladder: the one that tells most about the target for its compute."""

import dataclasses
import math

import numpy as np

from fitting.artifacts.fitted import FittedLaw
from fitting.laws import catalogue
from fitting.uncertainty import Noise

_SIZES, _MULTIPLIERS = 13, 7


@dataclasses.dataclass(frozen=True)
class NextRun:
    """A run that could be added to the ladder.

    Attributes:
      params: N.
      tokens: D.
      flops: C = 6ND.
      doubt_left: what the run would leave of the standard deviation of the target's loss that the uncertainty of the
        law's parameters causes, as a fraction.
    """

    params: float
    tokens: float
    flops: float
    doubt_left: float


def next_runs(law: FittedLaw, params: float, tokens: float) -> tuple[float, tuple[NextRun, ...]]:
    """The doubt about the loss of the target (N, D), and the runs that would take most of it, by cost.

    Candidates are of the ladder's sizes and up to four times its largest, of its token multipliers, and take no more
    compute than the whole ladder did. Those are kept of which no cheaper one tells as much.

    Returns:
      The standard deviation, of the target's loss that the parameters' uncertainty causes; the runs.
    """
    candidate_Kx2 = _candidates(law)
    target_doubt, left_K = doubt(law, (params, tokens), candidate_Kx2)
    flops_K = 6 * candidate_Kx2.prod(1)
    frontier: list[int] = []
    for k in np.lexsort((left_K, flops_K)):
        if left_K[k] < 0.995 * (left_K[frontier[-1]] if frontier else 1):
            frontier.append(int(k))
    return target_doubt, tuple(NextRun(*map(float, (*candidate_Kx2[k], flops_K[k], left_K[k]))) for k in frontier)


def doubt(law: FittedLaw, target: tuple[float, float], candidate_Kx2: np.ndarray) -> tuple[float, np.ndarray]:
    """The doubt about the loss of the target (N, D), and the fraction of it that each candidate (N, D) would leave.

    The law is taken as linear in its parameters near the fit, with slopes by autodiff (optimal design for one
    prediction, c-optimality; Chaloner & Verdinelli 1995, section 2). What the runs tell is weighed as the fit weighs
    it: a run of higher loss less, and one near others for its own scatter alone.
    """
    ladder_Nx2 = np.array([(point.params, point.tokens) for point in law.loss.points])
    x_Ix2 = np.array([target, *ladder_Nx2, *candidate_Kx2])
    slope_IxP, loss_I = _slopes(law, x_Ix2)
    ladder = list(range(1, 1 + len(ladder_Nx2)))

    def doubt_with(rows: list[int]) -> float:
        told_RxP = _whiten(law, x_Ix2[rows], loss_I[rows]) @ slope_IxP[rows]
        return linear_doubt(slope_IxP[0], told_RxP, _prior_information(law))

    before = doubt_with(ladder)
    after_K = [doubt_with([*ladder, i]) for i in range(1 + len(ladder_Nx2), len(x_Ix2))]
    return before, np.array(after_K) / before


def linear_doubt(target_P: np.ndarray, told_NxP: np.ndarray, prior_P: np.ndarray) -> float:
    """Standard deviation of a linear prediction t: of t'St, S the inverse of the information diag(prior) + sum g g'.

    Args:
      target_P: t, slope of the target in each of P parameters.
      told_NxP: g, slopes of the N runs there are, over their noise.
      prior_P: information on each parameter beforehand, 1 / variance.
    """
    covariance_PxP = np.linalg.pinv(told_NxP.T @ told_NxP + np.diag(prior_P), rcond=1e-14, hermitian=True)
    return math.sqrt(target_P @ covariance_PxP @ target_P)


def _candidates(law: FittedLaw) -> np.ndarray:
    """(N, D) of every candidate."""
    points = law.loss.points
    sizes = [point.params for point in points]
    multipliers = [point.token_multiplier for point in points]
    grid_Kx2 = np.array(
        [
            (params, multiplier * params)
            for params in np.geomspace(min(sizes), 4 * max(sizes), _SIZES)
            for multiplier in np.geomspace(min(multipliers), max(multipliers), _MULTIPLIERS)
        ]
    )
    return grid_Kx2[6 * grid_Kx2.prod(1) <= sum(point.flops for point in points)]


def _slopes(law: FittedLaw, x_Ix2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dL/dlog|theta| at every run, [runs, parameters], and its loss; steps are relative to be of one order."""
    import jax
    import jax.numpy as jnp

    form = catalogue.named(law.loss.law)
    with jax.enable_x64(True):
        theta_P = jnp.asarray(tuple(law.loss.theta.values()))
        slope = jax.vmap(jax.value_and_grad(lambda theta_P, x: form.f(tuple(theta_P), *x)), (None, 0))
        loss_I, slope_IxP = slope(theta_P, jnp.asarray(x_Ix2))
        return np.asarray(slope_IxP * theta_P), np.asarray(loss_I)


def _whiten(law: FittedLaw, x_Rx2: np.ndarray, loss_R: np.ndarray) -> np.ndarray:
    """What the noise of these runs would be multiplied by to be independent and one, were a law fitted to them."""
    runs = Noise.of(loss_R, loss_R, np.log(x_Rx2), law.loss.noise_growth, law.loss.noise_is_relative)
    return runs.whiten_NxN(law.loss.misfit) / law.loss.noise


def _prior_information(law: FittedLaw) -> np.ndarray:
    """What the method believed of the logarithm of each parameter beforehand, as 1 / variance."""
    beliefs = law.loss.beliefs
    return np.array([beliefs[name][1] ** -2 if name in beliefs else 0.0 for name in law.loss.theta])
