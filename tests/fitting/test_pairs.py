"""Draws joined by pairs: the regression is the textbook's, and what two ladders share cancels."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from fitting import pairs
from fitting.laws import catalogue
from synthetic_law import synthetic_law


def test_the_weights_are_the_marginal_likelihood_and_the_changes_its_posterior():
    """Differences are normal around none, their covariance the noise's and the changes' through the slopes."""
    rng = np.random.default_rng(0)
    seen_DxN, slope_DxNxP = rng.standard_normal((3, 5)), rng.standard_normal((3, 5, 2))
    root_RxNxN = rng.standard_normal((4, 5, 5))
    covariance_RxNxN = root_RxNxN @ np.swapaxes(root_RxNxN, 1, 2) + np.eye(5)
    weight_DxRxK, center_DxRxKxP, root_DxRxKxPxP = pairs._regressed(seen_DxN, slope_DxNxP, covariance_RxNxN)
    expected = np.empty_like(weight_DxRxK)
    for d, r, k in np.ndindex(expected.shape):
        of_changes = pairs._CHANGES[k] ** 2 * slope_DxNxP[d] @ slope_DxNxP[d].T
        whole = covariance_RxNxN[r] + of_changes
        expected[d, r, k] = scipy.stats.multivariate_normal(cov=whole).pdf(seen_DxN[d])
        gain = pairs._CHANGES[k] ** 2 * slope_DxNxP[d].T @ np.linalg.inv(whole)
        np.testing.assert_allclose(center_DxRxKxP[d, r, k], gain @ seen_DxN[d], rtol=1e-8)
        left = pairs._CHANGES[k] ** 2 * (np.eye(2) - gain @ slope_DxNxP[d])
        np.testing.assert_allclose(root_DxRxKxPxP[d, r, k] @ root_DxRxKxPxP[d, r, k].T, left, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(weight_DxRxK, expected / expected.max(), rtol=1e-8)


def test_a_change_is_of_what_a_term_is_worth_to_the_best_run():
    law, best = catalogue.OVER_TRAINING, (1e8, 2e9)
    theta, change = np.array([[1.8, 250.0, 400.0, 0.14]]).T, np.array([[0.1, -0.2, 0.3, 0.05]]).T
    changed = pairs._changed(law, theta, change, best)
    was, is_ = (
        np.ravel(np.broadcast_arrays(*law.evaluate_terms(shape_and_more[3:], *best))) * shape_and_more[:3].ravel()
        for shape_and_more in (theta, changed)
    )
    np.testing.assert_allclose(is_ / was, np.exp(change[:3].ravel()), rtol=1e-12)
    assert changed[3] / theta[3] == pytest.approx(np.exp(0.05))


def test_a_term_that_is_worth_nothing_to_the_best_run_is_changed_by_its_factor_alone():
    law = catalogue.named("annealing")
    best = [0.0 if name == "lr_annealing" else 10.0 for name in law.inputs]
    theta, change = np.full((len(law.parameters), 1), 0.5), np.full((len(law.parameters), 1), 0.1)
    changed = pairs._changed(law, theta, change, best)
    nothing = [float(np.ravel(term)[0]) == 0 for term in law.evaluate_terms(theta[len(law.linear) :], *best)]
    assert any(nothing) and changed[nothing.index(True)] == pytest.approx(0.5 * np.exp(0.1))
    assert np.isfinite(changed).all()


def test_pairs_are_runs_equal_in_all_that_the_laws_are_given_and_each_is_taken_once():
    one, two, *_ = synthetic_law().loss.points
    near = dataclasses.replace(one, run="near", params=one.params * 1.005)
    far = dataclasses.replace(one, run="far", params=one.params * 1.05)
    assert pairs.pairs_of([one, one, two], [far, near, two]) == [(one, near), (two, two)]
    seen_once, seen_twice = (dataclasses.replace(one, columns={"unique_tokens": tokens}) for tokens in (1e6, 5e5))
    assert pairs.pairs_of([seen_once], [seen_twice]) == []


def test_noise_that_pairs_share_is_found_and_cancels():
    """The same scatter in both ladders, and scatter of their own: the difference of one more run of each."""
    a, other = synthetic_law().loss, synthetic_law(seed=1).loss
    less = [dataclasses.replace(p, measured=0.97 * p.measured) for p in a.points]
    shared, own = pairs.joint(a, dataclasses.replace(a, points=tuple(less))), pairs.joint(a, other)
    assert shared.pairs == own.pairs == len(a.points)
    assert shared.shared > 0.9 > own.shared
    assert np.std(shared.score_b_S - shared.score_a_S) < 0.4
    law, size = catalogue.OVER_TRAINING, (250_000, 5e6)
    ratio = law.evaluate(shared.theta_b_PxS, *size) / law.evaluate(shared.theta_a_PxS, *size)
    assert np.median(ratio) == pytest.approx(0.97, abs=0.004) and np.std(ratio) < 0.01


def test_without_pairs_or_a_law_that_can_stand_for_both_the_draws_are_independent():
    a = synthetic_law().loss
    far = dataclasses.replace(a, points=tuple(dataclasses.replace(p, params=2 * p.params) for p in a.points))
    for b in (far, dataclasses.replace(a, law="chinchilla_tied")):
        alone = pairs.joint(a, b)
        assert alone.pairs == 0 and alone.shared == 0
        assert abs(np.corrcoef(alone.theta_a_PxS[3], alone.theta_b_PxS[3])[0, 1]) < 0.1
        assert abs(np.corrcoef(alone.score_a_S, alone.score_b_S)[0, 1]) < 0.1


def test_laws_of_many_forms_can_stand_for_both_unless_their_coefficients_hide_in_powers():
    fits = {name: dataclasses.replace(synthetic_law().loss, law=name) for name in catalogue.LOSS_LAWS}
    can = {name for name, fit in fits.items() if pairs.can_pair(fit, fit)}
    assert {"over_training", "chinchilla"} <= can and not {"kaplan", "coupled"} & can
