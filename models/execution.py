"""How a decoder is computed, which changes nothing of what it computes beyond rounding."""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax

Axes = tuple[str | None, ...]
Platform = Literal["cpu", "gpu", "tpu"]

# Named policies of rematerialisation: what a block keeps for its gradient besides its input, None being everything.
# `attended` is the residual stream between attention and feed-forward; `mixed` is what attention gives, with the
# normaliser of its softmax, so that no gradient need run the kernel again.
REMAT: dict[str, tuple[str, ...] | None] = {
    "none": None,
    "full": (),
    "attended": ("attended",),
    "mixed": ("mixed",),
    "mixed+attended": ("mixed", "attended"),
}


def as_it_is(x: jax.Array, axes: Axes) -> jax.Array:
    """Leaves the sharding of an array to the compiler."""
    del axes
    return x


def looked_up(table_VxD: jax.Array, token_BxL: jax.Array) -> jax.Array:
    """The rows of a table, in the compiler's own way."""
    return table_VxD[token_BxL]


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the blocks of a decoder are computed.

    Attributes:
      attend: (q_BxHxLxK, k_BxGxLxK, v_BxGxLxK) → mixed_BxHxLxK, causal softmax attention of scaled queries, used where
        nothing was cached before; None writes the softmax out.
      length_multiple: tokens; sequences of no multiple of it have their softmax written out all the same.
      look_up: (table_VxD, token_BxL) → the tokens' rows of the table.
      shard: (array, logical axes) → the same array, laid over the devices as those axes are.
      remat: a name of `REMAT`.
      platform: what it is computed on, as JAX names it; what one compiler needs, others do not pay for.
    """

    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
    length_multiple: int = 1
    look_up: Callable[[jax.Array, jax.Array], jax.Array] = looked_up
    shard: Callable[[jax.Array, Axes], jax.Array] = as_it_is
    remat: str = "none"
    platform: Platform = "cpu"

    def __post_init__(self):
        if self.remat not in REMAT:
            raise ValueError(f"no remat policy is named {self.remat!r}; there are {', '.join(REMAT)}")

    @property
    def saved(self) -> Callable[..., bool] | None:
        """The policy, as `jax.checkpoint` takes it; None where nothing is computed anew."""
        names = REMAT[self.remat]
        # The norms' statistics, a number or two a token, are always kept: each spares a pass over an activation.
        return None if names is None else jax.checkpoint_policies.save_only_these_names("statistics", *names)


HERE = Execution()
