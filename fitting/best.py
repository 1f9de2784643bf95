"""The plain best fit of any law by any objective, and the bootstrap: nothing believed beforehand.

For testbeds of many runs, and for saying what others' procedures give. A ladder of five is not that: its best exponent
follows the scatter (`fitting.methods.Method`).

The bootstrap alone takes each run's scatter for its own, as the field does: of hundreds of runs close together it is
too sure, since a law that is not quite right is off all of them alike. So each resample is moved, too, by a misfit as
large and as smooth as the runs show.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from fitting import solve
from fitting.laws.law import Law
from fitting.laws.objectives import Objective
from fitting.linear import slopes
from fitting.solution import Solution
from fitting.uncertainty import MISFITS, NOISE_LOG_SD, Noise, alike, apart

_MOST_TRIES = 50  # times the resamples asked for, before runs are too few to resample
_MOST_PLACES = 500  # by which misfit is told; of more, as many at random


@dataclasses.dataclass(frozen=True)
class Best:
    """A best fit.

    Attributes:
      solution: what the solver found.
      theta_SxP: the parameters on resamples of the runs, or on simulated ones.
      noise: root mean square of what a run is off the law by.
      noise_is_relative: whether that is a fraction of the law's value.
      misfit: what share of that noise's variance is the law's misfit, which runs of like sizes share.
    """

    solution: Solution
    theta_SxP: np.ndarray
    noise: float
    noise_is_relative: bool
    misfit: float = 0.0


def fit(
    law: Law,
    x: Sequence[np.ndarray],
    y_N: np.ndarray,
    stderr_N: np.ndarray,
    objective: Objective,
    *,
    run_N: Sequence[str],
    place_NxF: np.ndarray,
    noise: float,
    independent: bool = False,
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
      place_NxF: where the runs lie, for misfits to be alike (`fitting.uncertainty.place`).
      noise: what a run is believed to be off the law by, give or take a factor of two; a fraction, of an objective that
        is relative.
      independent: whether to take it that the law is right, and each run's scatter its own.
      draws: how many resamples; with none, the best fit is the only draw.
      seed: of the resamples.

    Raises:
      ValueError: an objective of logarithms and a measurement that has none, one of noise that is not known, runs too
        few to resample.
    """
    scale_N = np.append(_scale(objective, y_N, stderr_N), np.ones(len(law.ideal)))
    x_IxN = [np.append(v, [point[i] for point, _ in law.ideal]) for i, v in enumerate(x)]
    ideal_1xP = np.array([[y for _, y in law.ideal]])
    y_and_ideal_N = np.append(y_N, ideal_1xP)
    solution = solve.minimise(law, x_IxN, y_and_ideal_N, scale_N, objective=objective, positive=True)
    slope_1xNxP, fitted_1xN = slopes(law, solution.theta_BxP, x)
    unit_N = fitted_1xN[0] if objective.relative else np.ones_like(y_N)
    off_N, slope_NxP = (y_N - fitted_1xN[0]) / unit_N, slope_1xNxP[0] / unit_N[:, None]
    noise, misfit = _scatter(slope_NxP, off_N, place_NxF, noise, np.zeros(1) if independent else np.append(0, MISFITS))
    if not draws:
        return Best(solution, solution.theta_BxP, noise, objective.relative, misfit)
    weight_SxN = np.pad(_resamples(law, x, run_N, draws, seed), ((0, 0), (0, len(law.ideal))), constant_values=1)
    off_SxN = noise * math.sqrt(misfit) * _misfits(place_NxF, draws, seed)
    y_SxN = y_N * np.exp(off_SxN) if objective.relative else y_N + off_SxN
    resampled = solve.minimise(
        law,
        x_IxN,
        np.append(y_SxN, np.repeat(ideal_1xP, draws, 0), 1),
        scale_N,
        objective=objective,
        weight_BxN=weight_SxN,
        positive=True,
        nodes_GxQ=solution.node_Q[None],
        starts=1,
    )
    return Best(solution, resampled.theta_BxP, noise, objective.relative, misfit)


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
    sd_K = _sizes(noise)
    log_weight_K = _log_weight(sd_K, noise, len(y_N) - len(law.parameters), solution.objective_B[0])
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


def _sizes(noise: float) -> np.ndarray:
    """Standard deviations that noise may have."""
    return noise * np.geomspace(1e-3, 1e3, 400)


def _log_weight(sd_K: np.ndarray, noise: float, freedom: int, squares: float) -> np.ndarray:
    """How likely each is, of residuals of so many degrees of freedom; a factor of two either way beforehand."""
    return -((np.log(sd_K / noise) / NOISE_LOG_SD) ** 2) / 2 - freedom * np.log(sd_K) - squares / (2 * sd_K**2)


def _scatter(
    slope_NxP: np.ndarray, off_N: np.ndarray, place_NxF: np.ndarray, noise: float, misfits: np.ndarray
) -> tuple[float, float]:
    """How much N runs are off a law, of which P slopes were fitted to them, and what share of its variance is misfit.

    Restricted likelihood (Patterson & Thompson 1971), summed over the noise and the misfit.
    """
    some = _some(place_NxF)
    basis_NxP, size_P, _ = np.linalg.svd(slope_NxP[some], full_matrices=False)
    basis_NxP = basis_NxP[:, size_P > 1e-7 * size_P.max()]
    even = Noise(np.ones(len(some)), np.ones(len(some)), alike(apart(place_NxF[some], place_NxF[some])))
    sd_K, freedom = _sizes(noise), len(some) - basis_NxP.shape[1]
    log_weight_M = []
    for misfit in misfits:
        whiten_NxN = even.whiten_NxN(misfit)
        q_NxP, r_PxP = np.linalg.qr(whiten_NxN @ basis_NxP)
        left_N = whiten_NxN @ off_N[some]
        left_N -= q_NxP @ (q_NxP.T @ left_N)
        log_volume = np.log(np.diag(whiten_NxN)).sum() - np.log(np.abs(np.diag(r_PxP))).sum()
        log_weight_M.append(log_volume + _log_weight(sd_K, noise, freedom, left_N @ left_N))
    weight_MxK = np.exp(np.array(log_weight_M) - np.max(log_weight_M))
    weight_MxK /= weight_MxK.sum()
    return math.sqrt(weight_MxK.sum(0) @ sd_K**2), float(weight_MxK.sum(1) @ misfits)


def _misfits(place_NxF: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """What laws may be off by at N places, [draws, N], of variance one.

    Places beyond `_MOST_PLACES` have what the others lead to expect there, and the rest of it each its own.
    """
    rng = np.random.default_rng(seed)
    place_DxF, which_N = np.unique(place_NxF, axis=0, return_inverse=True)
    some_M = _some(place_DxF)
    root_MxM = np.linalg.cholesky(alike(apart(place_DxF[some_M], place_DxF[some_M])))
    told_MxD = np.linalg.solve(root_MxM, alike(apart(place_DxF[some_M], place_DxF)))
    own_D = np.sqrt(np.maximum(1 - np.square(told_MxD).sum(0), 0))
    misfit_SxD = rng.standard_normal((draws, len(some_M))) @ told_MxD + own_D * rng.standard_normal((draws, len(own_D)))
    return misfit_SxD[:, which_N.ravel()]


def _some(place_NxF: np.ndarray) -> np.ndarray:
    """Which of N are counted where they are more than `_MOST_PLACES`, whatever their order."""
    return np.lexsort(place_NxF.T)[np.random.default_rng(0).permutation(len(place_NxF))[:_MOST_PLACES]]


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
