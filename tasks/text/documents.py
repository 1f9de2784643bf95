"""Documents of files, local or gs://: text, JSON Lines, Parquet; in shards, each of which can be read by itself."""

import dataclasses
import functools
import io
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow
import pyarrow.parquet
import seqio
import tensorflow as tf

from tasks.messages import cut
from tasks.text import files, json_lines
from tasks.text.files import File

FEW_FILES = 20
PIECE_BYTES = 16_384
SHARD_BYTES = 2**26
SAMPLE_SHARD_BYTES = 2**23
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
OPEN_FILES = 64
PACKED = 3  # bytes of text to a byte of a packed file, about

Documents = Callable[[], Iterator[bytes]]
Shards = Mapping[str, Documents]  # by name, in their order
Numbered = Iterator[tuple[int, bytes]]  # documents in their order, each with the number of its chunk


@dataclasses.dataclass(frozen=True)
class Collection:
    """Files and how they are read: whole, or as a fair sample.

    Attributes:
      files: in the order of their paths.
      read: (file, chunks) → the documents of these chunks of a file; of all of it, as it lies, where they are None.
      from_the_front: whether a file's later chunks cost reading all before them.
      shard_bytes: of files in a shard of the whole, at least; infinity has them all in one.
    """

    files: list[File]
    read: Callable[[File, range | None], Numbered]
    from_the_front: Callable[[File], bool]
    shard_bytes: float

    def whole(self) -> Shards:
        """All documents, as the files lie."""
        groups = files.parted(self.files, lambda file: file.size_bytes, self.shard_bytes)
        return {group[0].path: functools.partial(self._all_of, group) for group in groups}

    def sample(self, seed: int) -> Shards:
        """All documents, in an order of which any number of the first shards is a fair sample (`files.drawn`)."""
        file_C, chunk_C = files.drawn(self.files, seed, self.from_the_front)
        chunk_bytes_F = np.array([min(file.size_bytes, files.CHUNK_BYTES) for file in self.files])
        shard_C = np.cumsum(chunk_bytes_F[file_C]) // SAMPLE_SHARD_BYTES
        ends = [*(np.flatnonzero(np.diff(shard_C)) + 1).tolist(), len(file_C)]
        opened: dict[File, tuple[int, Numbered]] = {}
        return {
            f"sample {number}": functools.partial(self._drawn, file_C[start:end], chunk_C[start:end], opened)
            for number, (start, end) in enumerate(itertools.pairwise([0, *ends]))
        }

    def _all_of(self, group: Sequence[File]) -> Iterator[bytes]:
        for file in group:
            for _, document in self.read(file, None):
                yield document

    def _drawn(
        self, file_C: np.ndarray, chunk_C: np.ndarray, opened: dict[File, tuple[int, Numbered]]
    ) -> Iterator[bytes]:
        """Documents of these chunks; `opened` has files that are read from their front, each with its next chunk."""
        for place, chunk in zip(file_C.tolist(), chunk_C.tolist(), strict=True):
            file = self.files[place]
            if not self.from_the_front(file):
                yield from (document for _, document in self.read(file, range(chunk, chunk + 1)))
                continue
            come_to, numbered = opened.pop(file, (None, iter(())))
            if come_to != chunk:
                numbered = self.read(file, range(chunk, file.chunks))
            for number, document in numbered:
                if number > chunk:
                    opened[file] = chunk + 1, itertools.chain([(number, document)], numbered)
                    break
                yield document
            else:
                opened[file] = chunk + 1, iter(())
            if len(opened) > OPEN_FILES:
                del opened[next(iter(opened))]  # the one that was left the longest time ago


def text(path: str) -> Collection:
    """The text files at a path, a document each; fewer than 20 are cut at line ends into pieces of 16 kB."""
    found = files.find("text", path)
    read = functools.partial(read_text, in_pieces=len(found) < FEW_FILES)
    # One shard: of a million small files, each would lose the end that fills no record.
    return Collection(found, read, lambda file: False, shard_bytes=math.inf)


def jsonl(path: str, field: str) -> Collection:
    """The JSON Lines files at a path, 64 MB or more of them a shard; see `read_jsonl`."""
    read = functools.partial(read_jsonl, field=field)
    return Collection(files.find("jsonl", path), read, lambda file: bool(_compression(file)), SHARD_BYTES)


def parquet(path: str, field: str) -> Collection:
    """The Parquet files at a path, 64 MB or more of them a shard; see `read_parquet`."""
    read = functools.partial(read_parquet, field=field)
    return Collection(files.find("parquet", path), read, lambda file: True, SHARD_BYTES)


def read_text(file: File, chunks: range | None = None, *, in_pieces: bool) -> Numbered:
    """Gives a text file's chunks, a document each, or cut at line ends into pieces of 16 kB.

    A chunk of a larger file ends where a piece would. A line that is much longer than a piece is cut between two words,
    or else between two characters.

    Raises:
      ValueError: a file that is not UTF-8.
    """
    with files.opened(file) as opened:
        for chunk in chunks or range(file.chunks):
            opened.seek(chunk * files.CHUNK_BYTES)
            window = opened.read(files.CHUNK_BYTES + PIECE_BYTES)
            start = _cut(window[:PIECE_BYTES]) if chunk else 0
            end = files.CHUNK_BYTES + _cut(window[files.CHUNK_BYTES :]) if chunk < file.chunks - 1 else len(window)
            try:
                window[start:end].decode()
            except UnicodeDecodeError as error:
                at = chunk * files.CHUNK_BYTES + start + error.start
                raise ValueError(
                    f"{file.path}: not UTF-8 at byte {at}; convert it or leave it out of the path"
                ) from None
            for piece in _pieces(window[start:end]) if in_pieces else (window[start:end],):
                yield chunk, piece


def _pieces(content: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(content):
        at = start + PIECE_BYTES
        end = at + _cut(content[at : at + PIECE_BYTES]) if at < len(content) else len(content)
        yield content[start:end]
        start = end


def _cut(window: bytes) -> int:
    """Where in these bytes a text may be cut: after a line end, or else after a space, or else between characters."""
    for mark in (b"\n", b" "):
        if after := window.find(mark) + 1:
            return after
    return next((i for i, byte in enumerate(window[:4]) if byte & 0xC0 != 0x80), len(window[:4]))


def read_jsonl(file: File, chunks: range | None = None, *, field: str) -> Numbered:
    """Gives the text in one field of each line of a JSON Lines file; .gz, .zst and .bz2 are unpacked.

    A line is in the chunk that it starts in; of a packed file a chunk is 3 MiB unpacked, the last all that is left.

    Raises:
      ValueError: a line without such a field, named by file and number, or a file that cannot be unpacked.
    """
    chunks, compression = chunks or range(file.chunks), _compression(file)
    with files.opened(file) as opened:
        begun_at = 0
        if chunks.start and not compression:
            opened.seek(chunks.start * files.CHUNK_BYTES - 1)
            begun_at = chunks.start * files.CHUNK_BYTES - 1 + len(opened.readline())
        position, chunk_bytes = begun_at, PACKED * files.CHUNK_BYTES if compression else files.CHUNK_BYTES
        for number, line in enumerate(_lines(file, opened, compression), start=1):
            chunk = min(position // chunk_bytes, file.chunks - 1)
            position += len(line)
            if chunk >= chunks.stop:
                return
            if chunk < chunks.start or not line.strip():
                continue
            try:
                document = _text(line, field)
            except ValueError as error:
                raise ValueError(f"{file.path}, line {_lines_before(file, begun_at) + number}: {error}") from None
            yield chunk, document


def _text(line: bytes, field: str) -> bytes:
    try:
        value = json_lines.read(line)
    except ValueError as error:
        raise ValueError(f"no JSON object with a field {field!r} ({error})") from None
    if not isinstance(value, dict) or field not in value:
        raise ValueError(f"no JSON object with a field {field!r}")
    try:
        return json_lines.text(value[field])
    except ValueError as error:
        raise ValueError(f"field {field!r} {error}") from None


def _compression(file: File) -> str | None:
    return COMPRESSIONS.get(os.path.splitext(file.path)[1])


def _lines(file: File, opened: BinaryIO, compression: str | None) -> Iterator[bytes]:
    try:
        yield from io.BufferedReader(pyarrow.CompressedInputStream(opened, compression)) if compression else opened
    except (OSError, pyarrow.ArrowException) as error:
        raise _cut_short(file, error) from None


def _cut_short(file: File, error: Exception) -> ValueError:
    return ValueError(f"{file.path}: cannot be read to its end ({cut(error, 200)}); copy it again")


def _lines_before(file: File, position: int) -> int:
    with files.opened(file) as opened:
        return sum(
            opened.read(min(files.CHUNK_BYTES, position - at)).count(b"\n")
            for at in range(0, position, files.CHUNK_BYTES)
        )


def read_parquet(file: File, chunks: range | None = None, *, field: str) -> Numbered:
    """Gives the text in one column of a Parquet file, a document a row.

    Chunks are equal parts of its rows, for which its row groups come in the order of a hash.

    Raises:
      ValueError: a file that is not Parquet, or a column that is absent or holds something else than text.
    """
    with files.opened(file) as opened:
        try:
            table = pyarrow.parquet.ParquetFile(opened)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{file.path}: not a Parquet file ({cut(error, 200)})") from None
        if field not in table.schema_arrow.names:
            raise ValueError(f"{file.path}: no column {field!r}; it has {cut(', '.join(table.schema_arrow.names))}")
        rows_G = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        first_row_G, rows = list(itertools.accumulate(rows_G, initial=0)), sum(rows_G)
        order, done, skipped = list(range(len(rows_G))), 0, 0
        if chunks is not None:
            order.sort(key=lambda group: files.hashed(0, file.name, group))
            skipped = -(-chunks.start * rows // file.chunks)
        for group in order:
            places = range(done, done + rows_G[group])
            done = places.stop
            if done <= skipped:
                continue
            values = _column(file, table, group, field)
            for row, (place, value) in enumerate(zip(places, values, strict=True), start=first_row_G[group] + 1):
                if place < skipped:
                    continue
                try:
                    document = json_lines.text(value.as_py())
                except UnicodeDecodeError as error:
                    told = f"{file.path}, row {row}: {field!r} is not UTF-8 at byte {error.start}"
                    raise ValueError(told) from None
                except ValueError as error:
                    raise ValueError(f"{file.path}, row {row}: {field!r} {error}") from None
                yield place * file.chunks // rows, document


def _column(file: File, table: pyarrow.parquet.ParquetFile, group: int, field: str) -> Iterator[pyarrow.Scalar]:
    held, rows = 0, table.metadata.row_group(group).num_rows
    try:
        for batch in table.iter_batches(row_groups=[group], columns=[field]):
            held += len(batch)
            yield from batch.column(0)
    except (OSError, pyarrow.ArrowException) as error:
        raise _cut_short(file, error) from None
    if held != rows:
        raise _cut_short(file, ValueError(f"{held} of the {rows} rows that it tells of"))


class ShardedSource(seqio.DataSource):
    """Documents that Python reads, in the one order that every run shares; a shard can be read by itself.

    Args:
      splits: name of a split → its shards.
      content: gives what is known of the content that the documents are made of, by the names of its files.
    """

    def __init__(self, splits: Mapping[str, Shards], content: Callable[[], Mapping[str, str]] = dict):
        super().__init__(splits=splits)
        self._shards, self.content = splits, content

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """No: a shard is as small as it gets."""
        return False

    def list_shards(self, split: str) -> list[str]:
        """Names of the split's shards."""
        return list(self._shards[split])

    def documents(self, split: str, shard_info: seqio.ShardInfo | None = None) -> Iterator[bytes]:
        """Gives a split's documents, or those of some of its shards, without TensorFlow.

        Raises:
          ValueError: a document that cannot be read.
        """
        own = list(self._shards[split].values())
        if shard_info:
            own = own[shard_info.index :: shard_info.num_shards]
        return (text for texts in own for text in texts())

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused,
    ) -> tf.data.Dataset:
        """The documents, as `targets`; tf.errors.InvalidArgumentError says which cannot be read."""
        del shuffle, seed, unused

        # What Python raises in TensorFlow's graph can hang it for ever, what TensorFlow raises does not.
        def generate() -> Iterator[tuple[bytes, str]]:
            try:
                for text in self.documents(split, shard_info):
                    yield text, ""
            except (ValueError, OSError) as error:
                yield b"", str(error)

        def checked(text: tf.Tensor, refusal: tf.Tensor) -> dict[str, tf.Tensor]:
            with tf.control_dependencies([tf.debugging.Assert(refusal == "", [refusal])]):
                return {"targets": tf.identity(text)}

        signature = (tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.string))
        return tf.data.Dataset.from_generator(generate, output_signature=signature).map(checked)
