"""What makes the verbs of a law answer at once: programs compiled once for all, and no time spent on garbage."""

import contextlib
import functools
import gc
import hashlib
import os
import pathlib
import platform
import re
import time
import typing
import warnings
from collections.abc import Callable, Mapping

from ladder import storage

Arguments = typing.ParamSpec("Arguments")
_BYTES = 64 * 2**20  # a fit's program has 0.1 MiB
_TORN_AFTER_S = 60


def quick(verb: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """A verb that takes programs compiled before, by this or another command, and leaves those that it compiles.

    They lie in `xla` in the cache folder, for one kind of processor each, the least used removed beyond 64 MiB. JAX
    guards the folder by a lock. JAX_ENABLE_COMPILATION_CACHE=false does without, JAX_COMPILATION_CACHE_DIR has its own.
    """

    @functools.wraps(verb)
    def answered(*arguments: Arguments.args, **options: Arguments.kwargs) -> None:
        gc.set_threshold(50_000)  # a command of seconds leaves few cycles, and finding none of them takes a fifth of it
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ and not storage.is_remote(storage.cache()):
            os.environ |= _settings(pathlib.Path(storage.cache()) / "xla" / _processor())
        # A folder that cannot be read or written costs time and nothing else.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache")
        verb(*arguments, **options)

    return answered


def _settings(folder: pathlib.Path) -> Mapping[str, str]:
    """JAX's settings of the cache in a folder; an entry that a command was killed over is removed first."""
    for entry in folder.glob("*-cache"):
        whole = entry.with_name(entry.name.removesuffix("-cache") + "-atime")  # which is written after it
        with contextlib.suppress(FileNotFoundError):  # another command may remove it first
            if not whole.exists() and entry.stat().st_mtime < time.time() - _TORN_AFTER_S:
                entry.unlink()
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(_BYTES),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def _processor() -> str:
    """The kind of processor that programs are compiled for: home folders are shared by machines of several kinds."""
    found = pathlib.Path("/proc/cpuinfo")
    features = re.search(r"^(?:flags|Features)\s*:(.*)$", found.read_text() if found.exists() else "", re.MULTILINE)
    kind = f"{platform.machine()} {features[1] if features else platform.processor()}"
    return hashlib.sha256(kind.encode()).hexdigest()[:16]
