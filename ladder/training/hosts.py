"""Many processes, one a host, that carry out the same command together; one of them writes."""

import contextlib
import importlib.util
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

DAY_SECONDS = 86_400
LATE_SECONDS = 30
LISTEN_SECONDS = 0.5
LEAVE_SECONDS = 10
FAULT_CODE = 70  # EX_SOFTWARE of sysexits.h
REFUSED, LEFT = "ladder/refused", "ladder/left"  # keys of the coordination service
EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of this command, where the environment tells of any; before JAX is used otherwise.

    Cloud TPU tells by itself, on TPU VMs and on GKE, one slice or many. Elsewhere every process is given
    JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and its JAX_PROCESS_ID.

    Raises:
      ValueError: if only some of the three are there, or they are no numbers.
    """
    import jax

    given = [name for name in EXPLICIT if environment.get(name)]
    if jax.distributed.is_initialized():
        return
    if given:
        if missing := [name for name in EXPLICIT if name not in given]:
            raise ValueError(f"{given[0]} is set and {' and '.join(missing)} not; many hosts need all three")
        address, count, index = (environment[name] for name in EXPLICIT)
        if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
            raise ValueError(f"JAX_PROCESS_ID {index} of JAX_NUM_PROCESSES {count}: count processes from 0")
        with _told_if_late(f"process {index} of {count} waits for the others at {address}: start all {count} of them"):
            jax.distributed.initialize(address, int(count), int(index))
        _listen()
    elif importlib.util.find_spec("libtpu") and environment.get("JAX_PLATFORMS") != "cpu":
        try:
            jax.distributed.initialize()
        except ValueError:
            return  # no TPU here, or none that tells of others
        _listen()


@contextlib.contextmanager
def _told_if_late(line: str) -> Iterator[None]:
    # JAX gives up after five minutes, by ending the process, and does not say who was missing.
    timer = threading.Timer(LATE_SECONDS, print, (line,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def one_end(words: Callable[[Exception], str | None]) -> Iterator[None]:
    """Has all processes end where one refuses: at once, with its line on stderr and one exit code.

    Without it the others would wait for minutes for the one that left, and be aborted. The code is 1 for a refusal,
    which would come again, `FAULT_CODE` for a fault, and an exception's own where it has an `exit_code`.

    Args:
      words: the line that says what an exception refuses; None for a fault, whose traceback is printed here alone.
    """
    try:
        yield
    except Exception as error:
        if not _is_one_of_many():
            raise
        line = words(error)
        code = getattr(error, "exit_code", 1 if line else FAULT_CODE)
        if line is None:
            traceback.print_exc()
            line = f"ladder: process {_state().process_id} failed: {type(error).__name__}"
        try:
            _state().client.key_value_set(REFUSED, f"{code} {line}")
        except RuntimeError as failed:
            if "ALREADY_EXISTS" not in str(failed):  # the first process is gone: nobody can be told
                print(line, file=sys.stderr, flush=True)
                os._exit(code)
        time.sleep(2 * LEAVE_SECONDS)  # in which the listening thread ends this process like all others
        os._exit(code)


def _listen() -> None:
    # A thread of its own, because the others may be anywhere: at a barrier, in a collective, reading for hours.
    if _is_one_of_many():
        threading.Thread(target=_leave_when_one_refuses, args=(_state().client,), daemon=True).start()


def _leave_when_one_refuses(client: Any) -> None:
    while True:
        try:
            refused = client.key_value_try_get(REFUSED)
        except RuntimeError as error:
            if "NOT_FOUND" not in str(error):
                return  # the others are gone, or this process is leaving
            time.sleep(LISTEN_SECONDS)
        else:
            code, _, line = refused.partition(" ")
            _leave(line, int(code))


def _leave(line: str, code: int) -> NoReturn:
    # Not by an exception: the main thread may be anywhere, and JAX's own end waits for processes that are gone.
    print(line, file=sys.stderr, flush=True)
    state = _state()
    with contextlib.suppress(RuntimeError):
        if state.process_id:
            state.client.key_value_set(f"{LEFT}/{state.process_id}", "")
        else:
            _outlast_the_others(state)
    os._exit(code)


def _outlast_the_others(state: Any) -> None:
    # Whoever it leaves behind without its service is aborted.
    deadline = time.monotonic() + LEAVE_SECONDS
    for other in range(1, state.num_processes):
        left_ms = max(1, round(1000 * (deadline - time.monotonic())))
        state.client.blocking_key_value_get(f"{LEFT}/{other}", left_ms)
    time.sleep(LISTEN_SECONDS)


def _is_one_of_many() -> bool:
    return "jax" in sys.modules and _state().client is not None and _state().num_processes > 1


def _state() -> Any:
    # jax.process_index() would start the devices, which waits for the others to start theirs.
    from jax._src import distributed

    return distributed.global_state


def is_first() -> bool:
    """Whether this process is the one that writes."""
    import jax

    # Asked the other way round, JAX would start its devices, which a parent of many runs must not.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def wait(place: str) -> None:
    """Waits, for up to a day, until every process has come to this place; a place has a name of its own."""
    import jax

    if jax.distributed.is_initialized() and jax.process_count() > 1:
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(key=place, timeout_ms=DAY_SECONDS * 1000)


class Word:
    """What the first process says to all others, one text after another; each makes one, with a name of its own."""

    def __init__(self, name: str):
        self._keys = (f"ladder/{name}/{number}" for number in itertools.count())

    def say(self, text: str) -> None:
        """To be called by the first process."""
        if _is_one_of_many():
            _state().client.key_value_set(next(self._keys), text)

    def hear(self) -> str:
        """The next text, for which it waits for up to a day; to be called by all others."""
        return _state().client.blocking_key_value_get(next(self._keys), DAY_SECONDS * 1000)


def are_many() -> bool:
    """Whether several processes carry out this command together."""
    return _is_one_of_many()
