"""The solver finds what scipy finds, for many datasets at once."""

import functools
import time

import numpy as np
import pytest
import scipy.optimize

from fitting import laws, solve

PARAMS = np.array([1e7, 1e7, 4e7, 1.5e8, 4e8, 4e8])
TOKENS = PARAMS * np.array([20, 320, 20, 20, 20, 80])


def _over_training(x, E, alpha, beta, eta):
    params, tokens = x
    return E + alpha * (params / 1e8) ** (-2 * eta) + beta * (tokens / 1e9) ** (-2 * eta)


def _problems(count, noise, seed=0):
    """Random laws, each measured on the same runs with relative noise: [count, runs]."""
    rng = np.random.default_rng(seed)
    truths = zip(rng.uniform(0.8, 2.5, count), rng.uniform(0.2, 2, count), rng.uniform(0.2, 2, count), strict=True)
    loss = [
        _over_training((PARAMS, TOKENS), *truth, eta)
        for truth, eta in zip(truths, rng.uniform(0.08, 0.3, count), strict=True)
    ]
    return np.array(loss) * (1 + noise * rng.standard_normal((count, len(PARAMS))))


def _scipy_best(loss, scale):
    """The lowest of 24 starts, by scipy's trust-region least squares, coefficients free; as [objective]."""
    rng = np.random.default_rng(0)

    def residuals(p):
        return (_over_training((PARAMS, TOKENS), *p[:3], np.exp(p[3])) - loss) / scale

    values = []
    for _ in range(24):
        start = [*rng.uniform(0, 3, 3), rng.uniform(np.log(0.05), np.log(0.5))]
        bounds = ([-np.inf] * 3 + [np.log(0.02)], [np.inf] * 3 + [0.0])
        found = scipy.optimize.least_squares(residuals, start, bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15)
        values.append(2 * found.cost)
    return min(values)


@functools.cache
def _free(count, noise):
    loss_BxN = _problems(count, noise)
    return loss_BxN, solve.minimise(
        laws.OVER_TRAINING, (PARAMS, TOKENS), loss_BxN, np.ones_like(loss_BxN), positive=False
    )


def test_reaches_scipys_optimum_on_random_problems():
    loss_BxN, solution = _free(12, 0.005)
    best = np.array([_scipy_best(loss, 1.0) for loss in loss_BxN])
    np.testing.assert_array_less(solution.objective_B, best * (1 + 1e-6) + 1e-18)


def test_recovers_the_law_from_points_without_noise():
    _, solution = _free(12, 0.0)
    assert solution.objective_B.max() < 1e-16
    fitted = [laws.OVER_TRAINING.evaluate(theta, 1e10, 1e12) for theta in solution.theta_BxP]
    rng = np.random.default_rng(0)
    truth = [rng.uniform(0.8, 2.5, 12), rng.uniform(0.2, 2, 12), rng.uniform(0.2, 2, 12), rng.uniform(0.08, 0.3, 12)]
    np.testing.assert_allclose(fitted, _over_training((1e10, 1e12), *truth), rtol=1e-5)
    np.testing.assert_allclose(solution.theta_BxP[:, 3], truth[3], rtol=1e-4)


def test_nearly_all_starts_reach_the_optimum():
    _, solution = _free(12, 0.005)
    assert solution.starts == 16
    assert np.median(solution.share_at_optimum_B) == 1


def test_a_coefficient_that_wants_to_be_negative_stops_at_zero_and_is_reported():
    """Losses that rise with tokens: the best positive law has no token term."""
    loss = 1.5 + 0.5 * (PARAMS / 1e8) ** -0.3 - 0.1 * (TOKENS / 1e9) ** -0.3
    solution = solve.minimise(laws.OVER_TRAINING, (PARAMS, TOKENS), loss, loss, positive=True)
    assert "b" in solution.at_bound
    assert (solution.theta_BxP > 0).all()


def test_a_single_shape_is_held_fixed():
    loss_BxN = _problems(3, 0.005)
    shape = np.array([[0.15]])
    solution = solve.minimise(laws.OVER_TRAINING, (PARAMS, TOKENS), loss_BxN, loss_BxN, positive=True, shapes_GxQ=shape)
    terms = np.stack(np.broadcast_arrays(*laws.OVER_TRAINING.evaluate_terms([0.15], PARAMS, TOKENS)), -1)
    for loss, theta, objective in zip(loss_BxN, solution.theta_BxP, solution.objective_B, strict=True):
        unit = terms.max(0)
        exact, norm = scipy.optimize.nnls(terms / unit / loss[:, None], np.ones_like(loss))
        assert theta[3] == 0.15
        assert objective == pytest.approx(norm**2, rel=1e-6)
        np.testing.assert_allclose(theta[:3], exact / unit, rtol=1e-4, atol=1e-6 * (exact / unit).max())


def test_thousands_of_datasets_in_one_call_agree_with_a_few():
    loss_BxN = _problems(2000, 0.005, seed=1)
    x, ones = (PARAMS, TOKENS), np.ones_like(loss_BxN)
    started = time.process_time()
    many = solve.minimise(laws.OVER_TRAINING, x, loss_BxN, ones, positive=False, starts=2)
    assert time.process_time() - started < 30  # CPU seconds, compilation included; a few on an idle core
    few = solve.minimise(laws.OVER_TRAINING, x, loss_BxN[:12], ones[:12], positive=False)
    np.testing.assert_allclose(many.objective_B[:12], few.objective_B, rtol=1e-6)


def test_the_error_law_reaches_scipys_optimum():
    loss = np.array([4.6, 3.7, 3.4, 3.1, 2.7, 4.2])
    rng = np.random.default_rng(3)
    for _ in range(3):
        error = 0.85 - 2.0 * np.exp(-rng.uniform(0.4, 1.2) * loss) + 0.005 * rng.standard_normal(len(loss))
        solution = solve.minimise(laws.EXPONENTIAL_DECAY, (loss,), error, np.ones(6), positive=False)

        def residuals(p, error=error):
            return p[0] - p[1] * np.exp(-np.exp(p[2]) * (loss - 3)) - error

        found = [
            2 * scipy.optimize.least_squares(residuals, [0.8, 0.2, start], xtol=1e-15, ftol=1e-15, gtol=1e-15).cost
            for start in np.linspace(-2, 1, 8)
        ]
        assert solution.objective_B[0] <= min(found) * (1 + 1e-6)
