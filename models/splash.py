"""Causal attention in one Pallas kernel on a TPU, which holds no score in memory (splash attention)."""

import math

import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

# Larger blocks of both do not fit a core's vector memory.
LARGEST_BLOCK = 1024
LANES = 128


def attend(q_BxHxLxK: jax.Array, k_BxGxLxK: jax.Array, v_BxGxLxK: jax.Array, interpret: bool = False) -> jax.Array:
    """Mixes what one device holds; queries are already scaled, and may share heads of keys and values (H / G each).

    Raises:
      ValueError: if the sequence is no multiple of the kernel's 128 lanes.
    """
    _, heads, length, _ = q_BxHxLxK.shape
    if length % LANES:
        raise ValueError(f"splash attention takes sequences of a multiple of {LANES} tokens, not {length}")
    block = math.gcd(length, LARGEST_BLOCK)
    kernel = splash.make_splash_mha_single_device(
        mask=masks.MultiHeadMask([masks.CausalMask((length, length))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        residual_checkpoint_name="mixed",
        interpret=interpret,
    )
    return jax.vmap(kernel)(q_BxHxLxK, k_BxGxLxK, v_BxGxLxK)
