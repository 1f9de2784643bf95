"""Downstream tasks as seqio Tasks, for seqio's Evaluator and any trainer that has one.

An example is one choice of one question: `inputs` (context) and `targets` (answer) as token ids, `question`, `choice`,
`gold`, `bytes` (of the answer's text) and `category`. The metric takes scores, the summed log-likelihood of each
example's targets, and gives what `scoring.summarise` gives, each with its `<name>_stderr`. Where a question has one
choice, whether a greedy reader would write it is told by a second output, {"greedy": [...]}, as seqio hands it on from
a `score_fn` that returns a pair.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from tasks.questions import prompts, scoring
from tasks.questions.gauntlet import Definition
from tasks.questions.questions import Question
from tasks.questions.rows import Rows

SPLIT = "test"
INTEGERS = ("question", "choice", "gold", "bytes")

Metric = Callable[[Sequence, Any], dict[str, float]]


def build(task: Definition, rows: Rows, vocabulary: seqio.Vocabulary, max_tokens: int) -> seqio.Task:
    """Gives a task of `tasks.questions.gauntlet` or of a suite's file; `prompts.ask` says what reading it raises.

    Args:
      task: how to ask.
      rows: what to ask (`rows.read`).
      vocabulary: tokenises.
      max_tokens: of a context and its answer; a longer context loses its start.
    """

    def dataset() -> tf.data.Dataset:
        tokens = tf.TensorSpec((None,), tf.int32)
        signature = {"inputs": tokens, "targets": tokens, "category": tf.TensorSpec((), tf.string)}
        signature |= {name: tf.TensorSpec((), tf.int32) for name in INTEGERS}
        # All of them now: what Python raises in TensorFlow's graph can hang it for ever.
        examples = list(_examples(prompts.ask(task, rows.rows, vocabulary, max_tokens)))
        return tf.data.Dataset.from_generator(lambda: examples, output_signature=signature)

    return from_dataset(task.name, dataset, vocabulary, prompts.chance_accuracy(task, rows.rows))


def from_dataset(
    name: str,
    dataset: Callable[[], tf.data.Dataset],
    vocabulary: seqio.Vocabulary,
    chance_accuracy: float,
    preprocessors: Sequence[Callable] = (),
) -> seqio.Task:
    """Gives the Task of a dataset's examples, split `test`.

    Args:
      name: of the Task.
      dataset: gives it, in the same order each time it is called.
      vocabulary: that tokenised its examples, or tokenises them now.
      chance_accuracy: of a blind guess.
      preprocessors: of the examples, such as seqio's that tokenises.
    """

    def of_split(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed  # there is one order, on which draws of shots depend
        return dataset()

    feature = seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
    return seqio.Task(
        name,
        source=seqio.FunctionDataSource(of_split, splits=[SPLIT]),
        preprocessors=preprocessors,
        output_features={"inputs": feature, "targets": feature},
        postprocess_fn=row,
        metric_fns=[metric(chance_accuracy)],
        shuffle_buffer_size=None,
    )


def row(answer: str, example: Mapping, is_target: bool) -> tuple:
    """Gives what the metric needs of an example; a Task's `postprocess_fn`."""
    del answer, is_target
    category = example["category"]
    category = category.decode() if isinstance(category, bytes) else category
    return (*(int(example[name]) for name in INTEGERS), len(example["targets"]), category)


def metric(chance_accuracy: float) -> Metric:
    """Gives a Task's metric of scores; see the head of this file.

    Args:
      chance_accuracy: of a blind guess.
    """

    def choice_scores(targets: Sequence[tuple], scores: Any) -> dict[str, float]:
        scores, extra = scores if isinstance(scores, tuple) else (scores, {})
        columns = zip(*targets, strict=True)
        question_N, choice_N, gold_N, bytes_N, tokens_N, category_N = (np.array(column) for column in columns)
        rows = scoring.Rows(question_N, choice_N, gold_N, tokens_N, bytes_N, category_N)
        scored = scoring.score(rows, -np.asarray(scores, np.float64), extra.get("greedy"))
        summary = scoring.summarise(scored, chance_accuracy)
        values = {name: estimate.value for name, estimate in summary.items()}
        return values | {f"{name}_stderr": estimate.stderr for name, estimate in summary.items()}

    return choice_scores


def _examples(questions: Iterable[Question]) -> Iterator[dict]:
    for index, question in enumerate(questions):
        for choice, (context, answer) in enumerate(zip(question.contexts, question.answers, strict=True)):
            yield {
                "inputs": context,
                "targets": answer,
                "question": index,
                "choice": choice,
                "gold": question.gold,
                "bytes": question.answer_bytes[choice],
                "category": question.category,
            }
