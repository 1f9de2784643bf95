"""Files that one process owns: made where there is none, changed and removed by their owner alone.

On a disk an owner writes into the very file that it made, which a thief replaces by another: what a late owner still
writes is seen by nobody. Thieves of one file exclude each other by a lock on it, which the system releases when they
die. In a bucket the generation that was read is the precondition of every write. No two processes may write the same.
"""

import contextlib
import os
import tempfile
from typing import Any, Protocol

from etils import epath

from ladder import storage

try:
    import fcntl
except ModuleNotFoundError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


class Owned(Protocol):
    """A file of this process's own."""

    def write(self, content: bytes) -> bool:
        """Changes it; False where it is no longer this process's own."""

    def remove(self) -> None:
        """Removes it, unless another has taken it."""


class Seen(Protocol):
    """A file as it was when it was read."""

    content: bytes

    def take(self, content: bytes) -> Owned | None:
        """Makes it this process's own with another content; None where it is no longer as it was read."""


def create(path: epath.Path, content: bytes) -> Owned | None:
    """A new file with this content; None where there is one."""
    if storage.is_remote(path):
        return _Object(path, 0).put(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
    except FileExistsError:
        return None
    own = _File(path, file)
    try:
        own.write(content)
    except OSError:  # a full disk
        own.remove()
        raise
    return own


def read(path: epath.Path) -> Seen | None:
    """A file as it is now; None where there is none."""
    return _Object.read(path) if storage.is_remote(path) else _SeenFile.read(path)


class _File:
    def __init__(self, path: epath.Path, file: int):
        # Open as long as it is owned, so that no other file is given its number.
        self._path, self._file = path, file

    def __del__(self):
        os.close(self._file)

    def write(self, content: bytes) -> bool:
        os.pwrite(self._file, content, 0)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)  # other hosts are to see it
        return _is_at(self._path, self._file)

    def remove(self) -> None:
        with _locked(self._file, wait=True):
            if _is_at(self._path, self._file):
                os.unlink(self._path)


class _SeenFile:
    def __init__(self, path: epath.Path, file: int, content: bytes):
        self._path, self._file, self.content = path, file, content

    def __del__(self):
        os.close(self._file)

    @classmethod
    def read(cls, path: epath.Path) -> "_SeenFile | None":
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        return cls(path, file, os.pread(file, 1 << 16, 0))

    def take(self, content: bytes) -> _File | None:
        with _locked(self._file, wait=False) as locked:
            unchanged = locked and _is_at(self._path, self._file) and os.pread(self._file, 1 << 16, 0) == self.content
            if not unchanged:
                return None
            file, beside = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
            own = _File(self._path, file)
            try:
                own.write(content)
                os.replace(beside, self._path)
            except OSError:
                os.unlink(beside)
                raise
            return own


def _is_at(path: epath.Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(file: int, wait: bool):
    if fcntl is None:
        yield True
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    except OSError:  # a file system without locks
        yield True
        return
    try:
        yield True
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


class _Object:
    """An object of a bucket at one generation; 0 where there was none."""

    def __init__(self, path: epath.Path, generation: int, content: bytes = b""):
        self._path, self._generation, self.content = path, generation, content
        bucket = storage.bucket(path)
        self._place = (bucket, str(path).split(f"://{bucket}/", 1)[1])

    @classmethod
    def read(cls, path: epath.Path) -> "_Object | None":
        own = cls(path, 0)
        try:
            headers, content = _client().call("GET", "b/{}/o/{}", *own._place, alt="media")
        except FileNotFoundError:
            return None
        return cls(path, int(headers["x-goog-generation"]), content)

    def put(self, content: bytes) -> "_Object | None":
        client, (bucket, name) = _client(), self._place
        try:
            made = client.call(
                "POST",
                f"{client._location}/upload/storage/v1/b/{{}}/o",
                bucket,
                uploadType="media",
                name=name,
                ifGenerationMatch=str(self._generation),
                data=content,
                json_out=True,
            )
        except FileExistsError:  # the precondition: another's, or our own whose answer was lost on its way
            seen = self.read(self._path)
            return seen if seen and seen.content == content else None
        return _Object(self._path, int(made["generation"]), content)

    take = put

    def write(self, content: bytes) -> bool:
        if (made := self.put(content)) is None:
            return False
        self._generation = made._generation
        return True

    def remove(self) -> None:
        with contextlib.suppress(FileExistsError, FileNotFoundError):  # another's by now
            _client().call("DELETE", "b/{}/o/{}", *self._place, ifGenerationMatch=str(self._generation))


def _client() -> Any:
    import fsspec

    return fsspec.filesystem("gs")
