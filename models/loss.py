"""Losses of single tokens, from which the training loss and every evaluation are made."""

from functools import partial

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


def training_loss(logits_BxLxV: jax.Array, target_BxL: jax.Array, z_loss: float) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy plus `z_loss` times the mean squared log normaliser; and the mean cross-entropy alone."""
    loss_BxL, log_normaliser_BxL = token_losses(logits_BxLxV, target_BxL)
    loss = loss_BxL.mean()
    return loss + z_loss * jnp.square(log_normaliser_BxL).mean(), jax.lax.stop_gradient(loss)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def chunked_training_loss(
    x_BxLxD: jax.Array, output_DxV: jax.Array, target_BxL: jax.Array, z_loss: float, chunk: int, lean: bool = False
) -> tuple[jax.Array, jax.Array]:
    """`training_loss` of x @ output, of which no more than `chunk` positions of each sequence exist at a time.

    Each chunk's gradient is made while its logits exist, so that none is made twice. A `lean` one is for GPUs: written
    once, in the type of x, as what the products that follow are then made in.

    Raises:
      ValueError: if the sequence does not split into such chunks.
    """
    return _chunked_forward(x_BxLxD, output_DxV, target_BxL, z_loss, chunk, lean)[0]


def _chunk_loss(output_DxV: jax.Array, x_BxCxD: jax.Array, target_BxC: jax.Array, z_loss: float):
    logits_BxCxV = jnp.matmul(x_BxCxD, output_DxV.astype(x_BxCxD.dtype), preferred_element_type=jnp.float32)
    return training_loss(logits_BxCxV, target_BxC, z_loss)


def _log_normaliser(logits_BxCxV: jax.Array) -> jax.Array:
    """`jax.nn.logsumexp` over the last axis, in one pass instead of two."""

    def add(one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        (largest, sum_), (other_largest, other_sum) = one, other
        top = jnp.maximum(largest, other_largest)
        return top, sum_ * jnp.exp(largest - top) + other_sum * jnp.exp(other_largest - top)

    none = jnp.finfo(logits_BxCxV.dtype).min, jnp.zeros((), logits_BxCxV.dtype)
    largest_BxC, sum_BxC = jax.lax.reduce((logits_BxCxV, jnp.ones_like(logits_BxCxV)), none, add, (2,))
    return largest_BxC + jnp.log(sum_BxC)


def _lean_gradients(output_DxV: jax.Array, x_BxCxD: jax.Array, target_BxC: jax.Array, z_loss: float):
    """What `jax.value_and_grad` of `_chunk_loss` gives, without a scatter and a gradient of the logits in float32."""
    kernel_DxV = output_DxV.astype(x_BxCxD.dtype)
    logits_BxCxV = jnp.matmul(x_BxCxD, kernel_DxV, preferred_element_type=jnp.float32)
    is_target_BxCxV = target_BxC[..., None] == jnp.arange(output_DxV.shape[1])
    log_normaliser_BxC = _log_normaliser(logits_BxCxV)
    loss = (log_normaliser_BxC - jnp.where(is_target_BxCxV, logits_BxCxV, 0).sum(-1)).mean()
    penalised = loss + z_loss * jnp.square(log_normaliser_BxC).mean()
    weight_BxC = 1 + 2 * z_loss * log_normaliser_BxC
    softmax_BxCxV = jnp.exp(logits_BxCxV - log_normaliser_BxC[..., None])
    slope_BxCxV = (softmax_BxCxV * weight_BxC[..., None] - is_target_BxCxV) / target_BxC.size
    slope_BxCxV = slope_BxCxV.astype(x_BxCxD.dtype)
    output_grad_DxV = jnp.einsum("BCD,BCV->DV", x_BxCxD, slope_BxCxV, preferred_element_type=output_DxV.dtype)
    return (penalised, loss), (output_grad_DxV, jnp.einsum("BCV,DV->BCD", slope_BxCxV, kernel_DxV))


def _chunks(x_BxL: jax.Array, chunk: int) -> jax.Array:
    batch, length, *width = x_BxL.shape
    if length % chunk:
        raise ValueError(f"sequences of {length} tokens do not split into chunks of {chunk} for the loss")
    return x_BxL.reshape(batch, -1, chunk, *width).swapaxes(0, 1)


def _chunked_forward(x_BxLxD, output_DxV, target_BxL, z_loss: float, chunk: int, lean: bool):
    gradients = _lean_gradients if lean else jax.value_and_grad(_chunk_loss, argnums=(0, 1), has_aux=True)

    def body(output_grad_DxV: jax.Array, x_and_targets: tuple[jax.Array, jax.Array]):
        losses, (more_DxV, x_grad_BxCxD) = gradients(output_DxV, *x_and_targets, z_loss)
        return output_grad_DxV + more_DxV, (losses, x_grad_BxCxD)

    parts = _chunks(x_BxLxD, chunk), _chunks(target_BxL, chunk)
    output_grad_DxV, (losses_N, x_grad_NxBxCxD) = jax.lax.scan(body, jnp.zeros_like(output_DxV), parts)
    x_grad_BxLxD = x_grad_NxBxCxD.swapaxes(0, 1).reshape(x_BxLxD.shape)
    return jax.tree.map(jnp.mean, losses_N), (x_grad_BxLxD, output_grad_DxV, len(x_grad_NxBxCxD))


def _chunked_backward(z_loss: float, chunk: int, lean: bool, saved, gradients: tuple[jax.Array, jax.Array]):
    del z_loss, chunk, lean
    x_grad_BxLxD, output_grad_DxV, chunks = saved
    share = gradients[0] / chunks  # of the second, the loss alone, there is none
    return (x_grad_BxLxD * share).astype(x_grad_BxLxD.dtype), output_grad_DxV * share, None


chunked_training_loss.defvjp(_chunked_forward, _chunked_backward)
