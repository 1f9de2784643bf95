"""What the runs leave open: the posterior of a law's parameters, exact but for a grid, from a few runs or hundreds.

docs/posterior.md says the model in mathematics; the code follows it line by line. A ladder has 4 to 12 runs and a law
as many parameters. That is too few for the bootstrap (`fitting.best`), whose resamples often cannot be fitted at all,
and for a normal approximation: the exponent's posterior is skewed, and every extrapolation hangs on it. But given
shapes and noise these laws are linear, so their linear parameters are exactly normal. The rest is a grid over shapes
and noise, weighted by the marginal likelihood and the prior:

- Shapes: as `Prior.shapes` states; flat in the logarithm where it states nothing, as for the paper's method.
- Noise, how far a run is off the law: lognormal, median 1 % of the loss (or one point of error), a factor of 2 either
  way at one standard deviation. With one degree of freedom the runs alone could not bound it.
- Misfit: some of that is the law not being quite right. It is a smooth function of size, a Gaussian process in log N
  and log D (Matérn 3/2: Rasmussen & Williams 2006, Eq. 4.17): runs within `REACH` of each other share it, so many runs
  close together tell hardly more than one, and what lies far off is its own, and larger (`growth_beyond`); a tenth of
  its variance is not smooth, and shared by seeds of one size alone. The rest of the noise, of seeds and imperfect
  tuning, is each run's own. Any share of the variance is as likely beforehand.
- Growth: that is the noise at the lowest loss. At a loss r times as high it is r to some power more, because a law is
  least right where it is furthest from what it is to predict. Each of `GROWTHS` is as likely beforehand.
- Linear parameters: flat over each term's value at the best run, and positive.

`NOISE`, its width, `REACH`, `SMOOTH`, `GROWTHS` and the kernel were chosen looking at how held-out targets of published
testbeds were predicted and covered: there coverage is calibrated, not a test. The shapes of `fitting.priors` are
learned by rule, and scored on testbeds they were not learned from.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fitting.laws.law import Law, shape_grid

NOISE = 0.01
NOISE_LOG_SD = 0.7
REACH = 2.0  # e-folds of N or of D over which misfits are alike
SMOOTH = 0.9  # the share of the misfit's variance that reaches beyond runs of the very same size
GROWTHS = (0.0, 1.5, 3.0, 4.5, 6.0)
_NOISE = np.geomspace(1e-6, 0.3, 150)
_LEAST = 1e-30  # a sum of squares that is none
MISFITS = np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
_POOL = 20_000
_FARTHEST = 6  # standard deviations from a shape's median that the grid begins with


@dataclasses.dataclass(frozen=True)
class Prior:
    """What is believed of a law before its runs are seen.

    Attributes:
      shapes: median of each shape, and standard deviation of its logarithm. A shape that is absent may be anything.
      growths: equally likely powers of its loss over the lowest with which a run's noise grows.
      source: where that comes from.
    """

    shapes: Mapping[str, tuple[float, float]]
    growths: tuple[float, ...] = GROWTHS
    source: str = ""


@dataclasses.dataclass(frozen=True)
class Noise:
    """How the noise of N runs compares, before how large it is at all is known.

    Attributes:
      loss_N: of each run, which its noise grows with; of runs of one size their mean.
      unit_N: what its noise is a fraction of, 1 where it has a unit of its own.
      alike_NxN: correlation of the runs' misfits.
      growth: the power of the loss over the lowest with which noise grows.
    """

    loss_N: np.ndarray
    unit_N: np.ndarray
    alike_NxN: np.ndarray
    growth: float = 0.0

    @classmethod
    def of(
        cls, y_N: np.ndarray, loss_N: np.ndarray, log_size_NxF: np.ndarray, growth: float, relative: bool
    ) -> "Noise":
        """Of runs that measured y at a loss, where noise grows with that to a power and may be relative to y."""
        apart_NxN = apart(log_size_NxF, log_size_NxF)
        same_NxN = apart_NxN == 0
        # Seeds of a size have one scale.
        mean_y_N, mean_loss_N = (same_NxN @ v_N / same_NxN.sum(1) for v_N in (y_N, loss_N))
        return cls(mean_loss_N, mean_y_N if relative else np.ones_like(y_N), alike(apart_NxN), growth)

    @property
    def lowest_loss(self) -> float:
        """From which noise grows."""
        return float(self.loss_N.min())

    @property
    def scale_N(self) -> np.ndarray:
        """The noise of each run, in units of that of the lowest loss."""
        return (self.loss_N / self.lowest_loss) ** self.growth * self.unit_N

    def whiten_NxN(self, misfit: float) -> np.ndarray:
        """What the runs' noise is multiplied by to be independent and of one size; `misfit` is a share of variance."""
        own = max(1 - misfit, 1e-9)  # seeds that share all would be one run
        correlation_NxN = misfit * self.alike_NxN + own * np.eye(len(self.loss_N))
        return np.linalg.inv(np.linalg.cholesky(correlation_NxN)) / self.scale_N


def place(law: Law, columns: Mapping[str, Any]) -> np.ndarray:
    """Where runs lie for their misfits to be alike: logarithms of N, D and of what else a law is of, [N, F].

    The whole of a mixture is as far as a misfit reaches. What is no size has no place.
    """
    names = [name for name in dict.fromkeys(("params", "tokens", *law.inputs)) if name not in (*law.signed, "loss")]
    values = ((name, np.asarray(columns[name], float)) for name in names)
    return np.stack([REACH * v_N if name in law.proportions else np.log(v_N) for name, v_N in values], -1)


def alike(apart_TxN: np.ndarray) -> np.ndarray:
    """Correlation of all misfit so far `apart`: most of it smooth, the rest shared by seeds of one size alone."""
    return SMOOTH * smooth(apart_TxN) + (1 - SMOOTH) * (apart_TxN == 0)


def smooth(apart_TxN: np.ndarray) -> np.ndarray:
    """Correlation of a smooth misfit so far `apart`: Matérn 3/2 over `REACH`."""
    distance_TxN = np.sqrt(3 * apart_TxN)
    return (1 + distance_TxN) * np.exp(-distance_TxN)


def growth_beyond(misfit: float, log_size_NxF: np.ndarray, log_size_F: np.ndarray) -> float:
    """By how much noise is larger at a size than among N runs, since away from them the law's misfit goes on growing.

    The misfit's variance grows by itself with every `REACH`, squared, to the nearest run: as it does where a slope is
    not quite right.

    Args:
      misfit: the share of the variance among the runs that is the law's misfit.
      log_size_NxF: where the runs lie, as `place` says.
      log_size_F: where the size asked about does.
    """
    return float(np.sqrt(1 + misfit * apart(log_size_F[None], log_size_NxF).min()))


def apart(log_size_TxF: np.ndarray, log_size_NxF: np.ndarray) -> np.ndarray:
    """Square of the distance of T sizes from N, in `REACH`, [T, N]."""
    return np.square((log_size_TxF[:, None] - log_size_NxF) / REACH).sum(-1)


@dataclasses.dataclass(frozen=True)
class Posterior:
    """What is known of a law's P parameters and its noise after seeing the runs.

    Attributes:
      theta_SxP: equally likely joint draws of the parameters.
      shape_Q: geometric mean of each shape.
      noise: root mean square of the noise of a run of the lowest loss or less, relative or not as asked.
      misfit: what share of that noise's variance is the law's misfit, which runs of like sizes share.
      runs: how the runs' noise compares, at the mean of the growths.
    """

    theta_SxP: np.ndarray
    shape_Q: np.ndarray
    noise: float
    misfit: float
    runs: Noise


def posterior(
    law: Law,
    x: Sequence[np.ndarray],
    y_N: np.ndarray,
    prior: Prior,
    *,
    relative: bool,
    log_size_NxF: np.ndarray,
    noise: float = NOISE,
    draws: int = 1000,
    seed: int = 0,
) -> Posterior:
    """The posterior of `law` given N runs.

    Args:
      law: the law, of one to three shapes, which have no units.
      x: its inputs, each [N].
      y_N: measurements.
      prior: what is believed of it.
      relative: whether noise is a fraction of the measurement, or in its unit.
      log_size_NxF: logarithms of the runs' sizes, N and D: those of like sizes share the law's misfit.
      noise: median of the prior of the noise of the run with the lowest loss.
      draws: how many draws to keep.
      seed: of the draws.

    Raises:
      ValueError: no parameters with positive terms come near the runs.
    """
    loss_N = x[law.inputs.index("loss")] if "loss" in law.inputs else y_N
    even = Noise.of(y_N, loss_N, log_size_NxF, 0.0, relative)
    # In the eigenvectors of the misfit's correlation the noise is independent, whatever share the misfit has.
    eigenvalue_N, vector_NxN = np.linalg.eigh(even.alike_NxN)
    ranges_Qx2 = _believable(law, prior)
    nodes = min(200, round(2200 ** (1 / len(law.shapes))))
    log_weight_K = -((np.log(_NOISE / noise) / NOISE_LOG_SD) ** 2) / 2 - (len(y_N) - len(law.linear)) * np.log(_NOISE)
    for every in (2, 2, 1):  # the grid closes in on where the posterior is, with every other growth and misfit at first
        shape_GxQ = shape_grid(ranges_Qx2, nodes)
        log_prior_G = _log_prior(law, shape_GxQ, prior)
        columns_GxNxJ = _columns(law, x, y_N, shape_GxQ)
        weighed = [
            each
            for growth in prior.growths[::every]
            for each in _weigh(
                columns_GxNxJ,
                y_N,
                dataclasses.replace(even, growth=growth).scale_N,
                MISFITS[::every],
                eigenvalue_N,
                vector_NxN,
                log_prior_G,
            )
        ]
        share_HxGxJ, root_HxGxJxJ, log_weight_HxG, rss_HxG = map(np.stack, zip(*weighed, strict=True))
        log_weight_HxG = log_weight_HxG + _log_sum(log_weight_K, rss_HxG)
        ranges_Qx2 = _around_the_mass(shape_GxQ, log_weight_HxG.max(0), ranges_Qx2, nodes)

    # One normal draw for each of many cells, the heavier the more often; the same ones for every seed, so that the
    # centre of the posterior, and with it the fit, does not depend on the seed.
    cell_R = systematic(np.exp(log_weight_HxG - log_weight_HxG.max()), _POOL)
    h_R, g_R = np.unravel_index(cell_R, log_weight_HxG.shape)
    rng = np.random.default_rng(0)
    noise_R = _noise_given(log_weight_K, rss_HxG[h_R, g_R], rng)
    normal_RxJ = rng.standard_normal((_POOL, len(law.linear)))
    share_RxJ = share_HxGxJ[h_R, g_R] + noise_R[:, None] * np.einsum("rij,rj->ri", root_HxGxJxJ[h_R, g_R], normal_RxJ)
    allowed = np.flatnonzero((share_RxJ > 0).all(1))
    if not len(allowed):
        raise ValueError(
            f"the runs contradict the law {law.name}: no positive {', '.join(law.linear)} come near them; check the "
            "columns, or leave out the runs that do not belong"
        )

    rng = np.random.default_rng(seed)
    kept = rng.permutation(allowed[(len(allowed) * (np.arange(draws) + rng.random()) / draws).astype(int)])
    growth_R, misfit_R = np.array(prior.growths)[h_R // len(MISFITS)], MISFITS[h_R % len(MISFITS)]
    best_x = [v[y_N.argmin()] for v in x]
    unit_SxJ = np.stack(np.broadcast_arrays(*law.evaluate_terms(shape_GxQ[g_R[kept]].T, *best_x)), -1)
    return Posterior(
        theta_SxP=np.concatenate([share_RxJ[kept] * y_N.max() / np.abs(unit_SxJ), shape_GxQ[g_R[kept]]], 1),
        shape_Q=np.exp(np.log(shape_GxQ[g_R[allowed]]).mean(0)),
        noise=float(np.sqrt(np.mean(noise_R[allowed] ** 2))),
        misfit=float(np.mean(misfit_R[allowed])),
        runs=dataclasses.replace(even, growth=float(np.mean(growth_R[allowed]))),
    )


def normal_scores(count: int, rng: np.random.Generator) -> np.ndarray:
    """Normal draws without luck: the quantiles of the normal distribution, in random order."""
    normal = statistics.NormalDist()
    return rng.permutation([normal.inv_cdf((i + 0.5) / count) for i in range(count)])


def systematic(weight_C: np.ndarray, count: int) -> np.ndarray:
    """`count` indices into flat weights, each as often as its weight says to within one (Carpenter et al. 1999)."""
    cumulative = np.cumsum(weight_C)
    return np.searchsorted(cumulative, (np.arange(count) + 0.5) / count * cumulative[-1])


def _log_prior(law: Law, shape_GxQ: np.ndarray, prior: Prior) -> np.ndarray:
    log_prior_G = np.zeros(len(shape_GxQ))
    for name, value_G in zip(law.shapes, shape_GxQ.T, strict=True):
        if name in prior.shapes:
            median, log_sd = prior.shapes[name]
            log_prior_G -= (np.log(value_G / median) / log_sd) ** 2 / 2
    return log_prior_G


def _columns(law: Law, x: Sequence[np.ndarray], y_N: np.ndarray, shape_GxQ: np.ndarray) -> np.ndarray:
    """The J terms of G shapes at N runs, in units of what each is worth to the best run."""
    terms = law.evaluate_terms(shape_GxQ.T[..., None], *x)
    terms_GxNxJ = np.stack([np.broadcast_to(term, (len(shape_GxQ), len(y_N))) for term in terms], -1)
    return terms_GxNxJ / np.abs(terms_GxNxJ[:, y_N.argmin(), None]) * y_N.max()


def _weigh(
    columns_GxNxJ: np.ndarray,
    y_N: np.ndarray,
    scale_N: np.ndarray,
    misfits: Iterable[float],
    eigenvalue_N: np.ndarray,
    vector_NxN: np.ndarray,
    log_prior_G: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """For each share of misfit, of G shapes: what is known of the linear parameters, and how likely all of it is.

    Linear regression with a flat prior (Gelman et al., Bayesian Data Analysis, 3rd ed., ch. 14): given shape and noise,
    the terms' shares are normal around share_GxJ with covariance noise² root root'. The weight, a logarithm, lacks what
    depends on the noise, that is on rss_G.
    """
    turn_NxN = vector_NxN.T / scale_N
    turned_GxNxJ, turned_N = turn_NxN @ columns_GxNxJ, turn_NxN @ y_N
    for misfit in misfits:
        sd_N = np.sqrt(misfit * np.maximum(eigenvalue_N, 0) + 1 - misfit)
        white_GxNxJ, seen_N = turned_GxNxJ / sd_N[:, None], turned_N / sd_N
        information_GxJxJ = np.swapaxes(white_GxNxJ, 1, 2) @ white_GxNxJ
        information_GxJxJ = information_GxJxJ * (1 + 1e-12 * np.eye(columns_GxNxJ.shape[2]))  # terms may be alike
        lower_GxJxJ = np.linalg.cholesky(information_GxJxJ)
        root_GxJxJ = np.swapaxes(np.linalg.inv(lower_GxJxJ), 1, 2)
        told_GxJx1 = (seen_N @ white_GxNxJ)[..., None]
        share_GxJx1 = root_GxJxJ @ (np.swapaxes(root_GxJxJ, 1, 2) @ told_GxJx1)
        rss_G = np.square((white_GxNxJ @ share_GxJx1)[..., 0] - seen_N).sum(1)
        log_volume_G = -np.log(np.diagonal(lower_GxJxJ, axis1=1, axis2=2)).sum(1)
        log_volume = -np.log(sd_N).sum() - np.log(scale_N).sum()
        yield share_GxJx1[..., 0], root_GxJxJ, log_prior_G + log_volume_G + log_volume, rss_G


def _log_sum(log_weight_K: np.ndarray, rss_HxG: np.ndarray) -> np.ndarray:
    """The logarithm of the likelihood summed over the noise, which leaves rss / noise² of squares."""
    log_rss_HxG = np.log(np.maximum(rss_HxG, _LEAST))
    log_rss_T, log_weight_TxK = _by_rss(log_weight_K, log_rss_HxG)
    highest_T = log_weight_TxK.max(1)
    log_sum_T = highest_T + np.log(np.exp(log_weight_TxK - highest_T[:, None]).sum(1))
    return np.interp(log_rss_HxG, log_rss_T, log_sum_T)


def _noise_given(log_weight_K: np.ndarray, rss_R: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of the noise for each of R sums of squares."""
    log_rss_R = np.log(np.maximum(rss_R, _LEAST))
    log_rss_T, log_weight_TxK = _by_rss(log_weight_K, log_rss_R)
    cumulative_TxK = np.cumsum(np.exp(log_weight_TxK - log_weight_TxK.max(1, keepdims=True)), 1)
    row_R = np.searchsorted(log_rss_T, log_rss_R)
    # All rows as one ascending line, from 0 to 1, 1 to 2 and so on.
    line = (cumulative_TxK / cumulative_TxK[:, -1:] + np.arange(len(log_rss_T))[:, None]).ravel()
    return _NOISE[np.searchsorted(line, row_R + rng.random(len(rss_R)), side="right") - row_R * len(_NOISE)]


def _by_rss(log_weight_K: np.ndarray, log_rss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table over T sums of squares of how likely each noise is: a smooth function, asked for a hundred thousand."""
    log_rss_T = np.linspace(log_rss.min(), log_rss.max() + 1e-9, 2000)
    return log_rss_T, log_weight_K - np.exp(log_rss_T)[:, None] / (2 * _NOISE**2)


def _believable(law: Law, prior: Prior) -> np.ndarray:
    """The range of each of Q shapes in which the posterior can be: [Q, (low, high)]."""
    ranges_Qx2 = law.shape_ranges
    for range_2, name in zip(ranges_Qx2, law.shapes, strict=True):
        if name in prior.shapes:
            median, log_sd = prior.shapes[name]
            range_2[:] = np.clip(median * np.exp(np.array([-1, 1]) * _FARTHEST * log_sd), *range_2)
    return ranges_Qx2


def _around_the_mass(shape_GxQ: np.ndarray, log_weight_G: np.ndarray, ranges_Qx2: np.ndarray, nodes: int) -> np.ndarray:
    """The ranges that hold all nodes of any weight, and a node more on each side."""
    inside = shape_GxQ[log_weight_G > log_weight_G.max() - 20]
    margin_Q = (ranges_Qx2[:, 1] / ranges_Qx2[:, 0]) ** (1 / (nodes - 1))
    low_Q = np.maximum(inside.min(0) / margin_Q, ranges_Qx2[:, 0])
    high_Q = np.minimum(inside.max(0) * margin_Q, ranges_Qx2[:, 1])
    return np.stack([low_Q, high_Q], 1)
