"""Recipes: the paper's table, row by row, and what every recipe owes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder.recipe import RECIPES, Cooldown, gadre2024, warmup_stable_decay

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
