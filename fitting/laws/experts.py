"""Loss laws of mixtures of experts: what more experts buy, trained from the start or upcycled from a dense model.

`params_active` are what one token passes through, `params` all there are, `experts` those of a layer: one is dense.
"""

from collections.abc import Sequence
from typing import Any

from fitting.laws.beliefs import CHINCHILLA, EXPONENTS, exponent
from fitting.laws.elementary import exp, log
from fitting.laws.law import Law, Shape


def _log_saturated(experts: Any, E_start: Any, E_max: Any) -> Any:
    """The logarithm of how many experts count: E_start where there is one, never more than E_max."""
    return -log(1 / (experts - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max)


def _experts(shape: Sequence[Any], params_active: Any, experts: Any) -> Sequence[Any]:
    a, b, c, E_start, E_max = shape
    log_N, log_E = log(params_active), _log_saturated(experts, E_start, E_max)
    return (exp(-a * log_N - b * log_E + c * log_N * log_E),)


def _experts_power(shape: Sequence[Any], params_active: Any, experts: Any) -> Sequence[Any]:
    alpha, beta = shape
    return 1.0, exp(-alpha * log(params_active) - beta * log(experts))


def _experts_interacting(shape: Sequence[Any], params_active: Any, experts: Any) -> Sequence[Any]:
    a, b, c = shape
    return _sparse_experts((b, a, c), experts * params_active, params_active)


def _experts_joint(shape: Sequence[Any], params_active: Any, tokens: Any, experts: Any) -> Sequence[Any]:
    alpha, beta, delta, gamma, omega, zeta, E_start, E_max = shape
    log_N, log_D, log_E = log(params_active), log(tokens), _log_saturated(experts, E_start, E_max)
    size = delta * log_E - (alpha + gamma * log_E) * log_N
    return 1.0, exp(size), exp(-omega * log_E - (beta - zeta * log_E) * log_D)


def _sparse_experts(shape: Sequence[Any], params: Any, params_active: Any) -> Sequence[Any]:
    a, b, c = shape
    log_P, log_N = log(params) - log(params_active), log(params_active)
    return 1.0, exp(-a * log_P - b * log_N + c * log_P * log_N)


def _upcycling(shape: Sequence[Any], tokens_before: Any, tokens: Any) -> Sequence[Any]:
    alpha_1, alpha_2, alpha_3 = shape
    log_before = log(tokens_before)
    return 1.0, exp(-alpha_1 * log_before - (alpha_2 - alpha_3 * log_before) * log(tokens))


_CLARK = "Clark et al. 2022, of S-BASE"
_JOINT = "Ludziejewski et al. 2025"
_COUNTED = {
    "E_start": Shape(1.01, 20.0, 1.9, 0.5, f"1.85 ({_CLARK}), 2.07 ({_JOINT})"),
    "E_max": Shape(25.0, 1e5, 300.0, 0.7, f"314 ({_CLARK}), 290 ({_JOINT})"),
}
LAWS = (
    Law(
        name="experts",
        inputs=("params_active", "experts"),
        linear=("A",),
        shapes={
            "a": exponent(0.082, _CLARK),
            "b": exponent(0.108, _CLARK),
            "c": Shape(1e-5, 0.2, 0.0039, 0.7, f"0.009 of decimal logarithms ({_CLARK})"),
            **_COUNTED,
        },
        terms=_experts,
        latex=r"L = {A}\,N^{{-{a}}}\,\hat E^{{-{b} + {c}\,\ln N}},\quad 1/\hat E = "
        r"1/(E - 1 + (1/{E_start} - 1/{E_max})^{{-1}}) + 1/{E_max}",
        citation="Clark et al. 2022, arXiv:2202.01169; ours has natural logarithms, and exponents' signs written out",
        least={"experts": 1.0},
        chosen=("experts",),
    ),
    Law(
        name="experts_power",
        inputs=("params_active", "experts"),
        linear=("E", "A"),
        shapes={"alpha": EXPONENTS["alpha"], "beta": exponent(0.1, _CLARK, 1.0)},
        terms=_experts_power,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}}\,E^{{-{beta}}}",
        citation="Li et al. 2026, arXiv:2604.22753, its first law of experts: Clark et al. 2022 with an "
        "irreducible loss, without interaction or saturation",
        least={"experts": 1.0},
        chosen=("experts",),
    ),
    Law(
        name="experts_interacting",
        inputs=("params_active", "experts"),
        linear=("E", "A"),
        shapes={
            "a": EXPONENTS["alpha"],
            "b": exponent(0.1, _CLARK, 1.0),
            "c": Shape(1e-5, 0.2, 0.0039, 0.7, f"0.009 of decimal logarithms ({_CLARK})"),
        },
        terms=_experts_interacting,
        latex=r"L = {E} + {A}\,N^{{-{a}}}\,E^{{-{b} + {c}\,\ln N}}",
        citation="Clark et al. 2022, arXiv:2202.01169, Eq. 1, with an irreducible loss, as ours; without saturation",
        least={"experts": 1.0},
        chosen=("experts",),
    ),
    Law(
        name="experts_joint",
        inputs=("params_active", "tokens", "experts"),
        linear=("E", "A", "B"),
        shapes={
            "alpha": exponent(0.19, _JOINT),
            "beta": exponent(0.18, _JOINT),
            "delta": Shape(1e-3, 5.0, 0.23, 0.7, _JOINT),
            "gamma": Shape(1e-4, 0.5, 0.0098, 0.7, _JOINT),
            "omega": Shape(1e-3, 5.0, 0.55, 0.7, _JOINT),
            "zeta": Shape(1e-4, 0.5, 0.026, 0.7, _JOINT),
            **_COUNTED,
        },
        terms=_experts_joint,
        latex=r"L = {E} + {A}\,\hat E^{{{delta}}}\,N^{{-{alpha} - {gamma}\,\ln\hat E}} + "
        r"{B}\,\hat E^{{-{omega}}}\,D^{{-{beta} + {zeta}\,\ln\hat E}},\quad "
        r"{E_start} \leq \hat E \leq {E_max}",
        citation="Ludziejewski et al. 2025, arXiv:2502.05172; signs written out; E-hat is Clark et al. 2022's",
        least={"experts": 1.0},
        chosen=("experts",),
    ),
    Law(
        name="sparse_experts",
        inputs=("params", "params_active"),
        linear=("E", "A"),
        shapes={
            "a": exponent(0.3, CHINCHILLA, 1.0),
            "b": EXPONENTS["alpha"],
            "c": Shape(1e-5, 0.2, 0.01, 1.0, "what interaction experts show: Clark et al. 2022"),
        },
        terms=_sparse_experts,
        latex=r"L = {E} + {A}\,(N/N_a)^{{-{a} + {c}\,\ln N_a}}\,N_a^{{-{b}}}",
        citation="Liew et al. 2025, arXiv:2502.03009, of upcycled experts: N_a of N parameters active, at one D",
    ),
    Law(
        name="upcycling",
        inputs=("tokens_before", "tokens"),
        linear=("E", "A"),
        shapes={
            "alpha_1": exponent(0.3, CHINCHILLA, 1.0),
            "alpha_2": exponent(0.3, CHINCHILLA, 1.0),
            "alpha_3": Shape(1e-5, 0.2, 0.005, 1.0, "small: what dense training bought, upcycling cannot buy again"),
        },
        terms=_upcycling,
        latex=r"L = {E} + {A}\,D_1^{{-{alpha_1}}}\,D_2^{{-{alpha_2} + {alpha_3}\,\ln D_1}}",
        citation="Liew et al. 2025, arXiv:2502.03009: D_1 tokens dense, then D_2 with experts, at one N",
    ),
)
