"""What a scaling law is to the program: named parameters, of which some enter linearly, and the terms they multiply.

Given some of its parameters, the shapes, nearly every law is linear in the others: y = Σ_j linear_j term_j(shapes, x).
The solver and the posterior both live off that (variable projection: Golub & Pereyra 1973).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_ROUNDED = 0.005  # of proportions that are given in whole percents


@dataclasses.dataclass(frozen=True)
class Shape:
    """A parameter in which a law is not linear: positive, searched within `low` to `high` in its logarithm.

    The default method believes its logarithm to be normal around that of `median` with standard deviation `log_sd`.
    `source` says where that belief comes from. All are in the unit that the law's `units` gives it, else in one.
    """

    low: float
    high: float
    median: float
    log_sd: float
    source: str


@dataclasses.dataclass(frozen=True, eq=False)  # a law is itself: the solver's cache of compiled programs needs a hash
class Law:
    """A law y = f(theta, x).

    Attributes:
      name: its key in the dict of laws.
      inputs: what x is, in order: columns of a testbed, or `loss`.
      linear: names of the parameters in which the law is linear; they come first in theta.
      shapes: the other parameters, by name, in theta's order.
      terms: (shape values, *x) -> one term per linear parameter, and perhaps one more, which no parameter multiplies.
        Traceable, so made of `fitting.laws.elementary` functions; arguments broadcast.
      latex: the law with one `{name}` for every parameter.
      citation: where it comes from.
      units: (shape values, y, *x of one run) -> the unit of each shape that has one, by name: the size it has if the
        law's y comes from it alone. For coefficients inside a power, whose size depends on the exponents'.
      ideal: points beyond the runs, (x, y), that the law's authors fit along with them.
      signed: inputs that may be zero or negative; the others are sizes.
      least: the least that an input can be, where that is more than nothing: there is one expert at least.
      chosen: inputs that a run can have as it likes, whatever its size and budget.
      proportions: inputs that are proportions of one whole, 0 to 1, and sum to one.
    """

    name: str
    inputs: tuple[str, ...]
    linear: tuple[str, ...]
    shapes: Mapping[str, Shape]
    terms: Callable[..., Sequence[Any]]
    latex: str
    citation: str
    units: Callable[..., Mapping[str, Any]] | None = None
    ideal: tuple[tuple[tuple[float, ...], float], ...] = ()
    signed: tuple[str, ...] = ()
    least: Mapping[str, float] = dataclasses.field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    proportions: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters in theta's order."""
        return (*self.linear, *self.shapes)

    @property
    def fits_a_grid(self) -> bool:
        """Whether a grid over its shapes can hold a posterior: of three it can; with units of their own, of none.

        Nor can it of proportions: a term that is nothing at the best run is no unit for its parameter.
        """
        return self.units is None and not self.proportions and 1 <= len(self.shapes) <= 3

    def refuse(self, name: str, values: Any) -> tuple[np.ndarray, str]:
        """Which values an input cannot have, and what it must be."""
        values, least = np.asarray(values, float), self.least.get(name, 0.0)
        if name in self.signed:
            return ~np.isfinite(values), "a finite number"
        if name in self.proportions:
            return ~((values >= 0) & (values <= 1)), "a proportion, 0 to 1, not percent"
        bad = ~np.isfinite(values) | (values <= 0) | (values < least)
        return bad, f"at least {least:g}" if least else "a positive number"

    def off_one(self, x: Mapping[str, Any]) -> np.ndarray:
        """By how much the proportions among the inputs sum to more or less than one; 0 where that is rounding."""
        off = sum((np.asarray(x[name], float) for name in self.proportions), start=-float(bool(self.proportions)))
        return np.where(np.abs(off) <= _ROUNDED, 0.0, off)

    @property
    def shape_ranges(self) -> np.ndarray:
        """The range in which each of Q shapes is searched, in its unit: [Q, (low, high)]."""
        return np.array([(shape.low, shape.high) for shape in self.shapes.values()]).reshape(-1, 2)

    def f(self, theta: Sequence[Any], *x: Any) -> Any:
        """The law's value: theta has one entry per parameter, each broadcast with x. Traceable."""
        terms = self.terms(theta[len(self.linear) :], *x)
        linear = len(self.linear)
        return sum([c * term for c, term in zip(theta, terms[:linear], strict=False)], start=sum(terms[linear:]))

    def evaluate(self, theta: Iterable[Any], *x: Any) -> np.ndarray:
        """`f` of numbers and arrays, in float64; not finite where the law has no value."""
        with np.errstate(all="ignore"):
            return np.asarray(self.f(_doubles(theta), *_doubles(x)))

    def evaluate_terms(self, shapes: Iterable[Any], *x: Any) -> list[np.ndarray]:
        """`terms` of numbers and arrays, in float64; not finite where they have no value."""
        with np.errstate(all="ignore"):
            return _doubles(self.terms(_doubles(shapes), *_doubles(x)))

    def scaled(self, shapes: Sequence[Any], y: Any, *x: Any) -> list[Any]:
        """Shapes in one, of shapes in their units at a run (x, y). Traceable."""
        units = self.units(shapes, y, *x) if self.units else {}
        return [value * units.get(name, 1.0) for name, value in zip(self.shapes, shapes, strict=True)]


def shape_grid(ranges_Qx2: np.ndarray, nodes: int) -> np.ndarray:
    """Shapes spread evenly in their logarithms, `nodes` along each that has a range: [grid, Q]."""
    axes = [np.geomspace(low, high, nodes if low < high else 1) for low, high in ranges_Qx2]
    return np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], -1)


def shape_lattice(ranges_Qx2: np.ndarray, points: int) -> np.ndarray:
    """Shapes spread evenly in their logarithms over all ranges at once, for more of them than a grid can hold: [G, Q].

    The R sequence (Roberts 2018): multiples of the powers of a number that no fraction comes near, modulo one.
    """
    root = 2.0
    for _ in range(64):
        root = (1 + root) ** (1 / (len(ranges_Qx2) + 1))
    share_GxQ = (0.5 + np.arange(1, points + 1)[:, None] * root ** -np.arange(1, len(ranges_Qx2) + 1)) % 1
    low_Q, high_Q = np.log(ranges_Qx2).T
    return np.exp(low_Q + share_GxQ * (high_Q - low_Q))


def _doubles(values: Iterable[Any]) -> list[np.ndarray]:
    return [np.asarray(value, float) for value in values]
