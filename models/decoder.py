"""The paper's decoder: open_lm with gain-only LayerNorms, QK-norm, rotary positions and SwiGLU.

Shapes live in names: B batch, L length, M slots attended to, D width, H heads, G heads of keys and values, K head
width, F feed-forward width, V vocabulary. Parameters carry logical axes, which `ladder.training.mesh` maps to the axes
of a device mesh.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from models.cache import Cache
from models.config import DecoderConfig
from models.execution import HERE, Execution, Platform

# What hides a score. Finite, so that a padded query, which sees nothing, mixes everything rather than making NaNs.
HIDDEN = -1e30

# From this width on nothing that XLA fuses into a product is worth what it spares (measured at 2048 and 4096).
WIDE = 4096

# (x_BxLxD after the last norm, output_DxV) → anything.
Readout = Callable[[jax.Array, jax.Array], Any]


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


def rotate(
    x_BxHxLxK: jax.Array, cos_Bx1xLxK: jax.Array, sin_Bx1xLxK: jax.Array, platform: Platform = "cpu"
) -> jax.Array:
    """Turns each pair (i, i + K/2) by the angle of its position."""
    if platform == "tpu" and x_BxHxLxK.dtype == jnp.bfloat16:
        # A TPU permutes lanes slowly, and multiplies by a matrix of 0 and ±1 exactly and in passing.
        turn_KxK = np.kron([[0, 1], [-1, 0]], np.eye(x_BxHxLxK.shape[-1] // 2))
        turned_BxHxLxK = jnp.matmul(x_BxHxLxK, turn_KxK.astype(x_BxHxLxK.dtype), preferred_element_type=jnp.float32)
    else:
        left, right = jnp.split(x_BxHxLxK, 2, axis=-1)
        turned_BxHxLxK = jnp.concatenate([-right, left], axis=-1)
    return (x_BxHxLxK * cos_Bx1xLxK + turned_BxHxLxK * sin_Bx1xLxK).astype(x_BxHxLxK.dtype)


def apart(x: Any, platform: Platform) -> Any:
    """`x`, and its gradient, on a TPU and in bfloat16 made by themselves; elsewhere as XLA likes.

    What XLA for TPUs fuses into a product, such as a norm's sums over what it made, slows the product; often by more
    than a pass of its own takes.
    """
    if platform != "tpu":
        return x
    return jax.tree.map(lambda y: jax.lax.optimization_barrier(y) if y.dtype == jnp.bfloat16 else y, x)


def apart_if_wide(x: Any, c: DecoderConfig, platform: Platform) -> Any:
    """The same, where products take so long that it pays for whatever goes in or comes out."""
    return apart(x, platform) if c.width >= WIDE else x


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


def attend_from(
    attend: Callable[..., jax.Array], start_B: jax.Array, q_BxHxLxK: jax.Array, *kv_BxGxLxK: jax.Array
) -> jax.Array:
    """A kernel's causal attention in rows that begin at `start_B`: rolled to begin at 0, none sees its padding."""
    roll = jax.vmap(partial(jnp.roll, axis=1))
    return roll(attend(*(roll(x, -start_B) for x in (q_BxHxLxK, *kv_BxGxLxK))), start_B)


class Norm(nn.Module):
    """LayerNorm, or RMSNorm, with a gain and no bias; statistics in float32.

    Over the last axis, or where `heads` says so over the heads and the width of x_BxHxLxK together; `centred` promises
    that their mean is zero.
    """

    config: DecoderConfig
    heads: bool = False
    centred: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises, and gives the config's type."""
        c = self.config
        width = x.shape[-1] * (x.shape[1] if self.heads else 1)
        gain: Any = self.param("gain", nn.with_logical_partitioning(nn.initializers.ones, ("norm",)), (width,))
        gain = gain.reshape(x.shape[1], 1, -1) if self.heads else gain

        def mean(y: jax.Array) -> jax.Array:
            y = y.mean(-1, keepdims=True)
            return checkpoint_name(y.mean(1, keepdims=True) if self.heads else y, "statistics")

        x32 = x.astype(jnp.float32)
        centre = c.norm == "layer" and not self.centred
        centred = x32 - mean(x32) if centre else x32
        if centre and x.dtype == jnp.bfloat16:
            # One pass over x instead of two. What the difference loses is far less than bfloat16 has lost before.
            mean_square = mean(jnp.square(x32)) - jnp.square(mean(x32))
        else:
            mean_square = mean(jnp.square(centred))
        return (centred * jax.lax.rsqrt(mean_square + c.norm_eps) * gain).astype(c.dtype)


class Attention(nn.Module):
    """Causal multi-head attention with QK-norm."""

    config: DecoderConfig
    depth: int
    execution: Execution = HERE

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, cache: Cache | None) -> tuple[jax.Array, Cache | None]:
        """Mixes each position with those before it."""
        c, platform = self.config, self.execution.platform
        batch, length, _ = x_BxLxD.shape
        fresh = length > 1 and (cache is None or cache.is_empty)
        attend_whole = self.execution.attend if fresh and length % self.execution.length_multiple == 0 else None
        head_major = attend_whole is not None and platform == "tpu"

        def heads(name: str, heads: int, norm: bool = False) -> jax.Array:
            kernel_DxO = self.param(name, init(c.width**-0.5, "embed", "heads"), (c.width, heads * c.head_width))
            if head_major:
                # Straight into the kernel's layout, where the norm follows without another copy.
                whole = norm and not c.qk_norm_per_head
                if whole and c.norm == "layer":
                    # The mean of what it gives, for the norm to take away, is taken from the kernel before.
                    kernel_DxO -= kernel_DxO.mean(-1, keepdims=True)
                kernel_DxHxK = kernel_DxO.astype(x_BxLxD.dtype).reshape(c.width, heads, c.head_width)
                x_BxHxLxK = jnp.einsum("BLD,DHK->BHLK", x_BxLxD, kernel_DxHxK)
                if not norm:
                    return x_BxHxLxK
                return Norm(c, heads=whole, centred=whole, name=f"{name}_norm")(apart_if_wide(x_BxHxLxK, c, platform))
            x_BxLxO = project(x_BxLxD, kernel_DxO)
            if norm and not c.qk_norm_per_head:
                x_BxLxO = Norm(c, name=f"{name}_norm")(x_BxLxO)
            x_BxHxLxK = x_BxLxO.reshape(batch, length, heads, c.head_width).swapaxes(1, 2)
            if norm and c.qk_norm_per_head:
                x_BxHxLxK = Norm(c, name=f"{name}_norm")(x_BxHxLxK)
            return x_BxHxLxK

        first_slot, start_B = (0, jnp.zeros(1, int)) if cache is None else (cache.filled, cache.start_B)
        slot_L = first_slot + jnp.arange(length)
        cos_Bx1xLxK, sin_Bx1xLxK = rotary_Bx1xLxK(slot_L - start_B[:, None], c)
        turn = partial(rotate, cos_Bx1xLxK=cos_Bx1xLxK, sin_Bx1xLxK=sin_Bx1xLxK, platform=platform)
        q_BxHxLxK = turn(heads("query", c.heads, norm=c.qk_norm)) * c.head_width**-0.5
        k_BxGxMxK = turn(heads("key", c.groups, norm=c.qk_norm))
        v_BxGxMxK = heads("value", c.groups)
        qkv = q_BxHxLxK, k_BxGxMxK, v_BxGxMxK
        if cache is not None:
            cache = cache.written(self.depth, k_BxGxMxK, v_BxGxMxK)
            k_BxGxMxK, v_BxGxMxK = cache.keys[self.depth], cache.values[self.depth]
        if attend_whole and cache is None:
            mixed_BxHxLxK = apart_if_wide(attend_whole(*qkv), c, platform)
        elif attend_whole:
            mixed_BxHxLxK = attend_from(attend_whole, start_B, *qkv)
        else:
            slot_M = jnp.arange(k_BxGxMxK.shape[2])
            visible_BxLxM = (slot_M <= slot_L[:, None]) & (slot_M >= start_B[:, None, None])
            mixed_BxHxLxK = attend(q_BxHxLxK, k_BxGxMxK, v_BxGxMxK, visible_BxLxM)

        shape_OxD = (c.heads * c.head_width, c.width)
        out_stddev = shape_OxD[0] ** -0.5 / (2 * (self.depth + 1)) ** 0.5
        out_OxD = self.param("out", init(out_stddev, "heads", "embed"), shape_OxD)
        if head_major:
            out_HxKxD = out_OxD.astype(x_BxLxD.dtype).reshape(c.heads, c.head_width, c.width)
            return jnp.einsum("BHLK,HKD->BLD", mixed_BxHxLxK, out_HxKxD), cache
        return project(mixed_BxHxLxK.swapaxes(1, 2).reshape(batch, length, -1), out_OxD), cache


def gated(gate_BxLxF: jax.Array, up_BxLxF: jax.Array) -> jax.Array:
    """silu(gate) * up."""
    return nn.silu(gate_BxLxF) * up_BxLxF


gated_apart = jax.custom_vjp(gated)
"""The same, of which both gradients are made in one pass of their own."""
gated_apart.defvjp(
    lambda gate_BxLxF, up_BxLxF: (gated(gate_BxLxF, up_BxLxF), (gate_BxLxF, up_BxLxF)),
    lambda saved, gradient_BxLxF: apart(jax.vjp(gated, *apart(saved, "tpu"))[1](apart(gradient_BxLxF, "tpu")), "tpu"),
)


class SwiGLU(nn.Module):
    """Gated feed-forward (Shazeer 2020)."""

    config: DecoderConfig
    depth: int
    platform: Platform = "cpu"

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array) -> jax.Array:
        """Transforms each position by itself."""
        c = self.config
        out_stddev = c.ffn_width**-0.5 / (2 * (self.depth + 1)) ** 0.5
        gate_DxF = self.param("gate", init(c.width**-0.5, "embed", "ffn"), (c.width, c.ffn_width))
        up_DxF = self.param("up", init(c.width**-0.5, "embed", "ffn"), (c.width, c.ffn_width))
        down_FxD = self.param("down", init(out_stddev, "ffn", "embed"), (c.ffn_width, c.width))
        gate = gated_apart if c.width >= WIDE and self.platform == "tpu" else gated
        hidden_BxLxF = gate(project(x_BxLxD, gate_DxF), project(x_BxLxD, up_DxF))
        return project(hidden_BxLxF, down_FxD)


class Block(nn.Module):
    """Pre-norm residual block; `depth` counts from 0 and shrinks the initial output, as open_lm does."""

    config: DecoderConfig
    depth: int
    execution: Execution = HERE

    @nn.compact
    def __call__(self, x_BxLxD: jax.Array, cache: Cache | None) -> tuple[jax.Array, Cache | None]:
        """Adds attention, then the feed-forward."""
        c, platform = self.config, self.execution.platform
        attention = Attention(c, self.depth, self.execution, name="attention")
        mixed_BxLxD, cache = attention(apart(Norm(c, name="attention_norm")(x_BxLxD), platform), cache)
        x_BxLxD = apart(checkpoint_name(x_BxLxD + mixed_BxLxD, "attended"), platform)
        normed_BxLxD = apart_if_wide(Norm(c, name="ffn_norm")(x_BxLxD), c, platform)
        return x_BxLxD + SwiGLU(c, self.depth, platform, name="ffn")(normed_BxLxD), cache


class Decoder(nn.Module):
    """Tokens in, float32 logits out.

    Its blocks are computed one after another as `block_0`, `block_1`, …; where the parameters are those of
    `models.layers.stacked`, by a scan over them, which compiles one block however many there are.
    """

    config: DecoderConfig
    execution: Execution = HERE

    @nn.compact
    def __call__(self, token_BxL: jax.Array, cache: Cache | None = None, readout: Readout | None = None) -> Any:
        """Float32 logits_BxLxV, each of the token that follows.

        With a cache the tokens follow those that it holds, and (logits, cache) is given, the cache now holding them
        too. Where a jitted caller drops the logits, XLA drops the product with the output table. With a `readout` its
        result is given instead of the logits.
        """
        c, shard = self.config, self.execution.shard
        embedding_VxD = self.param("embedding", init(c.width**-0.5, "vocab", "embed"), (c.vocab_size, c.width))
        # Gathered first: rows that were looked up in shards of the width would have to be gathered for all tokens.
        table_VxD = shard(embedding_VxD.astype(c.dtype), ("vocab", None))
        x_BxLxD = shard(self.execution.look_up(table_VxD, token_BxL), ("batch", None, None))
        if self.has_variable("params", "blocks"):
            x_BxLxD = self._scanned(x_BxLxD)
        else:
            block = Block
            if cache is None and self.execution.saved is not None:
                block = nn.remat(Block, policy=self.execution.saved)
            for depth in range(c.layers):
                x_BxLxD, cache = block(c, depth, self.execution, name=f"block_{depth}")(x_BxLxD, cache)
        x_BxLxD = Norm(c, name="norm")(x_BxLxD)
        if c.tied_embeddings:
            output_DxV = embedding_VxD.T
        else:
            output_DxV = self.param("output", init(c.width**-0.5, "embed", "vocab"), (c.width, c.vocab_size))
        if readout is not None:
            return readout(x_BxLxD, output_DxV)
        logits_BxLxV = project(x_BxLxD, output_DxV, jnp.float32)
        return logits_BxLxV if cache is None else (logits_BxLxV, cache.advanced(token_BxL.shape[1]))

    def _scanned(self, x_BxLxD: jax.Array) -> jax.Array:
        def block(x_BxLxD: jax.Array, params: Any) -> tuple[jax.Array, None]:
            # Its depth tells a block how to initialise itself and where its cache is, neither of which is done here.
            x_BxLxD, _ = Block(self.config, 0, self.execution, parent=None).apply({"params": params}, x_BxLxD, None)
            return self.execution.shard(x_BxLxD, ("batch", None, None)), None

        if self.execution.saved is not None:
            block = jax.checkpoint(block, policy=self.execution.saved, prevent_cse=False)
        return jax.lax.scan(block, x_BxLxD, self.get_variable("params", "blocks"))[0]
