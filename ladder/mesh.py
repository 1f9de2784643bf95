"""The device mesh, and the one table from logical axes to mesh axes."""

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Logical axis of a parameter or an activation → mesh axes that split it.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("ffn", "tensor"),
    ("norm", None),
)


def make(shape: tuple[int, int, int] | None = None) -> Mesh:
    """A mesh over all devices; without a shape they all split the batch.

    Raises:
      ValueError: if the shape does not multiply to the number of devices.
    """
    devices = jax.devices()
    shape = shape or (len(devices), 1, 1)
    if np.prod(shape) != len(devices):
        raise ValueError(
            f"mesh {dict(zip(AXES, shape, strict=True))} needs {np.prod(shape)} devices, there are {len(devices)}"
        )
    return Mesh(np.asarray(devices).reshape(shape), AXES)


def sharding_of(abstract_tree, mesh: Mesh):
    """NamedShardings of a tree of boxed parameters, by `RULES`."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(abstract_tree), mesh, RULES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def refuse_ragged(batch_size: int, mesh: Mesh, run: str) -> None:
    """Raises a ValueError if a batch does not split evenly over the mesh."""
    shares = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % shares:
        raise ValueError(f"{run}: a batch of {batch_size} sequences does not split over {shares} devices")
