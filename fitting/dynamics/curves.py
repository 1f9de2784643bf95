"""Training curves of a ladder's runs → where a run that is under way will end, and whether it goes as the others do.

The law is that of annealing (Tissue et al. 2024, arXiv:2408.11029) between runs of one recipe:

    L = (L_0 + A S^-α) (1 + b η),   S the sum of the learning rates so far, η the rate now; both as shares

of the schedule's own sum and peak. Its last factor is their C S_2 where the momentum S_2 forgets fast against the
schedule: it then is the fall of the rate. L_0 and A are each run's own, α and b are shared by all: a part of a run
tells the former, and only whole runs tell the latter.

What all finished curves are off that law alike, as parts of one recipe's schedule, is taken off each (their mean).

The points of a curve are not so many measurements. What one is off the law the next is off too, so residuals are those
of an Ornstein-Uhlenbeck process along ln S, and of a noise of each point's own; a curve of sixty points so weighs as a
few. How far that reaches and how large it is, the curves say together (restricted likelihood: Patterson & Thompson
1971; prediction given the residuals so far: Rasmussen & Williams 2006, Eq. 2.27). The noise is each run's own, as its
batch is: what neighbours among its points differ by.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import numpy as np

WINDOWS = 64  # that a whole run's curve is averaged over
FIRST = 0.1  # share of a run that is left out: its warm-up, and a fall that no power follows
FEWEST = 8  # windows of a run that is foretold
FEWEST_WHOLE = 20  # windows of a run that the law is of
FEWEST_RUNS = 4
OFF_DEVIATIONS, OFF_LOSS = 5.0, 0.005  # from which a run has left the law: of what the law knows, and of the loss
_ALPHAS = (0.1, 1.6)
_FALLS = (0.0, 0.3)
_NODES = 9  # along each of these, on a grid that closes in on where the likelihood is
_REACHES = (0.1, 0.3, 1.0)
_WANDERS = tuple(np.geomspace(3e-4, 3e-2, 7).tolist())  # standard deviation of that process, as a fraction of the loss
_NORMAL_MEDIAN = 0.6745  # of what is normal, its absolute value's
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

    def only(self, which_W: np.ndarray) -> "Curve":
        """Some of the windows."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name.endswith("_W")}
        return dataclasses.replace(self, **{name: values_W[which_W] for name, values_W in arrays.items()})

    def until(self, share: float) -> "Curve":
        """The windows whose middle lies within a share of the steps."""
        return self.only(self.share_W <= share)

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
    end_R, steps = np.asarray(step_R, int), len(learning_rate_S)
    length_R = np.diff(end_R, prepend=0)
    middle_R = end_R - length_R / 2
    window_R = np.minimum(WINDOWS - 1, (middle_R * WINDOWS / steps).astype(int))
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
      cells_Kx4: α, b, and of the residual its reach and its standard deviation, as a fraction of the loss.
      weight_K: how likely each is, of those that count.
      common_V: by what fraction all curves are off the law, by window.
      runs: how many curves it is of.
    """

    cells_Kx4: np.ndarray
    weight_K: np.ndarray
    common_V: np.ndarray
    runs: int

    @property
    def alpha(self) -> float:
        """The mean exponent."""
        return float(self.weight_K @ self.cells_Kx4[:, 0])

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
        on_W, off = np.arange(len(part.loss_W)) < FEWEST, list[Strayed]()
        for window in range(FEWEST, len(part.loss_W)):
            place = (part.area_W[window], part.rate_W[window], _windows(part)[window])
            foretold = self._foretell(part.only(on_W), *place, own=True)
            by = part.loss_W[window] / foretold.loss - 1
            deviations = by * foretold.loss / foretold.sd
            if abs(deviations) < OFF_DEVIATIONS or abs(by) < OFF_LOSS:
                on_W[window], off = True, []
            else:
                off.append(Strayed(part.step(window), float(by), float(deviations)))
        return dataclasses.replace(off[-1], step=off[0].step) if len(off) > 1 else None

    def _foretell(self, part: Curve, area: float, rate: float, window: int, *, own: bool) -> Foretold:
        """The loss at a place of the schedule, with the noise of a window's own, if `own`."""
        if len(part.loss_W) < FEWEST:
            raise ValueError(f"{len(part.loss_W)} windows past a run's first tenth foretell nothing; {FEWEST} do")
        part = self._without_common(part)
        mean_K, variance_K = np.array([_kriged(cell, part, area, rate, own) for cell in self.cells_Kx4]).T
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


def foretold_end(law: CurveLaw, part: Curve, whole: Sequence[Curve], measured_R: Sequence[float]) -> Foretold:
    """What will be measured at a run's end, as R finished runs' measurements and their curves up to the same share say.

    How far each of those came from what the like part of its curve foretold is both the step from a training loss to
    what is measured and how well parts foretell ends: its mean is taken off, its spread is the deviation, for a
    Student's t of R - 1 degrees of freedom.

    Args:
      law: of the finished runs.
      part: of the run that is foretold.
      whole: curves of the finished runs.
      measured_R: their losses at the end.
    """
    share = float(part.share_W[-1])
    off_R = np.log(measured_R) - np.log([law.end(c.until(share)).loss for c in whole])
    runs, end = len(off_R), law.end(part)
    variance = float(np.var(off_R, ddof=1)) * (1 + 1 / runs) * (runs - 1) / (runs - 3)
    loss = end.loss * math.exp(float(off_R.mean()))
    return Foretold(loss, loss * math.sqrt(max(variance, (end.sd / end.loss) ** 2)))


def _fit(curves: Sequence[Curve], common_V: np.ndarray) -> CurveLaw:
    """The law of curves from which what is common has been taken; where that is nothing, it is found here."""
    ranges, residuals = [_ALPHAS, _FALLS], list(itertools.product(_REACHES, _WANDERS))
    for _ in range(3):
        alpha_G, b_G = map(np.ravel, np.meshgrid(np.geomspace(*ranges[0], _NODES), np.linspace(*ranges[1], _NODES)))
        log_weights = [np.sum([_restricted(c, alpha_G, b_G, each) for c in curves], axis=0) for each in residuals]
        alike_RxGx2 = np.broadcast_to(np.array(residuals)[:, None], (len(residuals), len(alpha_G), 2))
        shared_RxGx2 = np.broadcast_to(np.stack([alpha_G, b_G], -1), alike_RxGx2.shape)
        cells = np.concatenate([shared_RxGx2, alike_RxGx2], -1)
        weight_RxG = np.exp(np.array(log_weights) - np.max(log_weights))
        likely_RxG = weight_RxG > _UNLIKELY
        residuals = [r for r, likely in zip(residuals, likely_RxG.any(1), strict=True) if likely]
        ranges = [_around(v_G, likely_RxG.any(0)) for v_G in (alpha_G, b_G)]
    weight_K, cells_Kx4 = weight_RxG[likely_RxG], cells[likely_RxG]
    if not common_V.any():
        common_V = _common(curves, cells_Kx4[weight_K.argmax()])
    return CurveLaw(cells_Kx4, weight_K / weight_K.sum(), common_V, len(curves))


def _common(curves: Sequence[Curve], cell_4: np.ndarray) -> np.ndarray:
    """By what fraction curves are off the law of one cell together: their mean, with one more that is not off."""
    alpha, b, *residual = cell_4
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
    reach, wander = residual
    return wander**2 * np.exp(-np.abs(np.log(area_W)[:, None] - np.log(area_A)) / reach)


def _covariance(c: Curve, residual: Sequence[float]) -> np.ndarray:
    return _correlation(c.area_W, c.area_W, residual) + _noise(c) ** 2 * np.eye(len(c.area_W))


def _noise(c: Curve) -> float:
    """Standard deviation of a point's own noise, as a fraction of the loss: of what is no parabola through neighbours.

    The median of the third differences: a leap is no noise.
    """
    return max(1e-4, float(np.median(np.abs(np.diff(np.log(c.loss_W), 3)))) / (_NORMAL_MEDIAN * math.sqrt(20)))


def _restricted(c: Curve, alpha_G: np.ndarray, b_G: np.ndarray, residual: Sequence[float]) -> np.ndarray:
    """The logarithm of the likelihood of every α and b, with L_0 and A integrated out, [G]."""
    lower_WxW = np.linalg.cholesky(_covariance(c, residual))
    column_GxWx2 = _columns(alpha_G, b_G, c.area_W, c.rate_W) / c.loss_W[:, None]
    flat_WxC = np.swapaxes(column_GxWx2, 0, 1).reshape(len(c.loss_W), -1)
    white_GxWx2 = np.swapaxes(np.linalg.solve(lower_WxW, flat_WxC).reshape(len(c.loss_W), -1, 2), 0, 1)
    seen_W = np.linalg.solve(lower_WxW, np.ones_like(c.loss_W))
    information_Gx2x2 = np.swapaxes(white_GxWx2, 1, 2) @ white_GxWx2
    told_Gx2 = np.einsum("gwc,w->gc", white_GxWx2, seen_W)
    theta_Gx2 = np.linalg.solve(information_Gx2x2, told_Gx2[..., None])[..., 0]
    squares_G = seen_W @ seen_W - np.einsum("gc,gc->g", told_Gx2, theta_Gx2)
    # In units of A's worth, or steep powers would seem unlikely for their unit alone.
    unit_G = np.log(np.ptp(column_GxWx2[..., 1], axis=1))
    log_volume_G = unit_G - np.linalg.slogdet(information_Gx2x2)[1] / 2
    return log_volume_G - np.log(np.diag(lower_WxW)).sum() - squares_G / 2


def _kriged(cell_4: np.ndarray, part: Curve, area: float, rate: float, own: bool) -> tuple[float, float]:
    """Mean and variance of the loss at a place, given a part of a run and what is shared."""
    alpha, b, *residual = cell_4
    area_W, loss_W = part.area_W, part.loss_W
    known_Wx2 = _columns(np.array([alpha]), np.array([b]), area_W, part.rate_W)[0] / loss_W[:, None]
    asked_2 = _columns(np.array([alpha]), np.array([b]), np.array([area]), np.array([rate]))[0, 0]
    inverse_WxW = np.linalg.inv(_covariance(part, residual))
    covariance_2x2 = np.linalg.inv(known_Wx2.T @ inverse_WxW @ known_Wx2)
    theta_2 = covariance_2x2 @ (known_Wx2.T @ inverse_WxW @ np.ones_like(loss_W))
    shared_W = _correlation(np.array([area]), area_W, residual)[0]
    weights_W = shared_W @ inverse_WxW
    level = asked_2 @ theta_2
    mean = level * (1 + weights_W @ (1 - known_Wx2 @ theta_2))
    left_2 = asked_2 / level - weights_W @ known_Wx2
    variance = residual[1] ** 2 - weights_W @ shared_W + left_2 @ covariance_2x2 @ left_2
    return mean, (max(variance, 0.0) + own * _noise(part) ** 2) * mean**2


def _weighed(values_FxR: np.ndarray, weight_R: np.ndarray) -> np.ndarray:
    return values_FxR @ weight_R / weight_R.sum()
