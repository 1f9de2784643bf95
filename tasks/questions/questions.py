"""Questions as token ids: all an evaluator needs; a corpus's own on disk as one .npz. NumPy only, no TensorFlow."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator

import numpy as np
from etils import epath

from tasks import store
from tasks.questions.scoring import Rows


@dataclasses.dataclass(frozen=True)
class Question:
    """One question; each of its answers is scored by its mean loss, given its context. A field's items are choices.

    Attributes:
      contexts: token ids, int32; not empty.
      answers: token ids, int32; not empty.
      answer_bytes: length of the answer's text in UTF-8, without the space that leads it.
      gold: which choice is right. Where there is only one, it is right if it is what a greedy reader would write.
      category: the part of its task that the question belongs to, or "".
    """

    contexts: tuple[np.ndarray, ...]
    answers: tuple[np.ndarray, ...]
    answer_bytes: tuple[int, ...]
    gold: int
    category: str = ""


def rows_of(questions: Iterable[Question]) -> Rows:
    """Gives what `tasks.questions.scoring` knows of the questions before they are answered, a row a choice."""
    columns: dict[str, list] = {name: [] for name in ("question", "choice", "gold", "tokens", "bytes", "category")}
    for index, question in enumerate(questions):
        for choice, answer in enumerate(question.answers):
            values = (index, choice, question.gold, len(answer), question.answer_bytes[choice], question.category)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return Rows(**{f"{name}_N": np.array(column) for name, column in columns.items()})


@dataclasses.dataclass(frozen=True)
class Questions:
    """Questions of one task as arrays; a row is one choice of one question, its context and its answer.

    Attributes:
      name: of the task.
      chance_error: error of a blind guess.
      tokens_NxL: int32, context and answer, zeros after them.
      start_N: where the answer's tokens start.
      end_N: one past where they end; the row's score is the mean loss of tokens [start, end), each given all before it.
      bytes_N: length of the answer's text in UTF-8.
      question_N: which question the row belongs to; a question's rows stand together.
      choice_N: which of its choices it is.
      gold_N: which of its choices is right.
    """

    name: str
    chance_error: float
    tokens_NxL: np.ndarray
    start_N: np.ndarray
    end_N: np.ndarray
    bytes_N: np.ndarray
    question_N: np.ndarray
    choice_N: np.ndarray
    gold_N: np.ndarray

    def __iter__(self) -> Iterator[Question]:
        """Gives them one by one."""
        first_Q = np.flatnonzero(np.diff(self.question_N, prepend=-1))
        for rows in np.split(np.arange(len(self.gold_N)), first_Q[1:]):
            spans = [(self.tokens_NxL[row], self.start_N[row], self.end_N[row]) for row in rows]
            yield Question(
                contexts=tuple(tokens_L[:start] for tokens_L, start, _ in spans),
                answers=tuple(tokens_L[start:end] for tokens_L, start, end in spans),
                answer_bytes=tuple(self.bytes_N[rows].tolist()),
                gold=int(self.gold_N[rows[0]]),
            )

    @functools.cached_property
    def sha256(self) -> str:
        """Of all that is asked and how it is scored."""
        digest = hashlib.sha256(repr((self.name, self.chance_error, self.tokens_NxL.shape)).encode())
        for field in dataclasses.fields(self)[2:]:
            digest.update(getattr(self, field.name).astype("<i8").tobytes())
        return digest.hexdigest()


def save(questions: Questions, path: os.PathLike | str) -> None:
    """Writes the questions to an .npz file, whole or not at all."""
    with store.replaced(path) as file:
        np.savez_compressed(file, **{f.name: getattr(questions, f.name) for f in dataclasses.fields(questions)})


def load(path: os.PathLike | str) -> Questions:
    """Reads what `save` wrote.

    Raises:
      ValueError: the file is absent or holds something else.
    """
    source = epath.Path(path)
    if not source.is_file():
        raise ValueError(f"{path}: no such file; the corpus cache writes the questions, build it first")
    fields = [field.name for field in dataclasses.fields(Questions)]
    with source.open("rb") as file, np.load(file) as arrays:
        if sorted(arrays) != sorted(fields):
            raise ValueError(f"{path}: holds {sorted(arrays)}, not a task's questions {sorted(fields)}; rebuild it")
        loaded = {name: arrays[name] for name in fields}
    return Questions(**loaded | {"name": str(loaded["name"]), "chance_error": float(loaded["chance_error"])})
