"""The least of many functions at once: one problem for each draw of a law's parameters."""

from collections.abc import Callable

import numpy as np

_SAMPLES, _ELITE, _ROUNDS, _WIDER = 256, 32, 40, 1.5
_STEPS, _HALVINGS = 1000, 40


def search(f: Callable[[np.ndarray], np.ndarray], problems: int, low_D: np.ndarray, high_D: np.ndarray) -> np.ndarray:
    """The least of each of S functions of D variables within bounds, [S, D]: cross-entropy method (Rubinstein 1999).

    Normal samples close in on the best of them, along a valley that lies across the variables too.

    Args:
      f: points [S, G, D] -> values [S, G].
      problems: S.
      low_D: lower bounds.
      high_D: upper bounds.
    """
    rng = np.random.default_rng(0)
    mean_SxD = np.tile((low_D + high_D) / 2, (problems, 1))
    root_SxDxD = np.tile(np.diag((high_D - low_D) / 2), (problems, 1, 1))
    for _ in range(_ROUNDS):
        normal_GxD = rng.standard_normal((_SAMPLES, len(low_D)))
        x_SxGxD = np.clip(mean_SxD[:, None] + np.einsum("sde,ge->sgd", root_SxDxD, normal_GxD), low_D, high_D)
        x_SxGxD[:, 0] = mean_SxD
        value_SxG = np.nan_to_num(f(x_SxGxD), nan=np.inf)
        elite_SxE = np.argsort(value_SxG, axis=1)[:, :_ELITE]
        elite_SxExD = np.take_along_axis(x_SxGxD, elite_SxE[..., None], 1)
        mean_SxD = elite_SxExD.mean(1)
        off_SxExD = elite_SxExD - mean_SxD[:, None]
        cov_SxDxD = np.einsum("sed,sef->sdf", off_SxExD, off_SxExD) / _ELITE
        root_SxDxD = np.linalg.cholesky(_WIDER * cov_SxDxD + 1e-12 * np.eye(len(low_D)))
    return elite_SxExD[:, 0]


def mixture(log_K_LxSxD: np.ndarray, low_D: np.ndarray, high_D: np.ndarray) -> np.ndarray:
    """The proportions r within bounds that make the mean over L of exp(sum_j r_j log K_j) least, for each of S, [S, D].

    That is convex; accelerated gradient descent (Nesterov 1983), each step projected onto what proportions can be.
    """
    most_LxSx1 = log_K_LxSxD.max(-1, keepdims=True)
    log_K_LxSxD = log_K_LxSxD - most_LxSx1  # a factor of the loss, as proportions sum to one: put back by its weight
    weight_LxS = np.exp(most_LxSx1[..., 0] - most_LxSx1.max())
    curvature_Sx1 = (weight_LxS * (log_K_LxSxD**2).sum(-1)).sum(0)[:, None] + 1e-12
    r_SxD = _proportions(np.tile((low_D + high_D) / 2, (log_K_LxSxD.shape[1], 1)), low_D, high_D)
    ahead_SxD = r_SxD
    for step in range(_STEPS):
        value_LxS = weight_LxS * np.exp(np.einsum("lsd,sd->ls", log_K_LxSxD, ahead_SxD))
        slope_SxD = np.einsum("ls,lsd->sd", value_LxS, log_K_LxSxD)
        before_SxD, r_SxD = r_SxD, _proportions(ahead_SxD - slope_SxD / curvature_Sx1, low_D, high_D)
        ahead_SxD = r_SxD + step / (step + 3) * (r_SxD - before_SxD)
    return r_SxD


def _proportions(r_SxD: np.ndarray, low_D: np.ndarray, high_D: np.ndarray) -> np.ndarray:
    """The nearest within bounds that sum to one: all less one number, which bisection finds."""
    least_Sx1, most_Sx1 = (r_SxD - high_D).min(1, keepdims=True), (r_SxD - low_D).max(1, keepdims=True)
    for _ in range(_HALVINGS):
        middle_Sx1 = (least_Sx1 + most_Sx1) / 2
        over_Sx1 = np.clip(r_SxD - middle_Sx1, low_D, high_D).sum(1, keepdims=True) > 1
        least_Sx1, most_Sx1 = np.where(over_Sx1, middle_Sx1, least_Sx1), np.where(over_Sx1, most_Sx1, middle_Sx1)
    return np.clip(r_SxD - most_Sx1, low_D, high_D)
