"""Scores: hand-computed values, and standard errors that match the spread over repeated samples."""

import math

import numpy as np
import pytest

from tasks.questions import scoring


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


def _rows(question, choice, gold, tokens=None, bytes_=None, category=None):
    rows = len(question)
    return scoring.Rows(
        np.array(question),
        np.array(choice),
        np.array(gold),
        np.array(tokens or [1] * rows),
        np.array(bytes_ or [1] * rows),
        np.array(category or [""] * rows),
    )


def test_the_answer_is_the_choice_of_least_loss_a_token_and_the_first_on_ties():
    question, choice = [7, 7, 7, 9, 9, 9, 9], [0, 1, 2, 0, 1, 2, 3]
    rows = _rows(question, choice, [1, 1, 1, 2, 2, 2, 2], tokens=[1, 10, 1, 1, 1, 2, 1])
    scores = scoring.score(rows, [0.5, 1.0, 0.9, 1.0, 0.3, 0.6, 2.0])
    assert scores.answer_Q.tolist() == [1, 1] and scores.gold_Q.tolist() == [1, 2]
    accuracy = scoring.summarise(scores, 0.25)["accuracy"]
    assert accuracy == scoring.Estimate(0.5, 0.5)


def test_scores_of_one_question_are_the_hand_computed_ones():
    rows = _rows([0, 0, 0], [0, 1, 2], [1, 1, 1], tokens=[2, 4, 1], bytes_=[9, 8, 9])
    scores = scoring.score(rows, [2.0, 2.0, 3.0])
    assert scores.loss_Q == 0.5 and scores.margin_Q == 0.5
    assert scores.bits_per_byte_Q == pytest.approx(2.0 / 8 / math.log(2))
    assert scores.probability_Q == pytest.approx(math.exp(-0.5) / (math.exp(-1) + math.exp(-0.5) + math.exp(-3)))


def test_an_only_choice_is_right_if_a_greedy_reader_writes_it():
    rows = _rows([0, 1], [0, 0], [0, 0])
    scores = scoring.score(rows, [0.1, 0.1], [True, False])
    assert scores.answer_Q.tolist() == [0, -1]
    assert set(scoring.summarise(scores, 0.0)) == {"accuracy", "accuracy_above_chance", "loss", "bits_per_byte"}
    with pytest.raises(ValueError, match="give greedy_N"):
        scoring.score(rows, [0.1, 0.1])


def test_categories_weigh_alike_however_large():
    right = [0.1, 0.9]
    rows = _rows([0, 0, 1, 1, 2, 2], [0, 1] * 3, [0, 0, 0, 0, 1, 1], category=["a"] * 4 + ["b"] * 2)
    scores = scoring.score(rows, right * 3)
    summary = scoring.summarise(scores, 0.5)
    assert summary["accuracy"].value == 0.5  # all of a, none of b; 2/3 of the questions
    assert summary["accuracy_above_chance"].value == 0.0


def test_chance_is_taken_off_the_accuracy_and_its_error_grows_with_it():
    rows = _rows(np.repeat(range(4), 2).tolist(), [0, 1] * 4, [0] * 8)
    summary = scoring.summarise(scoring.score(rows, [0, 1, 0, 1, 0, 1, 1, 0]), 0.5)
    assert summary["accuracy"].value == 0.75 and summary["accuracy_above_chance"].value == 0.5
    assert summary["accuracy"].stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    assert summary["accuracy_above_chance"].stderr == 2 * summary["accuracy"].stderr


def test_scores_do_not_depend_on_the_order_of_rows():
    rng = np.random.default_rng(1)
    question, choice = np.repeat(np.arange(50), 4), np.tile(np.arange(4), 50)
    gold, loss = np.repeat(rng.integers(4, size=50), 4), rng.gamma(2, size=200)
    tokens, bytes_ = rng.integers(1, 9, 200), rng.integers(1, 30, 200)
    columns = (question, choice, gold, tokens, bytes_, np.repeat(rng.choice(["a", "b"], 50), 4))
    shuffled = rng.permutation(200)
    one = scoring.summarise(scoring.score(scoring.Rows(*columns), loss), 0.25)
    rows = scoring.Rows(*(column[shuffled] for column in columns))
    assert scoring.summarise(scoring.score(rows, loss[shuffled]), 0.25) == one


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="row 1 is NaN"):
        scoring.score(_rows([0, 0], [0, 1], [0, 0]), [0.0, math.nan])
    with pytest.raises(ValueError, match="3 losses for 2 rows"):
        scoring.score(_rows([0, 0], [0, 1], [0, 0]), [0.0] * 3)


def test_the_error_over_tokens_is_that_of_a_plain_mean():
    losses = [np.random.default_rng(i).gamma(2, size=5 + i) for i in range(20)]
    sums, squares, tokens = ([f(x) for x in losses] for f in (np.sum, lambda x: np.square(x).sum(), len))
    estimate = scoring.mean_loss_over_tokens(sums, squares, tokens)
    everything = np.concatenate(losses)
    assert estimate.value == pytest.approx(everything.mean())
    assert estimate.stderr == pytest.approx(everything.std(ddof=1) / math.sqrt(len(everything)))
    assert math.isnan(scoring.mean_loss_over_tokens([2.0], [4.0], [1]).stderr)


def test_average_is_unweighted_and_adds_variances():
    average = scoring.average([scoring.Estimate(0.2, 0.03), scoring.Estimate(0.6, 0.04)])
    assert average.value == pytest.approx(0.4)
    assert average.stderr == pytest.approx(0.025)
    with pytest.raises(ValueError, match="nothing to average"):
        scoring.average([])
