"""Tokenised text as fixed-length records: a seqio Task in, .npy files [r, L + 1] out (`tasks.store`).

Documents are joined by their end-of-text token and cut into disjoint records of L + 1 tokens, each of which trains on L
(the paper's 2049-token records); a last, partial record is dropped.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import seqio

from tasks import store
from tasks.text import encoding

POOL_PER_RECORD = 64


def examples(task: seqio.Task, split: str, shard: seqio.ShardInfo | None = None) -> Iterator[dict]:
    """Gives the task's examples as numpy, in the source's order, of one of its shards where that is named.

    Raises:
      ValueError: a document that cannot be read, or that the vocabulary cannot encode.
    """
    vocabulary = task.output_features["targets"].vocabulary
    for text, ids in encoding.encoded(vocabulary, task.source.documents(split, shard)):
        yield {"targets": np.append(ids, np.int32(vocabulary.eos_id)), "targets_pretokenized": text}


def documents(
    task: seqio.Task, split: str, shard: seqio.ShardInfo | None = None, left_out: Callable[[], None] = lambda: None
) -> Iterator[dict]:
    """Gives a corpus's examples, as `examples`, but those without text: only that they end could be learned from them.

    Args:
      task: gives `targets` and `targets_pretokenized`.
      split: of the task.
      shard: of the source.
      left_out: called for each that is left out.
    """
    for example in examples(task, split, shard):
        if example["targets_pretokenized"].strip() and len(example["targets"]) > 1:
            yield example
        else:
            left_out()


def token_dtype(vocab_size: int) -> np.dtype:
    """Gives the smallest unsigned type that holds every id of a vocabulary."""
    return np.min_scalar_type(vocab_size - 1)


def pack(documents: Iterable[np.ndarray], record_length: int) -> Iterator[np.ndarray]:
    """Joins token arrays and cuts them into disjoint records; gives them in blocks [r, record_length + 1]."""
    width = record_length + 1
    rest = None
    for tokens in documents:
        stream = tokens if rest is None else np.concatenate([rest, tokens])
        whole = len(stream) // width * width
        if whole:
            yield stream[:whole].reshape(-1, width)
        rest = stream[whole:]


def bytes_per_token(task: seqio.Task, split: str, max_documents: int = 1000) -> float:
    """Gives how many bytes of text a token of the split's first documents stands for, their ends counted as tokens.

    Args:
      task: gives `targets` and `targets_pretokenized`.
      split: of the task.
      max_documents: looked at.
    """
    text_bytes, tokens = 0, 0
    for example in itertools.islice(documents(task, split), max_documents):
        text_bytes += len(example["targets_pretokenized"])
        tokens += len(example["targets"])
    return text_bytes / tokens


def _blocks(task: seqio.Task, split: str, record_length: int, *which) -> Iterator[np.ndarray]:
    dtype = _dtype(task)
    return pack((example["targets"].astype(dtype) for example in documents(task, split, *which)), record_length)


def _dtype(task: seqio.Task) -> np.dtype:
    return token_dtype(task.output_features["targets"].vocabulary.vocab_size)


def cache(
    task: seqio.Task,
    split: str,
    folder: os.PathLike | str,
    *,
    record_length: int,
    enough_records: int | None = None,
    progress: Callable[[int, int], None] = lambda shard, records: None,
    left_out: Callable[[], None] = lambda: None,
) -> store.Records:
    """Writes a split's records, whole shards in the source's order until there are enough; those that are there stay.

    So many more, asked for later, are the same records and then others.

    Args:
      task: gives `targets`, token ids that end with the end-of-text token.
      split: of the task.
      folder: of the records (`tasks.store`).
      record_length: L, the tokens a record trains on.
      enough_records: after which no other shard is begun; all of the split where it is None.
      progress: called now and then with the shard that is being written and the records so far.
      left_out: called for each document without text.

    Raises:
      ValueError: the split holds less than one record.
    """
    shards, done, paths = shard_count(task, split), 0, []
    for index in range(shards):
        if enough_records is not None and done >= enough_records:
            break
        done += cache_shard(
            task,
            split,
            folder,
            index,
            record_length=record_length,
            progress=functools.partial(lambda index, before, records: progress(index, before + records), index, done),
            left_out=left_out,
        )
        paths.append(store.shard(folder, index, shards))
    records = store.finish(folder, paths)
    if not len(records):
        raise _too_short(task, split, record_length)
    return records


def shard_count(task: seqio.Task, split: str) -> int:
    """Gives how many shards a split's records have: as many as its source has."""
    return len(task.source.list_shards(split))


def cache_shard(
    task: seqio.Task,
    split: str,
    folder: os.PathLike | str,
    index: int,
    *,
    record_length: int,
    progress: Callable[[int], None] = lambda records: None,
    left_out: Callable[[], None] = lambda: None,
) -> int:
    """Writes one shard of a split's records, whole or not at all, and gives how many there are; see `cache`.

    The records are those of the source's shard alone, and the tokens at its end that fill no record are left out: so
    shards may be written in any order, by anybody, and the bytes are the same.
    """
    shards = shard_count(task, split)
    path = store.shard(folder, index, shards)
    if path.exists():
        return store.records_in(path)
    count = 0
    with store.replaced(path) as file:
        store.write_header(file, 0, record_length + 1, _dtype(task))
        for block in _blocks(task, split, record_length, seqio.ShardInfo(index, shards), left_out):
            file.write(block.tobytes())
            count += len(block)
            progress(count)
        store.write_header(file, count, record_length + 1, _dtype(task))
    return count


def write_sample(
    task: seqio.Task, split: str, path: os.PathLike | str, *, record_length: int, max_records: int, seed: int = 0
) -> int:
    """Writes a fixed random sample of a split's records, spread over many documents, for validation.

    The sample is drawn from the first 64 records for each one asked for: from many documents, since what one model
    makes of one document scatters, and not from all of them, since a huge split should not be read to its end.

    Returns:
      How many records were written: `max_records`, or all there are.

    Raises:
      ValueError: the split holds less than one record.
    """
    pool, pooled = [], 0
    for block in _blocks(task, split, record_length):
        pool.append(block[: POOL_PER_RECORD * max_records - pooled])
        pooled += len(pool[-1])
        if pooled == POOL_PER_RECORD * max_records:
            break
    if not pooled:
        raise _too_short(task, split, record_length)
    chosen = np.random.default_rng(seed).permutation(pooled)[:max_records]
    with store.replaced(path) as file:
        np.save(file, np.concatenate(pool)[chosen])
    return len(chosen)


def _too_short(task: seqio.Task, split: str, record_length: int) -> ValueError:
    return ValueError(
        f"corpus {task.name!r}, split {split!r}: less text than one record of {record_length + 1} tokens; "
        "give more text or a shorter sequence length"
    )
