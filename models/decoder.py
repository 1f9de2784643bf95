"""The paper's decoder: open_lm with gain-only LayerNorms, QK-norm, rotary positions and SwiGLU.

Shapes live in names: B batch, L length, M length attended to, D width, H heads, K head width, F feed-forward width,
V vocabulary. Parameters carry logical axes, which `ladder.mesh` maps to the axes of a device mesh.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.config import DecoderConfig


def init(stddev: float, *axes: str) -> nn.initializers.Initializer:
    """open_lm's initialiser: normal, cut at three deviations, not rescaled."""
    return nn.with_logical_partitioning(nn.initializers.truncated_normal(stddev, lower=-3.0, upper=3.0), axes)


def project(x_BxLxI: jax.Array, kernel_IxO: jax.Array) -> jax.Array:
    """Matrix product over flattened tokens.

    The gradient of a kernel then sums over one axis. Where it sums over two, XLA on a CPU first transposes the whole
    activation, and a training step of a small model takes 1.5 times as long.
    """
    batch, length, features = x_BxLxI.shape
    return (x_BxLxI.reshape(-1, features) @ kernel_IxO.astype(x_BxLxI.dtype)).reshape(batch, length, -1)


def rotary_LxK(length: int, c: DecoderConfig) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the rotary embedding, half-split (Su et al. 2021, in GPT-NeoX's layout)."""
    inverse_wavelength_k = c.rope_theta ** (-jnp.arange(0, c.head_width, 2) / c.head_width)
    angle_Lxk = jnp.arange(length)[:, None] * inverse_wavelength_k
    angle_LxK = jnp.concatenate([angle_Lxk, angle_Lxk], axis=-1)
    return jnp.cos(angle_LxK), jnp.sin(angle_LxK)


def rotate(x_BxHxLxK: jax.Array, cos_LxK: jax.Array, sin_LxK: jax.Array) -> jax.Array:
    """Turns each pair (i, i + K/2) by the angle of its position."""
    left, right = jnp.split(x_BxHxLxK, 2, axis=-1)
    turned_BxHxLxK = jnp.concatenate([-right, left], axis=-1)
    return (x_BxHxLxK * cos_LxK + turned_BxHxLxK * sin_LxK).astype(x_BxHxLxK.dtype)


def attend(q_BxHxLxK: jax.Array, k_BxHxMxK: jax.Array, v_BxHxMxK: jax.Array) -> jax.Array:
    """Causal softmax attention; scores and their sums in float32."""
    score_BxHxLxM = jnp.einsum("BHLK,BHMK->BHLM", q_BxHxLxK, k_BxHxMxK, preferred_element_type=jnp.float32)
    causal_LxM = jnp.tril(jnp.ones(score_BxHxLxM.shape[-2:], bool))
    # Added rather than selected: a sum needs no pass of its own over the scores, nor over their gradient.
    score_BxHxLxM += jnp.where(causal_LxM, 0, -jnp.inf)
    weight_BxHxLxM = jnp.exp(score_BxHxLxM - jax.lax.stop_gradient(score_BxHxLxM.max(-1, keepdims=True)))
    # Normalising after the product with the values divides L x K numbers instead of L x M.
    mixed_BxHxLxK = jnp.einsum("BHLM,BHMK->BHLK", weight_BxHxLxM.astype(v_BxHxMxK.dtype), v_BxHxMxK)
    return (mixed_BxHxLxK / weight_BxHxLxM.sum(-1, keepdims=True)).astype(v_BxHxMxK.dtype)


class LayerNorm(nn.Module):
    """LayerNorm with a gain and no bias; statistics in float32."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        c = self.config
        gain_D = self.param("gain", nn.with_logical_partitioning(nn.initializers.ones, ("norm",)), (c.width,))
        x32_BxLxD = x_BxLxD.astype(jnp.float32)
        centred_BxLxD = x32_BxLxD - x32_BxLxD.mean(-1, keepdims=True)
        variance_BxLx1 = jnp.square(centred_BxLxD).mean(-1, keepdims=True)
        return (centred_BxLxD * jax.lax.rsqrt(variance_BxLx1 + c.norm_eps) * gain_D).astype(c.dtype)


class Attention(nn.Module):
    """Causal multi-head attention with QK-norm over the full width."""

    config: DecoderConfig
    depth: int

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Mixes each position with those before it."""
        c = self.config
        batch, length, _ = x_BxLxD.shape

        def project_to(name: str) -> jax.Array:
            return project(x_BxLxD, self.param(name, init(c.width**-0.5, "embed", "heads"), (c.width, c.width)))

        def split(x_BxLxD: jax.Array) -> jax.Array:
            return x_BxLxD.reshape(batch, length, c.heads, c.head_width).swapaxes(1, 2)

        q_BxLxD, k_BxLxD, v_BxLxD = project_to("query"), project_to("key"), project_to("value")
        if c.qk_norm:
            q_BxLxD = LayerNorm(c, name="query_norm")(q_BxLxD)
            k_BxLxD = LayerNorm(c, name="key_norm")(k_BxLxD)
        cos_LxK, sin_LxK = rotary_LxK(length, c)
        q_BxHxLxK = rotate(split(q_BxLxD), cos_LxK, sin_LxK) * c.head_width**-0.5
        k_BxHxLxK = rotate(split(k_BxLxD), cos_LxK, sin_LxK)
        mixed_BxHxLxK = attend(q_BxHxLxK, k_BxHxLxK, split(v_BxLxD))
        mixed_BxLxD = mixed_BxHxLxK.swapaxes(1, 2).reshape(x_BxLxD.shape)

        out_stddev = c.width**-0.5 / (2 * (self.depth + 1)) ** 0.5
        out_DxD = self.param("out", init(out_stddev, "heads", "embed"), (c.width, c.width))
        return project(mixed_BxLxD, out_DxD)


class SwiGLU(nn.Module):
    """Gated feed-forward (Shazeer 2020)."""

    config: DecoderConfig
    depth: int

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Transforms each position by itself."""
        c = self.config
        out_stddev = c.ffn_width**-0.5 / (2 * (self.depth + 1)) ** 0.5
        gate_DxF = self.param("gate", init(c.width**-0.5, "embed", "ffn"), (c.width, c.ffn_width))
        up_DxF = self.param("up", init(c.width**-0.5, "embed", "ffn"), (c.width, c.ffn_width))
        down_FxD = self.param("down", init(out_stddev, "ffn", "embed"), (c.ffn_width, c.width))
        hidden_BxLxF = nn.silu(project(x_BxLxD, gate_DxF)) * project(x_BxLxD, up_DxF)
        return project(hidden_BxLxF, down_FxD)


class Block(nn.Module):
    """Pre-norm residual block; `depth` counts from 0 and shrinks the initial output, as open_lm does."""

    config: DecoderConfig
    depth: int

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Adds attention, then the feed-forward."""
        c = self.config
        x_BxLxD = x_BxLxD + Attention(c, self.depth, name="attention")(LayerNorm(c, name="attention_norm")(x_BxLxD))
        return x_BxLxD + SwiGLU(c, self.depth, name="ffn")(LayerNorm(c, name="ffn_norm")(x_BxLxD))


class Decoder(nn.Module):
    """Tokens in, float32 logits out."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, token_BxL: jax.Array) -> jax.Array:
        """Float32 logits_BxLxV, each of the token that follows."""
        c = self.config
        embedding_VxD = self.param("embedding", init(c.width**-0.5, "vocab", "embed"), (c.vocab_size, c.width))
        x_BxLxD = embedding_VxD.astype(c.dtype)[token_BxL]
        for depth in range(c.layers):
            x_BxLxD = Block(c, depth, name=f"block_{depth}")(x_BxLxD)
        x_BxLxD = LayerNorm(c, name="norm")(x_BxLxD)
        output_DxV = self.param("output", init(c.width**-0.5, "embed", "vocab"), (c.width, c.vocab_size))
        return project(x_BxLxD, output_DxV).astype(jnp.float32)
