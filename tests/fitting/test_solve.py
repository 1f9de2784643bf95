"""The solver finds what scipy finds, for many datasets at once."""

import functools
import threading
import time

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting import solve
from fitting.laws import catalogue
from fitting.laws.objectives import OBJECTIVES

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
        catalogue.OVER_TRAINING, (PARAMS, TOKENS), loss_BxN, np.ones_like(loss_BxN), positive=False
    )


def test_reaches_scipys_optimum_on_random_problems():
    loss_BxN, solution = _free(12, 0.005)
    best = np.array([_scipy_best(loss, 1.0) for loss in loss_BxN])
    np.testing.assert_array_less(solution.objective_B, best * (1 + 1e-6) + 1e-18)


def test_recovers_the_law_from_points_without_noise():
    _, solution = _free(12, 0.0)
    assert solution.objective_B.max() < 1e-16
    fitted = [catalogue.OVER_TRAINING.evaluate(theta, 1e10, 1e12) for theta in solution.theta_BxP]
    rng = np.random.default_rng(0)
    truth = [rng.uniform(0.8, 2.5, 12), rng.uniform(0.2, 2, 12), rng.uniform(0.2, 2, 12), rng.uniform(0.08, 0.3, 12)]
    np.testing.assert_allclose(fitted, _over_training((1e10, 1e12), *truth), rtol=1e-5)
    np.testing.assert_allclose(solution.theta_BxP[:, 3], truth[3], rtol=1e-4)


def test_what_is_found_is_the_optimum_to_ten_digits():
    """Another Gauss-Newton step, by QR, moves nothing: so no compiler's rounding, nor its options, show in a law."""
    loss_BxN, solution = _free(12, 0.005)
    log_size, log_data = np.log(6 * PARAMS**2), np.log(6 * TOKENS**2)
    for theta, loss in zip(solution.theta_BxP, loss_BxN, strict=True):
        _, a, b, eta = theta
        size, data = np.exp(-eta * log_size), np.exp(-eta * log_data)
        slope_NxP = np.stack([np.ones(6), size, data, -a * size * log_size - b * data * log_data], -1)
        residual_N = catalogue.OVER_TRAINING.evaluate(theta, PARAMS, TOKENS) - loss
        step_P = np.linalg.lstsq(slope_NxP * theta, residual_N, rcond=None)[0]
        assert np.abs(step_P).max() < 1e-10


def test_nearly_all_starts_reach_the_optimum():
    _, solution = _free(12, 0.005)
    assert solution.starts == 16
    assert np.median(solution.share_at_optimum_B) == 1


def test_a_coefficient_that_wants_to_be_negative_stops_at_zero_and_is_reported():
    """Losses that rise with tokens: the best positive law has no token term."""
    loss = 1.5 + 0.5 * (PARAMS / 1e8) ** -0.3 - 0.1 * (TOKENS / 1e9) ** -0.3
    solution = solve.minimise(catalogue.OVER_TRAINING, (PARAMS, TOKENS), loss, loss, positive=True)
    assert "b" in solution.at_bound
    assert (solution.theta_BxP > 0).all()


def test_a_single_shape_is_held_fixed():
    loss_BxN = _problems(3, 0.005)
    hold = {"eta": 0.15}
    solution = solve.minimise(catalogue.OVER_TRAINING, (PARAMS, TOKENS), loss_BxN, loss_BxN, positive=True, hold=hold)
    terms = np.stack(np.broadcast_arrays(*catalogue.OVER_TRAINING.evaluate_terms([0.15], PARAMS, TOKENS)), -1)
    for loss, theta, objective in zip(loss_BxN, solution.theta_BxP, solution.objective_B, strict=True):
        unit = terms.max(0)
        exact, norm = scipy.optimize.nnls(terms / unit / loss[:, None], np.ones_like(loss))
        assert theta[3] == 0.15
        assert objective == pytest.approx(norm**2, rel=1e-6)
        np.testing.assert_allclose(theta[:3], exact / unit, rtol=1e-4, atol=1e-6 * (exact / unit).max())


def test_two_searches_at_once_do_not_wait_for_each_other():
    """On a machine of two cores, where two programs in a decomposition by blocks hold both and wait for a third."""
    rng = np.random.default_rng(0)
    x = (np.exp(rng.uniform(16, 20, 240)), np.exp(rng.uniform(20, 24, 240)))
    law = catalogue.LOSS_LAWS["chinchilla"]
    y_N = law.evaluate(TRUTHS["chinchilla"], *x)
    found = []

    def search():
        found.append(solve.minimise(law, x, y_N, objective=OBJECTIVES["log_huber"], positive=True))

    threads = [threading.Thread(target=search, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 2
    np.testing.assert_allclose(found[0].theta_BxP, found[1].theta_BxP, rtol=1e-6)


def test_thousands_of_datasets_in_one_call_agree_with_a_few():
    loss_BxN = _problems(2000, 0.005, seed=1)
    x, ones = (PARAMS, TOKENS), np.ones_like(loss_BxN)
    started = time.process_time()
    many = solve.minimise(catalogue.OVER_TRAINING, x, loss_BxN, ones, positive=False, starts=2)
    assert time.process_time() - started < 30  # CPU seconds, compilation included; a few on an idle core
    few = solve.minimise(catalogue.OVER_TRAINING, x, loss_BxN[:12], ones[:12], positive=False)
    np.testing.assert_allclose(many.objective_B[:12], few.objective_B, rtol=1e-6)


# Every law at parameters of the size that its paper reports.
TRUTHS = {
    "over_training": (1.8, 200, 370, 0.137),
    "coupled_tied": (1.8, 200, 0.27, 0.45, 24),
    "chinchilla": (1.8, 480, 2100, 0.35, 0.37),
    "chinchilla_tied": (1.8, 480, 2100, 0.35),
    "kaplan": (8.8e13, 5.4e13, 0.076, 0.095),
    "coupled": (1.8, 480, 2100, 0.35, 0.37, 0.6),
    "compute": (1.8, 600, 0.15),
    "params_only": (1.8, 480, 0.35),
    "tokens_only": (1.8, 2100, 0.37),
    "data_constrained": (1.87, 520, 1490, 0.35, 0.36, 5.3, 15.4),
    "repeats_by_size": (1.87, 520, 1490, 0.35, 0.36, 1.5e5, 0.5),
    "width_depth": (1.7, 20, 3, 900, 0.6, 0.5, 0.33),
    "precision": (1.8, 480, 2100, 0.35, 0.37, 2.67),
    "annealing": (2.5, 0.5, 12, 0.5),
    "average_params": (1.8, 480, 2100, 0.35, 0.37),
    "quantised": (1.8, 480, 2100, 0.06, 0.35, 0.37, 0.53, 0.48, 0.59),
    "experts": (12.7, 0.082, 0.108, 0.0039, 1.85, 314),
    "experts_power": (1.6, 42, 0.2, 0.07),
    "experts_interacting": (1.5, 40, 0.2, 0.1, 0.004),
    "experts_joint": (1.36, 35.9, 36.0, 0.189, 0.178, 0.229, 0.0098, 0.553, 0.0259, 2.07, 290),
    "sparse_experts": (1.5, 40, 0.2, 0.2, 0.005),
    "upcycling": (1.2, 300, 0.25, 0.2, 0.004),
    "vocabulary": (1.2, 500, 100, 2000, 0.35, 0.5, 0.37),
    "vocabulary_valley": (1.2, 0.05, 500, 2000, 0.35, 0.37, 0.1, 0.6, 1e5),
    "step_law": (1.8, 480, 2100, 0.02, 0.01, 0.35, 0.37, 1.79, 0.713, 0.307, 0.58, 0.571),
    "rate_and_batch": (1.8, 480, 2100, 2, 1, 0.35, 0.37, 0.2, 0.6, 0.1, 0.58, 0.55, 0.3, 0.2),
    "mistuned": (0.5, 13.5, 31, 0.1, 0.12, 0.25, 1.5, 0.45, 0.05, 0.58, 0.55, 0.25, 0.2, 0.15),
    "parallel_streams": (1.2, 66, 0.22, 0.34),
    "streams_power": (1.2, 66, 0.1, 10, 0.22, 0.4),
    "quantised_power": (1.8, 480, 2100, 0.02, 0.35, 0.37, 0.53, 0.23, 5.5),
    "critical_batch": (1.8, 480, 2100, 0.35, 0.37, 10, 0.47),
    "distillation": (2243, 24181, 0.321, 0.637, 0.764, 2.5, 20, 1.3, 0.2),
    "wall_clock": (1.8, 480, 200, 0.35, 0.37, 0.8),
    "coverage": (2.1, 0.4),
    "pass_until": (200, 0.3),
    "coverage_of_size": (200, 0.3, 0.4),
    "observational": (0.9, 0.7, 1.3),
    "skills": (0.9, 1e-6, 0.3, 0.4),
    "mixture_power:web,code,books": (1.6, 4, 0.3, 0.8, 0.4),
    "mixture_log:web,code,books": (1.6, 2.2, 1.9, 0.3, 0.02, 0.05, 0.03),
    "mixture:web,code,books": (1.6, 0.3, 1.5, 0.9),
    "exponential_decay": (0.85, 2.2, 0.7),
    "sigmoid": (0.1, 0.6, 3, 3),
    "logistic": (0.8, 3, 3),
    "log_sigmoid": (0.1, 3, 2.9),
    "loss_to_loss": (1.2, 0.9, 1.1, 1.1),
}


def _inputs() -> dict[str, np.ndarray]:
    """32 runs, all that any law may be a function of."""
    rng = np.random.default_rng(0)
    params, multiplier = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 8), [5.0, 20.0, 80.0, 320.0]))
    tokens = params * multiplier
    return {
        "params": params,
        "tokens": tokens,
        "unique_tokens": tokens / np.tile([1.0, 4.0, 20.0, 60.0], 8),
        "width": (params / 1e3) ** 0.4,
        "depth": rng.integers(4, 40, 32).astype(float),
        "weight_bits": np.tile([3.0, 4.0, 8.0, 16.0], 8),
        "lr_area": np.geomspace(0.1, 100, 32),
        "lr_annealing": rng.uniform(0, 0.02, 32),
        "quantised_bits": np.tile([3.0, 4.0, 8.0, 16.0], 8),
        "experts": rng.permuted(np.tile([1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 128.0, 512.0], 4)),
        "params_active": params / np.repeat([1.0, 1.5, 3.0, 7.0], 8),
        "params_average": params * rng.uniform(0.4, 1, 32),
        "params_non_vocab": params * rng.uniform(0.4, 0.9, 32),
        "params_vocab": params**0.5 * rng.uniform(1e3, 1e4, 32),
        "tokens_before": tokens * rng.uniform(0.1, 2, 32),
        "learning_rate": 1.79 * params**-0.713 * tokens**0.307 * rng.uniform(0.3, 3, 32),
        "batch_size": 0.58 * tokens**0.571 * rng.uniform(0.3, 3, 32),
        "streams": np.tile([1.0, 2.0, 4.0, 8.0], 8),
        "teacher_loss": rng.uniform(1.9, 3.2, 32),
        "student_loss": 1.22 + (3355 / params**0.408 + 18186 / tokens**0.431) ** 0.452,
        "seconds": params**0.8 * rng.uniform(1e2, 1e5, 32),
        "tries": np.tile([1.0, 10.0, 100.0, 1000.0], 8),
        "capability": rng.normal(0, 2, 32),
        "loss": np.linspace(2, 4.5, 32),
        **dict(
            zip(("proportion_web", "proportion_code", "proportion_books"), rng.dirichlet([1, 1, 1], 32).T, strict=True)
        ),
    }


@pytest.mark.parametrize("name", TRUTHS)
def test_every_law_recovers_its_parameters(name):
    law, inputs = catalogue.named(name), _inputs()
    x = [inputs[column] for column in law.inputs]
    y = law.evaluate(TRUTHS[name], *x)
    solution = solve.minimise(law, x, y, positive=True)
    np.testing.assert_allclose(solution.theta_BxP[0], TRUTHS[name], rtol=1e-6)
    assert solution.at_bound == () and solution.share_at_optimum_B[0] >= 1 / 64


@pytest.mark.parametrize("name", ["log_huber", "log_absolute", "log_asymmetric", "relative_squares"])
def test_every_objective_is_as_low_as_scipy_gets_it(name):
    """Nelder-Mead from the solver's own answer and from beside it finds nothing lower."""
    law, objective, rng = catalogue.LOSS_LAWS["chinchilla_tied"], OBJECTIVES[name], np.random.default_rng(4)
    inputs = _inputs()
    x = inputs["params"], inputs["tokens"]
    y = law.evaluate(TRUTHS["chinchilla_tied"], *x) * np.exp(0.01 * rng.standard_t(2, 32))
    scale = y if objective.scale == "relative" else 1.0
    solution = solve.minimise(law, x, y, scale, objective=objective, positive=True)

    def value(z):
        E, A, B, alpha = z[0], *np.exp(z[1:])
        fitted = E + A * x[0] ** -alpha + B * x[1] ** -alpha
        r = np.log(fitted / y) if objective.log else (fitted - y) / scale
        rho = np.where(abs(r) < objective.delta, r**2 / 2, objective.delta * (abs(r) - objective.delta / 2))
        return np.sum(np.where(r > 0, objective.over, objective.under) * rho)

    E, *others = solution.theta_BxP[0]
    z = np.array([E, *np.log(others)])
    assert solution.objective_B[0] == pytest.approx(value(z), rel=1e-9)
    for start in (z, z * 1.01):
        options = {"maxiter": 2000, "xatol": 1e-10, "fatol": 1e-15}
        found = scipy.optimize.minimize(value, start, method="Nelder-Mead", options=options)
        assert solution.objective_B[0] <= found.fun * (1 + 1e-7)


def test_a_weight_of_two_is_a_run_twice_and_of_none_a_run_left_out():
    loss = _problems(1, 0.01)[0]
    weight = np.array([1, 2, 1, 0, 1, 1])
    weighted = solve.minimise(catalogue.OVER_TRAINING, (PARAMS, TOKENS), loss, weight_BxN=weight, positive=False)
    rows = np.repeat(np.arange(6), weight)
    repeated = solve.minimise(catalogue.OVER_TRAINING, (PARAMS[rows], TOKENS[rows]), loss[rows], positive=False)
    assert weighted.objective_B[0] == pytest.approx(repeated.objective_B[0], rel=1e-9)
    np.testing.assert_allclose(weighted.theta_BxP, repeated.theta_BxP, rtol=1e-5)


@settings(max_examples=12)
@given(st.integers(4, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_runs_of_no_weight_change_nothing(runs, more, seed):
    """By which ladders are filled up to one length, and share a program."""
    rng = np.random.default_rng(seed)
    loss = _problems(1, 0.01, seed)[0]
    filled = [np.append(v[:runs], rng.uniform(v.min(), v.max(), more)) for v in (PARAMS, TOKENS, loss)]
    weight = np.repeat([1, 0], [runs, more])
    alone = solve.minimise(catalogue.OVER_TRAINING, (PARAMS[:runs], TOKENS[:runs]), loss[:runs], positive=True)
    among = solve.minimise(catalogue.OVER_TRAINING, filled[:2], filled[2], weight_BxN=weight, positive=True)
    assert among.objective_B[0] == pytest.approx(alone.objective_B[0], rel=1e-9, abs=1e-24)
    assert among.at_bound == alone.at_bound
    values = [catalogue.OVER_TRAINING.evaluate(found.theta_BxP[0], 1e9, 2e10) for found in (alone, among)]
    assert values[1] == pytest.approx(values[0], rel=1e-6)


def test_more_lanes_than_are_solved_side_by_side_agree_with_one_at_a_time():
    rng = np.random.default_rng(0)
    weight = rng.multinomial(6, np.ones(6) / 6, 150) + 1
    loss = _problems(1, 0.01)[0]
    arguments = {"positive": True, "starts": 1, "nodes_GxQ": np.array([[0.15]])}
    many = solve.minimise(catalogue.OVER_TRAINING, (PARAMS, TOKENS), loss, weight_BxN=weight, **arguments)
    for i in (0, 77, 149):
        one = solve.minimise(catalogue.OVER_TRAINING, (PARAMS, TOKENS), loss, weight_BxN=weight[i], **arguments)
        np.testing.assert_allclose(many.theta_BxP[i], one.theta_BxP[0], rtol=1e-6)


def test_a_held_parameter_keeps_its_value_and_the_others_make_the_best_of_it():
    law, inputs = catalogue.LOSS_LAWS["coupled"], _inputs()
    x = inputs["params"], inputs["tokens"]
    y = law.evaluate(TRUTHS["coupled"], *x)
    right = solve.minimise(law, x, y, positive=True, hold={"kappa": 0.6, "E": 1.8, "A": 480.0})
    np.testing.assert_allclose(right.theta_BxP[0], TRUTHS["coupled"], rtol=1e-6)
    wrong = solve.minimise(law, x, y, positive=True, hold={"kappa": 1.0})
    assert wrong.theta_BxP[0, 5] == 1.0 and wrong.objective_B[0] > 1e-6


def test_the_error_law_reaches_scipys_optimum():
    loss = np.array([4.6, 3.7, 3.4, 3.1, 2.7, 4.2])
    rng = np.random.default_rng(3)
    for _ in range(3):
        error = 0.85 - 2.0 * np.exp(-rng.uniform(0.4, 1.2) * loss) + 0.005 * rng.standard_normal(len(loss))
        solution = solve.minimise(catalogue.EXPONENTIAL_DECAY, (loss,), error, np.ones(6), positive=False)

        def residuals(p, error=error):
            return p[0] - p[1] * np.exp(-np.exp(p[2]) * (loss - 3)) - error

        found = [
            2 * scipy.optimize.least_squares(residuals, [0.8, 0.2, start], xtol=1e-15, ftol=1e-15, gtol=1e-15).cost
            for start in np.linspace(-2, 1, 8)
        ]
        assert solution.objective_B[0] <= min(found) * (1 + 1e-6)


def test_every_law_has_a_truth_to_recover():
    families = {f"{name}:web,code,books" for name in catalogue.FAMILIES}
    assert set(TRUTHS) == {*catalogue.LOSS_LAWS, *catalogue.TASK_LAWS, *catalogue.ERROR_LAWS, *families}
