"""How a decoder is computed on the devices of a mesh: by which attention, and with what its platform needs."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from ladder.config import Attention
from ladder.training import mesh as meshes
from models import cudnn
from models.config import DecoderConfig
from models.execution import Execution, looked_up
from models.lookup import look_up


def attention(asked: Attention, c: DecoderConfig, mesh: Mesh, run: str = "", length: int | None = None) -> Attention:
    """What attends: the attention that is asked for, or by `auto` the fastest that its machine has.

    That is splash on TPUs and cuDNN's on NVIDIA's GPUs, where heads split over the mesh and the kernel takes the
    decoder and, where one is given, the length of its sequences; elsewhere the softmax is written out.

    Raises:
      ValueError: if a kernel is asked for that this machine has not, or that does not take the decoder.
    """
    device, whole_heads = mesh.devices.flat[0], c.groups % mesh.shape["tensor"] == 0
    fastest: Attention = "plain"
    if device.platform == "tpu":
        from models import splash  # and with it Pallas, which others do without

        fastest = "plain" if length and length % splash.LANES else "splash"
    elif cudnn.takes(c, device):
        fastest = "cudnn"
    if asked == "auto":
        return fastest if whole_heads else "plain"
    if asked not in ("plain", fastest):
        what = f"{c.dtype}, heads of {c.head_width} and sequences of {length} tokens on {device.device_kind}"
        raise ValueError(f"{run}: training.attention={asked} is not for {what}; set it to auto")
    if asked != "plain":
        meshes.refuse_split_heads(c.groups, mesh, run)
    return asked


def on(mesh: Mesh, taken: str, *, split_rows: bool = True, **more: Any) -> Execution:
    """The execution of a decoder on a mesh.

    Args:
      mesh: of the devices.
      taken: what `attention` says.
      split_rows: whether the rows of a batch are split over the mesh; each device has all of them where they are not.
      more: of `Execution`.
    """
    platform = mesh.devices.flat[0].platform
    attend: Callable[..., jax.Array] | None = None
    if taken == "splash":
        from models import splash

        attend, more["length_multiple"] = splash.attend, splash.LANES
    elif taken == "cudnn":
        attend = cudnn.attend
    return Execution(
        attend=attend and meshes.per_device(mesh, attend, split_rows),
        look_up=meshes.per_device_rows(mesh, look_up) if platform == "gpu" and split_rows else looked_up,
        platform=platform,
        **more,
    )
