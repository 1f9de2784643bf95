"""Scaling laws as data. To add one, write its terms and add an entry to LOSS_LAWS or ERROR_LAWS.

Given some of its parameters, the shapes, every law here is linear in the others: y = Σ_j linear_j term_j(shapes, x).
The solver and the posterior both live off that (variable projection: Golub & Pereyra 1973).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fitting.fitted import LawFit
from fitting.words import tex


@dataclasses.dataclass(frozen=True)
class Shape:
    """A parameter in which a law is not linear: positive, searched within `low` to `high` in its logarithm.

    The default method believes its logarithm to be normal around that of `median` with standard deviation `log_sd`.
    `source` says where that belief comes from.
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
      inputs: what x is, in order.
      linear: names of the parameters in which the law is linear; they come first in theta.
      shapes: the other parameters, by name, in theta's order.
      terms: (shape values, *x) -> one term per linear parameter. Traceable; arguments broadcast.
      latex: the law with one `{name}` for every parameter.
      citation: where it comes from.
    """

    name: str
    inputs: tuple[str, ...]
    linear: tuple[str, ...]
    shapes: Mapping[str, Shape]
    terms: Callable[..., Sequence[Any]]
    latex: str
    citation: str

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters in theta's order."""
        return (*self.linear, *self.shapes)

    def f(self, theta: Sequence[Any], *x: Any) -> jax.Array:
        """The law's value: theta has one entry per parameter, each broadcast with x. Traceable."""
        terms = self.terms(theta[len(self.linear) :], *x)
        return sum(coefficient * term for coefficient, term in zip(theta, terms, strict=False))

    def evaluate(self, theta: Sequence[Any], *x: Any) -> np.ndarray:
        """`f` in float64, whatever precision the rest of the program computes in."""
        with jax.enable_x64(True):
            return np.asarray(self.f([jnp.asarray(p) for p in theta], *(jnp.asarray(v) for v in x)))

    def evaluate_terms(self, shapes: Sequence[Any], *x: Any) -> list[np.ndarray]:
        """`terms` in float64, whatever precision the rest of the program computes in."""
        with jax.enable_x64(True):
            return [np.asarray(t) for t in self.terms([jnp.asarray(s) for s in shapes], *(jnp.asarray(v) for v in x))]


def _over_training_terms(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    (eta,) = shape
    log_multiplier = jnp.log(tokens) - jnp.log(params)
    log_flops = math.log(6) + jnp.log(params) + jnp.log(tokens)
    return 1.0, jnp.exp(eta * (log_multiplier - log_flops)), jnp.exp(-eta * (log_multiplier + log_flops))


def _exponential_decay_terms(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    (gamma,) = shape
    return 1.0, -jnp.exp(-gamma * loss)


OVER_TRAINING = Law(
    name="over_training",
    inputs=("params", "tokens"),
    linear=("E", "a", "b"),
    shapes={
        "eta": Shape(
            low=0.02,
            high=1.0,
            median=0.17,
            log_sd=0.25,
            source="2 eta is the exponent of N and of D: 0.34 and 0.28 (Hoffmann et al. 2022), 0.35 and 0.37 "
            "(Besiroglu et al. 2024), 0.35 (Muennighoff et al. 2023); widened for other data, tokenizers and sizes",
        )
    },
    terms=_over_training_terms,
    latex=r"L = {E} + ({a}\,M^{{{eta}}} + {b}\,M^{{-{eta}}})\,C^{{-{eta}}}",
    citation="Gadre et al. 2024, arXiv:2403.08540, Eq. 4; C = 6ND, M = D/N",
)

EXPONENTIAL_DECAY = Law(
    name="exponential_decay",
    inputs=("loss",),
    linear=("eps", "k"),
    shapes={
        "gamma": Shape(
            low=0.02,
            high=20.0,
            median=1.0,
            log_sd=1.0,
            source="one e-fold of error a nat, give or take a factor of e: a scale, nothing more",
        )
    },
    terms=_exponential_decay_terms,
    latex=r"\mathrm{{Err}} = {eps} - {k}\,e^{{-{gamma}\,L}}",
    citation="Gadre et al. 2024, arXiv:2403.08540, Eq. 5",
)

LOSS_LAWS: Mapping[str, Law] = {law.name: law for law in [OVER_TRAINING]}
ERROR_LAWS: Mapping[str, Law] = {law.name: law for law in [EXPONENTIAL_DECAY]}

_GREEK = {"eta": r"\eta", "eps": r"\varepsilon", "gamma": r"\gamma"}


def named(name: str) -> Law:
    """The law of that name. Raises ValueError where there is none."""
    known = {**LOSS_LAWS, **ERROR_LAWS}
    if name not in known:
        raise ValueError(f"law {name!r} is unknown to this version; it knows {', '.join(known)}")
    return known[name]


def latex_symbols(law: Law) -> str:
    """The law in symbols, as LaTeX that matplotlib's mathtext also reads, without dollar signs."""
    return law.latex.format(**{name: symbol(name) for name in law.parameters})


def symbol(name: str) -> str:
    """A parameter's symbol, as LaTeX."""
    return _GREEK.get(name, name)


def latex(fit: LawFit, digits: int = 4) -> str:
    """The fitted law with its numbers, as LaTeX that matplotlib's mathtext also reads, without dollar signs."""
    text = named(fit.law).latex.format(**{name: tex(value, digits) for name, value in fit.theta.items()})
    return text.replace("+ -", "- ").replace("- -", "+ ")
