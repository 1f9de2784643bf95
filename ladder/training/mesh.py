"""The device mesh, and the one table from logical axes to mesh axes."""

from collections.abc import Callable, Sequence
from typing import cast

import jax
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from ladder import config

AXES = ("data", "fsdp", "tensor")

# Logical axis of a parameter or an activation → mesh axes that split it.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("ffn", "tensor"),
    ("layers", None),
    ("norm", None),
)


def of(mesh: config.Mesh, devices: Sequence[jax.Device] = ()) -> Mesh:
    """The mesh that a config asks for, over `devices` or all that there are; see `make`."""
    return make((mesh.data, mesh.fsdp, mesh.tensor), devices, mesh.slices)


def make(
    shape: tuple[int | None, int, int] = (None, 1, 1), devices: Sequence[jax.Device] = (), slices: int = 1
) -> Mesh:
    """A mesh over all devices, neighbours in it being neighbours on a TPU's torus.

    Args:
      shape: devices along `AXES`; None as the first takes all that the others leave.
      devices: those to use; all that JAX sees where none are given.
      slices: of TPUs, joined by the data-centre network alone: they split the data axis.

    Raises:
      ValueError: if the shape does not multiply to the number of devices, or cannot be laid over their torus.
    """
    devices = list(devices) or jax.devices()
    data, fsdp, tensor = shape
    data = data or max(1, len(devices) // (fsdp * tensor))
    if data * fsdp * tensor != len(devices):
        named = dict(zip(AXES, (data, fsdp, tensor), strict=True))
        raise ValueError(f"mesh {named} needs {data * fsdp * tensor} devices, there are {len(devices)}")
    if data % slices:
        raise ValueError(f"{slices} slices cannot share a data axis of {data}; make it a multiple of the slices")
    inner = (data // slices, fsdp, tensor)
    try:
        if slices > 1 and hasattr(devices[0], "slice_index"):  # simulated devices are of no slice
            array = mesh_utils.create_hybrid_device_mesh(inner, (slices, 1, 1), devices)
        else:
            array = mesh_utils.create_device_mesh((data, fsdp, tensor), devices)
    except NotImplementedError as e:
        raise ValueError(
            f"mesh {inner} does not fit the torus: each axis must be a product of whole physical axes"
        ) from e
    return Mesh(array, AXES)


def sharding_of(abstract_tree, mesh: Mesh | AbstractMesh):
    """NamedShardings of a tree of boxed parameters, by `RULES`."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract_tree), cast(Mesh, mesh), RULES)


def constrain(mesh: Mesh, x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """Lays an activation over the devices by `RULES`."""
    return jax.lax.with_sharding_constraint(x, nn.logical_to_mesh_sharding(PartitionSpec(*axes), mesh, RULES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def per_device(mesh: Mesh, attend: Callable[..., jax.Array], split: bool = True) -> Callable[..., jax.Array]:
    """A kernel of (B, H, L, K) arrays, run by each device on the rows and heads that it has; on all unless `split`."""
    spec = PartitionSpec(("data", "fsdp"), "tensor") if split else PartitionSpec()
    return jax.shard_map(attend, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


def per_device_rows(mesh: Mesh, look_up: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A look-up of token_BxL in a table, run by each device in the whole table for the rows that it has."""
    rows = PartitionSpec(("data", "fsdp"))
    return jax.shard_map(look_up, mesh=mesh, in_specs=(PartitionSpec(), rows), out_specs=rows, check_vma=False)


def shares(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts, side by side, the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def refuse_ragged(batch_size: int, mesh: Mesh | AbstractMesh, run: str, parts: int = 1) -> None:
    """Raises a ValueError if a batch, accumulated in `parts`, does not split evenly over the mesh."""
    if batch_size % (shares(mesh) * parts):
        in_parts = f" in {parts} parts" if parts > 1 else ""
        raise ValueError(
            f"{run}: a batch of {batch_size} sequences does not split over {shares(mesh)} devices{in_parts}"
        )


def refuse_split_heads(groups: int, mesh: Mesh | AbstractMesh, run: str) -> None:
    """Raises a ValueError if the heads of attention do not split over the mesh, as its kernels need."""
    if groups % mesh.shape["tensor"]:
        raise ValueError(
            f"{run}: {groups} heads do not split over tensor={mesh.shape['tensor']}; "
            "make training.mesh.tensor a divisor"
        )


def refuse_uneven(abstract_tree, sharding, run: str) -> None:
    """Raises a ValueError if an array of a tree does not split evenly over the mesh axes that its sharding names."""
    leaves = zip(jax.tree_util.tree_leaves_with_path(abstract_tree), jax.tree.leaves(sharding), strict=True)
    for (path, leaf), s in leaves:
        for size, axis in zip(leaf.shape, s.spec, strict=False):
            if axis is not None and size % s.mesh.shape[axis]:
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                raise ValueError(
                    f"{run}: {name} {leaf.shape} does not split over {axis}={s.mesh.shape[axis]}; "
                    f"make training.mesh.{axis} a divisor of {size}"
                )
