"""Validation sets by name: all of a set's text as one stream of tokens, scored in sequences to its last token.

A set is cut into records of L + 1 tokens that train on L, as the paper's are; the last may be shorter. Its number of
bytes is kept, so that losses compare between tokenizers. The file, an .npz, is read without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import typing
from collections.abc import Iterator

import numpy as np
from etils import epath

from tasks import store
from tasks.questions.questions import Question

if typing.TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class ValidationSet:
    """A set's tokens and how they are cut.

    Attributes:
      token_T: all of them.
      record_length: L, the tokens that a whole record scores.
      text_bytes: of the text in UTF-8; 0 where that is not known.
    """

    token_T: np.ndarray
    record_length: int
    text_bytes: int

    def __iter__(self) -> Iterator[Question]:
        """Gives its sequences: all that follows a first token is scored."""
        for start in range(0, len(self.token_T) - 1, self.record_length + 1):
            record_T = self.token_T[start : start + self.record_length + 1].astype(np.int32)
            if len(record_T) > 1:
                yield Question((record_T[:1],), (record_T[1:],), answer_bytes=(0,), gold=0)

    @functools.cached_property
    def sha256(self) -> str:
        """Of its tokens as little-endian 32-bit integers and of L."""
        digest = hashlib.sha256(self.token_T.astype("<i4").tobytes())
        digest.update(self.record_length.to_bytes(8, "little"))
        return digest.hexdigest()


def read(task: seqio.Task, split: str, *, record_length: int, max_sequences: int | None = None) -> ValidationSet:
    """Gives a split's tokens.

    Args:
      task: gives `targets`, token ids that end with the end-of-text token, and `targets_pretokenized`, the text.
      split: of the task.
      record_length: L, the tokens a record scores.
      max_sequences: of records, for a set that is larger than needed; all where it is None. Of a document that is cut,
        the bytes are counted in proportion to its tokens.

    Raises:
      ValueError: the split holds no two tokens.
    """
    from tasks.text import records

    dtype = records.token_dtype(task.output_features["targets"].vocabulary.vocab_size)
    max_tokens = (record_length + 1) * max_sequences if max_sequences else None
    parts, tokens, text_bytes = [], 0, 0.0
    for example in records.documents(task, split):
        part = example["targets"].astype(dtype)
        room = len(part) if max_tokens is None else min(len(part), max_tokens - tokens)
        parts.append(part[:room])
        tokens += room
        text_bytes += len(example["targets_pretokenized"]) * room / len(part)
        if tokens == max_tokens:
            break
    if tokens < 2:
        raise ValueError(f"validation set {task.name!r}: no text in split {split!r}; give a set that has some")
    return ValidationSet(np.concatenate(parts), record_length, round(text_bytes))


def save(made: ValidationSet, path: os.PathLike | str) -> None:
    """Writes a set to an .npz file, whole or not at all."""
    with store.replaced(path) as file:
        np.savez(file, **dataclasses.asdict(made))


def load(path: os.PathLike | str) -> ValidationSet:
    """Reads what `save` wrote.

    Raises:
      ValueError: the file holds something else.
    """
    fields = [field.name for field in dataclasses.fields(ValidationSet)]
    with epath.Path(path).open("rb") as file, np.load(file) as arrays:
        if sorted(arrays) != sorted(fields):
            raise ValueError(f"{path}: holds {sorted(arrays)}, not a validation set {sorted(fields)}; write it again")
        return ValidationSet(arrays["token_T"], int(arrays["record_length"]), int(arrays["text_bytes"]))
