"""Multiple-choice questions as arrays: all an evaluator needs, on disk as one .npz. NumPy only, no TensorFlow."""

import dataclasses
import os

import numpy as np
from etils import epath

from tasks import scoring


@dataclasses.dataclass(frozen=True)
class Questions:
    """The rows of a task; a row is one choice of one question, its context and its answer.

    Attributes:
      name: of the task.
      chance_error: error of a blind guess.
      tokens_NxL: int32, context and answer, zeros after them.
      start_N: where the answer's tokens start.
      end_N: one past where they end; the row's score is the mean loss of tokens [start, end), each given all before it.
      question_N: which question the row belongs to.
      choice_N: which of its choices it is.
      gold_N: which of its choices is right.
    """

    name: str
    chance_error: float
    tokens_NxL: np.ndarray
    start_N: np.ndarray
    end_N: np.ndarray
    question_N: np.ndarray
    choice_N: np.ndarray
    gold_N: np.ndarray


def evaluate(questions: Questions, row_loss_N: np.ndarray) -> scoring.Estimate:
    """Gives the top-1 error from the rows' mean losses a token; see `scoring.choice_error`."""
    return scoring.choice_error(row_loss_N, questions.question_N, questions.choice_N, questions.gold_N)


def save(questions: Questions, path: os.PathLike | str) -> None:
    """Writes the questions to an .npz file, whole or not at all."""
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.parent / (target.name + ".tmp")
    with beside.open("wb") as file:
        np.savez_compressed(file, **dataclasses.asdict(questions))
    beside.replace(target)


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
