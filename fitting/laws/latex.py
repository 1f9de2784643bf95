"""Laws as LaTeX that matplotlib's mathtext also reads, without dollar signs."""

from __future__ import annotations

import typing
from collections.abc import Mapping

if typing.TYPE_CHECKING:
    from fitting.laws.law import Law

_SYMBOLS = {
    **{name: rf"\{name}" for name in ("eta", "gamma", "alpha", "beta", "delta", "zeta", "kappa", "omega")},
    **{f"alpha_{i}": rf"\alpha_{i}" for i in (1, 2, 3)},
    **{"gamma_D": r"\gamma_D", "gamma_N": r"\gamma_N", "eta_0": r"\eta_0"},
    **{"E_start": r"E_{\mathrm{start}}", "E_max": r"E_{\mathrm{max}}"},
    **{"eps": r"\varepsilon", "alpha_N": r"\alpha_N", "alpha_D": r"\alpha_D", "R_N": "R_N^*", "R_D": "R_D^*"},
    "M_opt": "M^*",
}


def in_symbols(law: Law) -> str:
    """The law with a symbol for every parameter."""
    return law.latex.format(**{name: symbol(name) for name in law.parameters})


def in_numbers(law: Law, theta: Mapping[str, float], digits: int = 4) -> str:
    """The law with a number for every parameter."""
    text = law.latex.format(**{name: number(value, digits) for name, value in theta.items()})
    return text.replace("+ -", "- ").replace("- -", "+ ")


def symbol(name: str) -> str:
    """A parameter's symbol."""
    head, _, words = name.partition("_")
    if name in _SYMBOLS or len(words) < 2:
        return _SYMBOLS.get(name, name)
    words = words.replace("_", r"\_")
    return rf"{head}_{{\mathrm{{{words}}}}}"


def number(value: float, digits: int = 4) -> str:
    """Such as 3.1\\times 10^{-5}."""
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return rf"{mantissa}\times 10^{{{int(exponent)}}}" if exponent else mantissa
