"""Loss laws of students that learn from a teacher's predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

from fitting.laws.beliefs import SIZE_ONLY, exponent
from fitting.laws.elementary import exp, log, logaddexp
from fitting.laws.law import Law, Shape


def _distillation(
    shape: Sequence[Any], params: Any, tokens: Any, teacher_loss: Any, student_loss: Any
) -> Sequence[Any]:
    A, B, alpha, beta, gamma, c_0, c_1, d_1, f_1 = shape
    size = gamma * log(A * params**-alpha + B * tokens**-beta)
    gap = logaddexp(0.0, (log(teacher_loss) - log(student_loss) - log(d_1)) / f_1)
    return (teacher_loss + exp(size - c_0 * log(teacher_loss) - c_1 * f_1 * gap),)


def _distillation_units(shape: Sequence[Any], loss: Any, params: Any, tokens: Any, *_: Any) -> Mapping[str, Any]:
    alpha, beta = shape[2:4]
    return {"A": params**alpha, "B": tokens**beta}


_START = "a starting range: that of Busbridge et al. 2025, not checked against their table"

LAWS = (
    Law(
        name="distillation",
        inputs=("params", "tokens", "teacher_loss", "student_loss"),
        linear=(),
        shapes={
            **{name: Shape(1e-6, 100.0, 0.3, 2.3, SIZE_ONLY) for name in ("A", "B")},
            "alpha": exponent(0.32, _START),
            "beta": exponent(0.6, _START),
            "gamma": exponent(0.7, _START),
            "c_0": Shape(0.05, 20.0, 2.5, 1.0, _START),
            "c_1": Shape(0.05, 2000.0, 10.0, 2.0, _START),
            "d_1": Shape(0.3, 3.0, 1.3, 0.3, _START),
            "f_1": Shape(0.01, 2.0, 0.1, 1.0, _START),
        },
        terms=_distillation,
        latex=r"L = L_T + L_T^{{-{c_0}}} \left(1 + (L_T/({d_1}\,L_S))^{{1/{f_1}}}\right)^{{-{c_1}\,{f_1}}} "
        r"\left({A}\,N^{{-{alpha}}} + {B}\,D^{{-{beta}}}\right)^{{{gamma}}}",
        citation="Busbridge et al. 2025, arXiv:2502.08606, Eq. 8: L_T the teacher's loss, L_S what the student "
        "would reach alone, which its own law tells",
        units=_distillation_units,
    ),
)
