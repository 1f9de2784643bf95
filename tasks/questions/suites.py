"""Downstream tasks made of a corpus's held-out text, so that every corpus has them, with signal at the smallest scale.

Each is a seqio Task of four-choice questions, scored as those of `tasks.questions.gauntlet` are:

  continuation: which eight characters come next, the context ending anywhere?
  recall: how does the name go on, whose first letter the context ends with, and which stands in the context before?
  order: which four words or marks come next? In the wrong choices two neighbours are swapped.

Answers are short, for a choice's score is its mean loss: how common an answer is by itself varies more the longer it
is, while what the context tells is mostly about its first characters. Long answers would bury a small model's signal.
In continuation and recall, questions come in fours that share their four choices, each of which is right once: knowing
which answers are common, without reading the context, is worth nothing, and a blind guess errs 3/4 of the time.
`tasks.questions.downstream` says what an example of a Task holds.
"""

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from tasks.questions import downstream
from tasks.questions.questions import Questions
from tasks.text import encoding, records

CHOICES = 4
CHANCE_ERROR = 1 - 1 / CHOICES
CONTEXT_CHARACTERS = 80
CONTINUATION_CHARACTERS = 8
RECALLED_CHARACTERS = 6
ORDERED_WORDS = 4
ORDERED_CHARACTERS = 32
DRAWS_PER_QUESTION = 40
POOL_DOCUMENTS = 400
NAME = re.compile(rf"\b[^\W\d]\w{{{RECALLED_CHARACTERS},}}")
WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")

Candidate = tuple[int, str, str]  # document, context, answer
Asked = tuple[str, list[str]]  # context, answers with the right one first


def build(
    names: Sequence[str], held_out: seqio.Task, *, split: str = "validation", questions: int = 400, seed: int = 0
) -> dict[str, seqio.Task]:
    """Gives the named tasks, made of the held-out documents of a corpus and tokenised by its vocabulary.

    Args:
      names: keys of `SUITES`.
      held_out: a Task of `tasks.text.corpora`, whose examples hold `targets_pretokenized`.
      split: of `held_out`.
      questions: how many each task asks.
      seed: of every draw.

    Raises:
      ValueError: an unknown name, or text that is too short for so many questions.
    """
    if unknown := [name for name in names if name not in SUITES]:
        raise ValueError(f"unknown suites {unknown}; known: {', '.join(SUITES)}")
    examples = itertools.islice(records.documents(held_out, split), POOL_DOCUMENTS)
    documents = [example["targets_pretokenized"].decode() for example in examples]
    vocabulary = held_out.output_features["targets"].vocabulary
    tasks = {}
    for name in names:
        asked = list(itertools.islice(SUITES[name](documents, np.random.default_rng(seed), questions), questions))
        if len(asked) < questions:
            raise ValueError(
                f"suite {name!r}: the held-out text of {held_out.name!r} ({len(documents)} documents) gives only "
                f"{len(asked)} of {questions} questions; ask for fewer or give more text"
            )
        tasks[name] = _task(name, asked, vocabulary, seed)
    return tasks


def continuation(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[Asked]:
    """Asks for the next eight characters; the wrong choices come next in other documents."""
    draws = _draws(documents, rng, questions)
    return _fours([(document, *_cut(documents[document], at, at + CONTINUATION_CHARACTERS)) for document, at in draws])


def recall(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[Asked]:
    """Asks for the rest of a begun name that the context has held before; the wrong choices go on with other names."""
    candidates = []
    for document, at in _draws(documents, rng, questions):
        text = documents[document]
        if name := NAME.search(text, at):
            context, answer = _cut(text, name.start() + 1, name.start() + 1 + RECALLED_CHARACTERS)
            if name.group() in NAME.findall(context):
                candidates.append((document, context, answer))
    return _fours(candidates)


def order(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[Asked]:
    """Asks for the next four words or marks in their order; in each wrong choice, two neighbours are swapped."""
    for document, at in _draws(documents, rng, questions):
        text = documents[document]
        # The first may be cut by the draw.
        words = list(itertools.islice(WORD_OR_MARK.finditer(text, at), 1, ORDERED_WORDS + 1))
        if len(words) < ORDERED_WORDS or words[-1].end() - words[0].start() > ORDERED_CHARACTERS:
            continue
        context, right = _cut(text, words[0].start(), words[-1].end())
        wrong = [_swapped(text, words, index) for index in range(ORDERED_WORDS - 1)]
        if len({right, *wrong}) == CHOICES:
            yield context, [right, *wrong]


SUITES: Mapping[str, Callable[[Sequence[str], np.random.Generator, int], Iterator[Asked]]] = {
    "continuation": continuation,
    "recall": recall,
    "order": order,
}


def questions(task: seqio.Task, max_tokens: int | None = None) -> Questions:
    """Gives a task's rows as arrays: context and answer tokenised apart, then joined.

    Args:
      task: made by `build`.
      max_tokens: of a row; a longer one loses the start of its context, as in llm-foundry.

    Raises:
      ValueError: an answer longer than `max_tokens`.
    """
    rows = list(task.source.get_dataset(downstream.SPLIT, shuffle=False).as_numpy_iterator())
    for name, feature in task.output_features.items():
        for row, ids in zip(rows, encoding.encode(feature.vocabulary, [row[name] for row in rows]), strict=True):
            row[name] = ids
    longest = max(len(row["targets"]) for row in rows)
    if max_tokens is not None and longest >= max_tokens:
        raise ValueError(f"suite {task.name!r}: an answer of {longest} tokens leaves no context in {max_tokens}")
    joined = [np.concatenate([row["inputs"], row["targets"]])[-(max_tokens or 0) :] for row in rows]
    end_N = np.array([len(tokens) for tokens in joined], np.int32)
    start_N = end_N - np.array([len(row["targets"]) for row in rows], np.int32)
    tokens_NxL = np.zeros((len(rows), end_N.max()), np.int32)
    for tokens_L, tokens in zip(tokens_NxL, joined, strict=True):
        tokens_L[: len(tokens)] = tokens
    columns = {f"{key}_N": np.array([row[key] for row in rows], np.int32) for key in downstream.INTEGERS}
    return Questions(task.name, CHANCE_ERROR, tokens_NxL, start_N, end_N, **columns)


def _draws(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[tuple[int, int]]:
    """Gives (document, position) uniformly over the text, a whole context before it and a continuation after."""
    room = np.array([max(0, len(text) - CONTEXT_CHARACTERS - CONTINUATION_CHARACTERS) for text in documents], int)
    ends = np.cumsum(room)
    if not room.any():
        return
    for draw in rng.integers(ends[-1], size=DRAWS_PER_QUESTION * questions):
        document = int(np.searchsorted(ends, draw, side="right"))
        yield document, int(CONTEXT_CHARACTERS + draw - (ends[document] - room[document]))


def _cut(text: str, start: int, end: int) -> tuple[str, str]:
    return text[start - CONTEXT_CHARACTERS : start], text[start:end]


def _fours(candidates: Sequence[Candidate]) -> Iterator[Asked]:
    """Groups candidates by fours, of four documents and answers, and asks each of a four's contexts."""
    fours: list[list[Candidate]] = []
    for candidate in candidates:
        if not fours or len(fours[-1]) == CHOICES:
            fours.append([])
        if all(candidate[0] != other[0] and candidate[2] != other[2] for other in fours[-1]):
            fours[-1].append(candidate)
    for four in fours:
        for _, context, answer in four if len(four) == CHOICES else ():
            yield context, [answer, *(other for _, _, other in four if other != answer)]


def _swapped(text: str, words: Sequence[re.Match], index: int) -> str:
    first, second = words[index], words[index + 1]
    start, between, end = words[0].start(), text[first.end() : second.start()], words[-1].end()
    return text[start : first.start()] + second.group() + between + first.group() + text[second.end() : end]


def _task(name: str, asked: Sequence[Asked], vocabulary: seqio.Vocabulary, seed: int) -> seqio.Task:
    rng = np.random.default_rng(seed)
    rows = []
    for question, (context, answers) in enumerate(asked):
        gold = int(rng.integers(CHOICES))
        shown = answers[1:]
        shown.insert(gold, answers[0])
        for choice, answer in enumerate(shown):
            row = {"inputs": context, "targets": answer, "question": question, "choice": choice, "gold": gold}
            rows.append(row | {"bytes": len(answer.encode()), "category": ""})
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    dataset = functools.partial(tf.data.Dataset.from_tensor_slices, columns)
    return downstream.from_dataset(name, dataset, vocabulary, 1 - CHANCE_ERROR, [seqio.preprocessors.tokenize])
