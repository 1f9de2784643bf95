"""Causal attention in one kernel of cuDNN on an NVIDIA GPU, which holds no score in memory (flash attention)."""

import jax
import jax.numpy as jnp

from models.config import DecoderConfig

DTYPES = ("bfloat16", "float16")
AMPERE = 8  # the first compute capability that it is written for
WIDEST_HEAD = 128  # 256 from Hopper on
HEAD_MULTIPLE = 8


def takes(c: DecoderConfig, device: jax.Device) -> bool:
    """Whether the kernel attends for such a decoder on such a device."""
    major = device.compute_capability.partition(".")[0] if device.platform == "gpu" else ""
    # Other makers' are no numbers, such as gfx942.
    is_nvidia = major.isdigit() and int(major) >= AMPERE
    return is_nvidia and c.dtype in DTYPES and c.head_width <= WIDEST_HEAD and c.head_width % HEAD_MULTIPLE == 0


def attend(q_BxHxLxK: jax.Array, k_BxGxLxK: jax.Array, v_BxGxLxK: jax.Array) -> jax.Array:
    """Mixes what one device holds; queries are already scaled, and may share heads of keys and values (H / G each)."""
    # It wants heads beside one another, as products make them: what is made in between is made in that order at once.
    qkv_BxLxHxK = (x.swapaxes(1, 2) for x in (q_BxHxLxK, k_BxGxLxK, v_BxGxLxK))
    mixed_BxLxHxK = jax.nn.dot_product_attention(*qkv_BxLxHxK, scale=1.0, is_causal=True, implementation="cudnn")
    return jnp.swapaxes(mixed_BxLxHxK, 1, 2)
