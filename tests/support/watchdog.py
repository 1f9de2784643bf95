"""Ends a test that hangs, whatever it waits for: a lock of Python's own keeps Python's timers from firing."""

import contextlib
import faulthandler
import sys
from collections.abc import Iterator

SECONDS = 300


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ends this process, with what each thread was doing, if the block does not end."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
