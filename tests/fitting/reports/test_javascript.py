"""What a page computes is what Python computes, for every law."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fitting.laws import catalogue
from fitting.reports import javascript

ALL = {**catalogue.LOSS_LAWS, **catalogue.ERROR_LAWS}
MATH = types.SimpleNamespace(
    **{name: getattr(math, name) for name in ("exp", "log", "expm1", "log1p", "tanh", "sqrt", "cbrt", "pow")},
    abs=abs,
    max=max,
    min=min,
    sign=np.sign,
)


def run(law, theta, x):
    """The JavaScript of a law, which is Python as well."""
    *lines, result = javascript.straight_line(law)
    scope = {"Math": MATH, "select": lambda c, yes, no: yes if c else no, "theta": theta, "x": x}
    exec("\n".join(lines), scope)
    return eval(result, scope)


@pytest.mark.parametrize("name", ALL)
def test_every_law_is_the_same_number_in_the_page(name):
    law, random = ALL[name], np.random.default_rng(0)
    sizes = {"params": (1e5, 1e11), "tokens": (1e7, 1e13), "loss": (0.5, 5.0)}
    for _ in range(20):
        theta = [*random.uniform(0.1, 100, len(law.linear)).tolist()]
        theta += [float(np.exp(random.normal(np.log(s.median), 0.1))) for s in law.shapes.values()]
        x = [float(np.exp(random.uniform(*np.log(sizes.get(i, (1, 100)))))) for i in law.inputs]
        assert run(law, theta, x) == pytest.approx(float(law.evaluate(theta, *x)), rel=1e-11)


def made_of(terms):
    return catalogue.Law("made_up", ("params", "tokens"), ("E", "a"), {}, terms, "", "")


def test_branches_powers_and_wrapped_calls_are_written_out():
    law = made_of(
        lambda _, n, d: (
            jnp.where(n > d, jnp.log1p(n), jnp.maximum(n, 2.0) ** 3),
            jnp.clip(jnp.logaddexp(n, -d), 0.0, 1e3) + n**-0.5,
        )
    )
    for x in ([3.0, 2.0], [1.5, 4.0]):
        with jax.enable_x64(True):
            assert run(law, [0.7, -1.3], x) == pytest.approx(float(law.f([0.7, -1.3], *x)), rel=1e-12)


def test_the_function_declares_every_name_once():
    source = javascript.function(catalogue.OVER_TRAINING)
    assert source.startswith("(theta, x) => {") and "return v" in source
    names = [line.split()[1] for line in source.splitlines() if line.startswith("  const ")]
    assert len(names) == len(set(names)) > 5


def test_what_has_no_javascript_is_refused():
    law = made_of(lambda _, n, d: (1.0, jnp.sort(jnp.stack([n, d]))[0]))
    with pytest.raises(ValueError, match=r"made_up uses .*, which has no JavaScript"):
        javascript.function(law)
