"""Leaving a run out by its leverage is leaving it out, and the runs speak for the form that they were made by."""

import numpy as np
import pytest
import scipy.optimize

from fitting import forms
from fitting.laws import catalogue

SIZES, MULTIPLIERS = (1e7, 3e7, 1e8, 3e8), (10, 40, 160)


def _columns(sizes=SIZES, multipliers=MULTIPLIERS):
    params, multiplier = (grid.ravel() for grid in np.meshgrid(sizes, multipliers))
    return {"params": params, "tokens": params * multiplier}


def _measured(law, theta, columns, noise, seed=0):
    loss = catalogue.LOSS_LAWS[law].evaluate(theta, *columns.values())
    return loss * (1 + noise * np.random.default_rng(seed).standard_normal(len(loss)))


def test_a_run_left_out_by_its_leverage_is_missed_as_by_a_fit_without_it():
    """Each run's miss against scipy's fit of the others, exponents free: linear given them, and so as exact."""
    columns, law = _columns(), catalogue.LOSS_LAWS["chinchilla"]
    y_N = _measured("chinchilla", (1.8, 400.0, 2000.0, 0.34, 0.37), columns, noise=0.005)
    miss_N, _ = forms._left_out(law, list(columns.values()), y_N, y_N, nodes=3000, closer=12)
    for i in (0, 5, 11):
        kept = np.arange(len(y_N)) != i
        x = [v[kept] for v in columns.values()]

        def squares(log_shapes, x=x, kept=kept):
            terms = np.stack(np.broadcast_arrays(*law.evaluate_terms(np.exp(log_shapes), *x)), -1) / y_N[kept, None]
            return scipy.optimize.nnls(terms / np.abs(terms).max(0), np.ones(len(terms)))[1]

        best = scipy.optimize.minimize(squares, np.log([0.34, 0.37]), method="Nelder-Mead", options={"xatol": 1e-7})
        terms = np.stack(np.broadcast_arrays(*law.evaluate_terms(np.exp(best.x), *columns.values())), -1) / y_N[:, None]
        coefficients = np.linalg.lstsq(terms[kept], np.ones(kept.sum()), rcond=None)[0]
        assert miss_N[i] == pytest.approx(1 - terms[i] @ coefficients, abs=1e-4)


@pytest.mark.parametrize(
    ("law", "theta"),
    [
        ("coupled", (1.6, 1200.0, 5000.0, 0.38, 0.4, 0.4)),
        ("kaplan", (8.8e13, 5.4e13, 0.076, 0.095)),
        ("chinchilla", (1.8, 5.0, 20000.0, 0.12, 0.47)),
    ],
)
def test_the_form_that_made_the_runs_has_the_weight(law, theta):
    columns = _columns((1e7, 3e7, 1e8, 3e8, 1e9), (5, 20, 80, 320))
    found = forms.ranked(columns, _measured(law, theta, columns, noise=0.001))
    weights = {form.law: form.weight for form in found}
    assert set(weights) == {"over_training", "chinchilla", "chinchilla_tied", "kaplan", "coupled", "coupled_tied"}
    assert sum(weights.values()) == pytest.approx(1)
    # The coupled law holds the other two, and so foretells as well as they do.
    assert weights[law] + (weights["coupled"] if law != "coupled" else 0) > 0.8
    assert next(form.miss for form in found if form.law == law) < 0.003


def test_laws_are_ranked_where_runs_are_more_than_their_parameters_and_differ():
    few = {name: v[:5] for name, v in _columns().items()}
    assert forms.ranked(few, np.linspace(3, 2, 5)) == ()
    ray = _columns(sizes=np.geomspace(1e7, 1e9, 9), multipliers=(20,))
    names = {form.law for form in forms.ranked(ray, 1.8 + 500 * ray["params"] ** -0.34)}
    assert not names & {"over_training", "chinchilla_tied"}  # at one D/N their terms are one


def test_a_law_of_more_columns_is_ranked_where_they_are_there():
    columns = _columns((1e7, 3e7, 1e8, 3e8, 1e9)) | {"weight_bits": np.tile([3.0, 6.0, 16.0], 5)}
    y_N = _measured("precision", (1.8, 400.0, 2000.0, 0.34, 0.37, 2.7), columns, noise=0.001)
    assert forms.ranked(columns, y_N)[0].law == "precision"


def test_stacking_puts_all_weight_on_a_law_that_is_denser_at_every_run():
    assert forms._stacked(np.array([[0.0, -3.0], [0.0, -2.0], [1.0, -4.0]])) == pytest.approx([1, 0], abs=1e-3)
    assert forms._stacked(np.array([[0.0, -9.0], [-9.0, 0.0]])) == pytest.approx([0.5, 0.5])


def test_a_task_that_follows_a_law_is_foretold_and_one_that_does_not_is_not():
    loss_N = np.linspace(4.2, 2.9, 7)
    rng = np.random.default_rng(0)
    logistic = catalogue.ERROR_LAWS["logistic"]
    lawful_N = logistic.evaluate((0.75, 3.0, 2.8), loss_N) + 0.005 * rng.standard_normal(7)
    assert forms.foretold(logistic, [loss_N], lawful_N) > 0.9
    assert forms.foretold(logistic, [loss_N], 0.75 + 0.01 * rng.standard_normal(7)) < 0.3
    assert forms.foretold(logistic, [loss_N], np.full(7, 0.75)) == 0


def test_what_is_foretold_is_that_of_a_fit_without_the_run():
    loss_N, logistic = np.linspace(4.2, 2.9, 6), catalogue.ERROR_LAWS["logistic"]
    error_N = logistic.evaluate((0.75, 3.0, 2.8), loss_N) + 0.02 * np.random.default_rng(1).standard_normal(6)
    misses = []
    for i in range(6):
        kept = np.arange(6) != i

        def squares(log_theta, kept=kept):
            return np.sum((logistic.evaluate(np.exp(log_theta), loss_N[kept]) - error_N[kept]) ** 2)

        best = scipy.optimize.minimize(squares, np.log([0.75, 3.0, 2.8]), method="Nelder-Mead", options={"xatol": 1e-8})
        misses.append(error_N[i] - logistic.evaluate(np.exp(best.x), loss_N[i]))
    means = [np.delete(error_N, i).mean() for i in range(6)]
    expected = 1 - np.sum(np.square(misses)) / np.sum((error_N - means) ** 2)
    assert forms.foretold(logistic, [loss_N], error_N) == pytest.approx(expected, abs=0.02)
