"""Keys and values of what a batch has read, so that what follows need not read it again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from models.config import DecoderConfig


class Cache(struct.PyTreeNode):
    """What `Decoder` remembers of B rows, in M slots.

    The rows fill their slots in step: L more tokens a row take the next L slots. Rows of different lengths are
    therefore padded on the left, and `start_B` tells where each begins; positions count from there. What is longer
    than M overwrites the last slots, unseen: whoever makes a cache makes it long enough.

    Attributes:
      keys, values: (B, G, M, K) of each block.
      start_B: slot of each row's first token; what lies before it is never seen.
      filled: slots in use, of every row; a plain number while nothing but the tracing function has read into it.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    start_B: jax.Array
    filled: int | jax.Array

    @classmethod
    def empty(cls, c: DecoderConfig, start_B: jax.Array, slots: int) -> Cache:
        """A cache that has read nothing; row b will be padded up to slot `start_B[b]`."""

        def blank() -> tuple[jax.Array, ...]:
            return tuple(jnp.zeros((len(start_B), c.groups, slots, c.head_width), c.dtype) for _ in range(c.layers))

        # Made twice, not shared: whoever donates a cache must own each of its arrays.
        return cls(keys=blank(), values=blank(), start_B=jnp.asarray(start_B, jnp.int32), filled=0)

    @property
    def is_empty(self) -> bool:
        """Whether it is known, while a program is traced, that nothing was read."""
        return isinstance(self.filled, int) and not self.filled

    def rows(self, index_R: jax.Array) -> Cache:
        """Copies of some rows, in that order, so that several texts can go on from one that was read once."""
        pick = lambda arrays: tuple(array[index_R] for array in arrays)  # noqa: E731
        return self.replace(keys=pick(self.keys), values=pick(self.values), start_B=self.start_B[index_R])

    def written(self, depth: int, k_BxGxLxK: jax.Array, v_BxGxLxK: jax.Array) -> Cache:
        """With the keys and values of L more tokens in block `depth`; `filled` is advanced when all blocks have."""
        keys, values = list(self.keys), list(self.values)
        keys[depth] = jax.lax.dynamic_update_slice_in_dim(keys[depth], k_BxGxLxK, self.filled, axis=2)
        values[depth] = jax.lax.dynamic_update_slice_in_dim(values[depth], v_BxGxLxK, self.filled, axis=2)
        return self.replace(keys=tuple(keys), values=tuple(values))

    def advanced(self, length: int) -> Cache:
        """With `length` more slots in use."""
        return self.replace(filled=self.filled + length)
