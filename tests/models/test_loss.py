"""The training loss in chunks: the same loss and the same gradients, however they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.loss import chunked_training_loss, training_loss

Z_LOSS = 0.1
rng = np.random.default_rng(0)
X_BxLxD = jnp.asarray(rng.normal(size=(2, 8, 4)), jnp.float32)
OUTPUT_DxV = jnp.asarray(rng.normal(size=(4, 11)), jnp.float32)
TARGET_BxL = jnp.asarray(rng.integers(0, 11, (2, 8)))


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("chunk", [2, 8])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_chunks_give_the_whole_loss_and_its_gradients(lean, chunk, scale):
    def chunked(x_BxLxD, output_DxV):
        return chunked_training_loss(x_BxLxD, output_DxV, TARGET_BxL, Z_LOSS, chunk, lean)

    def whole(x_BxLxD, output_DxV):
        return training_loss(x_BxLxD @ output_DxV, TARGET_BxL, Z_LOSS)

    mine, expected = (
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(scale * X_BxLxD, OUTPUT_DxV) for loss in (chunked, whole)
    )
    for of_mine, of_whole in zip(jax.tree.leaves(mine), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(of_mine, of_whole, rtol=1e-5, atol=1e-6 * np.abs(of_whole).max())


def test_lean_gradients_are_made_in_the_type_of_the_activations():
    def loss(x_BxLxD, output_DxV):
        return chunked_training_loss(x_BxLxD, output_DxV, TARGET_BxL, Z_LOSS, 4, True)[0]

    text = jax.jit(jax.grad(loss, (0, 1))).lower(X_BxLxD.astype(jnp.bfloat16), OUTPUT_DxV).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) == 3 and all("f32" not in line.split(" : (")[1].split("->")[0] for line in products)
    assert "scatter" not in text
