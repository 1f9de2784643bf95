"""A look-up whose gradient a GPU adds up in one order: the sums, in whatever order tokens come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.lookup import look_up

ROWS = 5


@jax.jit
def gradient_VxD(table_VxD, token_1xL, gradient_1xLxD):
    return jax.vjp(look_up, table_VxD, token_1xL)[1](gradient_1xLxD)[0]


@settings(max_examples=50, deadline=None)
@given(token_L=st.lists(st.integers(0, ROWS - 1), min_size=7, max_size=7))
def test_gradients_of_alike_tokens_are_added_up(token_L):
    given_1xLxD = np.random.default_rng(0).normal(size=(1, len(token_L), 3)).astype(np.float32)
    expected_VxD = np.zeros((ROWS, 3))
    np.add.at(expected_VxD, token_L, given_1xLxD[0])
    mine_VxD = gradient_VxD(jnp.zeros((ROWS, 3)), jnp.array([token_L]), given_1xLxD)
    np.testing.assert_allclose(mine_VxD, expected_VxD, atol=1e-6)


def test_many_small_gradients_are_not_lost_in_bfloat16():
    table_VxD, token_1xL = jnp.zeros((ROWS, 1), jnp.bfloat16), jnp.full((1, 1000), 2)
    ones_1xLx1 = jnp.ones((1, 1000, 1), jnp.bfloat16)
    assert float(gradient_VxD(table_VxD, token_1xL, ones_1xLx1)[2, 0]) == pytest.approx(1000, rel=0.004)


def test_no_two_gradients_are_scattered_to_one_row():
    def loss(table_VxD, token_BxL):
        return look_up(table_VxD, token_BxL).sum()

    asked = jax.ShapeDtypeStruct((ROWS, 3), jnp.float32), jax.ShapeDtypeStruct((2, 8), jnp.int32)
    text = jax.jit(jax.grad(loss)).lower(*asked).as_text()
    assert text.count('"stablehlo.scatter"(') == text.count("unique_indices = true") > 0
