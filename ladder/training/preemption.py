"""Notice that a run is to leave, SIGTERM or Ctrl-C, which it answers by saving at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ladder.training import hosts

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again
_SAVES = b"\nsaving after this step; Ctrl-C once more stops at once, and what is not saved is lost\n"


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
    """Whether a run is to save and leave; a context manager that listens for SIGTERM, and for Ctrl-C once.

    Where a run has many processes, JAX listens in each, and lets all of them leave after the same step.
    """

    def __init__(self):
        import jax  # not above: a worker must own its cores before JAX starts its threads
        from jax.experimental import multihost_utils

        self._given = False
        self._before = dict[signal.Signals, Any]()
        self._many = multihost_utils if jax.process_count() > 1 else None

    def __enter__(self) -> "Notice":
        if not self._many and threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._give)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # workers leave Ctrl-C to their parent
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._give)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def given(self, step: int) -> bool:
        """Whether this is the step to leave after; to be asked after every step."""
        return self._many.reached_preemption_sync_point(step) if self._many else self._given

    def _give(self, number: int, frame: FrameType | None) -> None:
        self._given = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.write(2, _SAVES)  # print may not be entered anew by a signal
