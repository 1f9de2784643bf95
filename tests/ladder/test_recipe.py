"""Recipes: the paper's table, row by row, and what every recipe owes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder.recipe import (
    RECIPES,
    STEP_LAW_RATE,
    Cooldown,
    PowerLaw,
    gadre2024,
    learning_rate,
    splittable,
    steplaw2025,
    warmup_stable_decay,
)

# N, batch in sequences, warm-up steps, learning rate, weight decay: Gadre et al. 2024, Table 2 and the released runs.
PUBLISHED = {
    "d=96_l=8_h=4": (10_569_312, 64, 100, 3e-3, 0.033),
    "d=512_l=8_h=4": (78_914_048, 512, 400, 3e-3, 0.033),
    "d=576_l=24_h=8": (153_677_376, 512, 400, 3e-3, 0.033),
    "d=1024_l=24_h=8": (411_616_256, 512, 2000, 3e-3, 0.033),
    "open_lm_1b": (1_439_795_200, 256, 5000, 3e-3, 0.033),
    "open_lm_7b": (6_889_410_560, 2048, 5000, 3e-4, 0.33),
}


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("token_multiplier", [5, 20, 640])
def test_gadre2024_is_the_published_table(size, token_multiplier):
    params, batch_size, warmup_steps, learning_rate, weight_decay = PUBLISHED[size]
    h = gadre2024(params, token_multiplier * params, 2048)
    assert (h.batch_size, h.warmup_steps, h.learning_rate, h.weight_decay) == (
        batch_size,
        warmup_steps,
        learning_rate,
        weight_decay,
    )
    assert (h.final_learning_rate, h.z_loss, h.clip_norm, h.beta1, h.beta2, h.epsilon) == (
        3e-5,
        1e-4,
        1.0,
        0.9,
        0.95,
        1e-8,
    )


@pytest.mark.parametrize("recipe", RECIPES)
@given(
    params=st.integers(1_000, 10**10),
    token_multiplier=st.floats(1, 1000),
    sequence_length=st.sampled_from([16, 128, 2048]),
)
def test_every_recipe_gives_a_schedule_that_can_be_followed(recipe, params, token_multiplier, sequence_length):
    h = RECIPES[recipe](params, token_multiplier * params, sequence_length)
    assert h.batch_size >= 1 and h.warmup_steps >= 1
    assert 0 < h.final_learning_rate < h.learning_rate < 1
    assert h.weight_decay >= 0 and h.clip_norm > 0


def test_scaling_multiplies_both_ends_of_the_schedule_and_nothing_else():
    h = gadre2024(10**7, 10**8, 2048)
    scaled = h.scaled(2)
    assert (scaled.learning_rate, scaled.final_learning_rate) == (6e-3, 6e-5)
    assert scaled.scaled(0.5) == h


def test_steplaw2025_is_the_published_law():
    h = steplaw2025(1_073_741_824, 100e9, 2048)
    assert h.learning_rate == pytest.approx(1.79 * 1_073_741_824**-0.713 * 100e9**0.307)
    assert h.batch_size * 2048 == pytest.approx(0.58 * 100e9**0.571, rel=0.13)
    assert (h.final_learning_rate, h.warmup_steps, h.weight_decay, h.beta2) == (1e-5, 2000, 0.1, 0.95)
    assert STEP_LAW_RATE.beyond(1e9, 20e9) == ""
    assert STEP_LAW_RATE.beyond(7e9, 140e9) == "N by a factor of 6.52, D by a factor of 1.4"


@given(sequences=st.floats(0.1, 1e5))
def test_a_batch_that_splits_is_near_what_was_asked_and_has_one_odd_factor_of_seven_at_most(sequences):
    batch_size = splittable(sequences)
    assert batch_size / max(sequences, 1) == pytest.approx(1, abs=0.13 if sequences >= 4 else 0.5)
    assert batch_size // (batch_size & -batch_size) <= 7


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_schedule_is_the_same_in_numbers_as_traced(recipe):
    h, steps = RECIPES[recipe](2 * 10**8, 4e9, 2048), 5000
    for cooldown in (None, Cooldown(1000), Cooldown(1000, "linear")):
        told = dataclasses.replace(h, cooldown=cooldown)
        traced_S = jax.jit(lambda step, told=told: learning_rate(told, steps, step))(jnp.arange(steps))
        np.testing.assert_allclose(learning_rate(told, steps, np.arange(steps)), traced_S, rtol=1e-5, atol=1e-9)


def test_another_batch_keeps_the_tokens_of_the_warmup():
    h = gadre2024(10**7, 10**8, 2048)
    other = h.with_batch(16)
    assert other.batch_size * other.warmup_steps == h.batch_size * h.warmup_steps
    assert other.learning_rate == h.learning_rate


def test_a_power_law_says_its_value_interval_and_how_far_a_run_is_beyond_it():
    law = PowerLaw(
        value=0.01,
        params=1e6,
        tokens=1e8,
        params_exponent=-0.5,
        tokens_exponent=0.25,
        params_range=(5e5, 2e6),
        tokens_range=(2e7, 4e8),
        multipliers_range=(20, 200),
        covariance=((0.01, 0.0, 0.0), (0.0, 0.04, 0.0), (0.0, 0.0, 0.0)),
    )
    assert law.at(4e6, 16e8) == pytest.approx(0.01 * 4**-0.5 * 16**0.25)
    low, high = law.interval(4e6, 16e8)
    assert math.log(high / low) / 2 == pytest.approx(1.96 * math.sqrt(0.01 + 0.04 * math.log(4) ** 2))
    assert law.interval(1e6, 1e8)[1] == pytest.approx(0.01 * math.exp(0.196))
    assert law.beyond(1e6, 1e8) == "" and law.beyond(2.02e6, 1e8) == ""  # whole batches
    assert law.beyond(4e6, 4e8) == "N by a factor of 2"
    assert law.beyond(5e5, 4e8) == "D/N by a factor of 4"


@pytest.mark.parametrize("recipe", RECIPES)
@given(
    params=st.integers(1_000, 10**10),
    token_multiplier=st.floats(20, 1000),
    cooldown=st.floats(0.01, 1),
    shape=st.sampled_from(["1-sqrt", "linear"]),
)
def test_runs_of_one_size_at_a_constant_rate_differ_in_their_cooldowns_alone(
    recipe, params, token_multiplier, cooldown, shape
):
    def told(multiplier):
        return warmup_stable_decay(RECIPES[recipe], params, multiplier * params, 128, cooldown, shape)

    h, middle = told(token_multiplier), RECIPES[recipe](params, 80 * params, 128)
    assert dataclasses.replace(h, cooldown=None) == dataclasses.replace(told(20), cooldown=None)
    assert dataclasses.replace(h, cooldown=None, warmup_steps=1) == dataclasses.replace(middle, warmup_steps=1)
    short = RECIPES[recipe](params, 20 * params, 128)
    warmup_records = short.warmup_steps * short.batch_size
    assert abs(h.warmup_steps * h.batch_size - warmup_records) <= max(h.batch_size / 2, h.batch_size - warmup_records)
    steps = round(token_multiplier * params / (h.batch_size * 128))
    assert h.cooldown == Cooldown(max(100, round(cooldown * steps)), shape)
