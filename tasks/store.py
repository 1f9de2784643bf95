"""Records on disk: a folder of .npy shards, each [r, T], read by index, from a disk or a bucket. NumPy, no TensorFlow.

    origin.json             what the records are made of; written first
    00000-of-00012.npy ...  written beside and renamed, so that one that is there is whole
    records.json            how many records each shard holds; written last, when all shards are there

Whoever is killed in between goes on with the shards that are missing, and the bytes are those of a run without a kill.
"""

import contextlib
import io
import json
import mmap
import os
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
from etils import epath

ORIGIN, RECORDS = "origin.json", "records.json"
FILES = "files"  # of an origin: by name, what is known of the content of each
HEADER_BYTES = 128  # of a .npy file of format 1.0 with two axes
REQUESTS_AT_ONCE = 32


def shard(folder: os.PathLike | str, index: int, shards: int) -> epath.Path:
    """The path of one shard."""
    return epath.Path(folder) / f"{index:05d}-of-{shards:05d}.npy"


def begin(
    folder: os.PathLike | str, origin: Mapping[str, Any], *, anew: bool = False, of_late: Collection[str] = ()
) -> None:
    """Claims a folder for records of this origin, new or begun before.

    Args:
      folder: local or gs://.
      origin: what the records are made of, as JSON has it.
      anew: empties a folder of another origin, or of finished records, whose text may have changed since.
      of_late: keys that folders of before do not tell, and are not compared with where none of them is there.

    Raises:
      ValueError: the folder was begun with another origin.
    """
    path = epath.Path(folder) / ORIGIN
    ours = json.loads(json.dumps(origin))
    if anew and path.exists() and (is_finished(folder) or json.loads(path.read_text()) != ours):
        path.parent.rmtree()
    if not path.exists():
        with replaced(path) as file:
            file.write((json.dumps(ours, indent=2) + "\n").encode())
        return
    theirs = json.loads(path.read_text())
    if theirs.keys().isdisjoint(of_late):
        ours = {key: value for key, value in ours.items() if key not in of_late}
    if told := differences(theirs, ours):
        raise ValueError(f"{folder} holds other records: {'; '.join(told)}; name another folder or remove this one")


def origin(folder: os.PathLike | str) -> dict[str, Any]:
    """What a folder's records are made of; nothing where it does not tell."""
    try:
        return json.loads(_read(f"{os.fspath(folder)}/{ORIGIN}"))
    except FileNotFoundError:
        return {}


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Says in which keys two origins differ and how; of files by name, which are new, missing or changed."""
    told = []
    for key in {**theirs, **ours}:
        there, here = theirs.get(key), ours.get(key)
        if key == FILES and there and here and there != here:
            changed = [name for name in there.keys() & here.keys() if there[name] != here[name]]
            for what, names in (("new", here.keys() - there), ("missing", there.keys() - here), ("changed", changed)):
                if names:
                    some = ", ".join(sorted(names)[:3])
                    told.append(f"{some}{f' and {len(names) - 3:,} more' if len(names) > 3 else ''}: {what}")
        elif there != here:
            told.append(f"{key} is {_short(there)} there and {_short(here)} here")
    return told


def finish(folder: os.PathLike | str, paths: Sequence[epath.Path]) -> "Records":
    """Writes records.json of these shards, which are all there, and opens it."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        shapes = list(pool.map(_shape_and_dtype, paths))
    (width,), (dtype,) = {shape[1] for shape, _ in shapes}, {dtype for _, dtype in shapes}
    listed = {path.name: shape[0] for path, (shape, _) in zip(paths, shapes, strict=True)}
    content = {"tokens_per_record": width, "dtype": str(dtype), "shards": listed}
    with replaced(epath.Path(folder) / RECORDS) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())
    for litter in epath.Path(folder).glob(".*.tmp"):
        litter.unlink(missing_ok=True)
    return Records(folder)


def is_finished(folder: os.PathLike | str) -> bool:
    """Whether all shards are there."""
    return (epath.Path(folder) / RECORDS).exists()


def write(folder: os.PathLike | str, record_RxT: np.ndarray) -> "Records":
    """Writes records that are in memory, as one shard."""
    path = shard(folder, 0, 1)
    with replaced(path) as file:
        write_header(file, len(record_RxT), record_RxT.shape[1], record_RxT.dtype)
        file.write(np.ascontiguousarray(record_RxT).tobytes())
    return finish(folder, [path])


def write_header(file: IO[bytes], records: int, width: int, dtype: np.dtype) -> None:
    """Writes a shard's header at the start of the file, as long whatever the number of records."""
    file.seek(0)
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    # NumPy pads it so that the first axis may grow in place.
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": (records, width)})
    if file.tell() != HEADER_BYTES:
        raise AssertionError(f"NumPy wrote a header of {file.tell()} bytes, not {HEADER_BYTES}")


def records_in(path: epath.Path) -> int:
    """How many records a shard holds."""
    return _shape_and_dtype(path)[0][0]


@contextlib.contextmanager
def replaced(path: os.PathLike | str) -> Iterator[IO[bytes]]:
    """Opens a seekable file that becomes `path` only when all is written, in a bucket as on a disk."""
    target = epath.Path(path)
    if _is_remote(path):
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            epath.Path(file.name).copy(target, overwrite=True)  # an object appears when it is whole
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(beside, "wb") as file:
            yield file
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


class Records:
    """Records by index; a local folder's shards are mapped, of a bucket's only the records asked for are fetched.

    Args:
      folder: local, or any that fsspec knows, such as gs://.

    Raises:
      ValueError: the folder holds no finished records.
    """

    def __init__(self, folder: os.PathLike | str):
        self._folder = os.fspath(folder)
        self._remote: Any = _bucket(self._folder)[0] if _is_remote(folder) else None
        try:
            content = json.loads(_read(f"{self._folder}/{RECORDS}"))
        except FileNotFoundError:
            raise ValueError(f"{folder} holds no finished records; write them with `ladder cache`") from None
        self.width: int = content["tokens_per_record"]
        self.dtype = np.dtype(content["dtype"])
        self._names = list(content["shards"])
        count_S = np.array(list(content["shards"].values()))
        self._end_S = np.cumsum(count_S)
        self._start_S = self._end_S - count_S
        # A name ends with how many shards there are in all.
        self.is_whole = len(self._names) == int(self._names[0].rpartition("-")[2].removesuffix(".npy"))
        self._mapped: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return int(self._end_S[-1])

    def __getitem__(self, index_B: np.ndarray) -> np.ndarray:
        """record_BxT of these indices, in the folder's smallest integer type."""
        shard_B = np.searchsorted(self._end_S, index_B, side="right")
        row_B = index_B - self._start_S[shard_B]
        if self._remote is not None:
            return self._fetch(shard_B, row_B)
        record_BxT = np.empty((len(index_B), self.width), self.dtype)
        for number in set(shard_B.tolist()):
            if number not in self._mapped:
                self._mapped[number] = self._map(os.path.join(self._folder, self._names[number]))
            here_B = shard_B == number
            record_BxT[here_B] = self._mapped[number][row_B[here_B]]
        return record_BxT

    def _map(self, path: str) -> np.ndarray:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # Else the system reads a hundred times as much for each record, thinking that its neighbours come next.
        mapped.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(mapped, self.dtype, offset=HEADER_BYTES).reshape(-1, self.width)

    def _fetch(self, shard_B: np.ndarray, row_B: np.ndarray) -> np.ndarray:
        size = self.width * self.dtype.itemsize
        start_B = HEADER_BYTES + row_B * size
        paths = [f"{self._folder}/{self._names[number]}" for number in shard_B.tolist()]
        fetched = self._remote.cat_ranges(paths, start_B.tolist(), (start_B + size).tolist(), on_error="raise")
        return np.frombuffer(b"".join(fetched), self.dtype).reshape(-1, self.width)


def _is_remote(path: os.PathLike | str) -> bool:
    return "://" in str(path)


def _bucket(path: str) -> tuple[Any, str]:
    import fsspec  # not where laws alone are fitted

    return fsspec.core.url_to_fs(path)


def _read(path: str, end: int | None = None) -> bytes:
    if _is_remote(path):
        bucket, inner = _bucket(path)
        return bucket.cat_file(inner, end=end)
    with open(path, "rb") as file:
        return file.read(-1 if end is None else end)


def _shape_and_dtype(path: epath.Path) -> tuple[tuple[int, ...], np.dtype]:
    header = io.BytesIO(_read(os.fspath(path), HEADER_BYTES))
    np.lib.format.read_magic(header)
    shape, _, dtype = np.lib.format.read_array_header_1_0(header)
    return shape, dtype


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
