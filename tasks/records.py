"""Tokenised text as fixed-length records: a seqio Task in, a .npy file [R, L + 1] out.

Documents are joined by their end-of-text token and cut into disjoint records of L + 1 tokens, each of which trains on L
(the paper's 2049-token records); a last, partial record is dropped. The file is read back with
`np.load(path, mmap_mode="r")`, which needs no TensorFlow.
"""

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

POOL_PER_RECORD = 8


def examples(task: seqio.Task, split: str) -> Iterator[dict]:
    """Gives the task's examples as numpy, in the source's order.

    Raises:
      ValueError: the source refused a document; tf.data's wrapping of that error is taken off.
    """
    try:
        yield from task.get_dataset(None, split, shuffle=False).as_numpy_iterator()
    except tf.errors.OpError as error:
        refusal = re.search(r"ValueError: (.*)", error.message)
        if refusal:
            raise ValueError(refusal[1]) from None
        raise


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
    for example in itertools.islice(examples(task, split), max_documents):
        text_bytes += len(example["targets_pretokenized"])
        tokens += len(example["targets"])
    return text_bytes / tokens


def _blocks(task: seqio.Task, split: str, record_length: int) -> Iterator[np.ndarray]:
    dtype = _dtype(task)
    return pack((example["targets"].astype(dtype) for example in examples(task, split)), record_length)


def _dtype(task: seqio.Task) -> np.dtype:
    return token_dtype(task.output_features["targets"].vocabulary.vocab_size)


@contextlib.contextmanager
def _replaced(path: os.PathLike | str) -> Iterator:
    """Opens a seekable file that becomes `path` only when all is written, on gs:// as on a disk."""
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / (target.name + ".tmp")
    if "://" not in str(path):
        with open(beside, "wb") as file:
            yield file
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield file
            file.flush()
            epath.Path(file.name).copy(beside, overwrite=True)
    beside.replace(target)


def write_records(
    task: seqio.Task,
    split: str,
    path: os.PathLike | str,
    *,
    record_length: int,
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Writes a split's records in the source's order, until they train on `max_tokens` tokens or the text ends.

    Args:
      task: gives `targets`, token ids that end with the end-of-text token.
      split: of the task.
      path: of the .npy file, [R, record_length + 1], uint8, uint16 or uint32 by the size of the vocabulary.
      record_length: L, the tokens a record trains on.
      max_tokens: R is at most max_tokens / L, rounded up.
      progress: called now and then with the tokens written so far.

    Returns:
      R; fewer than asked for where the text is too short.

    Raises:
      ValueError: the split holds less than one record.
    """
    max_records = -(-max_tokens // record_length)
    count = 0
    with _replaced(path) as file:

        def write_header():
            # NumPy pads the header so that the first axis may grow in place.
            descr = np.lib.format.dtype_to_descr(_dtype(task))
            file.seek(0)
            np.lib.format.write_array_header_1_0(
                file, {"descr": descr, "fortran_order": False, "shape": (count, record_length + 1)}
            )

        write_header()
        for block in _blocks(task, split, record_length):
            block = block[: max_records - count]
            file.write(block.tobytes())
            count += len(block)
            if progress:
                progress(count * record_length)
            if count == max_records:
                break
        if not count:
            raise _too_short(task, split, record_length)
        write_header()
    return count


def write_sample(
    task: seqio.Task, split: str, path: os.PathLike | str, *, record_length: int, max_records: int, seed: int = 0
) -> int:
    """Writes a fixed random sample of a split's records, spread over many documents, for validation.

    The sample is drawn from the first 8 records for each one asked for, so that a huge split is not read to its end.

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
    with _replaced(path) as file:
        np.save(file, np.concatenate(pool)[chosen])
    return len(chosen)


def _too_short(task: seqio.Task, split: str, record_length: int) -> ValueError:
    return ValueError(
        f"corpus {task.name!r}, split {split!r}: less text than one record of {record_length + 1} tokens; "
        "give more text or a shorter sequence length"
    )
