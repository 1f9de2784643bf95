"""Coefficients of a law whose shapes are held: scipy's, at a bound or not, and the solver's of the whole law."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting import linear, solve
from fitting.laws import catalogue
from fitting.laws.law import Law

PARAMS = np.array([1e7, 1e7, 4e7, 1.5e8, 4e8, 4e8])
TOKENS = PARAMS * np.array([20, 320, 20, 20, 20, 80])


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.1, 0.5), st.integers(4, 6))
def test_coefficients_are_those_of_scipy_and_positive(seed, eta, runs):
    rng = np.random.default_rng(seed)
    x, y = (PARAMS[:runs], TOKENS[:runs]), rng.uniform(2, 4, runs)
    scale = y * rng.uniform(0.5, 2, runs)
    found = linear.least_squares(catalogue.OVER_TRAINING, x, y, np.diag(1 / scale), np.array([eta]))
    terms_NxJ = np.stack(np.broadcast_arrays(*catalogue.OVER_TRAINING.evaluate_terms([eta], *x)), -1)
    unit_J = terms_NxJ.max(0)
    exact_J, norm = scipy.optimize.nnls(terms_NxJ / unit_J / scale[:, None], y / scale)
    assert (found.theta_BxP > 0).all() and found.theta_BxP[0, 3] == eta
    assert found.objective_B[0] == pytest.approx(norm**2, rel=1e-8, abs=1e-16)
    np.testing.assert_allclose(found.theta_BxP[0, :3] * unit_J, exact_J, rtol=1e-6, atol=1e-8 * exact_J.max())
    assert found.at_bound == tuple(np.array(["E", "a", "b"])[exact_J == 0])


@pytest.mark.parametrize("law", [catalogue.OVER_TRAINING, catalogue.LOSS_LAWS["chinchilla"]], ids=lambda law: law.name)
def test_it_finds_what_the_solver_finds_with_the_shapes_held(law):
    rng = np.random.default_rng(3)
    y = (1.8 + 480 * PARAMS**-0.35 + 2100 * TOKENS**-0.37) * np.exp(0.01 * rng.standard_normal(6))
    shape_Q = np.array([shape.median for shape in law.shapes.values()])
    found = linear.least_squares(law, (PARAMS, TOKENS), y, np.diag(1 / y), shape_Q)
    hold = dict(zip(law.shapes, shape_Q, strict=True))
    searched = solve.minimise(law, (PARAMS, TOKENS), y, y, positive=True, hold=hold)
    np.testing.assert_allclose(found.theta_BxP, searched.theta_BxP, rtol=1e-9)
    np.testing.assert_allclose(found.objective_B, searched.objective_B, rtol=1e-9)


def test_a_term_that_no_parameter_multiplies_is_taken_off_first():
    law = Law("offset", ("params",), ("E",), {}, lambda _, params: (1.0, params), "", "")
    found = linear.least_squares(law, (np.arange(3.0),), np.arange(3.0) + 5, np.eye(3), np.array([]))
    assert found.theta_BxP[0] == pytest.approx([5.0]) and found.objective_B[0] == pytest.approx(0, abs=1e-20)


def test_slopes_are_the_derivatives():
    theta_1xP = np.array([[1.8, 250.0, 400.0, 0.14]])
    slope_1xKxP, loss_1xK = linear.slopes(catalogue.OVER_TRAINING, theta_1xP, (PARAMS, TOKENS))
    terms = catalogue.OVER_TRAINING.evaluate_terms([0.14], PARAMS, TOKENS)
    part_KxJ = np.stack(np.broadcast_arrays(*terms), 1) * theta_1xP[0, :3]
    np.testing.assert_allclose(slope_1xKxP[0, :, :3], part_KxJ, rtol=1e-7)
    np.testing.assert_allclose(loss_1xK[0], part_KxJ.sum(1), rtol=1e-12)
