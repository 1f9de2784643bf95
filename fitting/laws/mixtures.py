"""Loss laws of mixtures: what the proportions of k domains among a run's tokens make of a loss, at one N and D.

A table has as many domains as it likes, so there is a law for each set of them, made when it is asked for.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, SCALE_ONLY
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape

PROPORTION = "proportion_"  # of a column's name: proportion_web is how much of the tokens is from the web


def _mixture(shape: Sequence[Any], *proportions: Any) -> Sequence[Any]:
    return 1.0, exp(sum(r * log(K) for r, K in zip(proportions, shape, strict=True)))


def _mixture_power(shape: Sequence[Any], *proportions: Any) -> Sequence[Any]:
    *counts, gamma = shape
    return 1.0, exp(-gamma * log(sum(C * r for r, C in zip(proportions, counts, strict=True))))


def _mixture_log(shape: Sequence[Any], *proportions: Any) -> Sequence[Any]:
    (epsilon,) = shape
    return *proportions, *(-log(r + epsilon) for r in proportions)


_LEFT = f"what is left to learn is some part of the loss: {SCALE_ONLY}"


@functools.cache  # a law is itself: its compiled solver is kept by it
def mixture(*domains: str) -> Law:
    """The law of a mixture of these domains, whose proportions are columns `proportion_<domain>`."""
    return Law(
        name=f"mixture:{','.join(domains)}",
        inputs=_inputs(domains),
        linear=("E",),
        shapes={f"K_{name}": Shape(1e-6, 30.0, 0.3, 2.3, _LEFT) for name in domains},
        terms=_mixture,
        latex="L = {E} + " + r"\,".join(f"({{K_{name}}})^{{{{r_{i}}}}}" for i, name in enumerate(domains, 1)),
        citation="Ye et al. 2024, arXiv:2403.16952, Eq. 7, c_i + k_i exp(sum_j t_ij r_j); as proportions r sum to one, "
        "k_i is within K_j = k_i exp(t_ij), what domain j alone would leave to be learned",
        units=lambda shape, loss, *_: {f"K_{name}": loss for name in domains},
        proportions=_inputs(domains),
    )


@functools.cache
def mixture_power(*domains: str) -> Law:
    """The same as a power law of the tokens that count, of which a domain has more or fewer."""
    return Law(
        name=f"mixture_power:{','.join(domains)}",
        inputs=_inputs(domains),
        linear=("E",),
        shapes={
            **{f"C_{name}": Shape(1e-6, 1e6, 3.0, 3.0, _LEFT) for name in domains},
            "gamma": Shape(0.02, 3.0, 0.3, 0.7, CHINCHILLA),
        },
        terms=_mixture_power,
        latex="L = {E} + ("
        + " + ".join(f"{{C_{name}}}\\,r_{i}" for i, name in enumerate(domains, 1))
        + r")^{{-{gamma}}}",
        citation="Li et al. 2026, arXiv:2604.22753, its sixth law of mixtures: a token of domain j counts as C_j, and "
        "one of its own domain as most",
        units=lambda shape, loss, *_: {f"C_{name}": loss ** (-1 / shape[-1]) for name in domains},
        proportions=_inputs(domains),
    )


@functools.cache
def mixture_log(*domains: str) -> Law:
    """The same as the mean of what each domain alone would leave, and what the logarithm of each takes from that."""
    return Law(
        name=f"mixture_log:{','.join(domains)}",
        inputs=_inputs(domains),
        linear=(*(f"L_{name}" for name in domains), *(f"B_{name}" for name in domains)),
        shapes={"epsilon": Shape(1e-4, 0.3, 0.02, 1.5, f"what others hold of a domain: {SCALE_ONLY}")},
        terms=_mixture_log,
        latex="L = "
        + " + ".join(f"{{L_{name}}}\\,r_{i}" for i, name in enumerate(domains, 1))
        + "".join(f" - {{B_{name}}}\\,\\ln(r_{i} + {{epsilon}})" for i, name in enumerate(domains, 1)),
        citation="Li et al. 2026, arXiv:2604.22753, its first law of mixtures, a + b ln r_i + sum_j c_j r_j of the "
        "domain whose loss it is; ours has any domain's logarithm, finite where there is none of it, and no negative "
        "coefficient: as proportions sum to one, a is within the c_j",
        proportions=_inputs(domains),
    )


def _inputs(domains: Sequence[str]) -> tuple[str, ...]:
    if odd := [name for name in domains if not re.fullmatch(r"[\w-]+", name)]:
        raise ValueError(f"domain {odd[0]!r}: a domain's name is of letters, digits, _ and -")
    return tuple(PROPORTION + name for name in domains)


FAMILIES: Mapping[str, Callable[..., Law]] = {
    "mixture": mixture,
    "mixture_power": mixture_power,
    "mixture_log": mixture_log,
}
