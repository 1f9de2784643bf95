"""Many processes, one a host, that carry out the same command together; one of them writes."""

import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Mapping

DAY_SECONDS = 86_400
LATE_SECONDS = 30
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
    elif importlib.util.find_spec("libtpu") and environment.get("JAX_PLATFORMS") != "cpu":
        try:
            jax.distributed.initialize()
        except ValueError:
            return  # no TPU here, or none that tells of others


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
