"""How a decoder is computed, which changes nothing of what it computes beyond rounding."""

import dataclasses
from collections.abc import Callable

import jax

Axes = tuple[str | None, ...]

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


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the blocks of a decoder are computed.

    Attributes:
      attend: (q_BxHxLxK, k_BxGxLxK, v_BxGxLxK) → mixed_BxHxLxK, causal softmax attention of scaled queries, used where
        nothing is cached; None writes the softmax out.
      shard: (array, logical axes) → the same array, laid over the devices as those axes are.
      remat: a name of `REMAT`.
    """

    attend: Callable[[jax.Array, jax.Array, jax.Array], jax.Array] | None = None
    shard: Callable[[jax.Array, Axes], jax.Array] = as_it_is
    remat: str = "none"

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
