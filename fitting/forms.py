"""Which form the runs speak for: each law that they can tell from others, by how it foretells a run from the rest.

Given its shapes a law is linear, and to leave run i out of a linear fit needs no second one: with residual e and
leverage h, the run left out is missed by e_i / (1 - h_i), and the squares of the rest fall by e_i² / (1 - h_i) (Cook &
Weisberg 1982, Eq. 2.2.1). So of many shapes the best without i, and what they say of i, are known at once; the best so
far tell where to look for better ones (the cross-entropy method: Rubinstein 1999), along ridges that no grid follows.

Laws are weighed by stacking (Yao et al. 2018, Eq. 4): the weights with which a mixture of them gives the runs left out
the highest density, each law's a Student t of what its residuals without the run say of its noise.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fitting.laws import catalogue, rays
from fitting.laws.beliefs import EXPONENTS, exponent
from fitting.laws.elementary import exp, log, logaddexp
from fitting.laws.law import Law, Shape, shape_grid

_CELLS, _MOST_NODES = 500_000, 3000  # of runs times nodes times terms, which is what time goes with; of nodes
_CLOSER = 12  # times that the nodes close in on the best of them
_SEED = 0.002  # of the loss: no form is better than what a seed makes of it


@dataclasses.dataclass(frozen=True)
class Form:
    """How a law foretells each run from the others.

    Attributes:
      law: its name.
      weight: in the mixture of all that foretells best.
      miss: root mean square of what it misses the run left out by, as a fraction of the measurement.
    """

    law: str
    weight: float
    miss: float


def ranked(columns: Mapping[str, np.ndarray], y_N: np.ndarray) -> tuple[Form, ...]:
    """The loss laws that N runs can tell apart, the one of the most weight first; empty where there are too few.

    Args:
      columns: what laws are of, such as `params` and `tokens`, each [N].
      y_N: losses.
    """
    log_density, misses = {}, {}
    for law in _candidates():
        if set(law.inputs) <= set(columns):
            x = [np.asarray(columns[name], float) for name in law.inputs]
            if _can_tell(law, x, y_N):
                nodes = min(_MOST_NODES, _CELLS // len(y_N) // len(law.linear))
                misses[law.name], log_density[law.name] = _left_out(law, x, y_N, y_N, nodes=nodes, closer=_CLOSER)
    if not misses:
        return ()
    weights = _stacked(np.stack(list(log_density.values()), -1))
    forms = [
        Form(name, float(weight), float(np.sqrt(np.mean(miss_N**2))))
        for (name, miss_N), weight in zip(misses.items(), weights, strict=True)
    ]
    return tuple(sorted(forms, key=lambda form: (-form.weight, form.miss)))


def foretold(law: Law, x: Sequence[np.ndarray], y_N: np.ndarray) -> float:
    """What share of the variance of a run left out the law foretells from the others: R², below 0 where it misleads.

    The measurements are compared as they are, and against the mean of the others.
    """
    miss_N = _left_out(law, x, y_N, np.ones_like(y_N), nodes=400, closer=5)[0]
    off_N = (y_N - y_N.mean()) * len(y_N) / (len(y_N) - 1)
    return float(1 - np.sum(miss_N**2) / np.sum(off_N**2)) if off_N.any() else 0.0


def _candidates() -> list[Law]:
    written = {"kaplan": _KAPLAN, "coupled": _COUPLED}
    laws = [written.get(name, law) for name, law in catalogue.LOSS_LAWS.items()]
    return [law for law in laws if law not in rays.LAWS and law.linear and not law.units and not law.signed]


def _kaplan(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    alpha_N, alpha_D, balance = shape
    return _coupled((alpha_N, alpha_D, alpha_D, balance), params, tokens)[1:]


def _coupled(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    alpha, beta, kappa, balance = shape
    size, data = (e * (log(v) - np.mean(np.log(v))) for e, v in ((alpha, params), (beta, tokens)))
    return 1.0, exp(kappa * logaddexp(-size / kappa, log(balance) - data / kappa))


# Two laws whose coefficients stand inside a power, written with the coefficient of the whole and their balance amid the
# runs: so written they are linear in all but shapes.
_BALANCE = Shape(1e-2, 1e2, 1.0, 2.3, "as much from size as from data amid the runs, give or take a factor of ten")
_KAPLAN = Law(
    name="kaplan",
    inputs=("params", "tokens"),
    linear=("A",),
    shapes={"alpha_N": exponent(0.076, ""), "alpha_D": exponent(0.095, ""), "balance": _BALANCE},
    terms=_kaplan,
    latex="",
    citation="",
)
_COUPLED = Law(
    name="coupled",
    inputs=("params", "tokens"),
    linear=("E", "A"),
    shapes={**EXPONENTS, "kappa": Shape(0.1, 10.0, 1.0, 0.5, ""), "balance": _BALANCE},
    terms=_coupled,
    latex="",
    citation="",
)


def _can_tell(law: Law, x: Sequence[np.ndarray], y_N: np.ndarray) -> bool:
    """Whether without any one run there are as many sizes as parameters, and one more to see noise by."""
    sizes = np.unique(np.stack(x), axis=1).shape[1]
    middle = [shape.median for shape in law.shapes.values()]
    columns_NxJ = np.stack(np.broadcast_arrays(*law.evaluate_terms(middle, *x), y_N)[:-1], -1)
    return sizes >= len(law.parameters) + 2 and np.linalg.cond(columns_NxJ / np.abs(columns_NxJ).max(0)) < 1e6


def _left_out(
    law: Law, x: Sequence[np.ndarray], y_N: np.ndarray, scale_N: np.ndarray, *, nodes: int, closer: int
) -> tuple[np.ndarray, np.ndarray]:
    """By how many times its scale the law misses each run, fitted to the others, and the log of its density there."""
    freedom, shapes = len(y_N) - 1 - len(law.parameters), len(law.shapes)
    bounds = np.log(law.shape_ranges).T
    rng = np.random.default_rng(0)
    log_shape_GxQ = np.log(shape_grid(law.shape_ranges, math.ceil(nodes ** (1 / shapes))))
    for _ in range(closer):
        miss_GxN, kept_GxN, squares_G = _missed(law, x, y_N, scale_N, log_shape_GxQ)
        squares_GxN = squares_G[:, None] - miss_GxN**2 / kept_GxN
        best_N = squares_GxN.argmin(0)
        best_ExQ = log_shape_GxQ[np.append(best_N, squares_G.argsort()[: max(shapes + 2, nodes // 20)])]
        wider_QxQ = 1.5 * np.cov(best_ExQ.T).reshape(shapes, shapes)
        drawn_GxQ = rng.multivariate_normal(best_ExQ.mean(0), wider_QxQ, nodes, method="eigh")
        log_shape_GxQ = np.concatenate([np.clip(drawn_GxQ, *bounds), best_ExQ])
    run_N = np.arange(len(y_N))
    kept_N, squares_N = kept_GxN[best_N, run_N], np.maximum(squares_GxN[best_N, run_N], 0)
    miss_N = miss_GxN[best_N, run_N] / kept_N
    scale_N = np.sqrt((squares_N / freedom + _SEED**2) / kept_N)
    normal = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    return miss_N, normal - np.log(scale_N) - (freedom + 1) / 2 * np.log1p((miss_N / scale_N) ** 2 / freedom)


def _missed(
    law: Law, x: Sequence[np.ndarray], y_N: np.ndarray, scale_N: np.ndarray, log_shape_GxQ: np.ndarray
) -> tuple[np.ndarray, ...]:
    """For each of G shapes: residuals in scales, 1 less the leverage, and squares; infinite with negative terms."""
    terms = law.evaluate_terms(np.exp(log_shape_GxQ).T[..., None], *x)
    column_GxNxJ = np.stack([np.broadcast_to(term, (len(log_shape_GxQ), len(y_N))) for term in terms], -1)
    column_GxNxJ = column_GxNxJ / scale_N[:, None]
    q_GxNxJ, r_GxJxJ = np.linalg.qr(column_GxNxJ / np.abs(column_GxNxJ).max(1, keepdims=True))
    seen_N = y_N / scale_N
    seen_GxJ = np.einsum("gnj,n->gj", q_GxNxJ, seen_N)
    miss_GxN = seen_N - np.einsum("gnj,gj->gn", q_GxNxJ, seen_GxJ)
    share_GxJ = np.linalg.solve(r_GxJxJ, seen_GxJ[..., None])[..., 0]
    squares_G = np.where((share_GxJ >= 0).all(1), (miss_GxN**2).sum(1), np.inf)
    return miss_GxN, np.maximum(1 - (q_GxNxJ**2).sum(-1), 1e-9), squares_G


def _stacked(log_density_NxK: np.ndarray) -> np.ndarray:
    """Weights of K laws whose mixture gives N runs the highest density: expectation-maximisation, which only climbs."""
    density_NxK = np.exp(log_density_NxK - log_density_NxK.max(1, keepdims=True))
    weight_K = np.full(density_NxK.shape[1], 1 / density_NxK.shape[1])
    for _ in range(1000):
        share_NxK = weight_K * density_NxK
        weight_K = (share_NxK / share_NxK.sum(1, keepdims=True)).mean(0)
    return weight_K
