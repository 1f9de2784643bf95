"""Notice that this machine will be taken away: SIGTERM, which a run answers by saving at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from ladder.training import hosts

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again


class Preempted(SystemExit):
    """This process was told to stop and leaves with `EXIT_CODE`; `train` raises it when its run is saved."""

    def __init__(self):
        super().__init__(EXIT_CODE)

    def __str__(self) -> str:
        return "told to stop; the same command goes on"


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Has SIGTERM raise Preempted, where no `Notice` listens; where there are many processes, JAX listens in each."""
    if hosts.are_many() or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Preempted


class Notice:
    """Whether a run is to save and leave; a context manager that listens for SIGTERM.

    Where a run has many processes, JAX listens in each, and lets all of them leave after the same step.
    """

    def __init__(self):
        import jax  # not above: a worker must own its cores before JAX starts its threads
        from jax.experimental import multihost_utils

        self._given = False
        self._before = None
        self._many = multihost_utils if jax.process_count() > 1 else None

    def __enter__(self) -> "Notice":
        if not self._many and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._give)
        return self

    def __exit__(self, *exception):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def given(self, step: int) -> bool:
        """Whether this is the step to leave after; to be asked after every step."""
        return self._many.reached_preemption_sync_point(step) if self._many else self._given

    def _give(self, number: int, frame: FrameType | None) -> None:
        self._given = True
