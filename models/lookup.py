"""Rows of a table, with a gradient that is the same at every run on a GPU."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def look_up(table_VxD: jax.Array, token_BxL: jax.Array) -> jax.Array:
    """The tokens' rows. Their gradients are added up in float32, in an order of the tokens' own.

    A GPU scatters by atomic additions, in whatever order they come, and takes long where many tokens are alike.
    """
    return table_VxD[token_BxL]


def _forward(table_VxD: jax.Array, token_BxL: jax.Array):
    return table_VxD[token_BxL], (table_VxD, token_BxL)


def _backward(saved: tuple[jax.Array, jax.Array], gradient_BxLxD: jax.Array):
    table_VxD, token_BxL = saved
    rows, width = table_VxD.shape
    order_N = jnp.argsort(token_BxL.ravel(), stable=True)
    token_N = token_BxL.ravel()[order_N]
    gradient_NxD = gradient_BxLxD.reshape(-1, width)[order_N].astype(jnp.float32)

    def add(left: tuple[jax.Array, jax.Array], right: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        # Each is a stretch of sorted tokens: its last, and the sum of the gradients of that one.
        (before_N, sum_NxD), (token_N, more_NxD) = left, right
        return token_N, jnp.where((before_N == token_N)[:, None], sum_NxD, 0) + more_NxD

    _, sum_NxD = jax.lax.associative_scan(add, (token_N, gradient_NxD))
    place_N = jnp.arange(len(token_N))
    last_N = jnp.append(token_N[1:] != token_N[:-1], True)
    # All but a token's last sum fall outside of the table, each at a place of its own.
    row_N = jnp.where(last_N, token_N, rows + place_N)
    none_VxD = jnp.zeros((rows, width), jnp.float32)
    total_VxD = none_VxD.at[row_N].set(sum_NxD, mode="drop", unique_indices=True)
    return total_VxD.astype(table_VxD.dtype), None


look_up.defvjp(_forward, _backward)
