"""Loss laws of runs that read some of their data more than once."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import COEFFICIENTS, EXPONENTS
from fitting.laws.elementary import exp, expm1, log, minimum
from fitting.laws.law import Law, Shape
from fitting.laws.params_and_tokens import power_units


def _data_constrained(shape: Sequence[Any], params: Any, tokens: Any, unique_tokens: Any) -> Sequence[Any]:
    A, B, alpha, beta, R_N, R_D = shape
    # The parameters that are optimal for the unique tokens: Eq. 2 of Hoffmann et al. 2022 with D_opt = U.
    log_G = (log(alpha) + log(A) - log(beta) - log(B)) / (alpha + beta)
    unique_params = minimum(params, exp(log_G + beta / alpha * (log_G + log(unique_tokens))))
    effective_params = _with_repeats(params, unique_params, R_N)
    effective_tokens = _with_repeats(tokens, unique_tokens, R_D)
    return 1.0, A * effective_params**-alpha + B * effective_tokens**-beta


def _repeats_by_size(shape: Sequence[Any], params: Any, tokens: Any, unique_tokens: Any) -> Sequence[Any]:
    A, B, alpha, beta, R_0, g = shape
    effective_tokens = _with_repeats(tokens, unique_tokens, R_0 * exp(-g * log(params)))
    return 1.0, A * params**-alpha + B * effective_tokens**-beta


def _repeats_by_size_units(
    shape: Sequence[Any], loss: Any, params: Any, tokens: Any, unique_tokens: Any
) -> Mapping[str, Any]:
    return {**power_units(shape, loss, params, tokens), "R_0": params ** shape[-1]}


def _with_repeats(total: Any, unique: Any, decay: Any) -> Any:
    """What `total` is worth where only `unique` of it is new; expm1, since 1 - exp(-x) is 0 for tiny x."""
    return unique - unique * decay * expm1(-(total / unique - 1) / decay)


LAWS = (
    Law(
        name="data_constrained",
        inputs=("params", "tokens", "unique_tokens"),
        linear=("E",),
        shapes={
            **COEFFICIENTS,
            **EXPONENTS,
            "R_N": Shape(0.1, 1000.0, 5.3, 1.0, "5.31 (Muennighoff et al. 2023)"),
            "R_D": Shape(0.1, 1000.0, 15.4, 1.0, "15.39 (Muennighoff et al. 2023)"),
        },
        terms=_data_constrained,
        latex=r"L = {E} + {A}\,N'^{{-{alpha}}} + {B}\,D'^{{-{beta}}},\quad "
        r"D' = U_D + {R_D}\,U_D\,(1 - e^{{-R_D/{R_D}}}),\quad N' = U_N + {R_N}\,U_N\,(1 - e^{{-R_N/{R_N}}})",
        citation="Muennighoff et al. 2023, arXiv:2305.16264, Eq. 5, 6; R = total/unique - 1; U_N is best for U_D",
        units=power_units,
    ),
    Law(
        name="repeats_by_size",
        inputs=("params", "tokens", "unique_tokens"),
        linear=("E",),
        shapes={
            **COEFFICIENTS,
            **EXPONENTS,
            "R_0": Shape(0.01, 1000.0, 15.4, 1.0, "15.39 of all sizes (Muennighoff et al. 2023)"),
            "g": Shape(0.01, 3.0, 0.5, 1.0, "larger models overfit repeats sooner; a starting range and no more"),
        },
        terms=_repeats_by_size,
        latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D'^{{-{beta}}},\quad "
        r"D' = U_D + R^* U_D\,(1 - e^{{-R_D/R^*}}),\quad R^* = {R_0}\,N^{{-{g}}}",
        citation="ours: as data_constrained, but a larger model gains from fewer repeats; all its parameters count",
        units=_repeats_by_size_units,
    ),
)
