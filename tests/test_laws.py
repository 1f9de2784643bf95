"""The laws say what the paper's equations say, at any size, and print themselves."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.mathtext import MathTextParser
from synthetic_law import synthetic_law

from fitting import laws


def test_over_training_is_equation_4_of_gadre_et_al():
    """N = 2, D = 24: M = 12, C = 288; with eta = 1/2, L = 1 + (3 √12 + 5/√12)/√288."""
    expected = 1 + (3 * 12**0.5 + 5 * 12**-0.5) * 288**-0.5
    assert laws.OVER_TRAINING.evaluate((1, 3, 5, 0.5), 2.0, 24.0) == pytest.approx(expected, rel=1e-14)


def test_exponential_decay_is_equation_5_of_gadre_et_al():
    assert laws.EXPONENTIAL_DECAY.evaluate((0.75, 2.0, np.log(2)), 3.0) == pytest.approx(0.75 - 2 / 8, rel=1e-14)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.02, 1), st.floats(3, 15), st.floats(3, 18))
def test_over_training_is_a_power_law_in_params_and_in_tokens(eta, log_params, log_tokens):
    """The terms are (6N²)^-eta and (6D²)^-eta, from a thousand parameters to beyond anything that will be trained."""
    params, tokens = 10**log_params, 10**log_tokens
    one, size, data = laws.OVER_TRAINING.evaluate_terms([eta], params, tokens)
    assert one == 1
    np.testing.assert_allclose(size, (6 * params**2) ** -eta, rtol=1e-11)
    np.testing.assert_allclose(data, (6 * tokens**2) ** -eta, rtol=1e-11)


def test_laws_are_evaluated_in_double_precision_and_leave_jax_as_it_was():
    value = laws.OVER_TRAINING.evaluate((1.0, 200.0, 300.0, 0.14), np.array([1e9]), np.array([2e10]))
    assert value.dtype == np.float64
    assert jax.numpy.ones(1).dtype == np.float32


def test_draws_and_runs_broadcast():
    theta_PxSx1 = np.ones((4, 7, 1)) * np.array([1, 2, 3, 0.1])[:, None, None]
    assert laws.OVER_TRAINING.evaluate(theta_PxSx1, np.ones(5), np.ones(5)).shape == (7, 5)


@pytest.mark.parametrize("law", [*laws.LOSS_LAWS.values(), *laws.ERROR_LAWS.values()], ids=lambda law: law.name)
def test_every_law_prints_in_symbols(law):
    text = laws.latex_symbols(law)
    assert "{" + law.parameters[0] + "}" not in text
    MathTextParser("path").parse(f"${text}$")


def test_a_fitted_law_prints_its_numbers():
    law = synthetic_law()
    assert laws.latex(law.loss) == r"L = 0.9 + (3.1\,M^{0.14} + 28\,M^{-0.14})\,C^{-0.14}"
    MathTextParser("path").parse(f"${laws.latex(law.error)}$")


def test_large_and_negative_numbers_print_as_people_write_them():
    fit = dataclasses.replace(synthetic_law().loss, theta={"E": -1.5, "a": 1234567.0, "b": -2e-7, "eta": 0.25})
    assert laws.latex(fit) == (r"L = -1.5 + (1.235\times 10^{6}\,M^{0.25} - 2\times 10^{-7}\,M^{-0.25})\,C^{-0.25}")


def test_an_unknown_law_is_named_with_those_that_are_known():
    with pytest.raises(ValueError, match="law 'chinchila' is unknown to this version; it knows over_training"):
        laws.named("chinchila")
