"""Which run to add to a ladder: the one that tells most about the target for its compute."""

import dataclasses
import math

import numpy as np

from fitting import laws
from fitting.fit import METHODS
from fitting.fitted import FittedLaw

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
      The standard deviation, in nats a token, of the target's loss that the parameters' uncertainty causes; the runs.
    """
    candidate_Kx2 = _candidates(law)
    doubt_nats, left_K = doubt(law, (params, tokens), candidate_Kx2)
    flops_K = 6 * candidate_Kx2.prod(1)
    frontier: list[int] = []
    for k in np.lexsort((left_K, flops_K)):
        if left_K[k] < 0.995 * (left_K[frontier[-1]] if frontier else 1):
            frontier.append(int(k))
    return doubt_nats, tuple(
        NextRun(*candidate_Kx2[k].tolist(), flops=float(flops_K[k]), doubt_left=float(left_K[k])) for k in frontier
    )


def doubt(law: FittedLaw, target: tuple[float, float], candidate_Kx2: np.ndarray) -> tuple[float, np.ndarray]:
    """The doubt about the loss of the target (N, D), and the fraction of it that each candidate (N, D) would leave.

    The law is taken as linear in its parameters near the fit, with slopes by autodiff.
    """
    points = law.loss.points
    x_Ix2 = np.array([target, *((point.params, point.tokens) for point in points), *candidate_Kx2])
    slope_IxP, noise_I = _slopes(law, x_Ix2)
    ladder_NxP, candidate_KxP = np.split((slope_IxP / noise_I[:, None])[1:], [len(points)])
    return linear_doubt(slope_IxP[0], ladder_NxP, candidate_KxP, _prior_information(law))


def linear_doubt(
    target_P: np.ndarray, ladder_NxP: np.ndarray, candidate_KxP: np.ndarray, prior_P: np.ndarray
) -> tuple[float, np.ndarray]:
    """How uncertain a linear prediction is, and what fraction of its standard deviation each candidate run would leave.

    Optimal design for one prediction (c-optimality; Chaloner & Verdinelli 1995, section 2). Runs with slopes g, over
    their noise, give the Fisher information F = diag(prior) + sum g g'. With S its inverse, the target's variance is
    v = t'St, and one more run at x takes (t'Sx)² / (1 + x'Sx) of it.

    Args:
      target_P: slope of the target in each of P parameters.
      ladder_NxP: slopes of the N runs there are, over their noise.
      candidate_KxP: slopes of the K candidates, over their noise.
      prior_P: information on each parameter beforehand, 1 / variance.
    """
    covariance_PxP = np.linalg.pinv(ladder_NxP.T @ ladder_NxP + np.diag(prior_P), rcond=1e-14, hermitian=True)
    variance = target_P @ covariance_PxP @ target_P
    told_K = candidate_KxP @ covariance_PxP @ target_P
    own_K = np.einsum("kp,pq,kq->k", candidate_KxP, covariance_PxP, candidate_KxP)
    return math.sqrt(variance), np.sqrt(np.maximum(1 - told_K**2 / (1 + own_K) / variance, 0))


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
    """dL/dlog|theta| at every run, [runs, parameters], and the noise of each; steps are relative to be of one order."""
    import jax
    import jax.numpy as jnp

    form = laws.named(law.loss.law)
    with jax.enable_x64(True):
        theta_P = jnp.asarray(tuple(law.loss.theta.values()))
        slope = jax.vmap(jax.grad(lambda theta_P, x: form.f(tuple(theta_P), *x)), (None, 0))
        slope_IxP = np.asarray(slope(theta_P, jnp.asarray(x_Ix2)) * theta_P)
        value_I = np.asarray(form.f(tuple(theta_P), *jnp.asarray(x_Ix2).T))
    return slope_IxP, law.loss.noise * (value_I if law.loss.noise_is_relative else np.ones_like(value_I))


def _prior_information(law: FittedLaw) -> np.ndarray:
    """What the method believed of the logarithm of each parameter beforehand, as 1 / variance."""
    shapes = laws.named(law.loss.law).shapes if METHODS[law.method].posterior_exponents else {}
    return np.array([1 / shapes[name].log_sd ** 2 if name in shapes else 0.0 for name in law.loss.theta])
