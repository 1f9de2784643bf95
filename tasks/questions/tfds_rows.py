"""Rows of downstream tasks from TensorFlow Datasets, where it has the set.

The rows are the published sets', written as llm-foundry writes them. Their order is TensorFlow Datasets' own, so shots
are other draws than those from llm-foundry's files, and the accuracies differ by as much as other shots make them.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any


def _examples(name: str, split: str, data_dir: str | None) -> Iterator[dict[str, Any]]:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    if split not in builder.info.splits:
        raise ValueError(
            f"tfds {name!r}: nothing prepared in {builder.data_dir}; prepare it with `tfds build {name}`, or name the "
            "folder that holds it as tfds:DIR in the suite's sources"
        )
    read_config = tfds.ReadConfig(interleave_cycle_length=1)  # the order of the files
    rows = builder.as_dataset(split=split, shuffle_files=False, read_config=read_config)
    yield from map(_decoded, tfds.as_numpy(rows))


def _decoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _decoded(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if getattr(value, "ndim", 0):
        return [_decoded(item) for item in value.tolist()]
    return value


def hellaswag(data_dir: str | None) -> Iterator[dict]:
    """How a scene goes on: the activity, what happens, four endings; cleaned as lm-evaluation-harness cleans it."""
    for e in _examples("hellaswag", "validation", data_dir):
        context = f"{e['activity_label']}: {e['context']}"
        yield {
            "query": _clean(context),
            "choices": [_clean(ending) for ending in e["endings"]],
            "gold": int(e["label"]),
        }


def _clean(text: str) -> str:
    # WikiHow's markup.
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ").strip()


def squad(data_dir: str | None) -> Iterator[dict]:
    """Questions on a paragraph of Wikipedia, answered with its words."""
    for e in _examples("squad/v1.1", "validation", data_dir):
        context = f"Context: {e['context']}\nQuestion: {e['question']}\nAnswer:"
        yield {"context": context, "continuation": e["answers"]["text"][0].strip()}


def coqa(data_dir: str | None) -> Iterator[dict]:
    """Each question of a conversation on a story, given all before it."""
    ask = (
        "Below is a story followed by a series of related questions. Please answer the final question by referring to "
        "the story and the previous questions.\n\nStory: {story}\n\nPreceding questions:\n\n{before}"
        "Final question:\n\nQuestion: {question}\nAnswer:"
    )
    for e in _examples("coqa", "test", data_dir):
        before = ""
        for question, answer in zip(e["questions"], e["answers"]["input_text"], strict=True):
            yield {
                "context": ask.format(story=e["story"].strip(), before=before, question=question.strip()),
                "continuation": answer.strip(),
            }
            before += f"Question: {question.strip()}\nAnswer: {answer.strip()}\n\n"


def arc(subset: str, data_dir: str | None) -> Iterator[dict]:
    """Science questions of school tests, of the subset `Easy` or `Challenge`."""
    for e in _examples(f"ai2_arc/ARC-{subset}", "test", data_dir):
        yield {
            "query": f"Question: {e['question'].strip()}",
            "choices": [text.strip() for text in e["choices"]["text"]],
            "gold": int(e["answerKey"]),
        }


def piqa(data_dir: str | None) -> Iterator[dict]:
    """Which of two ways reaches a physical goal."""
    for e in _examples("piqa", "validation", data_dir):
        yield {
            "query": f"Question: {e['goal'].strip()}",
            "choices": [e["sol1"].strip(), e["sol2"].strip()],
            "gold": int(e["label"]),
        }


def boolq(data_dir: str | None) -> Iterator[dict]:
    """Yes or no, by a passage."""
    for e in _examples("bool_q", "validation", data_dir):
        yield {
            "query": f"Passage: {e['passage'].strip()}\nQuestion: {e['question'].strip()}?",
            "choices": ["no", "yes"],
            "gold": int(e["answer"]),
        }


def lambada(data_dir: str | None) -> Iterator[dict]:
    """The last word of a passage."""
    for e in _examples("lambada", "test", data_dir):
        context, _, word = e["passage"].strip().rpartition(" ")
        yield {"context": context, "continuation": word}


READERS: Mapping[str, Callable[[str | None], Iterator[dict]]] = {
    "hellaswag": hellaswag,
    "hellaswag_zeroshot": hellaswag,
    "squad": squad,
    "coqa": coqa,
    "arc_easy": functools.partial(arc, "Easy"),
    "arc_challenge": functools.partial(arc, "Challenge"),
    "piqa": piqa,
    "boolq": boolq,
    "lambada_openai": lambada,
}
