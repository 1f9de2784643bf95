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
