"""Files of a corpus, local or gs://: found, known by content, and drawn in an order that is fair to all of them."""

import dataclasses
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import fsspec
import numpy as np

CHUNK_BYTES = 2**20
HASHED_BYTES = 2**30  # of files that are in no bucket, which knows their digests; a second or two of reading
DIGESTS = ("md5Hash", "crc32c", "ETag", "etag")  # as buckets call what they know of an object's content
AT_ONCE = 16
T = TypeVar("T")
MAGIC = re.compile(r"[*?\[]")


class NoFiles(ValueError):
    """There is no file at a path."""


@dataclasses.dataclass(frozen=True)
class File:
    """A file of a corpus.

    Attributes:
      path: where it is, local or gs://.
      name: its path below the folder that the corpus lies in, which is the same wherever that folder is.
      size_bytes: of the file.
      digest: of its content, as the bucket gives it; "" elsewhere.
    """

    path: str
    name: str
    size_bytes: int
    digest: str = ""

    @property
    def chunks(self) -> int:
        """In how many chunks of 1 MiB or less it is drawn from."""
        return max(1, -(-self.size_bytes // CHUNK_BYTES))


def find(kind: str, path: str) -> list[File]:
    """Gives the files at a path, in the order of their paths.

    Args:
      kind: of the corpus, for the refusal.
      path: a file, a folder (all files below it but hidden ones and those in hidden folders) or a glob.

    Raises:
      NoFiles: there is none.
    """
    fs, inside = fsspec.core.url_to_fs(path)
    if fs.isfile(inside):  # whatever its name: it may hold [ ], * or ?
        root, listed = os.path.dirname(inside), {inside: fs.info(inside)}
    elif fs.isdir(inside):
        root, listed = inside, fs.find(inside, detail=True)
    else:
        root, listed = os.path.dirname(inside[: _first_magic(inside)] + "x"), fs.glob(inside, detail=True)
        listed = {name: info for name, info in listed.items() if info["type"] != "directory"}
    shows_hidden = fs.isfile(inside) or "/." in inside.removeprefix(root)
    bucket = path[: path.index("://") + 3] if "://" in path else ""
    found = []
    for full_name, info in sorted(listed.items()):
        name = full_name.removeprefix(root).lstrip("/")
        if shows_hidden or not any(step.startswith(".") for step in name.split("/")):
            digest = next((str(info[key]) for key in DIGESTS if info.get(key)), "")
            found.append(File(bucket + full_name, name, info["size"] or 0, digest))
    if not found:
        raise NoFiles(f"corpus {kind!r}: no file at {path!r}; give a file, a folder or a glob that exists")
    return found


def parted(things: Iterable[T], size_bytes: Callable[[T], int], least_bytes: float) -> list[list[T]]:
    """Parts these in their order, so that each part but the last has so many bytes or more; at least one part."""
    parts: list[list[T]] = [[]]
    part_bytes = 0
    for thing in things:
        if part_bytes >= least_bytes:
            parts.append([])
            part_bytes = 0
        parts[-1].append(thing)
        part_bytes += size_bytes(thing)
    return parts


def opened(file: File) -> io.BufferedReader:
    """Opens a file to read; a chunk costs one request of a bucket, not the five times as much that is usual."""
    fs, inside = fsspec.core.url_to_fs(file.path)
    return fs.open(inside, "rb", block_size=CHUNK_BYTES)


def content(kind: str, path: str, validation: Mapping[str, str] | None = None) -> dict[str, str]:
    """Says of each file of a corpus, by name, how large it is, and what it holds where that costs little.

    A bucket's files have its own digests, local ones a sha256 where those at one path are 1 GiB or less together.

    Args:
      kind: of the corpus.
      path: of it.
      validation: further sets, name to path, whose texts are left out of the corpus.

    Raises:
      NoFiles: there is none at one of the paths.
    """
    paths = {"": path} | {f"{name}: ": own for name, own in (validation or {}).items()}
    return {prefix + file: told for prefix, own in paths.items() for file, told in _content(find(kind, own)).items()}


def _content(files: Sequence[File]) -> dict[str, str]:
    if any(file.digest for file in files) or sum(file.size_bytes for file in files) > HASHED_BYTES:
        digests = [file.digest for file in files]
    else:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            digests = list(pool.map(_sha256, files))
    return {
        file.name: f"{file.size_bytes} bytes" + (f", {digest}" if digest else "")
        for file, digest in zip(files, digests, strict=True)
    }


def drawn(files: Sequence[File], seed: int, from_the_front: Callable[[File], bool]) -> tuple[np.ndarray, np.ndarray]:
    """Gives every chunk of every file once, in the order of a hash of the seed, the file's name and the chunk's number.

    So any number of the first are a fair sample of all, and more of them begin with the same.

    Args:
      files: to draw from.
      seed: of the order.
      from_the_front: whether a file can be read from its front only; its chunks then come in their own order, at the
        places that the hash gives to all of them.

    Returns:
      file_C and chunk_C: of each chunk, which file it is of and its number there.
    """
    keys = []
    for file in files:
        key_c = np.fromiter((hashed(seed, file.name, chunk) for chunk in range(file.chunks)), np.uint64, file.chunks)
        keys.append(np.sort(key_c) if from_the_front(file) else key_c)
    order_C = np.argsort(np.concatenate(keys), kind="stable")
    file_C = np.repeat(np.arange(len(files)), [file.chunks for file in files])
    chunk_C = np.concatenate([np.arange(file.chunks) for file in files])
    return file_C[order_C], chunk_C[order_C]


def hashed(seed: int, name: str, number: int) -> int:
    """A number of 64 bits that depends on nothing else."""
    told = f"{number} {name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8, key=seed.to_bytes(8)).digest())


def _first_magic(path: str) -> int:
    return found.start() if (found := MAGIC.search(path)) else len(path)


def _sha256(file: File) -> str:
    with opened(file) as content:
        return f"sha256 {hashlib.file_digest(content, 'sha256').hexdigest()}"
