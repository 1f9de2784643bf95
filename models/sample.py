"""Text generation: one pass over the prompts, then token by token from the cache, several tokens a dispatch.

Shapes: B rows, P prompt tokens before each row's last, S tokens a dispatch, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.cache import Cache
from models.config import DecoderConfig
from models.decoder import Decoder
from models.execution import HERE, Execution

TOKENS_PER_DISPATCH = 16
NOTHING = -1


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      temperature: divides the logits; 0 takes the likeliest token.
      top_p: samples from the fewest likeliest tokens whose probabilities reach this sum (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature} must be 0, which takes the likeliest token, or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} must be more than 0 and at most 1")


def generate(
    params: Any,
    c: DecoderConfig,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling = Sampling(),
    *,
    context: int,
    max_tokens: int,
    end_id: int | None = None,
    seed: int = 0,
    execution: Execution = HERE,
) -> Iterator[list[list[int]]]:
    """Goes on from prompts, all at once, and gives the new tokens a few at a time.

    A row ends with `end_id`, which is given too, after `max_tokens`, or where prompt and new tokens fill the context.
    What a row draws depends on the seed, its place and its own tokens, not on the rows beside it.

    Args:
      params: of the decoder.
      c: its shape.
      prompts: tokens of each row, at least one each, of any lengths.
      sampling: how the next token is chosen.
      context: most tokens of a row, its prompt included.
      max_tokens: most new tokens of a row.
      end_id: the token that ends a text, if there is one.
      seed: 0 to 2^32 - 1.
      execution: how the model is computed; its kernel reads the prompts, and what follows is read by no kernel faster.

    Yields:
      The next tokens of each row; none of a row that has ended.

    Raises:
      ValueError: if a prompt is empty, fills the context or holds an id outside the vocabulary.
    """
    _refuse_impossible(prompts, c, context, max_tokens, seed)
    length_B = np.array([len(prompt) for prompt in prompts])
    left_B = np.minimum(max_tokens, context - length_B).astype(np.int32)
    # Rows are padded on the left, so that all go on from the same slot.
    padded_length = _rounded_up(length_B.max() - 1)
    start_B = padded_length + 1 - length_B
    token_BxP = np.zeros((len(prompts), padded_length), np.int32)
    for row_P, prompt, start in zip(token_BxP, prompts, start_B, strict=True):
        row_P[start:] = prompt[:-1]

    slots = padded_length + _rounded_up(left_B.max())
    decoder = Decoder(c, execution)
    cache = prefill(decoder, slots, params, token_BxP, start_B)
    token_B = np.array([prompt[-1] for prompt in prompts], np.int32)
    while left_B.any():
        cache, token_B, left_B, new_BxS = decode(decoder, sampling, end_id, params, seed, cache, token_B, left_B)
        yield [[int(token) for token in row_S if token != NOTHING] for row_S in np.asarray(new_BxS)]


@partial(jax.jit, static_argnames=("decoder", "slots"))
def prefill(decoder: Decoder, slots: int, params: Any, token_BxP: jax.Array, start_B: jax.Array) -> Cache:
    """A cache of so many slots that has read rows of prompts, of which row b begins at `start_B[b]`."""
    read: Any = decoder.apply({"params": params}, token_BxP, Cache.empty(decoder.config, start_B, slots))
    return read[1]


@partial(jax.jit, static_argnames=("decoder", "sampling", "end_id"), donate_argnames="cache")
def decode(
    decoder: Decoder,
    sampling: Sampling,
    end_id: int | None,
    params: Any,
    seed: int,
    cache: Cache,
    token_B: jax.Array,
    left_B: jax.Array,
) -> tuple[Cache, jax.Array, jax.Array, jax.Array]:
    """A few more tokens of each row.

    Args:
      decoder: the model.
      sampling: how the next token is chosen.
      end_id: ends a row where it is chosen.
      params: of the decoder.
      seed: of what is drawn.
      cache: has read all but the last token of each row; is donated.
      token_B: the last token of each row.
      left_B: how many more tokens each row may have.

    Returns:
      The cache, token_B and left_B to go on with, and the new tokens, NOTHING from a row's end on.
    """

    def goes_on(state) -> jax.Array:
        i, *_, left_B, _ = state
        return (i < TOKENS_PER_DISPATCH) & (left_B > 0).any()

    def one_more(state):
        i, cache, token_B, left_B, new_BxS = state
        logits_Bx1xV, cache = decoder.apply({"params": params}, token_B[:, None], cache)
        token_B = choose(sampling, logits_Bx1xV[:, 0], seed, cache.filled - cache.start_B)
        new_BxS = new_BxS.at[:, i].set(jnp.where(left_B > 0, token_B, NOTHING))
        left_B = jnp.where(token_B == end_id, 0, jnp.maximum(left_B - 1, 0))
        return i + 1, cache, token_B, left_B, new_BxS

    nothing_BxS = jnp.full((len(token_B), TOKENS_PER_DISPATCH), NOTHING, jnp.int32)
    return jax.lax.while_loop(goes_on, one_more, (0, cache, token_B, left_B, nothing_BxS))[1:]


def choose(sampling: Sampling, logits_BxV: jax.Array, seed: int, position_B: jax.Array) -> jax.Array:
    """The token at each row's position: the likeliest, or one drawn by seed, row and position."""
    if sampling.temperature == 0:
        return logits_BxV.argmax(-1).astype(jnp.int32)
    logits_BxV = logits_BxV / sampling.temperature
    if sampling.top_p < 1:
        falling_BxV = -jnp.sort(-jax.nn.softmax(logits_BxV), axis=-1)
        likelier_BxV = falling_BxV.cumsum(-1) - falling_BxV
        least_Bx1 = jnp.where(likelier_BxV < sampling.top_p, falling_BxV, jnp.inf).min(-1, keepdims=True)
        logits_BxV = jnp.where(jax.nn.softmax(logits_BxV) >= least_Bx1, logits_BxV, -jnp.inf)

    def draw(row: jax.Array, position: jax.Array, logits_V: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), position)
        return jax.random.categorical(key, logits_V)

    return jax.vmap(draw)(jnp.arange(len(logits_BxV)), position_B, logits_BxV).astype(jnp.int32)


def _rounded_up(tokens: int) -> int:
    """A length of three leading bits, so that prompts of about one length share what was compiled."""
    step = 1 << max(int(tokens).bit_length() - 3, 3)
    return int(-(-tokens // step) * step)


def _refuse_impossible(
    prompts: Sequence[Sequence[int]], c: DecoderConfig, context: int, max_tokens: int, seed: int
) -> None:
    if not prompts:
        raise ValueError("there is no prompt; give one or more")
    if max_tokens < 1:
        raise ValueError(f"max_tokens {max_tokens} must be at least 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed} must lie between 0 and 2^32 - 1")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompt {i} has no tokens; begin an empty text with the token that ends one")
        if len(prompt) >= context:
            raise ValueError(f"prompt {i} has {len(prompt)} tokens and fills the context of {context}; shorten it")
        outside = [int(token) for token in prompt if not 0 <= token < c.vocab_size]
        if outside:
            raise ValueError(f"prompt {i} holds id {outside[0]}, which is outside the vocabulary of {c.vocab_size}")
