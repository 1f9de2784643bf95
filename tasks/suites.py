"""Downstream tasks made of a corpus's held-out text, so that every corpus has them, with signal at the smallest scale.

Each is a seqio Task of four-choice questions, whose score metric gives the top-1 error:

  continuation: which text goes on from here? All four choices follow the same two characters in their own files.
  recall: which name comes next? The right one stands in the context already; the others, as long, do not.
  order: which line is written right? The others have two of its words swapped.

In continuation and recall, questions come in fours that share their four choices, each of which is right once: knowing
which answers are common, without reading the context, is worth nothing, and a blind guess errs 3/4 of the time.
An example of a Task is one choice of one question: `inputs` (context) and `targets` (answer), as token ids, and
`question`, `choice`, `gold`.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from tasks import records, scoring
from tasks.questions import Questions

CHOICES = 4
CHANCE_ERROR = 1 - 1 / CHOICES
SPLIT = "test"
CONTEXT_CHARACTERS = 96
CONTINUATION_CHARACTERS = 20
MATCHED_CHARACTERS = 2
DRAWS_PER_QUESTION = 40
POOL_DOCUMENTS = 400

Candidate = tuple[int, str, str]  # document, context, answer
Question = tuple[str, list[str]]  # context, answers with the right one first


def build(
    names: Sequence[str], held_out: seqio.Task, *, split: str = "validation", questions: int = 400, seed: int = 0
) -> dict[str, seqio.Task]:
    """Gives the named tasks, made of the held-out documents of a corpus and tokenised by its vocabulary.

    Args:
      names: keys of `SUITES`.
      held_out: a Task of `tasks.corpora`, whose examples hold `targets_pretokenized`.
      split: of `held_out`.
      questions: how many each task asks.
      seed: of every draw.

    Raises:
      ValueError: an unknown name, or text that is too short for so many questions.
    """
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise ValueError(f"unknown suites {unknown}; known: {', '.join(SUITES)}")
    examples = itertools.islice(records.examples(held_out, split), POOL_DOCUMENTS)
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


def continuation(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[Question]:
    """Asks for the next 20 characters, the context ending anywhere in a line."""
    candidates = defaultdict(list)
    for document, cut in _draws(documents, rng, questions, margin=CONTINUATION_CHARACTERS):
        context = documents[document][cut - CONTEXT_CHARACTERS : cut]
        answer = documents[document][cut : cut + CONTINUATION_CHARACTERS]
        candidates[context[-MATCHED_CHARACTERS:]].append((document, context, answer))
    return _fours(candidates, rng)


NAME = re.compile(r"\b[^\W\d]\w{4,}")


def recall(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[Question]:
    """Asks for a name that the context has held before."""
    candidates = defaultdict(list)
    for document, cut in _draws(documents, rng, questions, margin=0):
        text = documents[document]
        name = NAME.search(text, cut)
        if not name:
            continue
        context = text[name.start() - CONTEXT_CHARACTERS : name.start()]
        if name.group() in NAME.findall(context):
            candidates[len(name.group())].append((document, context, name.group()))
    return _fours(candidates, rng)


def order(documents: Sequence[str], rng: np.random.Generator, questions: int) -> Iterator[Question]:
    """Asks for a line whose words stand in their right order."""
    for document, cut in _draws(documents, rng, questions, margin=0):
        text = documents[document]
        start = text.find("\n", cut) + 1
        line = text[start:].partition("\n")[0]
        words = [word.span() for word in NAME.finditer(line)]
        if not start or len(line) > CONTEXT_CHARACTERS:
            continue
        swapped = {_swap(line, a, b) for a, b in itertools.combinations(words, 2)} - {line}
        if len(swapped) >= CHOICES - 1:
            wrong = rng.choice(sorted(swapped), CHOICES - 1, replace=False).tolist()
            yield text[max(0, start - CONTEXT_CHARACTERS) : start], [line, *wrong]


SUITES: Mapping[str, Callable[[Sequence[str], np.random.Generator, int], Iterator[Question]]] = {
    "continuation": continuation,
    "recall": recall,
    "order": order,
}


def questions(task: seqio.Task) -> Questions:
    """Gives a task's rows as arrays: context and answer tokenised apart, then joined."""
    rows = list(task.get_dataset(None, SPLIT, shuffle=False).as_numpy_iterator())
    start_N = np.array([len(row["inputs"]) for row in rows], np.int32)
    end_N = start_N + np.array([len(row["targets"]) for row in rows], np.int32)
    tokens_NxL = np.zeros((len(rows), end_N.max()), np.int32)
    for tokens_L, row, end in zip(tokens_NxL, rows, end_N, strict=True):
        tokens_L[:end] = np.concatenate([row["inputs"], row["targets"]])
    columns = {f"{key}_N": np.array([row[key] for row in rows], np.int32) for key in ("question", "choice", "gold")}
    return Questions(task.name, CHANCE_ERROR, tokens_NxL, start_N, end_N, **columns)


def _draws(
    documents: Sequence[str], rng: np.random.Generator, questions: int, margin: int
) -> Iterator[tuple[int, int]]:
    """Gives (document, position) uniformly over the text, with a whole context before and `margin` characters after."""
    room = np.array([max(0, len(text) - CONTEXT_CHARACTERS - margin) for text in documents])
    ends = np.cumsum(room)
    if not ends.size or not ends[-1]:
        return
    for draw in rng.integers(ends[-1], size=DRAWS_PER_QUESTION * questions):
        document = int(np.searchsorted(ends, draw, side="right"))
        yield document, int(CONTEXT_CHARACTERS + draw - (ends[document] - room[document]))


def _fours(candidates: Mapping[object, Sequence[Candidate]], rng: np.random.Generator) -> Iterator[Question]:
    """Groups candidates of one key by fours, of four documents and answers, and asks each of a four's contexts."""
    fours = []
    for alike in candidates.values():
        four = []
        for candidate in alike:
            if all(_may_share(candidate, other) for other in four):
                four.append(candidate)
            if len(four) == CHOICES:
                fours.append(four)
                four = []
    for index in rng.permutation(len(fours)):
        four = fours[index]
        for _, context, answer in four:
            yield context, [answer, *(other for _, _, other in four if other != answer)]


def _may_share(a: Candidate, b: Candidate) -> bool:
    return a[0] != b[0] and a[2] not in b[1] + b[2] and b[2] not in a[1] + a[2]


def _swap(line: str, a: tuple[int, int], b: tuple[int, int]) -> str:
    return line[: a[0]] + line[slice(*b)] + line[a[1] : b[0]] + line[slice(*a)] + line[b[1] :]


def _task(name: str, asked: Sequence[Question], vocabulary: seqio.Vocabulary, seed: int) -> seqio.Task:
    rng = np.random.default_rng(seed)
    rows = defaultdict(list)
    for question, (context, answers) in enumerate(asked):
        gold = int(rng.integers(CHOICES))
        shown = answers[1:]
        shown.insert(gold, answers[0])
        for choice, answer in enumerate(shown):
            row = {"inputs": context, "targets": answer, "question": question, "choice": choice, "gold": gold}
            for key, value in row.items():
                rows[key].append(value)

    def dataset(split: str, shuffle_files: bool) -> tf.data.Dataset:
        del split, shuffle_files
        return tf.data.Dataset.from_tensor_slices(dict(rows))

    feature = seqio.Feature(vocabulary, add_eos=False, dtype=tf.int32)
    return seqio.Task(
        name,
        source=seqio.FunctionDataSource(dataset, splits=[SPLIT]),
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={"inputs": feature, "targets": feature},
        postprocess_fn=_row,
        metric_fns=[choice_error],
        shuffle_buffer_size=None,
    )


def _row(answer: str, example: Mapping, is_target: bool) -> tuple[int, int, int, int]:
    del answer, is_target
    return int(example["question"]), int(example["choice"]), int(example["gold"]), len(example["targets"])


def choice_error(targets: Sequence[tuple[int, int, int, int]], scores: Sequence[float]) -> dict[str, float]:
    """Gives {`error`, `error_stderr`} as seqio's Evaluator asks for it.

    Args:
      targets: (question, choice, gold, tokens of the answer) of each row, as the Task's `postprocess_fn` makes them.
      scores: summed log-likelihood of each row's answer, nats.
    """
    question_N, choice_N, gold_N, tokens_N = np.array(targets).T
    estimate = scoring.choice_error(-np.asarray(scores) / tokens_N, question_N, choice_N, gold_N)
    return {"error": estimate.value, "error_stderr": estimate.stderr}
