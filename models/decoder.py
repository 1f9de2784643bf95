"""The paper's decoder: open_lm with gain-only LayerNorms, QK-norm, rotary positions and SwiGLU.

Shapes live in names: B batch, L length, M slots attended to, D width, H heads, G heads of keys and values, K head
width, F feed-forward width, V vocabulary. Parameters carry logical axes, which `ladder.mesh` maps to the axes of a
device mesh.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from models.cache import Cache
from models.config import DecoderConfig

# What hides a score. Finite, so that a padded query, which sees nothing, mixes everything rather than making NaNs.
HIDDEN = -1e30


def init(stddev: float, *axes: str) -> nn.initializers.Initializer:
    """open_lm's initialiser: normal, cut at three deviations, not rescaled."""
    return nn.with_logical_partitioning(nn.initializers.truncated_normal(stddev, lower=-3.0, upper=3.0), axes)


def project(x_BxLxI: jax.Array, kernel_IxO: jax.Array, dtype: str | None = None) -> jax.Array:
    """Matrix product over flattened tokens, summed in float32 on accelerators; `dtype` is the result's.

    The gradient of a kernel then sums over one axis. Where it sums over two, XLA on a CPU first transposes the whole
    activation, and a training step of a small model takes 1.5 times as long.
    """
    batch, length, features = x_BxLxI.shape
    x_NxI, kernel_IxO = x_BxLxI.reshape(-1, features), kernel_IxO.astype(x_BxLxI.dtype)
    return jnp.matmul(x_NxI, kernel_IxO, preferred_element_type=dtype).reshape(batch, length, -1)


def rotary_Bx1xLxK(position_BxL: jax.Array, c: DecoderConfig) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines of the rotary embedding, half-split (Su et al. 2021, in GPT-NeoX's layout)."""
    inverse_wavelength_k = c.rope_theta ** (-jnp.arange(0, c.head_width, 2) / c.head_width)
    if c.inverse_wavelengths is not None:
        inverse_wavelength_k = jnp.asarray(c.inverse_wavelengths)
    angle_Bx1xLxk = position_BxL[:, None, :, None] * inverse_wavelength_k
    angle_Bx1xLxK = jnp.concatenate([angle_Bx1xLxk, angle_Bx1xLxk], axis=-1)
    return jnp.cos(angle_Bx1xLxK), jnp.sin(angle_Bx1xLxK)


def rotate(x_BxHxLxK: jax.Array, cos_Bx1xLxK: jax.Array, sin_Bx1xLxK: jax.Array) -> jax.Array:
    """Turns each pair (i, i + K/2) by the angle of its position."""
    left, right = jnp.split(x_BxHxLxK, 2, axis=-1)
    turned_BxHxLxK = jnp.concatenate([-right, left], axis=-1)
    return (x_BxHxLxK * cos_Bx1xLxK + turned_BxHxLxK * sin_Bx1xLxK).astype(x_BxHxLxK.dtype)


def attend(q_BxHxLxK: jax.Array, k_BxGxMxK: jax.Array, v_BxGxMxK: jax.Array, visible_BxLxM: jax.Array) -> jax.Array:
    """Softmax attention to the slots that are visible; scores and their sums in float32."""
    batch, groups, _, head_width = k_BxGxMxK.shape
    # Query heads that share a head of keys follow one another: to it they are one longer sequence, P = H / G x L.
    q_BxGxPxK = q_BxHxLxK.reshape(batch, groups, -1, head_width)
    score_BxGxPxM = jnp.einsum("BGPK,BGMK->BGPM", q_BxGxPxK, k_BxGxMxK, preferred_element_type=jnp.float32)
    # Added rather than selected: a sum needs no pass of its own over the scores, nor over their gradient.
    shade_BxLxM = jnp.where(visible_BxLxM, 0, HIDDEN)
    score_BxGxPxM += jnp.tile(shade_BxLxM, (1, q_BxHxLxK.shape[1] // groups, 1))[:, None]
    weight_BxGxPxM = jnp.exp(score_BxGxPxM - jax.lax.stop_gradient(score_BxGxPxM.max(-1, keepdims=True)))
    # Normalising after the product with the values divides P x K numbers instead of P x M.
    mixed_BxGxPxK = jnp.einsum("BGPM,BGMK->BGPK", weight_BxGxPxM.astype(v_BxGxMxK.dtype), v_BxGxMxK)
    mixed_BxGxPxK = (mixed_BxGxPxK / weight_BxGxPxM.sum(-1, keepdims=True)).astype(v_BxGxMxK.dtype)
    return mixed_BxGxPxK.reshape(q_BxHxLxK.shape)


class Norm(nn.Module):
    """LayerNorm, or RMSNorm, with a gain and no bias; statistics in float32."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        c = self.config
        gain = self.param("gain", nn.with_logical_partitioning(nn.initializers.ones, ("norm",)), x.shape[-1:])
        x32 = x.astype(jnp.float32)
        if c.norm == "layer":
            x32 = x32 - x32.mean(-1, keepdims=True)
        mean_square = jnp.square(x32).mean(-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + c.norm_eps) * gain).astype(c.dtype)


class Attention(nn.Module):
    """Causal multi-head attention with QK-norm."""

    config: DecoderConfig
    depth: int

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, cache: Cache | None) -> tuple[jax.Array, Cache | None]:
        """Mixes each position with those before it."""
        c = self.config
        batch, length, _ = x_BxLxD.shape

        def heads(name: str, heads: int, norm: bool = False) -> jax.Array:
            shape_DxO = (c.width, heads * c.head_width)
            x_BxLxO = project(x_BxLxD, self.param(name, init(c.width**-0.5, "embed", "heads"), shape_DxO))
            if norm and not c.qk_norm_per_head:
                x_BxLxO = Norm(c, name=f"{name}_norm")(x_BxLxO)
            x_BxHxLxK = x_BxLxO.reshape(batch, length, heads, c.head_width).swapaxes(1, 2)
            if norm and c.qk_norm_per_head:
                x_BxHxLxK = Norm(c, name=f"{name}_norm")(x_BxHxLxK)
            return x_BxHxLxK

        first_slot, start_B = (0, jnp.zeros(1, int)) if cache is None else (cache.filled, cache.start_B)
        slot_L = first_slot + jnp.arange(length)
        cos_Bx1xLxK, sin_Bx1xLxK = rotary_Bx1xLxK(slot_L - start_B[:, None], c)
        q_BxHxLxK = rotate(heads("query", c.heads, norm=c.qk_norm), cos_Bx1xLxK, sin_Bx1xLxK) * c.head_width**-0.5
        k_BxGxMxK = rotate(heads("key", c.groups, norm=c.qk_norm), cos_Bx1xLxK, sin_Bx1xLxK)
        v_BxGxMxK = heads("value", c.groups)
        if cache is not None:
            cache = cache.written(self.depth, k_BxGxMxK, v_BxGxMxK)
            k_BxGxMxK, v_BxGxMxK = cache.keys[self.depth], cache.values[self.depth]
        slot_M = jnp.arange(k_BxGxMxK.shape[2])
        visible_BxLxM = (slot_M <= slot_L[:, None]) & (slot_M >= start_B[:, None, None])
        mixed_BxHxLxK = attend(q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, visible_BxLxM)
        mixed_BxLxO = mixed_BxHxLxK.swapaxes(1, 2).reshape(batch, length, -1)

        shape_OxD = (c.heads * c.head_width, c.width)
        out_stddev = shape_OxD[0] ** -0.5 / (2 * (self.depth + 1)) ** 0.5
        out_OxD = self.param("out", init(out_stddev, "heads", "embed"), shape_OxD)
        return project(mixed_BxLxO, out_OxD), cache


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
    def __call__(self, x_BxLxD: jax.Array, cache: Cache | None) -> tuple[jax.Array, Cache | None]:
        """Adds attention, then the feed-forward."""
        c = self.config
        mixed_BxLxD, cache = Attention(c, self.depth, name="attention")(Norm(c, name="attention_norm")(x_BxLxD), cache)
        x_BxLxD = x_BxLxD + mixed_BxLxD
        return x_BxLxD + SwiGLU(c, self.depth, name="ffn")(Norm(c, name="ffn_norm")(x_BxLxD)), cache


class Decoder(nn.Module):
    """Tokens in, float32 logits out."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, token_BxL: jax.Array, cache: Cache | None = None) -> jax.Array | tuple[jax.Array, Cache]:
        """Float32 logits_BxLxV, each of the token that follows.

        With a cache the tokens follow those that it holds, and (logits, cache) is given, the cache now holding them
        too. Where a jitted caller drops the logits, XLA drops the product with the output table.
        """
        c = self.config
        embedding_VxD = self.param("embedding", init(c.width**-0.5, "vocab", "embed"), (c.vocab_size, c.width))
        x_BxLxD = embedding_VxD.astype(c.dtype)[token_BxL]
        for depth in range(c.layers):
            x_BxLxD, cache = Block(c, depth, name=f"block_{depth}")(x_BxLxD, cache)
        x_BxLxD = Norm(c, name="norm")(x_BxLxD)
        if c.tied_embeddings:
            output_DxV = embedding_VxD.T
        else:
            output_DxV = self.param("output", init(c.width**-0.5, "embed", "vocab"), (c.width, c.vocab_size))
        logits_BxLxV = project(x_BxLxD, output_DxV, jnp.float32)
        return logits_BxLxV if cache is None else (logits_BxLxV, cache.advanced(token_BxL.shape[1]))
