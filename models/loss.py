"""Losses of single tokens, from which the training loss and every evaluation are made."""

import jax
import jax.numpy as jnp


def token_losses(logits_BxLxV: jax.Array, target_BxL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of each token, and the logarithm of its softmax's denominator, both in nats and float32.

    The paper trains on the mean cross-entropy plus 1e-4 times the mean square of the second (open_lm's z-loss).
    """
    logits_BxLxV = logits_BxLxV.astype(jnp.float32)
    logsumexp_BxL = jax.nn.logsumexp(logits_BxLxV, axis=-1)
    target_logit_BxL = jnp.take_along_axis(logits_BxLxV, target_BxL[..., None], axis=-1)[..., 0]
    return logsumexp_BxL - target_logit_BxL, logsumexp_BxL


def chunked_token_losses(
    x_BxLxD: jax.Array, output_DxV: jax.Array, target_BxL: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """`token_losses` of x @ output, of which no more than `chunk` positions of each sequence exist at a time.

    The gradient makes each chunk's logits anew: a fourth more products with the output table, for a fraction of the
    memory.

    Raises:
      ValueError: if the sequence does not split into such chunks.
    """
    batch, length, width = x_BxLxD.shape
    if length % chunk:
        raise ValueError(f"sequences of {length} tokens do not split into chunks of {chunk} for the loss")

    @jax.checkpoint
    def losses(output_DxV: jax.Array, x_BxCxD: jax.Array, target_BxC: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BxCxV = jnp.matmul(x_BxCxD, output_DxV, preferred_element_type=jnp.float32)
        return token_losses(logits_BxCxV, target_BxC)

    def body(carry: None, chunk_and_targets: tuple[jax.Array, jax.Array]):
        return carry, losses(output_DxV.astype(x_BxLxD.dtype), *chunk_and_targets)

    x_NxBxCxD = x_BxLxD.reshape(batch, -1, chunk, width).swapaxes(0, 1)
    target_NxBxC = target_BxL.reshape(batch, -1, chunk).swapaxes(0, 1)
    _, losses_NxBxC = jax.lax.scan(body, None, (x_NxBxCxD, target_NxBxC))
    return jax.tree.map(lambda x_NxBxC: x_NxBxC.swapaxes(0, 1).reshape(batch, length), losses_NxBxC)
