"""Scores: hand-computed values, and standard errors that match the spread over repeated samples."""

import math

import numpy as np
import pytest

from tasks import scoring


def test_mean_loss_weights_sequences_by_their_tokens():
    estimate = scoring.mean_loss([6.0, 2.0], [3, 1])
    assert estimate == scoring.Estimate(2.0, 0.0)
    estimate = scoring.mean_loss([1.0, 3.0], [1, 1])
    assert estimate == scoring.Estimate(2.0, 1.0)


def test_mean_loss_error_is_the_spread_over_repeated_samples():
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(2000):
        tokens = rng.integers(20, 60, 100)
        own_mean = rng.normal(2.0, 0.5, 100)
        estimates.append(scoring.mean_loss(tokens * own_mean, tokens))
    spread = np.std([e.value for e in estimates])
    assert np.mean([e.stderr for e in estimates]) == pytest.approx(spread, rel=0.05)


def test_mean_loss_of_one_sequence_has_no_error_estimate():
    assert math.isnan(scoring.mean_loss([3.0], [2]).stderr)


def test_mean_loss_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        scoring.mean_loss([], [])
    with pytest.raises(ValueError, match="one length"):
        scoring.mean_loss([1.0, 2.0], [1])


def test_a_uniform_guess_over_bytes_costs_eight_bits_a_byte():
    bits = scoring.bits_per_byte(scoring.Estimate(math.log(256), math.log(2)), tokens=10, text_bytes=10)
    assert bits.value == pytest.approx(8)
    assert bits.stderr == pytest.approx(1)


def test_choice_error_takes_the_least_loss_and_the_first_on_ties():
    question = [7, 7, 7, 9, 9, 9, 9]
    choice = [0, 1, 2, 0, 1, 2, 3]
    loss = [0.5, 0.1, 0.9, 1.0, 0.3, 0.3, 2.0]
    right = scoring.choice_error(loss, question, choice, gold_N=[1, 1, 1, 1, 1, 1, 1])
    assert right == scoring.Estimate(0.0, 0.0)
    tie_lost = scoring.choice_error(loss, question, choice, gold_N=[1, 1, 1, 2, 2, 2, 2])
    assert tie_lost == scoring.Estimate(0.5, math.sqrt(0.25 / 2))


def test_choice_error_does_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(1)
    question, choice = np.repeat(np.arange(50), 4), np.tile(np.arange(4), 50)
    gold, loss = np.repeat(rng.integers(4, size=50), 4), rng.normal(size=200)
    shuffled = rng.permutation(200)
    assert scoring.choice_error(loss, question, choice, gold) == scoring.choice_error(
        loss[shuffled], question[shuffled], choice[shuffled], gold[shuffled]
    )


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="row 1 is NaN"):
        scoring.choice_error([0.0, math.nan], [0, 0], [0, 1], [0, 0])
    with pytest.raises(ValueError, match="3 losses for 2 rows"):
        scoring.choice_error([0.0] * 3, [0, 0], [0, 1], [0, 0])


def test_average_is_unweighted_and_adds_variances():
    average = scoring.average([scoring.Estimate(0.2, 0.03), scoring.Estimate(0.6, 0.04)])
    assert average.value == pytest.approx(0.4)
    assert average.stderr == pytest.approx(0.025)
    with pytest.raises(ValueError, match="nothing to average"):
        scoring.average([])
