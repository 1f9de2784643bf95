"""Training curves of a ladder's runs → where a run that is under way will end, and whether it goes as the others do.

The law is that of annealing (Tissue et al. 2024, arXiv:2408.11029) between runs of one recipe:

    L = (L_0 + A S^-α) (1 + b η),   S the sum of the learning rates so far, η the rate now; both as shares

of the schedule's own sum and peak. Its last factor is their C S_2 where the momentum S_2 forgets fast against the
schedule: it then is the fall of the rate. L_0 and A are each run's own, α and b are shared by all: a part of a run
tells the former, and only whole runs tell the latter.

What all finished curves are off that law alike, as parts of one recipe's schedule, is taken off each (their mean).

The points of a curve are not so many measurements. What one is off the law the next is off too, so residuals are those
of an Ornstein-Uhlenbeck process along ln S, and of a noise of each point's own; a curve of sixty points so weighs as a
few. How far that reaches and how large it is, the curves say (restricted maximum likelihood: Patterson & Thompson 1971;
prediction given the residuals so far: Rasmussen & Williams 2006, Eq. 2.27).
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

WINDOWS = 64  # that a whole run's curve is averaged over
FIRST = 0.1  # share of a run that is left out: its warm-up, and a fall that no power follows
FEWEST = 6  # windows of a run that is foretold
FEWEST_WHOLE = 20  # windows of a run that the law is of
FEWEST_RUNS = 3
OFF_DEVIATIONS, OFF_LOSS = 5.0, 0.005  # from which a run has left the law: of what the law knows, and of the loss
_ALPHAS = (0.1, 1.6)
_FALLS = (0.0, 0.3)
_NODES = 9  # along each of these, on a grid that closes in on where the likelihood is
_REACHES = (0.1, 0.3, 1.0)
_WHITES = (0.03, 0.1, 0.3, 0.7)  # share of the residual's variance that is each point's own
_UNLIKELY = 1e-3  # against the likeliest


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """The loss of a run along its schedule, in W windows; shares are of the whole schedule.

    Attributes:
      share_W: of the steps, at each window's middle.
      area_W: of the sum of the learning rates, there.
      rate_W: of the highest rate, there.
      loss_W: mean over the window, in nats.
      end_rate: the last step's rate.
      steps: of the whole schedule.
    """

    share_W: np.ndarray
    area_W: np.ndarray
    rate_W: np.ndarray
    loss_W: np.ndarray
    end_rate: float
    steps: int

    def first(self, windows: int) -> "Curve":
        """The first so many windows."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name.endswith("_W")}
        return dataclasses.replace(self, **{name: values_W[:windows] for name, values_W in arrays.items()})

    def until(self, share: float) -> "Curve":
        """The windows whose middle lies within a share of the steps."""
        return self.first(int(np.sum(self.share_W <= share)))

    def step(self, window: int) -> int:
        """The last step of one of the windows."""
        return min(self.steps, math.ceil((int(_windows(self)[window]) + 1) * self.steps / WINDOWS))


def curve(step_R: Sequence[int], loss_R: Sequence[float], learning_rate_S: np.ndarray) -> Curve:
    """A run's curve from its logged rows, each the mean loss since the row before.

    Args:
      step_R: the last step of each row, from 1, rising.
      loss_R: in nats.
      learning_rate_S: of every step of the whole schedule.
    """
    step_R, loss_R = np.asarray(step_R, int), np.asarray(loss_R, float)
    steps = len(learning_rate_S)
    middle_R = (np.append(0, step_R[:-1]) + step_R) / 2
    window_R = np.minimum(WINDOWS - 1, (middle_R * WINDOWS / steps).astype(int))
    length_R = np.diff(step_R, prepend=0)
    kept = [window for window in np.unique(window_R) if window >= FIRST * WINDOWS]
    means = [_weighed(np.stack([middle_R, loss_R]), length_R * (window_R == window)) for window in kept]
    middle_W, loss_W = np.array(means).reshape(-1, 2).T
    area_S = np.cumsum(learning_rate_S) / np.sum(learning_rate_S)
    at_W = np.minimum(middle_W.astype(int), steps - 1)
    peak = float(np.max(learning_rate_S))
    return Curve(
        share_W=middle_W / steps,
        area_W=area_S[at_W],
        rate_W=learning_rate_S[at_W] / peak,
        loss_W=loss_W,
        end_rate=float(learning_rate_S[-1]) / peak,
        steps=steps,
    )


@dataclasses.dataclass(frozen=True)
class Foretold:
    """A loss that a run has not come to yet, and the standard deviation of what is known of it, in nats."""

    loss: float
    sd: float

    def interval(self, level: float) -> tuple[float, float]:
        """Holds the loss with a probability."""
        half = statistics.NormalDist().inv_cdf((1 + level) / 2) * self.sd
        return self.loss - half, self.loss + half


@dataclasses.dataclass(frozen=True)
class Strayed:
    """A run has left the law that the others keep to, with the window that ends at `step`; `by` is how far it is now.

    That is a fraction of the loss which the windows before let expect; `deviations` counts its standard deviations.
    """

    step: int
    by: float
    deviations: float


@dataclasses.dataclass(frozen=True, eq=False)
class CurveLaw:
    """What finished curves have in common, as weighed cells of a grid.

    Attributes:
      cells_Kx5: α, b, and of the residual its reach, the share that is each point's own, and its variance.
      weight_K: how likely each is, of those that count.
      common_V: by what fraction all curves are off the law, by window.
      runs: how many curves it is of.
    """

    cells_Kx5: np.ndarray
    weight_K: np.ndarray
    common_V: np.ndarray
    runs: int

    @property
    def alpha(self) -> float:
        """The mean exponent."""
        return float(self.weight_K @ self.cells_Kx5[:, 0])

    def end(self, part: Curve) -> Foretold:
        """The last step's loss of a run of which a part is known.

        Raises:
          ValueError: that is fewer than `FEWEST` windows.
        """
        return self._foretell(part, 1.0, part.end_rate, WINDOWS - 1, own=False)

    def strayed(self, part: Curve) -> Strayed | None:
        """Whether a run has left the law, as far as it has come.

        Each window is foretold from those before it that were on the law. Two in a row that are off by more than
        `OFF_DEVIATIONS` and `OFF_LOSS` tell; a run that comes back is on the law again.
        """
        on, off = part.first(FEWEST), list[Strayed]()
        for window in range(FEWEST, len(part.loss_W)):
            place = (part.area_W[window], part.rate_W[window], _windows(part)[window])
            foretold = self._foretell(on, *place, own=True)
            by = part.loss_W[window] / foretold.loss - 1
            deviations = by * foretold.loss / foretold.sd
            if abs(deviations) < OFF_DEVIATIONS or abs(by) < OFF_LOSS:
                on, off = part.first(window + 1), []
            else:
                off.append(Strayed(part.step(window), float(by), float(deviations)))
        return dataclasses.replace(off[-1], step=off[0].step) if len(off) > 1 else None

    def _foretell(self, part: Curve, area: float, rate: float, window: int, *, own: bool) -> Foretold:
        """The loss at a place of the schedule, with the noise of a window's own, if `own`."""
        if len(part.loss_W) < FEWEST:
            raise ValueError(f"{len(part.loss_W)} windows past a run's first tenth foretell nothing; {FEWEST} do")
        part = self._without_common(part)
        found = [_kriged(cell, part, np.array([area]), np.array([rate]), own) for cell in self.cells_Kx5]
        mean_K, variance_K = (np.array(values)[:, 0] for values in zip(*found, strict=True))
        mean = float(self.weight_K @ mean_K)
        sd = math.sqrt(self.weight_K @ (variance_K + (mean_K - mean) ** 2))
        common = 1 + float(self.common_V[window])
        return Foretold(mean * common, sd * common)

    def _without_common(self, c: Curve) -> Curve:
        return dataclasses.replace(c, loss_W=c.loss_W / (1 + self.common_V[_windows(c)]))


def fit(curves: Sequence[Curve]) -> CurveLaw:
    """What whole curves have in common.

    Raises:
      ValueError: there are fewer than `FEWEST_RUNS` that have windows enough.
    """
    whole = [c for c in curves if len(c.loss_W) >= FEWEST_WHOLE]
    if len(whole) < FEWEST_RUNS:
        raise ValueError(f"a law of curves is of {FEWEST_RUNS} finished runs at least, of {FEWEST_WHOLE} windows each")
    law = _fit(whole, np.zeros(WINDOWS))
    return _fit([law._without_common(c) for c in whole], law.common_V)


def _fit(curves: Sequence[Curve], common_V: np.ndarray) -> CurveLaw:
    """The law of curves from which what is common has been taken; where that is nothing, it is found here."""
    freedom = sum(len(c.loss_W) - 2 for c in curves)
    ranges, residuals = (_ALPHAS, _FALLS), list(itertools.product(_REACHES, _WHITES))
    for _ in range(3):
        alpha_G, b_G = map(np.ravel, np.meshgrid(np.geomspace(*ranges[0], _NODES), np.linspace(*ranges[1], _NODES)))
        cells, log_weights = list[np.ndarray](), list[np.ndarray]()
        for residual in residuals:
            restricted = [_restricted(c, alpha_G, b_G, residual) for c in curves]
            squares_G, log_volume_G = (sum(each) for each in zip(*restricted, strict=True))
            log_weights.append(log_volume_G - freedom / 2 * np.log(squares_G))
            alike = [np.full(len(alpha_G), value) for value in residual]
            cells.append(np.stack([alpha_G, b_G, *alike, squares_G / freedom], -1))
        weight_RxG = np.exp(np.array(log_weights) - np.max(log_weights))
        likely_RxG = weight_RxG > _UNLIKELY
        residuals = [r for r, likely in zip(residuals, likely_RxG.any(1), strict=True) if likely]
        ranges = tuple(_around(v_G, likely_RxG.any(0)) for v_G in (alpha_G, b_G))
    weight_K, cells_Kx5 = weight_RxG[likely_RxG], np.array(cells)[likely_RxG]
    if not common_V.any():
        common_V = _common(curves, cells_Kx5[weight_K.argmax()])
    return CurveLaw(cells_Kx5, weight_K / weight_K.sum(), common_V, len(curves))


def _common(curves: Sequence[Curve], cell_5: np.ndarray) -> np.ndarray:
    """By what fraction curves are off the law of one cell together: their mean, with one more that is not off."""
    alpha, b, *residual, _ = cell_5
    off_V, curves_V = np.zeros(WINDOWS), np.ones(WINDOWS)
    for c in curves:
        column_Wx2 = _columns(np.array([alpha]), np.array([b]), c.area_W, c.rate_W)[0] / c.loss_W[:, None]
        whiten_WxW = np.linalg.inv(np.linalg.cholesky(_covariance(c, residual)))
        theta_2 = np.linalg.lstsq(whiten_WxW @ column_Wx2, whiten_WxW.sum(1), rcond=None)[0]
        off_V[_windows(c)] += 1 / (column_Wx2 @ theta_2) - 1
        curves_V[_windows(c)] += 1
    return off_V / curves_V


def _windows(c: Curve) -> np.ndarray:
    return np.minimum((c.share_W * WINDOWS).astype(int), WINDOWS - 1)


def _around(value_G: np.ndarray, likely_G: np.ndarray) -> tuple[float, float]:
    """The range of the likely nodes, and a node more on each side."""
    nodes = np.unique(value_G)
    first, last = np.searchsorted(nodes, [value_G[likely_G].min(), value_G[likely_G].max()])
    return float(nodes[max(first - 1, 0)]), float(nodes[min(last + 1, len(nodes) - 1)])


def _columns(alpha_G: np.ndarray, b_G: np.ndarray, area_W: np.ndarray, rate_W: np.ndarray) -> np.ndarray:
    """What L_0 and A are multiplied by, of G pairs of α and b, [G, W, 2]."""
    fall_GxW = 1 + b_G[:, None] * rate_W
    return np.stack([fall_GxW, fall_GxW * area_W ** -alpha_G[:, None]], -1)


def _correlation(area_W: np.ndarray, area_A: np.ndarray, residual: Sequence[float]) -> np.ndarray:
    """Of residuals at two sets of places, [W, A], the noise of each point's own left out."""
    reach, white = residual
    return (1 - white) * np.exp(-np.abs(np.log(area_W)[:, None] - np.log(area_A)) / reach)


def _covariance(c: Curve, residual: Sequence[float]) -> np.ndarray:
    return _correlation(c.area_W, c.area_W, residual) + residual[1] * np.eye(len(c.area_W))


def _restricted(
    c: Curve, alpha_G: np.ndarray, b_G: np.ndarray, residual: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Weighed squares of the relative residuals, and the rest of the likelihood, for every α and b."""
    lower_WxW = np.linalg.cholesky(_covariance(c, residual))
    columns_GxWx2 = _columns(alpha_G, b_G, c.area_W, c.rate_W) / c.loss_W[:, None]
    flat_WxC = np.swapaxes(columns_GxWx2, 0, 1).reshape(len(c.loss_W), -1)
    white_GxWx2 = np.swapaxes(np.linalg.solve(lower_WxW, flat_WxC).reshape(len(c.loss_W), -1, 2), 0, 1)
    seen_W = np.linalg.solve(lower_WxW, np.ones_like(c.loss_W))
    information_Gx2x2 = np.swapaxes(white_GxWx2, 1, 2) @ white_GxWx2
    told_Gx2 = np.einsum("gwc,w->gc", white_GxWx2, seen_W)
    theta_Gx2 = np.linalg.solve(information_Gx2x2, told_Gx2[..., None])[..., 0]
    squares_G = seen_W @ seen_W - np.einsum("gc,gc->g", told_Gx2, theta_Gx2)
    # In units of A's worth, or steep powers would seem unlikely for their unit alone.
    unit_G = np.log(np.ptp(columns_GxWx2[..., 1], axis=1))
    log_volume_G = -np.log(np.diag(lower_WxW)).sum() - np.linalg.slogdet(information_Gx2x2)[1] / 2 + unit_G
    return np.maximum(squares_G, 1e-12), log_volume_G


def _kriged(
    cell: np.ndarray, part: Curve, area_A: np.ndarray, rate_A: np.ndarray, own: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the loss at A places, given a part of a run and what is shared."""
    alpha, b, *residual, variance = cell
    area_W, loss_W, white = part.area_W, part.loss_W, residual[1]
    known_Wx2 = _columns(np.array([alpha]), np.array([b]), area_W, part.rate_W)[0] / loss_W[:, None]
    asked_Ax2 = _columns(np.array([alpha]), np.array([b]), area_A, rate_A)[0]
    inverse_WxW = np.linalg.inv(_covariance(part, residual))
    covariance_2x2 = np.linalg.inv(known_Wx2.T @ inverse_WxW @ known_Wx2)
    theta_2 = covariance_2x2 @ (known_Wx2.T @ inverse_WxW @ np.ones_like(loss_W))
    level_A = asked_Ax2 @ theta_2
    shared_AxW = _correlation(area_A, area_W, residual)
    weights_AxW = shared_AxW @ inverse_WxW
    mean_A = level_A * (1 + weights_AxW @ (1 - known_Wx2 @ theta_2))
    left_Ax2 = asked_Ax2 / level_A[:, None] - weights_AxW @ known_Wx2
    spread_A = (1.0 if own else 1 - white) - np.einsum("aw,aw->a", weights_AxW, shared_AxW)
    spread_A = spread_A + np.einsum("ac,cd,ad->a", left_Ax2, covariance_2x2, left_Ax2)
    return mean_A, variance * np.maximum(spread_A, 0) * mean_A**2


def _weighed(values_FxR: np.ndarray, weight_R: np.ndarray) -> np.ndarray:
    return values_FxR @ weight_R / weight_R.sum()
