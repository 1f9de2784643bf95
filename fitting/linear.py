"""Where laws are linear: given its shapes every law is, and near its parameters in all of them, by its slopes."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from fitting.laws.law import Law
from fitting.solution import BOUND, FLOOR, Solution

_STEP = 1e-4  # of a parameter's logarithm, for slopes by central differences


def least_squares(
    law: Law, x: Sequence[np.ndarray], y_N: np.ndarray, whiten_NxN: np.ndarray, shape_Q: np.ndarray
) -> Solution:
    """Minimises the sum of squares of whiten (f(theta, x) - y) over the positive coefficients of a law's J terms.

    Args:
      law: the law, with J linear parameters and Q shapes.
      x: its inputs, each [N].
      y_N: measurements.
      whiten_NxN: what makes residuals independent and alike (Aitken 1935).
      shape_Q: the shapes, which are held; of a law whose shapes have no units.
    """
    terms = [np.broadcast_to(term, y_N.shape) for term in law.evaluate_terms(shape_Q, *x)]
    linear = len(law.linear)
    unit_J = np.array([np.abs(y_N).max() / np.sqrt(np.mean(term**2)) for term in terms[:linear]])
    column_NxJ = whiten_NxN @ (np.stack(terms[:linear], -1) * unit_J)
    seen_N = whiten_NxN @ (y_N - sum(terms[linear:]))
    share_J, objective = _positive(column_NxJ, seen_N)
    at_bound = tuple(name for name, share in zip(law.linear, share_J, strict=True) if share < FLOOR + BOUND)
    return Solution(
        theta_BxP=np.concatenate([share_J * unit_J, shape_Q])[None],
        objective_B=np.array([objective]),
        screened=1,
        starts=1,
        share_at_optimum_B=np.ones(1),
        at_bound=at_bound,
        node_Q=shape_Q,
    )


def _positive(column_NxJ: np.ndarray, seen_N: np.ndarray) -> tuple[np.ndarray, float]:
    """The shares, none below the floor, whose columns add up to nearest what was seen, and the squares left.

    Of all ways to hold some at the floor and to set the others free the best that is allowed: laws have few terms.
    """
    found = []
    for free in itertools.product((True, False), repeat=column_NxJ.shape[1]):
        free_J = np.array(free)
        share_J = np.full(len(free), FLOOR)
        left_N = seen_N - column_NxJ[:, ~free_J] @ share_J[~free_J]
        share_J[free_J] = np.linalg.lstsq(column_NxJ[:, free_J], left_N, rcond=None)[0]
        if (share_J >= FLOOR).all():
            found.append((float(np.sum((column_NxJ @ share_J - seen_N) ** 2)), share_J))
            if all(free):
                break
    objective, share_J = min(found, key=lambda each: each[0])
    return share_J, objective


def slopes(law: Law, theta_HxP: np.ndarray, x: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """dL/dlog|theta| of H laws at K runs, [H, K, P], and their losses, [H, K]."""
    theta_PxHx1 = theta_HxP.T[..., None]
    slope_P = []
    for p in range(len(theta_PxHx1)):
        ends = []
        for step in (_STEP, -_STEP):
            moved = theta_PxHx1.copy()
            moved[p] *= math.exp(step)
            ends.append(law.evaluate(moved, *x))
        slope_P.append((ends[0] - ends[1]) / (2 * _STEP))
    loss_HxK = law.evaluate(theta_PxHx1, *x)
    return np.stack([np.broadcast_to(slope, loss_HxK.shape) for slope in slope_P], -1), loss_HxK
