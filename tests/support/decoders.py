"""Decoders of any small shape, and parameters of which none could be left out unnoticed."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from hypothesis import strategies as st

from models.config import DecoderConfig
from models.decoder import Decoder, attend

LENGTH = 7


def distinct_params(config: DecoderConfig, seed: int):
    """No gain left at 1, nothing so small that it could be left out unnoticed."""
    shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))["params"]
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(leaf.ndim == 1, (config.width + 1) ** -0.5, leaf.shape).astype(np.float32),
        nn.unbox(shapes),
    )


def attend_causally(q_BxHxLxK, k_BxGxLxK, v_BxGxLxK):
    """Stands for a kernel."""
    return attend(q_BxHxLxK, k_BxGxLxK, v_BxGxLxK, jnp.tril(jnp.ones((1, *2 * q_BxHxLxK.shape[2:3]), bool)))


@st.composite
def configs(draw):
    """Decoders of any small shape, with any of the options."""
    groups, repeats = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_width, heads = 2 * draw(st.integers(1, 5)), groups * repeats
    own_width = draw(st.sampled_from([None, 9]))
    return DecoderConfig(
        width=own_width or head_width * heads,
        layers=draw(st.integers(1, 2)),
        heads=heads,
        vocab_size=draw(st.integers(2, 40)),
        ffn_multiple=draw(st.sampled_from([1, 8])),
        qk_norm=(qk_norm := draw(st.booleans())),
        qk_norm_per_head=qk_norm and draw(st.booleans()),
        # A norm of so few numbers magnifies rounding errors by up to eps^-1/2, which at 1e-5 would hide mistakes.
        norm_eps=0.01,
        norm=draw(st.sampled_from(["layer", "rms"])),
        rope_theta=draw(st.sampled_from([10.0, 10_000.0])),
        head_dim=head_width if own_width else None,
        key_heads=draw(st.sampled_from([groups, None])) if repeats == 1 else groups,
        tied_embeddings=draw(st.booleans()),
        inverse_wavelengths=draw(st.sampled_from([None, (0.7,) * (head_width // 2)])),
    )
