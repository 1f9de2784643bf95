"""Scaling laws as data. To add one, write its terms and add an entry to LOSS_LAWS or ERROR_LAWS."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from fitting.fitted import LawFit
from fitting.law import Law, Shape
from fitting.words import tex

__all__ = ["ERROR_LAWS", "LOSS_LAWS", "Law", "Shape", "latex", "latex_symbols", "named"]


def _exponent(median: float, source: str, log_sd: float = 0.5) -> Shape:
    return Shape(low=0.01, high=2.0, median=median, log_sd=log_sd, source=source)


_CHINCHILLA = (
    "0.34 and 0.28 (Hoffmann et al. 2022), 0.35 and 0.37 (Besiroglu et al. 2024), 0.35 (Muennighoff et al. 2023)"
)
_SIZE_ONLY = "the size at which this alone would make all of the loss, give or take a factor of ten"
_SCALE_ONLY = "a scale, nothing more"


def _over_training(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    (eta,) = shape
    log_multiplier = jnp.log(tokens) - jnp.log(params)
    log_flops = math.log(6) + jnp.log(params) + jnp.log(tokens)
    return 1.0, jnp.exp(eta * (log_multiplier - log_flops)), jnp.exp(-eta * (log_multiplier + log_flops))


def _chinchilla(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    alpha, beta = shape
    return 1.0, jnp.exp(-alpha * jnp.log(params)), jnp.exp(-beta * jnp.log(tokens))


def _chinchilla_tied(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    (alpha,) = shape
    return _chinchilla((alpha, alpha), params, tokens)


def _kaplan(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    N_c, D_c, alpha_N, alpha_D = shape
    size = alpha_N / alpha_D * (jnp.log(N_c) - jnp.log(params))
    return (jnp.exp(alpha_D * jnp.logaddexp(size, jnp.log(D_c) - jnp.log(tokens))),)


def _kaplan_units(shape: Sequence[Any], loss: Any, params: Any, tokens: Any) -> Mapping[str, Any]:
    _, _, alpha_N, alpha_D = shape
    return {"N_c": params * loss ** (1 / alpha_N), "D_c": tokens * loss ** (1 / alpha_D)}


def _coupled(shape: Sequence[Any], params: Any, tokens: Any) -> Sequence[Any]:
    A, B, alpha, beta, kappa = shape
    size = (jnp.log(A) - alpha * jnp.log(params)) / kappa
    data = (jnp.log(B) - beta * jnp.log(tokens)) / kappa
    return 1.0, jnp.exp(kappa * jnp.logaddexp(size, data))


def _power_units(shape: Sequence[Any], loss: Any, params: Any, tokens: Any, *_: Any) -> Mapping[str, Any]:
    _, _, alpha, beta = shape[:4]
    return {"A": loss * params**alpha, "B": loss * tokens**beta}


def _data_constrained(shape: Sequence[Any], params: Any, tokens: Any, unique_tokens: Any) -> Sequence[Any]:
    A, B, alpha, beta, R_N, R_D = shape
    # The parameters that are optimal for the unique tokens: Eq. 2 of Hoffmann et al. 2022 with D_opt = U.
    log_G = (jnp.log(alpha) + jnp.log(A) - jnp.log(beta) - jnp.log(B)) / (alpha + beta)
    unique_params = jnp.minimum(params, jnp.exp(log_G + beta / alpha * (log_G + jnp.log(unique_tokens))))
    effective_params = _with_repeats(params, unique_params, R_N)
    effective_tokens = _with_repeats(tokens, unique_tokens, R_D)
    return 1.0, A * effective_params**-alpha + B * effective_tokens**-beta


def _with_repeats(total: Any, unique: Any, decay: Any) -> Any:
    """What `total` is worth where only `unique` of it is new; expm1, since 1 - exp(-x) is 0 for tiny x."""
    return unique - unique * decay * jnp.expm1(-(total / unique - 1) / decay)


def _width_depth(shape: Sequence[Any], width: Any, depth: Any, tokens: Any) -> Sequence[Any]:
    alpha, beta, zeta = shape
    return 1.0, jnp.exp(-alpha * jnp.log(width)), jnp.exp(-beta * jnp.log(depth)), jnp.exp(-zeta * jnp.log(tokens))


def _precision(shape: Sequence[Any], params: Any, tokens: Any, weight_bits: Any) -> Sequence[Any]:
    alpha, beta, gamma = shape
    return _chinchilla((alpha, beta), -params * jnp.expm1(-weight_bits / gamma), tokens)


def _annealing(shape: Sequence[Any], lr_area: Any, lr_annealing: Any) -> Sequence[Any]:
    (alpha,) = shape
    return 1.0, jnp.exp(-alpha * jnp.log(lr_area)), -lr_annealing


def _exponential_decay(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    (gamma,) = shape
    return 1.0, -jnp.exp(-gamma * loss)


def _sigmoid(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    k, L_0 = shape
    return 1.0, 1 / (1 + jnp.exp(-k * (loss - L_0)))


def _logistic(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    k, L_0 = shape
    return (1 / (1 + jnp.exp(jnp.minimum(k * (L_0 - loss), 600.0))),)  # at 700 the exponential overflows


def _log_sigmoid(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    k, L_0 = shape
    return (jnp.logaddexp(0.0, k * (loss - L_0)),)


def _loss_to_loss(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    kappa, E_x = shape
    return 1.0, jnp.exp(kappa * jnp.log(jnp.maximum(loss - E_x, 1e-9)))


def _loss_to_loss_units(shape: Sequence[Any], other_loss: Any, loss: Any) -> Mapping[str, Any]:
    return {"E_x": loss}


LOSS_LAWS: Mapping[str, Law] = {
    law.name: law
    for law in [
        Law(
            name="over_training",
            inputs=("params", "tokens"),
            linear=("E", "a", "b"),
            shapes={
                "eta": Shape(
                    low=0.02,
                    high=1.0,
                    median=0.17,
                    log_sd=0.25,
                    source=f"2 eta is the exponent of N and of D: {_CHINCHILLA}; widened for other data",
                )
            },
            terms=_over_training,
            latex=r"L = {E} + ({a}\,M^{{{eta}}} + {b}\,M^{{-{eta}}})\,C^{{-{eta}}}",
            citation="Gadre et al. 2024, arXiv:2403.08540, Eq. 4; C = 6ND, M = D/N",
        ),
        Law(
            name="chinchilla",
            inputs=("params", "tokens"),
            linear=("E", "A", "B"),
            shapes={"alpha": _exponent(0.34, _CHINCHILLA), "beta": _exponent(0.34, _CHINCHILLA)},
            terms=_chinchilla,
            latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}}",
            citation="Hoffmann et al. 2022, arXiv:2203.15556, Eq. 2",
        ),
        Law(
            name="chinchilla_tied",
            inputs=("params", "tokens"),
            linear=("E", "A", "B"),
            shapes={"alpha": _exponent(0.34, _CHINCHILLA)},
            terms=_chinchilla_tied,
            latex=r"L = {E} + {A}\,N^{{-{alpha}}} + {B}\,D^{{-{alpha}}}",
            citation="Muennighoff et al. 2023, arXiv:2305.16264, Appendix A: Hoffmann et al. 2022, Eq. 2, one exponent",
        ),
        Law(
            name="kaplan",
            inputs=("params", "tokens"),
            linear=(),
            shapes={
                "N_c": Shape(1e-9, 10.0, 0.1, 2.3, _SIZE_ONLY),
                "D_c": Shape(1e-9, 10.0, 0.1, 2.3, _SIZE_ONLY),
                "alpha_N": _exponent(0.076, "Kaplan et al. 2020, Table 2"),
                "alpha_D": _exponent(0.095, "Kaplan et al. 2020, Table 2"),
            },
            terms=_kaplan,
            latex=r"L = \left(({N_c}/N)^{{{alpha_N}/{alpha_D}}} + {D_c}/D\right)^{{{alpha_D}}}",
            citation="Kaplan et al. 2020, arXiv:2001.08361, Eq. 1.5",
            units=_kaplan_units,
        ),
        Law(
            name="coupled",
            inputs=("params", "tokens"),
            linear=("E",),
            shapes={
                "A": Shape(1e-6, 10.0, 0.3, 2.3, _SIZE_ONLY),
                "B": Shape(1e-6, 10.0, 0.3, 2.3, _SIZE_ONLY),
                "alpha": _exponent(0.34, _CHINCHILLA),
                "beta": _exponent(0.34, _CHINCHILLA),
                "kappa": Shape(0.1, 10.0, 1.0, 0.5, "1 is Hoffmann et al. 2022, Eq. 2: terms that do not interact"),
            },
            terms=_coupled,
            latex=r"L = {E} + \left(({A}\,N^{{-{alpha}}})^{{1/{kappa}}} + ({B}\,D^{{-{beta}}})^{{1/{kappa}}}"
            r"\right)^{{{kappa}}}",
            citation="Skaling, arXiv:2608.07222; kappa = 1 is Hoffmann et al. 2022, Eq. 2",
            units=_power_units,
        ),
        Law(
            name="data_constrained",
            inputs=("params", "tokens", "unique_tokens"),
            linear=("E",),
            shapes={
                "A": Shape(1e-6, 10.0, 0.3, 2.3, _SIZE_ONLY),
                "B": Shape(1e-6, 10.0, 0.3, 2.3, _SIZE_ONLY),
                "alpha": _exponent(0.34, _CHINCHILLA),
                "beta": _exponent(0.34, _CHINCHILLA),
                "R_N": Shape(0.1, 1000.0, 5.3, 1.0, "5.31 (Muennighoff et al. 2023)"),
                "R_D": Shape(0.1, 1000.0, 15.4, 1.0, "15.39 (Muennighoff et al. 2023)"),
            },
            terms=_data_constrained,
            latex=r"L = {E} + {A}\,N'^{{-{alpha}}} + {B}\,D'^{{-{beta}}},\quad "
            r"D' = U_D + {R_D}\,U_D\,(1 - e^{{-R_D/{R_D}}}),\quad N' = U_N + {R_N}\,U_N\,(1 - e^{{-R_N/{R_N}}})",
            citation="Muennighoff et al. 2023, arXiv:2305.16264, Eq. 5, 6; R = total/unique - 1; U_N is best for U_D",
            units=_power_units,
        ),
        Law(
            name="width_depth",
            inputs=("width", "depth", "tokens"),
            linear=("E", "A", "B", "C"),
            shapes={
                "alpha": _exponent(0.7, "width is about the root of N: twice N's exponent", 0.7),
                "beta": _exponent(0.5, _SCALE_ONLY, 1.0),
                "zeta": _exponent(0.34, _CHINCHILLA),
            },
            terms=_width_depth,
            latex=r"L = {E} + {A}\,w^{{-{alpha}}} + {B}\,d^{{-{beta}}} + {C}\,D^{{-{zeta}}}",
            citation="Gemstones, McLeish et al. 2025, arXiv:2502.06857: width w, depth d; without a term in N",
        ),
        Law(
            name="precision",
            inputs=("params", "tokens", "weight_bits"),
            linear=("E", "A", "B"),
            shapes={
                "alpha": _exponent(0.34, _CHINCHILLA),
                "beta": _exponent(0.34, _CHINCHILLA),
                "gamma": Shape(0.1, 30.0, 2.7, 0.7, "2.67 bits (Kumar et al. 2024)"),
            },
            terms=_precision,
            latex=r"L = {E} + {A}\,\left(N\,(1 - e^{{-P/{gamma}}})\right)^{{-{alpha}}} + {B}\,D^{{-{beta}}}",
            citation="Kumar et al. 2024, arXiv:2411.04330: P bits a weight while training",
        ),
        Law(
            name="annealing",
            inputs=("lr_area", "lr_annealing"),
            linear=("L_0", "A", "C"),
            shapes={"alpha": _exponent(0.5, "0.4 to 0.6 (Tissue et al. 2024)")},
            terms=_annealing,
            latex=r"L = {L_0} + {A}\,S_1^{{-{alpha}}} - {C}\,S_2",
            citation="Tissue et al. 2024, arXiv:2408.11029: S1 and S2 as in `fitting.curves`",
        ),
    ]
}

ERROR_LAWS: Mapping[str, Law] = {
    law.name: law
    for law in [
        Law(
            name="exponential_decay",
            inputs=("loss",),
            linear=("eps", "k"),
            shapes={
                "gamma": Shape(
                    low=0.02,
                    high=20.0,
                    median=1.0,
                    log_sd=1.0,
                    source=f"one e-fold of error a nat, give or take a factor of e: {_SCALE_ONLY}",
                )
            },
            terms=_exponential_decay,
            latex=r"\mathrm{{Err}} = {eps} - {k}\,e^{{-{gamma}\,L}}",
            citation="Gadre et al. 2024, arXiv:2403.08540, Eq. 5",
        ),
        Law(
            name="sigmoid",
            inputs=("loss",),
            linear=("eps", "a"),
            shapes={
                "k": Shape(0.05, 500.0, 3.0, 1.0, f"the start of Bhagia et al. 2024: {_SCALE_ONLY}"),
                "L_0": Shape(0.02, 20.0, 0.9, 1.0, f"the start of Bhagia et al. 2024: {_SCALE_ONLY}"),
            },
            terms=_sigmoid,
            latex=r"\mathrm{{Err}} = {eps} + {a}\,/\,(1 + e^{{-{k}\,(L - {L_0})}})",
            citation="Bhagia et al. 2024, arXiv:2412.04403, Eq. 3: Acc = 1 - Err",
            ideal=(((0.0,), 0.0),),
        ),
        Law(
            name="logistic",
            inputs=("loss",),
            linear=("eps",),
            shapes={
                "k": Shape(0.05, 50.0, 4.0, 1.0, _SCALE_ONLY),
                "L_0": Shape(0.02, 20.0, 1.0, 1.0, _SCALE_ONLY),
            },
            terms=_logistic,
            latex=r"\mathrm{{Err}} = {eps}\,/\,(1 + e^{{-{k}\,(L - {L_0})}})",
            citation="Bhagia et al. 2024, arXiv:2412.04403, Eq. 3, with no error at no loss: for one task of few runs",
        ),
        Law(
            name="log_sigmoid",
            inputs=("loss",),
            linear=("a",),
            shapes={
                "k": Shape(0.05, 500.0, 3.0, 1.0, f"the start of Bhagia et al. 2024: {_SCALE_ONLY}"),
                "L_0": Shape(0.02, 20.0, 0.9, 1.0, f"the start of Bhagia et al. 2024: {_SCALE_ONLY}"),
            },
            terms=_log_sigmoid,
            latex=r"\mathrm{{Err}} = {a}\,\log(1 + e^{{{k}\,(L - {L_0})}})",
            citation="Bhagia et al. 2024, arXiv:2412.04403, its code's log_sigmoid",
        ),
        Law(
            name="loss_to_loss",
            inputs=("loss",),
            linear=("E_y", "K"),
            shapes={
                "kappa": Shape(0.1, 5.0, 1.0, 0.4, "losses on like data move together"),
                "E_x": Shape(0.01, 0.999, 0.6, 0.4, "in units of the lowest loss: some of it is irreducible"),
            },
            terms=_loss_to_loss,
            latex=r"L_y = {E_y} + {K}\,(L_x - {E_x})^{{{kappa}}}",
            citation="Brandfonbrener et al. 2024, arXiv:2411.12925",
            units=_loss_to_loss_units,
        ),
    ]
}

OVER_TRAINING = LOSS_LAWS["over_training"]
EXPONENTIAL_DECAY = ERROR_LAWS["exponential_decay"]

_SYMBOLS = {
    **{name: rf"\{name}" for name in ("eta", "gamma", "alpha", "beta", "zeta", "kappa")},
    **{"eps": r"\varepsilon", "alpha_N": r"\alpha_N", "alpha_D": r"\alpha_D", "R_N": "R_N^*", "R_D": "R_D^*"},
}


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
    return _SYMBOLS.get(name, name)


def latex(fit: LawFit, digits: int = 4) -> str:
    """The fitted law with its numbers, as LaTeX that matplotlib's mathtext also reads, without dollar signs."""
    text = named(fit.law).latex.format(**{name: tex(value, digits) for name, value in fit.theta.items()})
    return text.replace("+ -", "- ").replace("- -", "+ ")
