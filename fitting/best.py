"""The plain best fit of any law by any objective, and the bootstrap: nothing believed beforehand.

For testbeds of many runs, and for saying what others' procedures give. A ladder of five is not that: its best exponent
follows the scatter (`fitting.methods.Method`).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from fitting import solve
from fitting.laws.law import Law
from fitting.laws.objectives import Objective
from fitting.solution import Solution

_MOST_TRIES = 50  # times the resamples asked for, before runs are too few to resample
_NOISE_LOG_SD = 0.7  # of what is believed of the noise of a free fit: a factor of two either way


@dataclasses.dataclass(frozen=True)
class Best:
    """A best fit.

    Attributes:
      solution: what the solver found.
      theta_SxP: the parameters on resamples of the runs, or on simulated ones.
      noise: root mean square of the residuals, degrees of freedom taken off.
      noise_is_relative: whether that is a fraction of the law's value.
    """

    solution: Solution
    theta_SxP: np.ndarray
    noise: float
    noise_is_relative: bool


def fit(
    law: Law,
    x: Sequence[np.ndarray],
    y_N: np.ndarray,
    stderr_N: np.ndarray,
    objective: Objective,
    *,
    run_N: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> Best:
    """Fits N runs, linear parameters not negative, together with the law's ideal points.

    Args:
      law: the law.
      x: its inputs, each [N].
      y_N: measurements.
      stderr_N: their sampling standard errors, which `noise_squares` needs.
      objective: what to minimise.
      run_N: which run each measurement is of: the checkpoints of one are drawn together.
      draws: how many resamples; with none, the best fit is the only draw.
      seed: of the resamples.

    Raises:
      ValueError: an objective of logarithms and a measurement that has none, one of noise that is not known, runs too
        few to resample.
    """
    scale_N = _scale(objective, y_N, stderr_N)
    runs = len(y_N)
    x_IxN = [np.append(v, [point[i] for point, _ in law.ideal]) for i, v in enumerate(x)]
    y_N = np.append(y_N, [y for _, y in law.ideal])
    scale_N = np.append(scale_N, np.ones(len(law.ideal)))
    solution = solve.minimise(law, x_IxN, y_N, scale_N, objective=objective, positive=True)
    theta_P = solution.theta_BxP[0]
    fitted_N = law.evaluate(theta_P, *x)
    relative = objective.scale in ("log", "relative")
    residual_N = y_N[:runs] / fitted_N - 1 if relative else y_N[:runs] - fitted_N
    noise = float(np.sqrt(np.sum(residual_N**2) / max(runs - len(law.parameters), 1)))
    if not draws:
        return Best(solution, solution.theta_BxP, noise, relative)
    weight_SxN = np.pad(_resamples(law, x, run_N, draws, seed), ((0, 0), (0, len(law.ideal))), constant_values=1)
    resampled = solve.minimise(
        law,
        x_IxN,
        y_N,
        scale_N,
        objective=objective,
        weight_BxN=weight_SxN,
        positive=True,
        nodes_GxQ=solution.node_Q[None],
        starts=1,
    )
    return Best(solution, resampled.theta_BxP, noise, relative)


def fit_freely(
    law: Law, x: Sequence[np.ndarray], y_N: np.ndarray, *, noise: float, draws: int = 1000, seed: int = 0
) -> Best:
    """Least squares of N runs, linear parameters of either sign, and what it gives on runs simulated by its own law.

    The parametric bootstrap (Efron & Tibshirani 1993, ch. 6.5): the law as fitted, with normal noise added anew, is
    fitted again. So intervals are of this very procedure and lie around its point, whatever the sign of a parameter.
    How large the noise is, the residuals say, with a belief beforehand: one degree of freedom says little.

    Args:
      law: the law.
      x: its inputs, each [N].
      y_N: measurements.
      noise: what the standard deviation of a run's noise is believed to be, give or take a factor of two.
      draws: how many simulated ladders; with none, the best fit is the only draw.
      seed: of the noise.
    """
    solution = solve.minimise(law, x, y_N, positive=False)
    sd_K = noise * np.geomspace(1e-3, 1e3, 400)
    freedom = len(y_N) - len(law.parameters)
    log_weight_K = -((np.log(sd_K / noise) / _NOISE_LOG_SD) ** 2) / 2
    log_weight_K -= freedom * np.log(sd_K) + solution.objective_B[0] / (2 * sd_K**2)
    weight_K = np.exp(log_weight_K - log_weight_K.max())
    noise = math.sqrt(weight_K @ sd_K**2 / weight_K.sum())
    if not draws:
        return Best(solution, solution.theta_BxP, noise, False)
    rng = np.random.default_rng(seed)
    sd_S = rng.choice(sd_K, draws, p=weight_K / weight_K.sum())
    noise_SxN = np.empty((draws, len(y_N)))
    noise_SxN[:, np.lexsort((y_N, *x))] = rng.standard_normal(noise_SxN.shape)  # whatever the order of a table's rows
    y_SxN = law.evaluate(solution.theta_BxP[0], *x) + sd_S[:, None] * noise_SxN
    simulated = solve.minimise(law, x, y_SxN, positive=False, nodes_GxQ=solution.node_Q[None], starts=1)
    return Best(solution, simulated.theta_BxP, noise, False)


def _scale(objective: Objective, y_N: np.ndarray, stderr_N: np.ndarray) -> np.ndarray:
    if objective.log and not (y_N > 0).all():
        raise ValueError(f"objective {objective.name} takes logarithms: a measurement of {y_N.min():g} has none")
    if objective.scale == "noise" and not (np.isfinite(stderr_N) & (stderr_N > 0)).all():
        raise ValueError(f"objective {objective.name} needs the sampling standard error of every run, above zero")
    return {"relative": y_N, "noise": stderr_N}.get(objective.scale, np.ones_like(y_N))


def _resamples(law: Law, x: Sequence[np.ndarray], run_N: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """How often each run counts in each resample, [draws, N]; those that no law could be fitted to are not drawn."""
    names, which_N = np.unique(np.asarray(run_N), return_inverse=True)
    _, size_N = np.unique(np.stack(x), axis=1, return_inverse=True)
    sizes, fewest = size_N.max() + 1, len(law.parameters) - len(law.ideal)
    if sizes <= fewest:
        raise ValueError(
            f"{sizes} sizes are too few to bootstrap {law.name}: a resample would need all of them, as the law has "
            f"{len(law.parameters)} parameters; --resamples 0 gives the fit without intervals"
        )
    rng, usable = np.random.default_rng(seed), np.zeros((0, len(which_N)), int)
    for _ in range(_MOST_TRIES):
        count_RxU = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=2 * draws)
        count_RxN = count_RxU[:, which_N]
        count_RxD = np.zeros((2 * draws, sizes))
        np.add.at(count_RxD.T, size_N.ravel(), count_RxN.T)
        usable = np.concatenate([usable, count_RxN[(count_RxD > 0).sum(1) >= fewest]])
        if len(usable) >= draws:
            return usable[:draws]
    raise ValueError(
        f"{len(names)} runs are too few to bootstrap {law.name}: hardly a resample holds {fewest} different sizes; "
        "--resamples 0 gives the fit without intervals"
    )
