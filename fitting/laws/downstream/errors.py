"""What a loss says of another measurement: a downstream error, or the loss on other text."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import SCALE_ONLY
from fitting.laws.elementary import exp, log, logaddexp, maximum, minimum
from fitting.laws.law import Law, Shape


def _exponential_decay(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    (gamma,) = shape
    return 1.0, -exp(-gamma * loss)


def _sigmoid(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    k, L_0 = shape
    return 1.0, 1 / (1 + exp(-k * (loss - L_0)))


def _logistic(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    k, L_0 = shape
    return (1 / (1 + exp(minimum(k * (L_0 - loss), 600.0))),)  # at 700 the exponential overflows


def _log_sigmoid(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    k, L_0 = shape
    return (logaddexp(0.0, k * (loss - L_0)),)


def _loss_to_loss(shape: Sequence[Any], loss: Any) -> Sequence[Any]:
    kappa, E_x = shape
    return 1.0, exp(kappa * log(maximum(loss - E_x, 1e-9)))


def _loss_to_loss_units(shape: Sequence[Any], other_loss: Any, loss: Any) -> Mapping[str, Any]:
    return {"E_x": loss}


_BHAGIA = f"the start of Bhagia et al. 2024: {SCALE_ONLY}"
_SIGMOID = {"k": Shape(0.05, 500.0, 3.0, 1.0, _BHAGIA), "L_0": Shape(0.02, 20.0, 0.9, 1.0, _BHAGIA)}

LAWS = (
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
                source=f"one e-fold of error a nat, give or take a factor of e: {SCALE_ONLY}",
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
        shapes=_SIGMOID,
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
            "k": Shape(0.05, 50.0, 4.0, 1.0, SCALE_ONLY),
            "L_0": Shape(0.02, 20.0, 1.0, 1.0, SCALE_ONLY),
        },
        terms=_logistic,
        latex=r"\mathrm{{Err}} = {eps}\,/\,(1 + e^{{-{k}\,(L - {L_0})}})",
        citation="Bhagia et al. 2024, arXiv:2412.04403, Eq. 3, with no error at no loss: for one task of few runs",
    ),
    Law(
        name="log_sigmoid",
        inputs=("loss",),
        linear=("a",),
        shapes=_SIGMOID,
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
)
