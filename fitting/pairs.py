"""The draws of two laws, joined by runs of one size: what pairs tell that neither ladder does alone.

Two laws fitted apart err apart where they extrapolate, and their difference errs most of all. But the two runs of a
pair are off their laws alike, since one law is wrong where the other is and one learning rate as badly tuned. So the
differences of the pairs have a law of their own:

- A draw of one ladder's law stands for both: the other's is it, changed. A change multiplies each shape, and what each
  term is worth to the best run. The differences of the pairs are a linear regression on the changes' logarithms, by the
  slopes about the likeliest. Draws of both ladders stand, as many of each, weighed by how they explain the pairs.
- Changes are normal around none and all of one order, which may be any of `_CHANGES`, as likely beforehand: one pair
  leaves the other law all but proportional, many say what it is. Shapes stay in the ranges of the law.
- The noise of a run is what its law says, and that of a pair correlated, so that differences scatter by any share of
  what those of independent runs would, as likely beforehand (`_SCATTERS`). It is as correlated in the runs compared.
- What share of that noise is misfit, both laws say; it is smooth (`fitting.uncertainty.smooth`): pairs of like sizes
  have it in common, and tell hardly more than one.

All of it is summed over a grid, and exact but for the slopes (Gelman et al., Bayesian Data Analysis, 3rd ed., ch. 14).
The grid was not fitted to anything, but chosen knowing how `benchmarks/compare.py` comes out.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from fitting.artifacts.fitted import LawFit, Point, inputs_of
from fitting.laws import catalogue
from fitting.laws.law import Law
from fitting.uncertainty import apart, normal_scores, place, smooth, systematic

_CHANGES = np.geomspace(0.003, 1.0, 8)
_SCATTERS = (np.arange(10) + 0.5) / 10
_DRAWS = 4000
_STANDING = 300  # of each law's draws, which are in random order
_SAME_SIZE = 0.01  # relative
_STEP = 1e-4
_LINEARISED = 4  # times, each about the likeliest changes of the one before
_NOT_GIVEN = {"loss", "flops", "params_non_embedding"}  # what a point has beside the size that its law is given


@dataclasses.dataclass(frozen=True)
class Joint:
    """Equally likely joint draws of two laws, and of by how much one more run of each is off its law.

    Attributes:
      theta_a_PxS: A's parameters.
      theta_b_PxS: B's.
      score_a_S: by how many standard deviations of noise A's run is off.
      score_b_S: B's.
      pairs: how many pairs were used.
      shared: the correlation of a pair's noise, the mean of what is known of it; 0 without pairs.
    """

    theta_a_PxS: np.ndarray
    theta_b_PxS: np.ndarray
    score_a_S: np.ndarray
    score_b_S: np.ndarray
    pairs: int
    shared: float


def joint(a: LawFit, b: LawFit, *, seed: int = 0) -> Joint:
    """Joins the draws of two laws of one measurement: by their pairs, or independently where there are none.

    Laws that are not of one form cannot stand for each other, nor those whose coefficients are no linear parameters.

    Raises:
      ValueError: a law without draws, without a value at the pairs, or that the other's can not be changed into.
    """
    for fit in (a, b):
        if len(fit.theta_draws) < 2:
            raise ValueError(f"the law of {fit.column} has no draws, and so no intervals: fit it with resamples")
    rng = np.random.default_rng(seed)
    if pairs := pairs_of(a.points, b.points) if can_pair(a, b) else []:
        a_of_a_PxS, b_of_a_PxS, r_of_a_S = _standing(a, b, pairs, rng)
        b_of_b_PxS, a_of_b_PxS, r_of_b_S = _standing(b, a, [(other, one) for one, other in pairs], rng)
        theta_a_PxS = np.concatenate([a_of_a_PxS, a_of_b_PxS], 1)
        theta_b_PxS = np.concatenate([b_of_a_PxS, b_of_b_PxS], 1)
        r_S = np.concatenate([r_of_a_S, r_of_b_S])
    else:
        theta_a_PxS, theta_b_PxS = (
            rng.permutation(np.resize(fit.theta_draws, (_DRAWS, len(fit.theta)))).T for fit in (a, b)
        )
        r_S = np.zeros(_DRAWS)
    score_S, own_S = normal_scores(_DRAWS, rng), normal_scores(_DRAWS, rng)
    return Joint(
        theta_a_PxS=theta_a_PxS,
        theta_b_PxS=theta_b_PxS,
        score_a_S=score_S,
        score_b_S=r_S * score_S + np.sqrt(1 - r_S**2) * own_S,
        pairs=len(pairs),
        shared=float(r_S.mean()),
    )


def can_pair(a: LawFit, b: LawFit) -> bool:
    """Whether one law can stand for the other: of one form, whose coefficients are its linear parameters."""
    law = catalogue.named(a.law)
    return a.law == b.law and bool(law.linear) and not law.units


def pairs_of(some: Sequence[Point], others: Sequence[Point]) -> list[tuple[Point, Point]]:
    """The runs of two ladders that are equal in size, each taken once; of several seeds, in their order."""
    left, found = list(others), []
    for one in some:
        if other := next((other for other in left if _is_alike(one, other)), None):
            found.append((one, other))
            left.remove(other)
    return found


def _is_alike(one: Point, other: Point) -> bool:
    """Whether N, D and all else that both laws are given agree."""
    given = (one.columns.keys() & other.columns.keys()) - _NOT_GIVEN
    sizes = [(one.params, other.params), (one.tokens, other.tokens)]
    sizes += [(one.columns[name], other.columns[name]) for name in given]
    return all(math.isclose(*size, rel_tol=_SAME_SIZE) for size in sizes)


def _standing(
    a: LawFit, b: LawFit, pairs: Sequence[tuple[Point, Point]], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws of A's law that stand for both: A's parameters, B's, each [P, S], and the correlation of a pair's noise."""
    law = catalogue.named(a.law)
    points_a, points_b = zip(*pairs, strict=True)
    (x_a, y_a_N, noise_a_N), (x_b, y_b_N, noise_b_N) = _seen(a, points_a), _seen(b, points_b)
    best_x = [v[y_a_N.argmin()] for v in x_a]
    theta_PxD = np.asarray(a.theta_draws)[:_STANDING].T
    parameters, draws = theta_PxD.shape
    r_R = 1 - _SCATTERS**2
    alone_NxN = np.outer(noise_a_N, noise_a_N) + np.outer(noise_b_N, noise_b_N)
    crossed_NxN = np.outer(noise_a_N, noise_b_N)
    alike_NxN = _alike_NxN(law, points_a, (a.misfit + b.misfit) / 2)
    covariance_RxNxN = alike_NxN * (alone_NxN - r_R[:, None, None] * (crossed_NxN + crossed_NxN.T))
    low_Qx1, high_Qx1 = (ends[:, None] for ends in law.shape_ranges.T)
    shapes = slice(len(law.linear), None)

    def difference_DxN(change_PxD: np.ndarray) -> np.ndarray:
        theta_b_PxD = _changed(law, theta_PxD, change_PxD, best_x)
        return law.evaluate(theta_b_PxD[..., None], *x_b) - law.evaluate(theta_PxD[..., None], *x_a)

    change_PxD = np.zeros_like(theta_PxD)
    for _ in range(_LINEARISED):
        step_PxPx1 = _STEP * np.eye(parameters)[..., None]
        ends = [(difference_DxN(change_PxD + step), difference_DxN(change_PxD - step)) for step in step_PxPx1]
        slope_DxNxP = np.stack([(up - down) / (2 * _STEP) for up, down in ends], -1)
        seen_DxN = y_b_N - y_a_N - difference_DxN(change_PxD) + np.einsum("dnp,pd->dn", slope_DxNxP, change_PxD)
        if not (np.isfinite(slope_DxNxP).all() and np.isfinite(seen_DxN).all()):
            raise ValueError(f"the law {law.name} of {a.column}, as fitted, has no value at the sizes of the pairs")
        weight_DxRxK, center_DxRxKxP, root_DxRxKxPxP = _regressed(seen_DxN, slope_DxNxP, covariance_RxNxN)
        likeliest_D = weight_DxRxK.reshape(draws, -1).argmax(1)
        change_PxD = center_DxRxKxP.reshape(draws, -1, parameters)[np.arange(draws), likeliest_D].T
        shape_QxD = theta_PxD[shapes]
        change_PxD[shapes] = np.clip(change_PxD[shapes], np.log(low_Qx1 / shape_QxD), np.log(high_Qx1 / shape_QxD))

    cell_S = np.unravel_index(rng.permutation(systematic(weight_DxRxK, _DRAWS)), weight_DxRxK.shape)
    normal_SxP = rng.standard_normal((_DRAWS, parameters))
    change_PxS = (center_DxRxKxP[cell_S] + np.einsum("sij,sj->si", root_DxRxKxPxP[cell_S], normal_SxP)).T
    theta_a_PxS = theta_PxD[:, cell_S[0]]
    theta_b_PxS = _changed(law, theta_a_PxS, change_PxS, best_x)
    inside_QxS = (low_Qx1 <= theta_b_PxS[shapes]) & (theta_b_PxS[shapes] <= high_Qx1)
    allowed = np.flatnonzero(np.isfinite(theta_b_PxS).all(0) & inside_QxS.all(0))
    if not len(allowed):
        raise ValueError(
            f"the pairs contradict the law {law.name} of {a.column}: no shapes that it may have explain them"
        )
    kept = np.resize(allowed, _DRAWS // 2)
    return theta_a_PxS[:, kept], theta_b_PxS[:, kept], r_R[cell_S[1][kept]]


def _regressed(
    seen_DxN: np.ndarray, slope_DxNxP: np.ndarray, covariance_RxNxN: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each draw, covariance of the noise and order K of the changes: the weight, and the changes that are seen.

    Returns:
      The marginal likelihood, up to a factor; the changes' mean; and the root of their covariance, root root'.
    """
    whiten_RxNxN = np.linalg.inv(np.linalg.cholesky(covariance_RxNxN))
    white_DxRxN = (whiten_RxNxN @ seen_DxN[:, None, :, None])[..., 0]
    part_DxRxNxP = whiten_RxNxN @ slope_DxNxP[:, None]
    told_DxRxP = np.einsum("drnp,drn->drp", part_DxRxNxP, white_DxRxN)
    information_DxRxPxP = np.swapaxes(part_DxRxNxP, -1, -2) @ part_DxRxNxP
    prior_KxPxP = np.eye(slope_DxNxP.shape[-1]) / _CHANGES[:, None, None] ** 2
    lower_DxRxKxPxP = np.linalg.cholesky(information_DxRxPxP[:, :, None] + prior_KxPxP)
    root_DxRxKxPxP = np.swapaxes(np.linalg.inv(lower_DxRxKxPxP), -1, -2)
    gain_DxRxKxP = np.einsum("drkij,dri->drkj", root_DxRxKxPxP, told_DxRxP)
    log_volume_R = np.log(np.diagonal(whiten_RxNxN, axis1=1, axis2=2)).sum(1)
    log_fit_DxR = log_volume_R - np.square(white_DxRxN).sum(-1) / 2
    log_gain_DxRxK = np.square(gain_DxRxKxP).sum(-1) / 2
    log_gain_DxRxK -= np.log(np.diagonal(lower_DxRxKxPxP, axis1=-2, axis2=-1) * _CHANGES[:, None]).sum(-1)
    log_weight_DxRxK = log_fit_DxR[..., None] + log_gain_DxRxK
    center_DxRxKxP = np.einsum("drkij,drkj->drki", root_DxRxKxPxP, gain_DxRxKxP)
    return np.exp(log_weight_DxRxK - log_weight_DxRxK.max()), center_DxRxKxP, root_DxRxKxPxP


def _changed(law: Law, theta_PxS: np.ndarray, change_PxS: np.ndarray, best_x: Sequence[float]) -> np.ndarray:
    """A law's parameters, each shape times exp(change), and each term as many times as much worth to the best run."""
    linear = len(law.linear)
    factor_PxS = np.exp(change_PxS)
    shape_QxS = theta_PxS[linear:] * factor_PxS[linear:]
    before, after = (law.evaluate_terms(shapes, *best_x) for shapes in (theta_PxS[linear:], shape_QxS))
    with np.errstate(all="ignore"):  # a term may be worth nothing, before or after
        rates = [np.where(one == other, 1.0, one / other) for one, other in zip(before, after, strict=True)]
    worth_JxS = [theta_PxS[j] * factor_PxS[j] * rates[j] for j in range(linear)]
    return np.stack([*np.broadcast_arrays(*worth_JxS), *shape_QxS])


def _seen(fit: LawFit, points: Sequence[Point]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """The law's inputs of N runs, each [N], what they measured, and the standard deviation of their noise."""
    inputs = catalogue.named(fit.law).inputs
    x = [*inputs_of(points, inputs).values()]
    y_N = np.array([point.measured for point in points])
    return x, y_N, fit.noise_at(y_N, x[inputs.index("loss")] if "loss" in inputs else y_N)


def _alike_NxN(law: Law, points: Sequence[Point], misfit: float) -> np.ndarray:
    """Correlation of the noise of runs, of which so much of the variance is misfit, the rest each run's own."""
    place_NxF = place(law, inputs_of(points, ("params", "tokens", *law.inputs)))
    return misfit * smooth(apart(place_NxF, place_NxF)) + (1 - misfit) * np.eye(len(points))
