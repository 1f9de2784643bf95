"""Checkpoints of one run through orbax: committed whole, the last two kept, each proven on its way back.

Kept too are those from which branches begin: when the last of them has is known to none who may delete here.
"""

import itertools
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.checkpoint_managers import preservation_policy as policy

from ladder import storage
from ladder.training import hosts

# How a storage that is down, slow or closed to us fails, in gRPC's names: its checkpoints are not damaged.
OUTAGES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "ABORTED")


class Damaged(ValueError):
    """A checkpoint cannot be read, or holds other numbers than were saved."""


class Checkpoints:
    """The checkpoints in one folder, local or gs://; a context manager that waits for the last write when it closes.

    Where a run has many processes, all of them call every method. Those after `kept` steps are never deleted.
    """

    def __init__(self, folder: epath.Path, kept: Sequence[int] = ()):
        self._folder = folder if storage.is_remote(folder) else folder.absolute()  # as orbax wants it
        policies = [policy.LatestN(2), policy.CustomSteps(kept)]
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policy.AnyPreservationPolicy(policies),
                create=True,
                enable_async_checkpointing=True,
            ),
        )

    def __enter__(self) -> "Checkpoints":
        # Where one array cannot be read, orbax closes its event loop, and the reads of all others complain of that.
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *exception):
        self._manager.close()
        sys.unraisablehook = self._hook

    def latest_step(self) -> int | None:
        """Steps done by the newest committed checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts to write the state after `step` steps; the copy to host is done on return, the write goes on."""
        proven = {"state": state, "fingerprint": fingerprint(state)}
        self._manager.save(step, args=ocp.args.StandardSave(proven))

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state after `step` steps: see `restore`."""
        return restore(self._folder, step, abstract_state)

    def restore_newest(self, abstract_state: Any) -> tuple[int, Any]:
        """The newest state that is undamaged, and its step; (0, None) where there is none.

        Damaged ones that are newer are warned about and moved aside, because the run comes by their steps again; none
        before another one is restored, and none is ever deleted.
        """
        damaged: dict[int, Damaged] = {}
        step, state = 0, None
        for candidate in sorted(self._manager.all_steps(), reverse=True):
            try:
                step, state = candidate, self.restore(candidate, abstract_state)
                break
            except Damaged as e:
                damaged[candidate] = e
        for candidate, error in damaged.items():
            aside = self._move_aside(candidate)
            where = f"going on from step {step}" if step else "starting again, for there is no other"
            warnings.warn(f"{error}; {where}; the damaged one is kept as {aside.name}", stacklevel=2)
        if damaged:
            self._manager.reload()
        return step, state

    def _move_aside(self, step: int) -> epath.Path:
        names = (f"{step}.damaged{number}" for number in itertools.chain([""], itertools.count(2)))
        aside = next(self._folder / name for name in names if not (self._folder / name).exists())
        hosts.wait(f"{aside} is named")
        if hosts.is_first():
            (self._folder / str(step)).rename(aside)
        hosts.wait(f"{aside} is there")
        return aside

    def _unraisable(self, told: Any) -> None:
        if str(told.exc_value) != "Event loop is closed":
            self._hook(told)


def restore(folder: epath.Path, step: int, abstract_state: Any) -> Any:
    """The state after `step` steps, with the shapes and shardings of `abstract_state`, whatever mesh saved it.

    A checkpoint from before there were fingerprints is warned about and taken as it is.

    Raises:
      Damaged: if it is not, bit for bit, what was saved.
    """
    path = (folder if storage.is_remote(folder) else folder.absolute()) / str(step)
    # Past the manager: there a process that cannot read would leave the others waiting for it.
    handler, item = ocp.StandardCheckpointHandler(), path / "default"
    with_fingerprint = {
        "state": abstract_state,
        "fingerprint": np.zeros(len(jax.tree.leaves(abstract_state)), np.uint32),
    }
    restored: Any = None
    read_error, proven = None, True
    try:
        proven = not with_fingerprint.keys().isdisjoint(handler.metadata(item).tree)
        wanted = with_fingerprint if proven else abstract_state
        restored = handler.restore(item, args=ocp.args.StandardRestore(wanted))
    except Exception as e:
        if isinstance(e, PermissionError | ConnectionError | TimeoutError) or any(o in str(e) for o in OUTAGES):
            raise
        read_error = e
    if not multihost_utils.process_allgather(np.asarray(read_error is None)).all():
        raise Damaged(f"{path} is damaged and cannot be read") from read_error
    if not proven:
        warnings.warn(f"{path} has no fingerprint; whether it is what was saved cannot be told", stacklevel=2)
        return restored
    if not np.array_equal(restored["fingerprint"], fingerprint(restored["state"])):
        raise Damaged(f"{path} is damaged: it holds other numbers than were saved")
    return restored["state"]


def fingerprint(state: Any) -> np.ndarray:
    """One uint32 a leaf, over all its bits and where they stand; the same wherever the leaf is and however sharded.

    A change of any one element always changes it. The words are mixed as MurmurHash3 finishes its own, and added up.
    """
    leaves = jax.tree.leaves(state)
    return np.array(jax.device_get([_fingerprint(np.asarray(x)) if _on_host(x) else _jit(x) for x in leaves]))


def _fingerprint(leaf: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
    leaf = leaf.reshape(leaf.shape or 1)
    place, stride = np.zeros(1, np.uint32), 1
    for axis in reversed(range(leaf.ndim)):
        along = np.arange(leaf.shape[axis], dtype=np.uint32) * np.uint32(stride % 2**32)
        place = place + along.reshape(-1, *(1,) * (leaf.ndim - 1 - axis))
        stride *= leaf.shape[axis]
    word = leaf.view(f"uint{8 * leaf.dtype.itemsize}").astype("uint32") ^ (place * np.uint32(0x9E3779B1))
    word = (word ^ (word >> 16)) * np.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * np.uint32(0xC2B2AE35)
    return (word ^ (word >> 16)).sum(dtype=np.uint32)


_jit = jax.jit(_fingerprint)


def _on_host(leaf: jax.Array) -> bool:
    # Where a CPU holds all of it, NumPy has nothing to compile and nothing to copy.
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())
