"""A sweep of learning rates, and perhaps of batches, at a few sizes → where the best lie, as a power of N and of D.

Runs of one N and D make a valley: their loss over the logarithm of the rate. Its bottom is a parabola's, through the
runs near the lowest. All valleys share one noise, so that each says how well its bottom is known. The bottoms are on a
line in ln N and ln D but for a scatter of their own (a random-effects regression: DerSimonian & Laird 1986; here with
the scatter integrated out). Of the exponents there is a wide belief beforehand, or two sizes close together would let
them be anything.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from fitting.choice import nearly
from fitting.files import cut
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd

NEAR = math.log(5.0)  # from the lowest run of a valley: a parabola holds no further
SEED = 0.003  # of the loss, by which runs that differ in their seed alone scatter, before residuals say
SEED_WEIGHT = 2  # residuals that this belief counts as
OFF_THE_LAW = 0.15  # how far a best rate is off any power law, as a fraction, before the valleys say
FLAT = 0.1  # of the simulated valleys that may have no bottom
# The exponents of N and of D, mean and standard deviation, before the valleys say. Of the rate: N^-0.71 D^0.31 (Li et
# al. 2025), N^-0.33 (Bhagia et al. 2024), D^-0.32 at one batch (Bjorck et al. 2024); of the batch: D^0.57 (Li et al.).
EXPONENTS: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "learning_rate": ((-0.4, 0.4), (0.0, 0.4)),
    "batch_tokens": ((0.0, 0.4), (0.5, 0.4)),
}
_ANY = ((0.0, 1.0), (0.0, 1.0))
SAME_RAY = 0.2  # spread of ln D, given N, below which runs cannot tell D's exponent
_DRAWS = 2000
_SCATTER = np.linspace(0, 1, 101)
_ROOM = 1 + 1e-9  # for rounding


@dataclasses.dataclass(frozen=True)
class Valley:
    """The best of the runs of one N and D.

    Attributes:
      params, tokens: N and D.
      best: the value of each factor at the bottom, by its column.
      log_sd: standard deviation of its logarithm.
      loss: there.
      runs: that the parabola is through.
    """

    params: float
    tokens: float
    best: Mapping[str, float]
    log_sd: Mapping[str, float]
    loss: float
    runs: int


@dataclasses.dataclass(frozen=True)
class Power:
    """value (N / params)^params_exponent (D / tokens)^tokens_exponent.

    Attributes:
      value: at `params` and `tokens`, the geometric means over the valleys.
      params_exponent, tokens_exponent: the latter 0 where the valleys lie along one ray and cannot tell it.
      params_range, tokens_range, multipliers_range: N, D and D / N of the valleys, least and most.
      covariance: of ln(value) and the exponents, [3][3].
      scatter: by what fraction a valley's bottom is off the law beyond its own uncertainty.
    """

    value: float
    params: float
    tokens: float
    params_exponent: float
    tokens_exponent: float
    params_range: tuple[float, float]
    tokens_range: tuple[float, float]
    multipliers_range: tuple[float, float]
    covariance: tuple[tuple[float, float, float], ...]
    scatter: float


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A sweep's valleys, and the law of each factor by its column; `noise` is of one run, as a fraction of its loss."""

    valleys: tuple[Valley, ...]
    laws: Mapping[str, Power]
    noise: float


def tune(testbed: Testbed, loss: str, factors: Sequence[str] = ("learning_rate",), *, seed: int = 0) -> Tuned:
    """The laws of the best rate, and of what else is swept.

    >>> import fitting, pandas as pd
    >>> sweep = [(n, d, r) for n in (1e6, 1e7) for d in (2e8, 2e9) for r in (0.001, 0.002, 0.004, 0.008)]
    >>> runs = pd.DataFrame(sweep, columns=["params", "tokens", "learning_rate"])
    >>> runs["run"], runs["loss/web"] = runs.index.astype(str), 3 + 0.05 * np.log(runs["learning_rate"] / 0.003) ** 2
    >>> law = tune(fitting.Testbed(runs), "loss/web").laws["learning_rate"]
    >>> f"{law.value:.4f} N^{abs(law.params_exponent):.2f} D^{abs(law.tokens_exponent):.2f}"
    '0.0030 N^0.00 D^0.00'

    Args:
      testbed: the sweep; rows in quarantine have diverged.
      loss: the column to be lowest.
      factors: the columns that are swept, `learning_rate` first; `batch_tokens`, say, beside it.
      seed: of the simulated noise.

    Raises:
      ValueError: one size alone, fewer rates than a parabola needs, a lowest loss at the edge of the grid, a valley
        that is flat as far as the noise goes; each says which runs to add.
    """
    column = testbed.column(loss, "loss")
    groups = [rows for _, rows in testbed.table.groupby(nearly(testbed.table))]
    parabolas = [_parabola(rows, column, factors) for rows in groups]
    residuals = np.concatenate([parabola.residual_R for parabola in parabolas])
    freedom = sum(len(p.residual_R) - p.columns_RxC.shape[1] for p in parabolas)
    squares = SEED_WEIGHT * SEED**2 + float(np.sum(residuals**2))
    rng = np.random.default_rng(seed)
    noise_S = np.sqrt(squares / rng.chisquare(SEED_WEIGHT + freedom, _DRAWS))
    valleys = tuple(_valley(parabola, noise_S, rng, factors) for parabola in parabolas)
    laws = {factor: _power(valleys, factor) for factor in factors}
    return Tuned(valleys, laws, math.sqrt(squares / (SEED_WEIGHT + freedom)))


@dataclasses.dataclass(frozen=True)
class _Parabola:
    """Through R runs of one size: their loss, relative to the lowest, in the logarithms of F factors."""

    runs: "pd.DataFrame"
    lowest: float
    centre_F: np.ndarray
    reach_Fx2: np.ndarray
    columns_RxC: np.ndarray
    coefficient_C: np.ndarray
    residual_R: np.ndarray


def _parabola(rows: "pd.DataFrame", column: str, factors: Sequence[str]) -> _Parabola:
    sound = rows[(rows["quarantine"] == "") & rows[column].notna()]
    name = _name(rows)
    diverged = f", {len(rows) - len(sound)} of them diverged or without a loss" if len(sound) < len(rows) else ""
    coefficients = (len(factors) + 1) * (len(factors) + 2) // 2
    if len(sound) < coefficients:
        raise ValueError(
            f"{name}: {len(rows)} runs{diverged}; a valley over {' and '.join(factors)} takes {coefficients} at least"
        )
    best = sound.loc[sound[column].idxmin()]
    for factor in factors:
        _refuse_edge(rows, sound, best, factor, name)
    at_RxF = np.log(sound[list(factors)].to_numpy(float))
    centre_F = np.log(best[list(factors)].to_numpy(float))
    weight_R = np.maximum(1 - np.square((at_RxF - centre_F) / NEAR), 0).prod(1)
    near_R = weight_R > 0
    columns_RxC = weight_R[near_R, None] * _columns(at_RxF[near_R] - centre_F)
    if np.linalg.matrix_rank(columns_RxC) < coefficients:
        raise ValueError(
            f"{name}: {near_R.sum()} runs within a factor of four of the lowest cannot tell a valley over "
            f"{' and '.join(factors)}; add values between"
        )
    excess_R = weight_R[near_R] * (sound[column].to_numpy(float)[near_R] / best[column] - 1)
    coefficient_C = np.linalg.lstsq(columns_RxC, excess_R, rcond=None)[0]
    reach_Fx2 = np.stack([at_RxF.min(0), at_RxF.max(0)], -1) - centre_F[:, None]
    residual_R = excess_R - columns_RxC @ coefficient_C
    return _Parabola(sound, float(best[column]), centre_F, reach_Fx2, columns_RxC, coefficient_C, residual_R)


def _columns(x_RxF: np.ndarray) -> np.ndarray:
    """1, every factor, and every product of two."""
    first, second = np.triu_indices(x_RxF.shape[1])
    return np.concatenate([np.ones((len(x_RxF), 1)), x_RxF, x_RxF[:, first] * x_RxF[:, second]], 1)


def _bottoms(coefficient_SxC: np.ndarray, factors: int) -> np.ndarray:
    """Where S parabolas are lowest, [S, F]; NaN where one has no bottom."""
    slope_SxF, first_second = coefficient_SxC[:, 1 : 1 + factors], np.triu_indices(factors)
    bend_SxFxF = np.zeros((len(coefficient_SxC), factors, factors))
    bend_SxFxF[:, *first_second] = coefficient_SxC[:, 1 + factors :]
    bend_SxFxF = bend_SxFxF + np.swapaxes(bend_SxFxF, 1, 2)  # the Hessian
    has_S = (np.linalg.eigvalsh(bend_SxFxF) > 0).all(1)
    bottom_SxF = np.full(slope_SxF.shape, np.nan)
    bottom_SxF[has_S] = -np.linalg.solve(bend_SxFxF[has_S], slope_SxF[has_S][..., None])[..., 0]
    return bottom_SxF


def _valley(parabola: _Parabola, noise_S: np.ndarray, rng: np.random.Generator, factors: Sequence[str]) -> Valley:
    root = np.linalg.pinv(parabola.columns_RxC)
    noise_SxR = noise_S[:, None] * rng.standard_normal((len(noise_S), len(parabola.residual_R)))
    bottom_SxF = _bottoms(parabola.coefficient_C + noise_SxR @ root.T, len(factors))
    low_F, high_F = parabola.reach_Fx2.T
    inside_S = ((bottom_SxF > low_F) & (bottom_SxF < high_F)).all(1)
    (bottom_F,) = _bottoms(parabola.coefficient_C[None], len(factors))
    name = _name(parabola.runs)
    if not ((bottom_F > low_F) & (bottom_F < high_F)).all() or inside_S.mean() < 1 - FLAT:
        raise ValueError(
            f"{name}: its valley over {' and '.join(factors)} is flat as far as the noise of its runs goes "
            f"({np.sqrt(np.mean(noise_S**2)):.2%} of the loss), so that it has no best; add values further apart"
        )
    value_F = np.exp(parabola.centre_F + bottom_F)
    log_sd_F = bottom_SxF[inside_S].std(0)
    return Valley(
        params=float(parabola.runs["params"].iloc[0]),
        tokens=float(parabola.runs["tokens"].iloc[0]),
        best=dict(zip(factors, value_F.tolist(), strict=True)),
        log_sd=dict(zip(factors, log_sd_F.tolist(), strict=True)),
        loss=parabola.lowest * (1 + float((_columns(bottom_F[None]) @ parabola.coefficient_C)[0])),
        runs=len(parabola.residual_R),
    )


def _power(valleys: Sequence[Valley], factor: str) -> Power:
    params_V, tokens_V = (np.array([getattr(valley, name) for valley in valleys]) for name in ("params", "tokens"))
    if params_V.max() < 1.02 * params_V.min():
        raise ValueError(f"one size, of {params_V[0]:.4g} parameters, cannot tell how the best {factor} moves with N")
    best_V = np.log([valley.best[factor] for valley in valleys])
    sd_V = np.array([valley.log_sd[factor] for valley in valleys])
    n_V, d_V = (np.log(v) - np.log(v).mean() for v in (params_V, tokens_V))
    own_d_V = d_V - n_V * (n_V @ d_V) / (n_V @ n_V)
    columns, (of_n, of_d) = [np.ones_like(n_V), n_V, d_V], EXPONENTS.get(factor, _ANY)
    beliefs = [of_n, of_d]
    if own_d_V.std() < SAME_RAY:
        columns, beliefs = columns[:2], [(of_n[0] + of_d[0], math.hypot(of_n[1], of_d[1]))]
    theta_C, covariance_CxC, scatter = _regression(np.stack(columns, -1), best_V, sd_V, beliefs)
    theta = np.pad(theta_C, (0, 3 - len(theta_C)))
    covariance = np.pad(covariance_CxC, (0, 3 - len(theta_C)))
    ranges = [(float(v.min()), float(v.max())) for v in (params_V, tokens_V, tokens_V / params_V)]
    return Power(
        value=float(np.exp(theta[0])),
        params=float(np.exp(np.log(params_V).mean())),
        tokens=float(np.exp(np.log(tokens_V).mean())),
        params_exponent=float(theta[1]),
        tokens_exponent=float(theta[2]),
        params_range=ranges[0],
        tokens_range=ranges[1],
        multipliers_range=ranges[2],
        covariance=tuple(map(tuple, covariance.tolist())),
        scatter=scatter,
    )


def _regression(
    columns_VxC: np.ndarray, y_V: np.ndarray, sd_V: np.ndarray, beliefs: Sequence[tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and covariance of the coefficients, each scatter weighed by how likely it is, and its root mean square.

    The first coefficient may be anything; of each other there is a belief, its mean and standard deviation.
    """
    means, covariances, log_weights = [], [], []
    believed_C, sd_C = np.array([(0.0, np.inf), *beliefs]).T
    for scatter in _SCATTER:
        variance_V = sd_V**2 + scatter**2
        covariance = np.linalg.inv(columns_VxC.T / variance_V @ columns_VxC + np.diag(sd_C**-2.0))
        mean = covariance @ (columns_VxC.T / variance_V @ y_V + believed_C / sd_C**2)
        squares = float(np.sum((y_V - columns_VxC @ mean) ** 2 / variance_V))
        squares += float(np.sum(((mean - believed_C) / sd_C) ** 2))
        log_volume = np.linalg.slogdet(covariance)[1] - np.log(variance_V).sum()
        log_weights.append((log_volume - squares - (scatter / OFF_THE_LAW) ** 2) / 2)
        means.append(mean)
        covariances.append(covariance)
    weight_K = np.exp(np.array(log_weights) - max(log_weights))
    weight_K /= weight_K.sum()
    mean_C = weight_K @ np.array(means)
    off_KxC = np.array(means) - mean_C
    covariance_CxC = np.einsum("k,kcd->cd", weight_K, np.array(covariances)) + (weight_K[:, None] * off_KxC).T @ off_KxC
    return mean_C, covariance_CxC, math.sqrt(weight_K @ _SCATTER**2)


def _refuse_edge(rows: "pd.DataFrame", sound: "pd.DataFrame", best: "pd.Series", factor: str, name: str) -> None:
    value = best[factor]
    for edge, side, others in (
        (sound[factor].min(), "least", rows[factor] < value),
        (sound[factor].max(), "largest", rows[factor] > value),
    ):
        if value != edge:
            continue
        if others.any():
            raise ValueError(
                f"{name}: its lowest loss is at the {side} {factor} that did not diverge, {value:.3g}; add values "
                f"between that and {rows[factor][others].iloc[0]:.3g}"
            )
        raise ValueError(
            f"{name}: its lowest loss is at the {side} {factor} of the grid, {value:.3g}: widen the grid that way"
        )


def _name(rows: "pd.DataFrame") -> str:
    params, tokens = rows["params"].iloc[0], rows["tokens"].iloc[0]
    return f"{cut(rows['run'].iloc[0])} and those of its size (N = {params:.4g}, D = {tokens:.4g})"
