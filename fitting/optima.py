"""The least of many functions at once: one problem for each draw of a law's parameters."""

from collections.abc import Callable

import numpy as np

_SAMPLES, _ELITE, _ROUNDS, _WIDER = 256, 32, 40, 1.5


def search(
    f: Callable[[np.ndarray], np.ndarray],
    problems: int,
    low_D: np.ndarray,
    high_D: np.ndarray,
    within: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] = np.clip,
) -> np.ndarray:
    """The least of each of S functions of D variables within bounds, [S, D]: cross-entropy method (Rubinstein 1999).

    Normal samples close in on the best of them, along a valley that lies across the variables too.

    Args:
      f: points [S, G, D] -> values [S, G].
      problems: S.
      low_D: lower bounds.
      high_D: upper bounds.
      within: puts points within the bounds.
    """
    rng = np.random.default_rng(0)
    mean_SxD = np.tile((low_D + high_D) / 2, (problems, 1))
    root_SxDxD = np.tile(np.diag((high_D - low_D) / 2), (problems, 1, 1))
    for _ in range(_ROUNDS):
        normal_GxD = rng.standard_normal((_SAMPLES, len(low_D)))
        x_SxGxD = within(mean_SxD[:, None] + np.einsum("sde,ge->sgd", root_SxDxD, normal_GxD), low_D, high_D)
        x_SxGxD[:, 0] = within(mean_SxD, low_D, high_D)
        value_SxG = np.nan_to_num(f(x_SxGxD), nan=np.inf)
        elite_SxE = np.argsort(value_SxG, axis=1)[:, :_ELITE]
        elite_SxExD = np.take_along_axis(x_SxGxD, elite_SxE[..., None], 1)
        mean_SxD = elite_SxExD.mean(1)
        off_SxExD = elite_SxExD - mean_SxD[:, None]
        cov_SxDxD = np.einsum("sed,sef->sdf", off_SxExD, off_SxExD) / _ELITE
        root_SxDxD = np.linalg.cholesky(_WIDER * cov_SxDxD + 1e-12 * np.eye(len(low_D)))
    return elite_SxExD[:, 0]


def proportions(r: np.ndarray, low_D: np.ndarray, high_D: np.ndarray) -> np.ndarray:
    """Points within bounds that sum to one, [..., D]: what is missing is shared out by the room there is."""
    r = np.clip(r, low_D, high_D)
    missing = 1 - r.sum(-1, keepdims=True)
    room = np.where(missing > 0, high_D - r, r - low_D)
    return r + missing * room / np.maximum(room.sum(-1, keepdims=True), 1e-300)
