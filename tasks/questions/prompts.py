"""Questions as llm-foundry asks them, token for token: shots, text, three tokenisations, truncation.

The published models of Gadre et al. 2024 were scored so (llm-foundry 0.4, in_context_learning_evaluation.py); where a
line here looks odd, the published numbers depend on it.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tasks.messages import cut
from tasks.questions.gauntlet import LANGUAGE_MODELING, MULTIPLE_CHOICE, SCHEMA, Definition
from tasks.questions.questions import Question
from tasks.questions.rows import Row, parts

if typing.TYPE_CHECKING:
    import seqio


def ask(task: Definition, rows: Sequence[Row], vocabulary: seqio.Vocabulary, max_tokens: int) -> Iterator[Question]:
    """Gives a task's questions, category by category, in the order of the rows.

    Args:
      task: how to ask.
      rows: of the task, checked (`tasks.questions.rows`).
      vocabulary: tokenises; no token is put before a text or after it.
      max_tokens: of a context and its answer; a longer context loses its start.

    Raises:
      ValueError: the vocabulary has no end-of-text token, or an answer leaves no context in `max_tokens`.
    """
    if vocabulary.eos_id is None or vocabulary.eos_id < 0:
        raise ValueError(f"task {task.name!r}: the tokenizer has no end-of-text token; use one that can end a text")
    for category, part in parts(task, rows).items():
        rng = random.Random(task.seed)
        for index, row in enumerate(part):
            preamble = _preamble(task, [part[shot] for shot in shots(len(part), task.shots, index, rng)])
            preamble_tokens = vocabulary.encode(preamble)
            if len(preamble_tokens) > 1 and preamble_tokens[-1] == vocabulary.eos_id:
                preamble_tokens = preamble_tokens[:-1]
            contexts = [preamble_tokens + vocabulary.encode(text) for text in _queries(task, row, preamble)]
            texts = _answers(task, row)
            answers = _encoded(task, texts, vocabulary, max_tokens)
            if not all(contexts):
                raise ValueError(
                    f"task {task.name!r}: no context comes before the answer {cut(repr(texts[0]))}; give it some"
                )
            if len(contexts) == 1:  # all choices have one context, or else one answer
                contexts = contexts * len(answers)
            else:
                answers, texts = answers * len(contexts), texts * len(contexts)
            pairs = zip(contexts, answers, strict=True)
            yield Question(
                contexts=tuple(np.array(context[-(max_tokens - len(answer)) :], np.int32) for context, answer in pairs),
                answers=tuple(np.array(answer, np.int32) for answer in answers),
                answer_bytes=tuple(len(text.strip().encode()) for text in texts),
                gold=row.get("gold", 0),
                category=category,
            )


def refuse_long_answers(
    task: Definition, rows: Sequence[Row], vocabulary: Callable[[], seqio.Vocabulary], max_tokens: int
) -> None:
    """Raises the ValueError that `ask` would of an answer that leaves no context, without asking anything.

    Args:
      task: how to ask.
      rows: of the task.
      vocabulary: gives it; is not called where no answer has as many bytes.
      max_tokens: of a context and its answer.
    """
    for row in rows:
        if long := [text for text in _answers(task, row) if len(text.encode()) + 1 >= max_tokens]:
            _encoded(task, long, vocabulary(), max_tokens)


def chance_accuracy(task: Definition, rows: Sequence[Row]) -> float:
    """Gives the accuracy of a blind guess: as published, else the mean of one over the number of choices."""
    if task.chance_accuracy is not None:
        return task.chance_accuracy
    field = {MULTIPLE_CHOICE: "choices", SCHEMA: "context_options"}.get(task.type)
    return float(np.mean([1 / len(row[field]) for row in rows])) if field else 0.0


def shots(rows: int, count: int, index: int, rng: random.Random) -> list[int]:
    """Draws which rows are shown before row `index`; `rng` goes on from the row before.

    The shots come in the order of a set of small integers, neither sorted nor as drawn: it is CPython's.
    """
    chosen = set(rng.sample(range(rows), min(rows - 1, count)))
    if index in chosen:
        chosen.remove(index)
        if len(chosen) >= rows - 1:
            return list(chosen)
        other = rng.choice(range(rows))
        while other in chosen or other == index:
            other = rng.choice(range(rows))
        chosen.add(other)
    return list(chosen)


def _answers(task: Definition, row: Row) -> list[str]:
    return row["choices"] if task.type == MULTIPLE_CHOICE else [row["continuation"]]


def _encoded(
    task: Definition, answers: Sequence[str], vocabulary: seqio.Vocabulary, max_tokens: int
) -> list[Sequence[int]]:
    lead = " " if len(vocabulary.encode(" a")) == 1 else ""
    encoded = [vocabulary.encode(text if text.startswith(" ") else lead + text) for text in answers]
    longest = max(map(len, encoded))
    if longest >= max_tokens:
        raise ValueError(
            f"task {task.name!r}: an answer of {longest} tokens leaves no context in {max_tokens} tokens; "
            "evaluate a model of longer sequences or leave the row out"
        )
    return encoded


def _preamble(task: Definition, shown: Sequence[Row]) -> str:
    text = task.preamble
    for row in shown:
        if task.type == MULTIPLE_CHOICE:
            context, answer = row["query"], row["choices"][row["gold"]]
        elif task.type == SCHEMA:
            context, answer = row["context_options"][row["gold"]], row["continuation"]
        else:
            context, answer = row["context"], row["continuation"]
        text += (task.example_delimiter if text else "") + context + task.delimiter + answer
    return text


def _queries(task: Definition, row: Row, preamble: str) -> list[str]:
    """The text between preamble and answer; of a schema, one for each choice."""
    lead = task.example_delimiter if preamble else ""
    if task.type == SCHEMA:
        # Without shots an option is taken as it is, with no delimiter.
        return [lead + option + task.delimiter.rstrip() if preamble else option for option in row["context_options"]]
    context = row["context" if task.type == LANGUAGE_MODELING else "query"]
    return [(lead + context + task.delimiter).rstrip()]
