"""Curves made by the law they are fitted by: their ends foretold from parts, leaps named, noise left alone."""

import dataclasses

import numpy as np
import pytest

from fitting.dynamics import curves

STEPS = 4000
STEP_S = np.arange(STEPS)
COSINE_S = np.where(STEP_S < 400, (STEP_S + 1) / 400, 0.01 + 0.99 * (1 + np.cos(np.pi * (STEP_S - 400) / 3600)) / 2)
LEVELS = ((2.0, 0.30), (1.8, 0.35), (1.6, 0.25), (1.5, 0.4), (1.4, 0.35))  # L_0 and A of each run


def made(level, fall, *, alpha=0.5, b=0.08, noise=0.0, seed=0):
    """The windows of a run, and its loss at the end without noise."""
    area_S = np.cumsum(COSINE_S) / COSINE_S.sum()
    loss_S = (level + fall * area_S**-alpha) * (1 + b * COSINE_S)
    end_R = np.arange(50, STEPS + 1, 50)
    loss_R = loss_S.reshape(-1, 50).mean(1)
    noisy_R = loss_R * (1 + noise * np.random.default_rng(seed).standard_normal(len(loss_R)))
    return curves.curve(end_R, noisy_R, COSINE_S), loss_S[-1]


@pytest.fixture(scope="module")
def law():
    return curves.fit([made(*level, noise=0.002, seed=i)[0] for i, level in enumerate(LEVELS)])


def test_a_part_of_a_run_foretells_its_end_and_the_more_the_better(law):
    own, end = made(1.7, 0.3, noise=0.002, seed=9)
    told = [law.end(own.until(share)) for share in (0.3, 0.6, 0.9)]
    assert all(low <= end <= high for low, high in (each.interval(0.99) for each in told))
    assert told[0].sd > told[1].sd > told[2].sd
    assert told[1].loss == pytest.approx(end, rel=0.01) and own.loss_W[30] > 1.03 * end
    assert law.alpha == pytest.approx(0.5, abs=0.15)


def test_intervals_of_what_is_measured_hold_it_as_often_as_they_say(law):
    whole = [made(*level, noise=0.002, seed=i)[0] for i, level in enumerate(LEVELS)]
    rng, held = np.random.default_rng(0), []
    for seed in range(20):
        gap = [end * 1.03 * np.exp(0.003 * rng.standard_normal()) for _, end in (made(*level) for level in LEVELS)]
        own, end = made(1.9 - 0.02 * seed, 0.3, noise=0.002, seed=100 + seed)
        told = curves.foretold_end(law, own.until(0.6), whole, gap)
        low, high = told.interval(0.95)
        held.append(low <= end * 1.03 * np.exp(0.003 * rng.standard_normal()) <= high)
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize("by", [0.04, -0.04])
def test_a_leap_is_named_with_its_step_and_size_before_the_run_ends(law, by):
    own, _ = made(1.7, 0.3, noise=0.002, seed=9)
    leapt = dataclasses.replace(own, loss_W=np.where(own.share_W > 0.5, own.loss_W * (1 + by), own.loss_W))
    strayed = law.strayed(leapt.until(0.6))
    assert 0.5 * STEPS <= strayed.step <= 0.54 * STEPS
    assert strayed.by == pytest.approx(by, abs=0.01) and abs(strayed.deviations) > curves.OFF_DEVIATIONS


def test_a_run_like_the_others_and_one_bad_window_are_not_named(law):
    own, _ = made(1.7, 0.3, noise=0.002, seed=9)
    assert law.strayed(own) is None
    spike_W = np.where(np.arange(len(own.loss_W)) == 30, 1.5, 1.0)
    assert law.strayed(dataclasses.replace(own, loss_W=own.loss_W * spike_W)) is None


def test_rows_are_means_over_their_steps_whatever_their_number():
    end_R = np.arange(50, STEPS + 1, 50)
    loss_S = 2 + 100 / (STEP_S + 100)
    few = curves.curve(end_R, loss_S.reshape(-1, 50).mean(1), COSINE_S)
    many = curves.curve(STEP_S + 1, loss_S, COSINE_S)
    assert np.interp(few.share_W, many.share_W, many.loss_W) == pytest.approx(few.loss_W, rel=1e-3)
    assert len(many.loss_W) == curves.WINDOWS - int(np.ceil(curves.FIRST * curves.WINDOWS))
    assert few.share_W.min() >= curves.FIRST


def test_too_few_runs_and_too_short_parts_are_refused(law):
    own, _ = made(1.7, 0.3)
    with pytest.raises(ValueError, match="4 finished runs at least, of 20 windows each"):
        curves.fit([own] * 3)
    with pytest.raises(ValueError, match="1 windows past a run's first tenth foretell nothing; 8 do"):
        law.end(own.until(0.13))
