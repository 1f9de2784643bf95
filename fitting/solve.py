"""Batched least squares: many datasets, many starts, one compiled call. The only file that imports jaxopt.

A law is solved in scaled coordinates: for each linear parameter its term at the best run over the largest value, which
is of order one, and for each shape its logarithm. Starts come from variable projection: for every shape on a grid the
best linear parameters are a linear solve. The best of them are polished by Levenberg-Marquardt, in float64.
"""

import dataclasses
import functools
import warnings
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fitting.laws import Law

_POSITIVE_FLOOR = 1e-4  # the least share of a term that a positive start may have: at zero the logarithm has no slope
_BOUND = 1e-6  # a term with a smaller share than this has vanished
_SAME_OPTIMUM = 1e-6  # relative difference of objectives


@dataclasses.dataclass(frozen=True)
class Solution:
    """What `minimise` found, for B datasets of a law with P parameters.

    Attributes:
      theta_BxP: parameters at the lowest objective found.
      objective_B: sum of squared residuals there.
      starts: how many starts of each dataset were polished.
      share_at_optimum_B: share of them that reached that objective.
      at_bound: names of the parameters of the first dataset that lie at a bound.
    """

    theta_BxP: np.ndarray
    objective_B: np.ndarray
    starts: int
    share_at_optimum_B: np.ndarray
    at_bound: tuple[str, ...]


def shape_ranges(law: Law) -> np.ndarray:
    """The range in which each of a law's Q shapes is searched: [Q, (low, high)]."""
    return np.array([(shape.low, shape.high) for shape in law.shapes.values()])


def shape_grid(ranges_Qx2: np.ndarray, nodes: int) -> np.ndarray:
    """Shapes spread evenly in their logarithms, `nodes` along each: [nodes^Q, Q]."""
    axes = [np.geomspace(low, high, nodes) for low, high in ranges_Qx2]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], -1)


def minimise(
    law: Law,
    x: Sequence[np.ndarray],
    y_BxN: np.ndarray,
    scale_BxN: np.ndarray,
    *,
    positive: bool,
    shapes_GxQ: np.ndarray | None = None,
    starts: int = 16,
) -> Solution:
    """Minimises the sum over runs of ((f(theta, x) - y) / scale)² for each of B datasets.

    Args:
      law: the law, with Q shapes.
      x: the law's inputs, each [N].
      y_BxN: measurements.
      scale_BxN: the size of a residual that counts as one.
      positive: whether the linear parameters must not be negative.
      shapes_GxQ: where to start. A single node is held fixed: only the linear parameters are then free.
      starts: how many of the nodes, the best, to polish.
    """
    y_BxN, scale_BxN = np.atleast_2d(y_BxN), np.atleast_2d(scale_BxN)
    shapes_GxQ = shape_grid(shape_ranges(law), 64) if shapes_GxQ is None else shapes_GxQ
    free = len(shapes_GxQ) > 1
    best_B = y_BxN.argmin(1)
    data = {
        "x": tuple(np.broadcast_to(v, y_BxN.shape).astype(float) for v in x),
        "y": y_BxN.astype(float),
        "scale": scale_BxN.astype(float),
        "best_x": tuple(np.asarray(v, float)[best_B] for v in x),
        "largest_y": y_BxN.max(1).astype(float),
    }
    starts = min(starts, len(shapes_GxQ))
    with jax.enable_x64(True):
        solved = _program(law, positive, free, starts)(data, np.asarray(shapes_GxQ, float))
        theta_BxP, objective_B, share_at_optimum_B, share_BxJ = (np.asarray(array) for array in solved)
    at_bound = [name for name, share in zip(law.linear, share_BxJ[0], strict=True) if positive and share < _BOUND]
    for (name, shape), value in zip(law.shapes.items(), theta_BxP[0, len(law.linear) :], strict=True):
        if free and not shape.low * 1.001 < value < shape.high / 1.001:
            at_bound.append(name)
    return Solution(theta_BxP, objective_B, starts, share_at_optimum_B, tuple(at_bound))


@functools.cache
def _program(law: Law, positive: bool, free: bool, starts: int):
    """The compiled solver: (data, shapes_GxQ) -> theta, objective, share at the optimum, each term's share."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # jaxopt says on import that it is finished: so it is
        import jaxopt

    linear = len(law.linear)
    low, high = np.log(shape_ranges(law)).T

    def scales(shape_Q, data):
        return [data["largest_y"] / jnp.abs(term) for term in law.terms(shape_Q, *data["best_x"])]

    def columns(shape_Q, data):
        terms = zip(law.terms(shape_Q, *data["x"]), scales(shape_Q, data), strict=True)
        return [jnp.broadcast_to(term * scale, data["y"].shape) / data["scale"] for term, scale in terms]

    def unpack(raw_P, data):
        share_J = jnp.exp(jnp.clip(raw_P[:linear], -60.0, 60.0)) if positive else raw_P[:linear]
        return share_J, jnp.exp(jnp.clip(raw_P[linear:], low, high)) if free else data["shape"]

    def residuals(raw_P, data):
        share_J, shape_Q = unpack(raw_P, data)
        fitted = sum(share * column for share, column in zip(share_J, columns(shape_Q, data), strict=True))
        return fitted - data["y"] / data["scale"]

    def objective(raw_P, data):
        value = jnp.sum(residuals(raw_P, data) ** 2)
        return jnp.where(jnp.isnan(value), jnp.inf, value)

    def start(shape_Q, data):
        q, r = jnp.linalg.qr(jnp.stack(columns(shape_Q, data), -1))
        share_J = jax.scipy.linalg.solve_triangular(r, q.T @ (data["y"] / data["scale"]))
        share_J = jnp.log(jnp.maximum(share_J, _POSITIVE_FLOOR)) if positive else share_J
        return jnp.concatenate([share_J, jnp.log(shape_Q)]) if free else share_J

    def screen(data, shapes_GxQ):
        """The best of the starts that variable projection gives: [starts, parameters]."""
        raw_GxP = jax.vmap(start, (0, None))(shapes_GxQ, data)
        return raw_GxP[jnp.argsort(jax.vmap(objective, (0, None))(raw_GxP, data))[:starts]]

    # unroll=False: without it jaxopt compiles, and runs, all iterations.
    levenberg_marquardt = jaxopt.LevenbergMarquardt(
        residuals,
        maxiter=100,
        damping_parameter=1e-3,
        tol=1e-13,
        solver="cholesky",
        materialize_jac=True,
        implicit_diff=False,
        unroll=False,
    )

    def polish(raw_P, data):
        polished_P = levenberg_marquardt.run(raw_P, data).params
        return jnp.where(objective(polished_P, data) < objective(raw_P, data), polished_P, raw_P)

    def choose(raw_SxP, data):
        value_S = jax.vmap(objective, (0, None))(raw_SxP, data)
        winner = jnp.argmin(value_S)
        share_J, shape_Q = unpack(raw_SxP[winner], data)
        theta_P = jnp.concatenate([share_J * jnp.stack(scales(shape_Q, data)), shape_Q])
        rounding = jnp.finfo(value_S.dtype).eps ** 2 * jnp.sum((data["y"] / data["scale"]) ** 2)
        reached_S = value_S <= value_S[winner] * (1 + _SAME_OPTIMUM) + 100 * rounding
        return theta_P, value_S[winner], jnp.mean(reached_S, dtype=float), share_J

    def solve(data, shapes_GxQ):
        datasets = data["y"].shape[0]
        data["shape"] = jnp.broadcast_to(shapes_GxQ[0], (datasets, shapes_GxQ.shape[1]))
        raw_BxSxP = jax.vmap(screen, (0, None))(data, shapes_GxQ)
        # One flat batch of starts compiles in half the time of a batch within a batch.
        repeated = jax.tree.map(lambda array: jnp.repeat(array, starts, 0), data)
        raw_BxSxP = jax.vmap(polish)(raw_BxSxP.reshape(datasets * starts, -1), repeated).reshape(raw_BxSxP.shape)
        return jax.vmap(choose)(raw_BxSxP, data)

    # The program is small and runs for milliseconds: compiling it is what takes time.
    return jax.jit(solve, compiler_options={"xla_backend_optimization_level": 0})
