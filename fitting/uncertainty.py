"""What the runs leave open: the posterior of a law's parameters, exact but for a grid, from a handful of runs.

A ladder has 5 to 12 runs and a law 3 or 4 parameters, so one to eight degrees of freedom are left. That is too few for
the bootstrap (`fitting.best`), whose resamples often cannot be fitted at all, and for a normal approximation: the
exponent's posterior is skewed, and every extrapolation hangs on it. But given shapes and noise these laws are linear,
so their linear parameters are exactly normal. The rest is a grid over shapes and noise, weighted by the marginal
likelihood and the prior:

- Shapes: as `Prior.shapes` states; flat in the logarithm where it states nothing, as for the paper's method.
- Noise, the scatter of a run around the law: lognormal, median 1 % of the loss (or one point of error), a factor of 2
  either way at one standard deviation. It stands for seeds (0.3 to 1 % among small runs), imperfect tuning, and the law
  not being quite right; with one degree of freedom the runs alone could not bound it.
- Growth: that is the noise of the run with the lowest loss. A run of a loss r times as high is off by r to some power
  more, because a law is least right where it is furthest from what it is to predict. Each of `GROWTHS` is as likely
  beforehand; five runs hardly tell one from another, and thirty do.
- Seeds: runs of one size share how far off the law is there, its misfit, which is what grows, but not their scatter.
  Scatter is any share of the lowest run's noise, as standard deviations, until several seeds of a size tell.
- Evidence: a law is not quite right, so its misfits are alike among sizes that are alike, and many sizes tell less than
  as many independent ones: n count as n / (1 + n / `EVIDENCE`). (Coarsened posterior: Miller & Dunson 2019, Eq. 2.6.)
- Linear parameters: flat over each term's value at the best run, and positive.

`NOISE`, its width and `EVIDENCE` were chosen looking at how often intervals covered the held-out targets of published
testbeds, Gadre et al. 2024 first of all: there coverage is calibrated, not a test. The shapes of
`fitting.priors` are learned by rule, and scored on corpora they were not learned from.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from fitting.laws.law import Law, shape_grid

NOISE = 0.01
NOISE_LOG_SD = 0.7
EVIDENCE = 40
GROWTHS = (0.0, 1.0, 2.0, 3.0, 4.0)
_NOISE = np.geomspace(1e-6, 0.3, 80)
_SCATTERS = np.square((np.arange(8) + 0.5) / 8)  # denser towards 0, and so each weighs as its root
_POOL = 20_000


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
      growth_N: of each run, in units of that of the lowest loss; seeds of a size have one.
      unit_N: what that is a fraction of.
      size_N: numbers from 0, equal for runs of one size.
      lowest_loss: of any size, from which noise grows.
      growth: the power with which it grows.
    """

    growth_N: np.ndarray
    unit_N: np.ndarray
    size_N: np.ndarray
    lowest_loss: float
    growth: float

    @classmethod
    def of(cls, y_N: np.ndarray, loss_N: np.ndarray, size_N: np.ndarray, growth: float, relative: bool) -> "Noise":
        """Of runs that measured y at a loss, where noise grows with that to a power and may be relative to y."""
        seeds_D = np.bincount(size_N)
        mean_y_N, mean_loss_N = ((np.bincount(size_N, v_N) / seeds_D)[size_N] for v_N in (y_N, loss_N))
        unit_N = mean_y_N if relative else np.ones_like(y_N)
        lowest_loss = float(mean_loss_N.min())
        return cls((mean_loss_N / lowest_loss) ** growth, unit_N, size_N, lowest_loss, growth)

    @property
    def seeds_N(self) -> np.ndarray:
        """How many runs there are of each run's size."""
        return np.bincount(self.size_N)[self.size_N]

    @property
    def independent_share(self) -> float:
        """What share of the evidence is independent."""
        return 1 / (1 + (self.size_N.max() + 1) / EVIDENCE)

    def alike_N(self, misfit: float) -> np.ndarray:
        """Correlation between each run's noise and another seed's of its size."""
        return 1 - (1 - misfit) / self.growth_N**2

    def correlation_NxN(self, misfit: float) -> np.ndarray:
        """Correlation of the runs' noise."""
        return np.where(np.eye(len(self.size_N)), 1, (self.size_N[:, None] == self.size_N) * self.alike_N(misfit))

    def counted_N(self, misfit: float) -> np.ndarray:
        """The noise as which each run counts: the mean of R seeds has the variance (1 + (R - 1) alike) / R of one."""
        return self.growth_N * self.unit_N * np.sqrt(1 + (self.seeds_N - 1) * self.alike_N(misfit))


@dataclasses.dataclass(frozen=True)
class Posterior:
    """What is known of a law's P parameters and its noise after seeing the runs.

    Attributes:
      theta_SxP: equally likely joint draws of the parameters.
      shape_Q: geometric mean of each shape.
      noise: root mean square of the noise of a run of the lowest loss or less, relative or not as asked.
      misfit: what share of that noise's variance seeds of one size have in common.
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
    noise: float = NOISE,
    size_N: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Posterior:
    """The posterior of `law` given N runs.

    Args:
      law: the law, of one or two shapes, which have no units.
      x: its inputs, each [N].
      y_N: measurements.
      prior: what is believed of it.
      relative: whether noise is a fraction of the measurement, or in its unit.
      noise: median of the prior of the noise of the run with the lowest loss.
      size_N: equal for runs of one size, as of several seeds; where None, every run is of its own.
      draws: how many draws to keep.
      seed: of the draws.

    Raises:
      ValueError: no parameters with positive terms come near the runs.
    """
    loss_N = x[law.inputs.index("loss")] if "loss" in law.inputs else y_N
    size_N = np.arange(len(y_N)) if size_N is None else size_N
    seeds = len(set(size_N)) < len(size_N)
    scatters = _SCATTERS if seeds else _SCATTERS[[5]]  # of no consequence without seeds
    growth_M, scatter_M = np.array(list(itertools.product(prior.growths, scatters))).T
    runs_M = [Noise.of(y_N, loss_N, size_N, growth, relative) for growth in growth_M]
    ranges_Qx2 = law.shape_ranges
    nodes = min(200, round(6000 ** (1 / len(law.shapes))))
    for _ in range(3):  # the grid closes in on where the posterior is
        shape_GxQ = shape_grid(ranges_Qx2, nodes)
        weighed = [
            _weigh(law, x, y_N, runs, shape_GxQ, scatter, prior, noise)
            for runs, scatter in zip(runs_M, scatter_M, strict=True)
        ]
        share_GxJ, root_GxJxJ, log_weight_GxK = map(np.concatenate, zip(*weighed, strict=True))
        shape_GxQ = np.tile(shape_GxQ, (len(runs_M), 1))
        ranges_Qx2 = _around_the_mass(shape_GxQ, log_weight_GxK.max(1), ranges_Qx2, nodes)

    # One normal draw for each of many cells, the heavier the more often; the same ones for every seed, so that the
    # centre of the posterior, and with it the fit, does not depend on the seed.
    cell_R = _systematic(np.exp(log_weight_GxK - log_weight_GxK.max()).ravel(), _POOL)
    g_R, k_R = np.unravel_index(cell_R, log_weight_GxK.shape)
    normal_RxJ = np.random.default_rng(0).standard_normal((_POOL, len(law.linear)))
    spread_R = _NOISE[k_R] / np.sqrt(runs_M[0].independent_share)
    share_RxJ = share_GxJ[g_R] + spread_R[:, None] * np.einsum("rij,rj->ri", root_GxJxJ[g_R], normal_RxJ)
    allowed = np.flatnonzero((share_RxJ > 0).all(1))
    if not len(allowed):
        raise ValueError(
            f"the runs contradict the law {law.name}: no positive {', '.join(law.linear)} come near them; check the "
            "columns, or leave out the runs that do not belong"
        )

    rng = np.random.default_rng(seed)
    kept = rng.permutation(allowed[(len(allowed) * (np.arange(draws) + rng.random()) / draws).astype(int)])
    m_R = g_R[allowed] // (len(shape_GxQ) // len(runs_M))
    best_x = [v[y_N.argmin()] for v in x]
    unit_SxJ = np.stack(np.broadcast_arrays(*law.evaluate_terms(shape_GxQ[g_R[kept]].T, *best_x)), -1)
    return Posterior(
        theta_SxP=np.concatenate([share_RxJ[kept] * y_N.max() / np.abs(unit_SxJ), shape_GxQ[g_R[kept]]], 1),
        shape_Q=np.exp(np.log(shape_GxQ[g_R[allowed]]).mean(0)),
        noise=float(np.sqrt(np.mean(_NOISE[k_R[allowed]] ** 2))),
        misfit=float(1 - np.mean(scatter_M[m_R] ** 2)),
        runs=Noise.of(y_N, loss_N, size_N, float(np.mean(growth_M[m_R])), relative),
    )


def normal_scores(count: int, rng: np.random.Generator) -> np.ndarray:
    """Normal draws without luck: the quantiles of the normal distribution, in random order."""
    normal = statistics.NormalDist()
    return rng.permutation([normal.inv_cdf((i + 0.5) / count) for i in range(count)])


def _weigh(law, x, y_N, runs, shape_GxQ, scatter, prior, noise):
    """The conditional posterior of the linear parameters and the weight of each (shape, noise), in logarithms.

    Linear regression with a flat prior (Gelman et al., Bayesian Data Analysis, 3rd ed., ch. 14): given shape and noise,
    the terms' shares are normal around `share_GxJ` with covariance noise² root root' over the runs' independent share.
    """
    best, share = y_N.argmin(), runs.independent_share
    terms = law.evaluate_terms(shape_GxQ.T[..., None], *x)
    terms_GxNxJ = np.stack([np.broadcast_to(term, (len(shape_GxQ), len(y_N))) for term in terms], -1)
    white_NxN = np.linalg.inv(np.linalg.cholesky(runs.correlation_NxN(1 - scatter**2))) / (runs.growth_N * runs.unit_N)
    columns_GxNxJ = white_NxN @ (terms_GxNxJ / np.abs(terms_GxNxJ[:, best, None]) * y_N.max())
    seen_N = white_NxN @ y_N
    q, r = np.linalg.qr(columns_GxNxJ)
    root_GxJxJ = np.linalg.inv(r)
    share_GxJ = (root_GxJxJ @ (np.swapaxes(q, 1, 2) @ seen_N[:, None]))[..., 0]
    rss_G = ((np.einsum("gnj,gj->gn", columns_GxNxJ, share_GxJ) - seen_N) ** 2).sum(1)

    log_prior_G = math.log(scatter) / 2 - np.log(np.abs(np.diagonal(r, axis1=1, axis2=2))).sum(1)
    for name, value_G in zip(law.shapes, shape_GxQ.T, strict=True):
        if name in prior.shapes:
            median, log_sd = prior.shapes[name]
            log_prior_G -= (np.log(value_G / median) / log_sd) ** 2 / 2
    log_prior_K = -((np.log(_NOISE / noise) / NOISE_LOG_SD) ** 2) / 2
    freedom = share * len(y_N) - len(law.linear)
    log_volume = share * np.log(np.diagonal(white_NxN)).sum()
    log_likelihood_GxK = log_volume - freedom * np.log(_NOISE) - share * rss_G[:, None] / (2 * _NOISE**2)
    return share_GxJ, root_GxJxJ, log_prior_G[:, None] + log_prior_K + log_likelihood_GxK


def _around_the_mass(shape_GxQ: np.ndarray, log_weight_G: np.ndarray, ranges_Qx2: np.ndarray, nodes: int) -> np.ndarray:
    """The ranges that hold all nodes of any weight, and a node more on each side."""
    inside = shape_GxQ[log_weight_G > log_weight_G.max() - 20]
    margin_Q = (ranges_Qx2[:, 1] / ranges_Qx2[:, 0]) ** (1 / (nodes - 1))
    low_Q = np.maximum(inside.min(0) / margin_Q, ranges_Qx2[:, 0])
    high_Q = np.minimum(inside.max(0) * margin_Q, ranges_Qx2[:, 1])
    return np.stack([low_Q, high_Q], 1)


def _systematic(weight_C: np.ndarray, count: int) -> np.ndarray:
    """`count` indices, each as often as its weight says to within one (Carpenter et al. 1999)."""
    cumulative = np.cumsum(weight_C)
    return np.searchsorted(cumulative, (np.arange(count) + 0.5) / count * cumulative[-1])
