"""Batched minimisation: many datasets, many starts, one compiled call. The only file that imports jaxopt.

A law is solved in scaled coordinates: each linear parameter as its term's size over the largest value, each shape as
the logarithm of its ratio to its unit. Starts come from variable projection (for every shape on a grid the best linear
parameters are a linear solve), all are screened, and the best are polished by majorised Levenberg-Marquardt steps.
"""

import dataclasses
import functools
import typing
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fitting.laws.law import Law, shape_grid, shape_lattice
from fitting.laws.objectives import OBJECTIVES, Objective
from fitting.solution import BOUND, FLOOR, Solution

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # jaxopt says on import that it is finished: so it is
    import jaxopt.base

_START_FLOOR = 1e-4  # the least share of a term that a positive start may have
_WIDER = (1e-3, 1e-5, 1e-6, 1e-7)  # corners through which a tiny one is approached: from there, no ridge leads down
_RIDGE = 1e-12  # of columns of length one: what keeps those that are alike apart
_FLAT = 1e-13  # of an objective: what its rounding hides
_SAME_OPTIMUM = 1e-6  # relative difference of objectives
_NODES = 4096  # of a grid of shapes, at most
_FEWEST = 4  # along each shape: of fewer a grid is hardly more than its corners
_RUNS = 8  # ladders are filled up to a multiple of so many runs, to share a compiled program
# A small problem runs for milliseconds: compiling it is what takes time.
_LARGE = 200_000  # runs times nodes times datasets
_THOROUGH: dict[str, Any] = {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False}
_QUICK: dict[str, Any] = _THOROUGH | {"xla_backend_optimization_level": 0}
_LANES = 128  # starts polished side by side: few enough to stay in cache, and the slowest holds up only these


def minimise(
    law: Law,
    x: Sequence[np.ndarray],
    y_BxN: np.ndarray,
    scale_BxN: np.ndarray | float = 1.0,
    *,
    objective: Objective = OBJECTIVES["squares"],
    weight_BxN: np.ndarray | float = 1.0,
    positive: bool,
    hold: Mapping[str, float] | None = None,
    nodes_GxQ: np.ndarray | None = None,
    starts: int | None = None,
) -> Solution:
    """Minimises the sum over runs of weight × rho((f(theta, x) - y) / scale) for each of B datasets.

    Args:
      law: the law, with Q shapes.
      x: the law's inputs, each [N] or [B, N].
      y_BxN: measurements, [N] or [B, N].
      scale_BxN: the size of a residual that counts as one.
      objective: rho, and whether f and y are compared by their logarithms.
      weight_BxN: how often each run counts, such as in a resample: 0 leaves it out.
      positive: whether the linear parameters must not be negative.
      hold: parameters held at a value, by name.
      nodes_GxQ: where to start, each shape in its unit. By default a grid over the ranges of all that are not held.
      starts: how many of the nodes, the best, to polish; by default 16, and 64 where there are three shapes or more.
    """
    hold = dict(hold or {})
    starts = starts or (16 if len(law.shapes) <= 2 else 64)
    if nodes_GxQ is None:
        free = [name for name in law.shapes if name not in hold]
        nodes = min(64, int(_NODES ** (1 / max(len(free), 1)) + 1e-9))
        ranges_Qx2 = law.shape_ranges
        for q, name in enumerate(law.shapes):
            ranges_Qx2[q] = (hold[name],) * 2 if name in hold else ranges_Qx2[q]
        if nodes < _FEWEST:
            nodes_GxQ = shape_lattice(ranges_Qx2, _NODES)
        else:
            nodes_GxQ = shape_grid(ranges_Qx2, nodes) if law.shapes else np.ones((1, 0))
    nodes_GxQ = np.asarray(nodes_GxQ, float)
    y_BxN = np.asarray(y_BxN, float)
    runs = y_BxN.shape[-1]
    arrays = {
        **{f"x{i}": np.asarray(v, float) for i, v in enumerate(x)},
        "y": y_BxN,
        "scale": np.asarray(scale_BxN, float),
        "weight": np.asarray(weight_BxN, float),
    }
    arrays = {name: array if array.ndim else np.full(runs, array) for name, array in arrays.items()}
    fill = -runs % _RUNS  # with copies of the last run, of no weight
    arrays = {name: np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, fill)], "edge") for name, a in arrays.items()}
    arrays["weight"][..., runs:] = 0
    batched = frozenset(name for name, array in arrays.items() if array.ndim == 2)
    datasets = max((len(arrays[name]) for name in batched), default=1)
    screened, starts = len(nodes_GxQ), min(starts, len(nodes_GxQ))
    settings = _settings(law, objective, positive, hold)
    with jax.enable_x64(True):
        large = runs * screened * datasets > _LARGE
        program = _program(law, tuple(hold), batched, datasets, starts, large)
        theta_BxP, objective_B, share_at_optimum_B, z_P = map(np.asarray, program(arrays, nodes_GxQ, settings))
    at_bound = tuple(
        name
        for name, z, low, high in zip(law.parameters, z_P, settings["low"], settings["high"], strict=True)
        if name not in hold and (z < low + BOUND or z > high - BOUND)
    )
    node_Q = np.exp(z_P[len(law.linear) :])
    return Solution(theta_BxP, objective_B, screened, starts, share_at_optimum_B, at_bound, node_Q)


class _Expansion(typing.NamedTuple):
    """The objective about a point: its value, its slope, and the matrices of Newton's and of the majoriser's step."""

    value: jax.Array
    gradient_P: jax.Array
    curvature_PxP: jax.Array
    majoriser_PxP: jax.Array


class _State(typing.NamedTuple):
    iter_num: jax.Array
    error: jax.Array  # the decrease that the next step promises, relative to the objective
    damping: jax.Array
    here: _Expansion


@dataclasses.dataclass(eq=False)
class _MajorisedLevenbergMarquardt(jaxopt.base.IterativeSolver):
    """Second-order descent of a sum of weight × rho(residual) within bounds, by jaxopt's protocol.

    The matrix of a step goes from Newton's (Gauss and Newton's, with rho's own curvature) at no damping to the
    majoriser's (iteratively reweighted least squares, which descends where the law is near enough to linear) at a
    damping of one, and on to ever shorter steps beyond: as sure as the one far from the optimum, as fast as the other
    close to it.
    Parameters at a bound that the slope pushes against are left out of the step.
    """

    residuals: Any
    objective: Objective
    maxiter: int = 100
    tol: float = 1e-20
    jit: bool = False  # of a single step: the whole solve is compiled

    def run(self, init_params: jax.Array, data: Any) -> jaxopt.OptStep:
        """All steps in one loop. jaxopt's own `run` spells the first one out before it: all would be compiled twice."""

        def goes_on(step):
            return (step.state.error > self.tol) & (step.state.iter_num < self.maxiter)

        first = jaxopt.OptStep(init_params, self.init_state(init_params, data))
        return jax.lax.while_loop(goes_on, lambda step: self.update(step.params, step.state, data), first)

    def init_state(self, z_P: jax.Array, data: Any) -> _State:
        """The state before the first step."""
        one = jnp.ones_like(z_P[0])
        return _State(jnp.asarray(0), one, one, self.expansion(z_P, data))

    def update(self, z_P: jax.Array, state: _State, data: Any) -> jaxopt.OptStep:
        """One step, taken if it descends. The law is evaluated where it leads, and nowhere else."""
        value, gradient_P, curvature_PxP, majoriser_PxP = state.here
        hessian_PxP = curvature_PxP + jnp.minimum(state.damping, 1.0) * (majoriser_PxP - curvature_PxP)
        diagonal_P = jnp.diag(majoriser_PxP)

        low_P, high_P = data["low"], data["high"]
        stuck_P = ((z_P <= low_P) & (gradient_P > 0)) | ((z_P >= high_P) & (gradient_P < 0)) | (diagonal_P == 0)
        unit_P = jnp.where(stuck_P, 0.0, 1 / jnp.sqrt(jnp.where(stuck_P, 1.0, diagonal_P)))
        damping = jnp.where(stuck_P, 1.0, 0.01 * state.damping + 1e-13)
        matrix_PxP = hessian_PxP * unit_P * unit_P[:, None] + jnp.diag(damping)
        step_P = -unit_P * jax.scipy.linalg.solve(matrix_PxP, unit_P * gradient_P, assume_a="pos")
        next_P = jnp.clip(z_P + step_P, low_P, high_P)
        there = self.expansion(next_P, data)
        promised = -gradient_P @ (next_P - z_P)
        # Of the last steps the objective, flat to within rounding, cannot tell whether they descend: its slope does.
        descends = there.value < jnp.where(promised < _FLAT * value, (1 + 2 * _FLAT) * value, value)
        lost = state.damping > 1e9
        return jaxopt.OptStep(
            params=jnp.where(descends, next_P, z_P),
            state=_State(
                iter_num=state.iter_num + 1,
                error=jnp.where((promised > self.tol * value + data["rounding"]) & ~lost, 1.0, 0.0),
                damping=jnp.where(descends, 0.2 * state.damping, 6 * jnp.maximum(state.damping, 1e-6)),
                here=jax.tree.map(lambda new, old: jnp.where(descends, new, old), there, state.here),
            ),
        )

    def expansion(self, z_P: jax.Array, data: Any) -> _Expansion:
        """The objective about a point."""
        r_N, along = jax.linearize(lambda z_P: self.residuals(z_P, data), z_P)
        slope_PxN = jax.vmap(along)(jnp.eye(len(z_P)))
        weight_N, delta = data["weight"], data["delta"]

        def matrix_PxP(of_N: jax.Array) -> jax.Array:
            return (slope_PxN * (weight_N * of_N)) @ slope_PxN.T

        return _Expansion(
            self._value(r_N, data),
            slope_PxN @ (weight_N * self.objective.slope(r_N, delta)),
            matrix_PxP(self.objective.curvature(r_N, delta)),
            matrix_PxP(self.objective.majoriser(r_N, delta)),
        )

    def value(self, z_P: jax.Array, data: Any) -> jax.Array:
        """The objective; infinite where the law has no value."""
        return self._value(self.residuals(z_P, data), data)

    def _value(self, r_N: jax.Array, data: Any) -> jax.Array:
        rho_N = self.objective.rho(r_N, data["delta"])
        value = jnp.sum(jnp.where(data["weight"] > 0, data["weight"] * rho_N, 0.0))
        return jnp.where(jnp.isnan(value), jnp.inf, value)

    def optimality_fun(self, z_P: jax.Array, data: Any) -> jax.Array:
        """The gradient, zero at an optimum within the bounds."""
        return jax.grad(self.value)(z_P, data)


def _settings(law: Law, objective: Objective, positive: bool, hold: Mapping[str, float]) -> dict[str, np.ndarray]:
    """All that tells one search for a law's parameters from another: numbers, so that one program does them all."""
    share = (FLOOR, np.inf) if positive else (-np.inf, np.inf)
    ranges_Px2 = np.array([share] * len(law.linear) + np.log(law.shape_ranges).tolist()).reshape(-1, 2)
    ranges_Px2[[name in hold for name in law.parameters]] = 0.0
    deltas = [delta for delta in _WIDER if delta > 10 * objective.delta] + [objective.delta]
    skipped = 1 + len(_WIDER) - len(deltas)
    return {
        "hold": np.array(list(hold.values()), float),
        "low": ranges_Px2[:, 0],
        "high": ranges_Px2[:, 1],
        "deltas": np.array([objective.delta] * skipped + deltas),
        "skipped": np.array(skipped),
        "sides": np.array([objective.over, objective.under]),
        "log": np.array(objective.log),
    }


class _Scaled:
    """A law in the solver's coordinates z, P of them: shares of the linear parameters' terms, logarithms of shapes."""

    def __init__(self, law: Law, held: tuple[str, ...]):
        self.law, self.linear = law, len(law.linear)
        self.held = [(law.parameters.index(name), i) for i, name in enumerate(held)]

    def prepared(self, data: dict[str, jax.Array], settings: dict[str, jax.Array]) -> dict[str, Any]:
        """A dataset and its settings, with what is worked out once: the run to take units from, and logarithms."""
        x = [data[f"x{i}"] for i in range(len(self.law.inputs))]
        counted_N = data["weight"] > 0
        best = jnp.argmin(jnp.where(counted_N, data["y"], jnp.inf))
        rounding = jnp.finfo(float).eps ** 2 * jnp.sum(data["weight"] * (data["y"] / data["scale"]) ** 2)
        return settings | {
            "x": x,
            "y": data["y"],
            "log_y": jnp.log(data["y"]),
            "scale": data["scale"],
            "weight": data["weight"],
            "best": [data["y"][best], *(v[best] for v in x)],
            "largest": jnp.max(jnp.where(counted_N, jnp.abs(data["y"]), 0.0)),
            "delta": settings["deltas"][-1],
            "rounding": rounding,
        }

    def shapes(self, z_P: jax.Array, data: Any) -> list[jax.Array]:
        """The law's shapes."""
        in_units = list(jnp.exp(z_P[self.linear :]))
        for p, i in self.held:
            if p >= self.linear:
                in_units[p - self.linear] = data["hold"][i]
        values = self.law.scaled(in_units, *data["best"])
        for p, i in self.held:
            if p >= self.linear:
                values[p - self.linear] = data["hold"][i]
        return values

    def columns(self, shape_Q: list[jax.Array], data: Any) -> tuple[list[jax.Array], list[jax.Array], jax.Array]:
        """Of every linear parameter its unit and its term in that unit, and what no parameter multiplies."""
        terms = [jnp.broadcast_to(term, data["y"].shape) for term in self.law.terms(shape_Q, *data["x"])]
        units = [data["largest"] / jnp.sqrt(jnp.mean(term**2)) for term in terms[: self.linear]]
        columns = [term * unit for term, unit in zip(terms, units, strict=False)]
        return units, columns, sum(terms[self.linear :], start=jnp.zeros_like(data["y"]))

    def theta(self, z_P: jax.Array, data: Any) -> jax.Array:
        """The law's own parameters."""
        shape_Q = self.shapes(z_P, data)
        units, _, _ = self.columns(shape_Q, data)
        theta = [z * unit for z, unit in zip(z_P, units, strict=False)] + shape_Q
        for p, i in self.held:
            theta[p] = data["hold"][i]
        return jnp.stack(theta)

    def residuals(self, z_P: jax.Array, data: Any) -> jax.Array:
        """Law minus measurement, over its scale."""
        units, columns, fitted_N = self.columns(self.shapes(z_P, data), data)
        shares = list(z_P[: self.linear])
        for p, i in self.held:
            if p < self.linear:
                shares[p] = data["hold"][i] / units[p]
        for share, column_N in zip(shares, columns, strict=True):
            fitted_N += share * column_N
        return jnp.where(data["log"], jnp.log(fitted_N) - data["log_y"], fitted_N - data["y"]) / data["scale"]

    def start(self, in_units_Q: jax.Array, data: Any) -> jax.Array:
        """The coordinates of given shapes with the linear parameters that squares would choose for them."""
        held = {p for p, _ in self.held}
        z_P = jnp.concatenate([jnp.zeros(self.linear), jnp.log(in_units_Q)])
        free = [j for j in range(self.linear) if j not in held]
        z_P = jnp.clip(z_P, jnp.where(jnp.isfinite(data["low"]), data["low"], -1e100), data["high"])
        if not free:
            return z_P
        units, columns, fitted_N = self.columns(self.shapes(z_P, data), data)
        for p, i in self.held:
            if p < self.linear:
                fitted_N += data["hold"][i] / units[p] * columns[p]
        root_N = jnp.sqrt(data["weight"]) / (data["scale"] * jnp.where(data["log"], data["y"], 1.0))
        column_NxJ = jnp.stack([columns[j] * root_N for j in free], -1)
        # Normal equations, since on two cores two programs that are in QR at once wait for each other for ever.
        length_J = jnp.sqrt(jnp.sum(column_NxJ**2, 0))
        unit_NxJ = column_NxJ / length_J
        gram_JxJ = unit_NxJ.T @ unit_NxJ + _RIDGE * jnp.eye(len(free))
        told_J = unit_NxJ.T @ ((data["y"] - fitted_N) * root_N)
        share_J = jax.scipy.linalg.solve(gram_JxJ, told_J, assume_a="pos") / length_J
        floor_J = jnp.where(data["low"][np.array(free)] > -jnp.inf, _START_FLOOR, -jnp.inf)
        share_J = jnp.maximum(jnp.where(jnp.isfinite(share_J), share_J, 0.0), floor_J)
        return z_P.at[np.array(free)].set(share_J)


@functools.cache
def _program(law, held, batched, datasets, starts, large):
    """The compiled solver of a law. What tells objectives apart is numbers too, and so all share it."""

    def solve(arrays, nodes_GxQ, settings):
        objective = Objective("", "", "", settings["deltas"][-1], *settings["sides"])
        scaled = _Scaled(law, held)
        solver = _MajorisedLevenbergMarquardt(residuals=scaled.residuals, objective=objective)

        def dataset(b):
            mine = {name: array[b] if name in batched else array for name, array in arrays.items()}
            return scaled.prepared(mine, settings)

        def screen(lane):
            b, g = lane
            data = dataset(b)
            z_P = scaled.start(nodes_GxQ[g], data)
            return z_P, solver.value(z_P, data)

        def polish(lane):
            b, z_P = lane
            data = dataset(b)
            z_P = jax.lax.fori_loop(
                data["skipped"],
                len(data["deltas"]),
                lambda i, z_P: solver.run(z_P, data | {"delta": data["deltas"][i]}).params,
                z_P,
            )
            return z_P, solver.value(z_P, data), scaled.theta(z_P, data), data["rounding"]

        nodes = nodes_GxQ.shape[0]
        b_L, g_L = (index.ravel() for index in jnp.meshgrid(jnp.arange(datasets), jnp.arange(nodes), indexing="ij"))
        if starts < nodes:
            z_LxP, value_L = _in_lanes(screen, (b_L, g_L))
            order_BxS = jnp.argsort(value_L.reshape(datasets, nodes), axis=1)[:, :starts]
            best_L = (order_BxS + nodes * jnp.arange(datasets)[:, None]).ravel()
            polished = _in_lanes(polish, (b_L[best_L], z_LxP[best_L]))
        else:
            polished = _in_lanes(lambda lane: polish((lane[0], screen(lane)[0])), (b_L, g_L))
        z_BxSxP, value_BxS, theta_BxSxP, rounding_BxS = (a.reshape(datasets, starts, *a.shape[1:]) for a in polished)
        objective_B = value_BxS.min(1)
        reached_BxS = value_BxS <= (objective_B * (1 + _SAME_OPTIMUM))[:, None] + 100 * rounding_BxS
        winner_B = jnp.arange(datasets), value_BxS.argmin(1)
        share_B = jnp.mean(reached_BxS, 1, dtype=float)
        return theta_BxSxP[winner_B], objective_B, share_B, z_BxSxP[0, winner_B[1][0]]

    return jax.jit(solve, compiler_options=_THOROUGH if large else _QUICK)


def _in_lanes(f, lanes: Any) -> Any:
    """`f` of every lane, `_LANES` at a time, so that memory does not grow with their number."""
    count = len(jax.tree.leaves(lanes)[0])
    if count <= _LANES:
        return jax.vmap(f)(lanes)
    batches = -(-count // _LANES)
    # The last batch is filled up with copies of the last lane, so that one shape is compiled.
    index_BxL = jnp.minimum(jnp.arange(batches * _LANES), count - 1).reshape(batches, _LANES)
    results = jax.lax.map(lambda index_L: jax.vmap(f)(jax.tree.map(lambda a: a[index_L], lanes)), index_BxL)
    return jax.tree.map(lambda a: a.reshape(batches * _LANES, *a.shape[2:])[:count], results)
