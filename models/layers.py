"""The two layouts of a decoder's parameters: a tree a block, or all blocks stacked in one, for a scan over them.

What lies on disk and what evaluation, generation and conversion are given is a tree a block; only the training step
works on stacks, and changes layouts when it loads and saves.
"""

import operator
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

AXIS = "layers"


def stacked(tree: Any) -> Any:
    """`tree` with `block_0`, `block_1`, … of every decoder in it, such as in its moments, stacked as `blocks`.

    Leaves may be boxed; stacks have a first logical axis `layers`.
    """

    def stack(node: Any) -> Any:
        if not _has(node, "block_0"):
            return node
        names = sorted((name for name in node if re.fullmatch(r"block_\d+", name)), key=lambda name: int(name[6:]))
        blocks = jax.tree.map(_stack, *(node[name] for name in names), is_leaf=_is_boxed)
        return {name: leaf for name, leaf in node.items() if name not in names} | {"blocks": blocks}

    return jax.tree.map(stack, tree, is_leaf=lambda node: _has(node, "block_0"))


def unstacked(tree: Any) -> Any:
    """What `stacked` was given."""

    def unstack(node: Any) -> Any:
        if not _has(node, "blocks"):
            return node
        rest = {name: leaf for name, leaf in node.items() if name != "blocks"}
        layers = len(jax.tree.leaves(node["blocks"])[0])
        return rest | {f"block_{i}": jax.tree.map(operator.itemgetter(i), node["blocks"]) for i in range(layers)}

    return jax.tree.map(unstack, tree, is_leaf=lambda node: _has(node, "blocks"))


def _has(node: Any, name: str) -> bool:
    return isinstance(node, Mapping) and name in node


def _is_boxed(leaf: Any) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


def _stack(*leaves: Any) -> Any:
    if _is_boxed(leaves[0]):
        return leaves[0].replace(value=jnp.stack([leaf.value for leaf in leaves]), names=(AXIS, *leaves[0].names))
    return jnp.stack(leaves)
