"""Checkpoints of one run through orbax: written beside and renamed, the last two kept."""

from typing import Any

import orbax.checkpoint as ocp
from etils import epath


class Checkpoints:
    """The checkpoints in one folder; a context manager that waits for the last write when it closes."""

    def __init__(self, folder: epath.Path):
        self._manager = ocp.CheckpointManager(
            folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=True)
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception):
        self._manager.close()

    def latest_step(self) -> int | None:
        """Steps done by the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts to write the state after `step` steps; the copy to host is done on return, the write goes on."""
        self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, step: int, abstract_state: Any) -> Any:
        """The state after `step` steps, with the shapes and shardings of `abstract_state`."""
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))
