"""Laws of benchmarks over models that others trained: their y is an error, a fraction."""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import SCALE_ONLY
from fitting.laws.elementary import exp, log, logaddexp
from fitting.laws.law import Law, Shape


def _observational(shape: Sequence[Any], capability: Any) -> Sequence[Any]:
    c, k = shape
    return (exp(-logaddexp(0.0, log(c) + k * capability)),)


def _skills(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    c, a, b = shape
    return (exp(-logaddexp(0.0, log(c) + a * log(params) + b * log(tokens))),)


def _skills_units(shape: Sequence[Any], error: Any, params: Any, tokens: Any) -> dict[str, Any]:
    _, a, b = shape
    return {"c": exp(-a * log(params) - b * log(tokens))}


LAWS = (
    Law(
        name="observational",
        inputs=("capability",),
        linear=("h",),
        shapes={"c": Shape(1e-4, 1e4, 1.0, 2.3, SCALE_ONLY), "k": Shape(1e-2, 50.0, 1.0, 1.0, SCALE_ONLY)},
        terms=_observational,
        latex=r"\mathrm{{Err}} = {h}/(1 + {c}\,e^{{{k}\,S}})",
        citation="Ruan et al. 2024, arXiv:2405.10938: S a principal component of other benchmarks' scores; ours of one",
        signed=("capability",),
    ),
    Law(
        name="skills",
        inputs=("params", "tokens"),
        linear=("h",),
        shapes={
            "c": Shape(1e-3, 1e3, 1.0, 2.3, SCALE_ONLY),
            "a": Shape(0.01, 5.0, 0.4, 1.0, SCALE_ONLY),
            "b": Shape(0.01, 5.0, 0.4, 1.0, SCALE_ONLY),
        },
        terms=_skills,
        latex=r"\mathrm{{Err}} = {h}/(1 + {c}\,N^{{{a}}} D^{{{b}}})",
        citation="Sloth, Polo et al. 2024, arXiv:2412.06540: ours of one skill and one family of models, whose "
        "efficiency is c, without the product of logarithms",
        units=_skills_units,
    ),
)
