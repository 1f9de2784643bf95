"""Advice is what the law implies: closed forms where there are any, brute force where there are none."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.optimize

from fitting.advice import advise
from fitting.designs import design
from fitting.laws import catalogue
from fitting.laws.law import Law, Shape
from fitting.methods import fit
from fitting.testbeds.testbed import Testbed
from synthetic_law import LOSS_THETA, loss_of, synthetic_law

BUDGET = 1e15
THETA = tuple(LOSS_THETA.values())


def test_compute_optimal_multiplier_is_the_closed_form_at_any_budget():
    """a M^eta + b M^-eta is least at M = (b/a)^(1 / 2 eta), whatever C."""
    expected = (LOSS_THETA["b"] / LOSS_THETA["a"]) ** (1 / (2 * LOSS_THETA["eta"]))
    for budget in (1e12, 1e15, 1e24):
        optimal = advise(synthetic_law(), budget).compute_optimal
        assert optimal.prediction.token_multiplier == pytest.approx(expected, rel=1e-5)
        assert 6 * optimal.prediction.params * optimal.prediction.tokens == pytest.approx(budget, rel=1e-9)
        assert optimal.lifetime_flops == pytest.approx(budget, rel=1e-9)


def test_compute_optimal_size_of_chinchillas_law_is_the_closed_form(monkeypatch):
    """Hoffmann et al. 2022, Eq. 4: N = G (C/6)^(beta / (alpha + beta)), G = (alpha A / beta B)^(1 / (alpha + beta))."""
    theta = {"E": 1.82, "A": 478.0, "B": 2143.0, "alpha": 0.347, "beta": 0.367}
    exponents = {name: Shape(0.01, 2.0, theta[name], 0.5, "") for name in ("alpha", "beta")}
    form = Law(
        name="made_up",
        inputs=("params", "tokens"),
        linear=("E", "A", "B"),
        shapes=exponents,
        terms=lambda shape, params, tokens: (1.0, params ** -shape[0], tokens ** -shape[1]),
        latex="",
        citation="",
    )
    monkeypatch.setattr(catalogue, "LOSS_LAWS", {"made_up": form})
    law = synthetic_law(error=False)
    loss = dataclasses.replace(law.loss, law="made_up", theta=theta, theta_draws=(tuple(theta.values()),) * 10)
    optimal = advise(dataclasses.replace(law, loss=loss), 1e21).compute_optimal.prediction
    _, A, B, alpha, beta = theta.values()
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    assert optimal.params == pytest.approx(G * (1e21 / 6) ** (beta / (alpha + beta)), rel=1e-5)


def test_the_optimums_interval_is_of_the_draws_own_optima():
    law = synthetic_law()
    _, a, b, eta = np.array(law.loss.theta_draws).T
    params = np.sqrt(BUDGET / 6 / (b / a) ** (1 / (2 * eta)))
    expected = np.quantile(params, [(1 - law.level) / 2, (1 + law.level) / 2])
    assert advise(law, BUDGET).compute_optimal.params_interval == pytest.approx(expected, rel=1e-4)


def test_inference_aware_optimum_is_the_least_lifetime_compute_for_the_same_loss():
    """Against scipy: D from the law by root finding, N by a bounded search."""
    served = 1e10
    advice = advise(synthetic_law(), BUDGET, served_tokens=served)
    loss = advice.compute_optimal.prediction.loss

    def tokens_for(params):
        return np.exp(scipy.optimize.brentq(lambda d: loss_of(THETA, params, np.exp(d)) - loss, 0, 60))

    def lifetime_flops(log_params):
        return np.exp(log_params) * (6 * tokens_for(np.exp(log_params)) + 2 * served)

    start = np.log(advice.compute_optimal.prediction.params)
    best = scipy.optimize.minimize_scalar(lifetime_flops, bounds=(start - 2, start), method="bounded")
    aware = advice.inference_aware
    assert aware.lifetime_flops == pytest.approx(best.fun, rel=1e-6)
    assert aware.prediction.params == pytest.approx(np.exp(best.x), rel=1e-3)
    assert aware.prediction.loss == pytest.approx(loss, rel=1e-9)
    assert aware.lifetime_flops < advice.compute_optimal.lifetime_flops
    assert aware.prediction.token_multiplier > advice.compute_optimal.prediction.token_multiplier


def test_who_serves_little_trains_compute_optimally_and_who_serves_more_trains_smaller():
    params = [
        advise(synthetic_law(), BUDGET, served_tokens=served).inference_aware.prediction.params
        for served in (1.0, 1e9, 1e11)
    ]
    assert params[0] == pytest.approx(advise(synthetic_law(), BUDGET).compute_optimal.prediction.params, rel=1e-3)
    assert params[0] > params[1] > params[2]


def test_over_training_costs_what_the_law_says_at_equal_compute_and_at_equal_loss():
    advice = advise(synthetic_law(), BUDGET)
    optimal = advice.compute_optimal.prediction
    for row in advice.over_training:
        assert row.loss == pytest.approx(loss_of(THETA, row.params, row.tokens))
        assert row.loss_penalty == pytest.approx(row.loss - optimal.loss, abs=1e-12)
        assert 6 * row.params * row.tokens_for_equal_loss == pytest.approx(BUDGET * (1 + row.flops_overhead))
        assert (row.flops_overhead > 0) == (row.times_smaller != 1)
        if np.isfinite(row.tokens_for_equal_loss):
            assert loss_of(THETA, row.params, row.tokens_for_equal_loss) == pytest.approx(optimal.loss, rel=1e-9)


def test_a_model_too_small_for_the_loss_never_reaches_it():
    """With D without end, L = E + a (6 N^2)^-eta."""
    E, a, _, eta = THETA
    advice = advise(synthetic_law(), BUDGET)
    for row in advice.over_training:
        too_small = E + a * (6 * row.params**2) ** -eta > advice.compute_optimal.prediction.loss
        assert np.isinf(row.tokens_for_equal_loss) == too_small
    assert too_small  # the smallest is


def test_a_second_seed_tells_of_its_scatter_alone():
    """With all of the noise common to the seeds of a size, one more of them tells nothing; with none, as any other."""
    law, left = synthetic_law(), []
    for misfit in (1.0, 0.5, 0.0):
        loss = dataclasses.replace(law.loss, misfit=misfit)
        _, (left_by_twin,) = design.doubt(
            dataclasses.replace(law, loss=loss), (2.5e5, 5e6), np.array([(15_000, 320 * 15_000)])
        )
        left.append(left_by_twin)
    assert left[0] == pytest.approx(1, abs=1e-6) and left[0] > left[1] > left[2]


def test_the_design_agrees_with_refits_that_have_the_candidate():
    """Refitted with each of several runs added, exactly on the law, the target's uncertainty falls as foretold."""
    truth, target = {"E": 1.8, "a": 250.0, "b": 400.0, "eta": 0.14}, (7e9, 1.4e11)
    sizes = [(1e7, 20), (8e7, 20), (1.5e8, 20), (4e8, 20), (1e7, 320), (8e7, 80), (4e7, 40)]

    def fitted(runs):
        params, multiplier = np.array(runs).T
        loss = catalogue.OVER_TRAINING.evaluate(tuple(truth.values()), params, params * multiplier)
        loss = loss * (1 + 0.005 * np.resize([1, -1, -1, 1], len(runs)) * (np.arange(len(runs)) < len(sizes)))
        columns = {"run": [f"r{i}" for i in range(len(runs))], "params": params, "tokens": params * multiplier}
        return fit(Testbed(pd.DataFrame({**columns, "loss/x": loss})), loss="x", law="over_training")

    def spread(law):
        return np.std(catalogue.OVER_TRAINING.evaluate(np.array(law.loss.theta_draws).T, *target)) / law.loss.noise

    law = fitted(sizes)
    candidates = [(1e7, 20), (1e7, 1000), (1.5e8, 80), (4e8, 20), (4e8, 100), (1e9, 20)]
    refitted = [spread(fitted([*sizes, candidate])) / spread(law) for candidate in candidates]
    _, foretold = design.doubt(law, target, np.array([(n, n * m) for n, m in candidates]))
    np.testing.assert_allclose(foretold, refitted, atol=0.12)
    assert np.argmin(foretold) == np.argmin(refitted)


def test_next_runs_cost_no_more_than_the_ladder_and_dearer_ones_tell_more():
    law = synthetic_law()
    advice = advise(law, BUDGET)
    flops, left = np.array([(run.flops, run.doubt_left) for run in advice.next_runs]).T
    assert (np.diff(flops) > 0).all() and (np.diff(left) < 0).all() and left.min() > 0 and left.max() < 1
    assert flops.max() <= sum(point.flops for point in law.loss.points)
    assert advice.best_per_flop in advice.next_runs and advice.doubt > 0


@pytest.mark.parametrize(
    ("budget", "served", "message"),
    [(0, 0, "budget_flops is 0"), (np.inf, 0, "budget_flops is inf"), (1e15, -1, "served_tokens is -1")],
)
def test_impossible_budgets_are_refused(budget, served, message):
    with pytest.raises(ValueError, match=message):
        advise(synthetic_law(), budget, served_tokens=served)


def test_a_law_without_an_optimum_is_refused():
    law = synthetic_law()
    always_smaller = dataclasses.replace(law.loss, theta={"E": 0.9, "a": 3.0, "b": 1e-9, "eta": 0.14}, theta_draws=())
    with pytest.raises(ValueError, match="has no compute-optimal size"):
        advise(dataclasses.replace(law, loss=always_smaller), BUDGET)
