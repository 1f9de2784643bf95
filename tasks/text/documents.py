"""Documents of files, local or gs://: text, JSON Lines, Parquet; in shards, each of which can be read by itself."""

import functools
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO

import fsspec
import pyarrow
import pyarrow.parquet
import seqio
import tensorflow as tf
from etils import epath

from tasks.messages import cut

FEW_FILES = 20
PIECE_BYTES = 16_384
SHARD_BYTES = 2**26
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}

Documents = Callable[[], Iterator[bytes]]
Shards = Mapping[str, Documents]  # by name, in their order


def files(kind: str, path: str) -> list[str]:
    """Gives the files at a path, sorted.

    Args:
      kind: of the corpus, for the refusal.
      path: a file, a folder (all files below it but hidden ones) or a glob.

    Raises:
      ValueError: there is none.
    """
    fs, inside = fsspec.core.url_to_fs(path)
    listed = fs.find(inside) if fs.isdir(inside) else [name for name in fs.glob(inside) if not fs.isdir(name)]
    bucket = path[: path.index("://") + 3] if "://" in path else ""
    found = [bucket + name for name in listed if not os.path.basename(name).startswith(".")]
    if not found:
        raise ValueError(f"corpus {kind!r}: no file at {path!r}; give a file, a folder or a glob that exists")
    return sorted(found)


def text_shards(path: str) -> Shards:
    """Gives the text files at a path, a document each; fewer than 20 are cut at line ends into pieces of 16 kB."""
    paths = files("text", path)
    # One shard: of a million small files, each would lose the end that fills no record.
    return {path: functools.partial(text, paths, in_pieces=len(paths) < FEW_FILES)}


def jsonl_shards(path: str, field: str) -> Shards:
    """Gives the JSON Lines files at a path, 64 MB or more of them a shard; see `jsonl`."""
    return {group[0]: functools.partial(jsonl, group, field) for group in _groups(files("jsonl", path))}


def parquet_shards(path: str, field: str) -> Shards:
    """Gives the Parquet files at a path, 64 MB or more of them a shard; see `parquet`."""
    return {group[0]: functools.partial(parquet, group, field) for group in _groups(files("parquet", path))}


def _groups(paths: Sequence[str]) -> list[list[str]]:
    groups, size_bytes = [[]], 0
    for path in paths:
        if size_bytes >= SHARD_BYTES:
            groups.append([])
            size_bytes = 0
        groups[-1].append(path)
        size_bytes += epath.Path(path).stat().length
    return groups


def text(paths: Sequence[str], *, in_pieces: bool) -> Iterator[bytes]:
    """Gives the text files, a document each, or cut at line ends into pieces of 16 kB.

    Raises:
      ValueError: a file that is not UTF-8.
    """
    for path in paths:
        content = epath.Path(path).read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: not UTF-8 at byte {error.start}; convert it or leave it out of the path"
            ) from None
        if not in_pieces:
            yield content
            continue
        start = 0
        while start < len(content):
            end = content.find(b"\n", start + PIECE_BYTES) + 1 or len(content)
            yield content[start:end]
            start = end


def jsonl(paths: Sequence[str], field: str) -> Iterator[bytes]:
    """Gives the text in one field of each line of JSON Lines files; .gz, .zst and .bz2 are unpacked.

    Raises:
      ValueError: a line without such a field, named by file and number, or a file that cannot be unpacked.
    """
    for path in paths:
        with epath.Path(path).open("rb") as file:
            for number, line in enumerate(_lines(path, file), start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)[field]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path}, line {number}: no JSON object with a field {field!r} "
                        f"({type(error).__name__}: {cut(error)})"
                    ) from None
                if not isinstance(value, str):
                    raise ValueError(f"{path}, line {number}: field {field!r} holds {type(value).__name__}, not text")
                yield value.encode()


def _lines(path: str, file: BinaryIO) -> Iterator[bytes]:
    compression = COMPRESSIONS.get(os.path.splitext(path)[1])
    try:
        yield from io.BufferedReader(pyarrow.CompressedInputStream(file, compression)) if compression else file
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read to its end ({error}); copy it again") from None


def parquet(paths: Sequence[str], field: str) -> Iterator[bytes]:
    """Gives the text in one column of Parquet files, a document a row.

    Raises:
      ValueError: a file that is not Parquet, or a column that is absent or holds something else than text.
    """
    for path in paths:
        with epath.Path(path).open("rb") as file:
            try:
                table = pyarrow.parquet.ParquetFile(file)
            except pyarrow.ArrowException as error:
                raise ValueError(f"{path}: not a Parquet file ({error})") from None
            if field not in table.schema_arrow.names:
                raise ValueError(f"{path}: no column {field!r}; it has {cut(', '.join(table.schema_arrow.names))}")
            values = (value for batch in table.iter_batches(columns=[field]) for value in batch.column(0).to_pylist())
            for number, value in enumerate(values, start=1):
                if not isinstance(value, str):
                    raise ValueError(f"{path}, row {number}: {field!r} holds {type(value).__name__}, not text")
                yield value.encode()


class ShardedSource(seqio.DataSource):
    """Documents that Python reads, in the one order that every run shares; a shard can be read by itself.

    Args:
      splits: name of a split → its shards.
    """

    def __init__(self, splits: Mapping[str, Shards]):
        super().__init__(splits=splits)
        self._shards = splits

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """No: a shard is as small as it gets."""
        return False

    def list_shards(self, split: str) -> list[str]:
        """Names of the split's shards."""
        return list(self._shards[split])

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused,
    ) -> tf.data.Dataset:
        """The documents, as `targets`."""
        del shuffle, seed, unused
        own = list(self._shards[split].values())
        if shard_info:
            own = own[shard_info.index :: shard_info.num_shards]
        generate = lambda: ({"targets": text} for texts in own for text in texts())  # noqa: E731
        return tf.data.Dataset.from_generator(generate, output_signature={"targets": tf.TensorSpec((), tf.string)})
