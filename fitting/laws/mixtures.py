"""Loss laws of mixtures: what the proportions of k domains among a run's tokens make of a loss, at one N and D.

A table has as many domains as it likes, so there is a law for each set of them, made when it is asked for.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import SCALE_ONLY
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape

PROPORTION = "proportion_"  # of a column's name: proportion_web is how much of the tokens is from the web


def _mixture(shape: Sequence[Any], *proportions: Any) -> Sequence[Any]:
    return 1.0, exp(sum(r * log(K) for r, K in zip(proportions, shape, strict=True)))


@functools.cache  # a law is itself: its compiled solver is kept by it
def mixture(*domains: str) -> Law:
    """The law of a mixture of these domains, two or more, whose proportions are columns `proportion_<domain>`."""
    if odd := [name for name in domains if not re.fullmatch(r"[\w-]+", name)]:
        raise ValueError(f"domain {odd[0]!r}: a domain's name is of letters, digits, _ and -")
    inputs = tuple(PROPORTION + name for name in domains)
    belief = Shape(1e-6, 30.0, 0.3, 2.3, f"what is left to learn is some part of the loss: {SCALE_ONLY}")
    return Law(
        name=f"mixture:{','.join(domains)}",
        inputs=inputs,
        linear=("E",),
        shapes={f"K_{name}": belief for name in domains},
        terms=_mixture,
        latex="L = {E} + " + r"\,".join(f"({{K_{name}}})^{{{{r_{i}}}}}" for i, name in enumerate(domains, 1)),
        citation="Ye et al. 2024, arXiv:2403.16952, c_i + k_i exp(sum_j t_ij r_j); as proportions r sum to one, k_i is "
        "within K_j = k_i exp(t_ij), what domain j alone would leave to be learned",
        units=lambda shape, loss, *_: {f"K_{name}": loss for name in domains},
        proportions=inputs,
    )


FAMILIES = {"mixture": mixture}
