"""A law as JavaScript, from the same function that Python evaluates: traced by JAX, one line for each operation."""

from typing import Any

import jax
import jax.numpy as jnp

from fitting.laws.law import Law

_OPERATIONS = {
    "abs": "Math.abs({})",
    "add": "{} + {}",
    "cbrt": "Math.cbrt({})",
    "div": "{} / {}",
    "eq": "{} == {}",
    "exp": "Math.exp({})",
    "exp2": "Math.pow(2, {})",
    "expm1": "Math.expm1({})",
    "ge": "{} >= {}",
    "gt": "{} > {}",
    "le": "{} <= {}",
    "log": "Math.log({})",
    "log1p": "Math.log1p({})",
    "logistic": "1 / (1 + Math.exp(-{}))",
    "lt": "{} < {}",
    "max": "Math.max({}, {})",
    "min": "Math.min({}, {})",
    "mul": "{} * {}",
    "ne": "{} != {}",
    "neg": "-{}",
    "pow": "Math.pow({}, {})",
    "rsqrt": "1 / Math.sqrt({})",
    "sign": "Math.sign({})",
    "sqrt": "Math.sqrt({})",
    "square": "{0} * {0}",
    "sub": "{} - {}",
    "tanh": "Math.tanh({})",
}
_SAME = ("broadcast_in_dim", "convert_element_type", "copy", "copy_p", "reshape", "squeeze", "stop_gradient")


def function(law: Law) -> str:
    """The law as a JavaScript function of its parameters and its inputs: `(theta, x) => value`.

    Raises:
      ValueError: the law does something that has no scalar JavaScript, such as a loop.
    """
    *lines, result = straight_line(law)
    body = "".join(f"  const {line};\n" for line in lines)
    return f"(theta, x) => {{\n{body}  return {result};\n}}"


def straight_line(law: Law) -> list[str]:
    """Assignments `name = expression` of numbers, each name once, last the name of the result.

    Expressions are such that Python reads them as well, given `Math` and `select(condition, yes, no)`.
    """
    scalars = [0.5] * len(law.parameters), [0.5] * len(law.inputs)
    with jax.enable_x64(True):
        traced = jax.make_jaxpr(lambda theta, x: jnp.asarray(law.f(tuple(theta), *x)))(*scalars)
    arguments = [f"theta[{i}]" for i in range(len(law.parameters))] + [f"x[{i}]" for i in range(len(law.inputs))]
    lines: list[str] = []
    (result,) = _inline(law, traced.jaxpr, traced.consts, arguments, lines)
    return [*lines, result]


def _inline(law: Law, jaxpr: Any, constants: Any, arguments: list[str], lines: list[str]) -> list[str]:
    """Appends a jaxpr's operations to `lines`; gives the names of its results."""
    names = dict(zip(jaxpr.invars, arguments, strict=True))
    names |= {variable: _literal(value) for variable, value in zip(jaxpr.constvars, constants, strict=True)}

    def name_of(atom: Any) -> str:
        return _literal(atom.val) if hasattr(atom, "val") else names[atom]

    for equation in jaxpr.eqns:
        kind, inputs = equation.primitive.name, [name_of(atom) for atom in equation.invars]
        # A call such as `jit` or `custom_jvp_call` only wraps operations.
        called = (equation.params.get(name) for name in ("jaxpr", "call_jaxpr"))
        if inner := next((jaxpr for jaxpr in called if hasattr(jaxpr, "consts")), None):
            names |= zip(equation.outvars, _inline(law, inner.jaxpr, inner.consts, inputs, lines), strict=True)
        elif kind in _SAME:
            names[equation.outvars[0]] = inputs[0]
        else:
            lines.append(f"v{len(lines)} = {_expression(law, kind, inputs, equation.params)}")
            names[equation.outvars[0]] = f"v{len(lines) - 1}"
    return [name_of(atom) for atom in jaxpr.outvars]


def _expression(law: Law, kind: str, inputs: list[str], parameters: Any) -> str:
    if kind == "integer_pow":
        return f"Math.pow({inputs[0]}, {parameters['y']})"
    if kind == "select_n" and len(inputs) == 3:
        return f"select({inputs[0]}, {inputs[2]}, {inputs[1]})"
    if kind not in _OPERATIONS:
        raise ValueError(f"{law.name} uses {kind}, which has no JavaScript here; write the law with other operations")
    return _OPERATIONS[kind].format(*inputs)


def _literal(value: Any) -> str:
    number = float(value)
    return f"({number!r})" if number < 0 else repr(number)
