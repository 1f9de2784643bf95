"""Pretraining corpora as seqio Tasks: `build(kind, vocabulary, **options)` gives a `Corpus`.

A corpus is a seqio Task or Mixture for training (split `train`) and named Tasks for validation (split `validation`).
Their examples hold `targets`, token ids that end with the end-of-text token, and `targets_pretokenized`, the text.
`tasks.text.records` packs them, `tasks.questions.suites` makes questions of their held-out text.

Kinds:
  python_sources: the Python files every machine has; see `tasks.text.python_sources`.
  text: a text file, a folder or a glob of them, local or gs://.
  jsonl: JSON Lines, the text in one field of each line, such as RedPajama's; .gz, .zst and .bz2 are unpacked.
  parquet: the text in one column, such as RefinedWeb's `content`.
  tfds: a prepared TensorFlow Datasets name, such as `c4/en:3.1.0`.
  mixture: several of them, each at a rate.

No text is on both sides: a document of files is held out by the hash of its text, or dropped from training where it is
in a validation set of its own.
"""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf

from tasks.messages import cut
from tasks.text import documents, files, python_sources, tfds_source
from tasks.text.documents import ShardedSource, Shards
from tasks.text.published import PAPER

TRAIN, VALIDATION = "train", "validation"
HELD_OUT = "held_out"
HELD_OUT_SEED = 0


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Text to train on (split `train` of `train`) and to validate on (split `validation` of each of `validation`)."""

    train: seqio.Task | seqio.Mixture
    validation: Mapping[str, seqio.Task]

    @property
    def parts(self) -> dict[str, tuple[seqio.Task, float]]:
        """The Tasks to train on by name, each with its share of the records; a corpus that is no mixture is one."""
        if isinstance(self.train, seqio.Task):
            return {self.train.name: (self.train, 1.0)}
        rates = {task.name: self.train.get_rate(task) for task in self.train.tasks}
        return {task.name: (task, rates[task.name] / sum(rates.values())) for task in self.train.tasks}


def build(kind: str, vocabulary: seqio.Vocabulary, seed: int | None = None, /, **options) -> Corpus:
    """Gives the corpus of that kind.

    Args:
      kind: a key of `KINDS`.
      vocabulary: tokenises the text.
      seed: of an order of the text to train on in which any number of the first shards is a fair sample of all; where
        it is None, the text comes as it lies. Text to validate on always comes in such an order.
      **options: of the kind's function in this module.

    Raises:
      ValueError: an unknown kind or option, an option left out, or a corpus that is missing or empty.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown corpus kind {kind!r}; known: {', '.join(sorted(KINDS))}")
    try:
        inspect.signature(KINDS[kind]).bind(vocabulary, seed, **options)
    except TypeError as error:
        raise ValueError(f"corpus {kind!r}: {error}; see tasks/text/corpora.py for its options") from None
    return KINDS[kind](vocabulary, seed, **options)


def train_texts(corpus: Corpus) -> Iterator[bytes]:
    """Gives the documents to train on once, of a mixture by its rates until the first of its parts ends."""
    tasks, rates = zip(*corpus.parts.values(), strict=True)
    parts, rng = [task.source.documents(TRAIN) for task in tasks], np.random.default_rng(0)
    while (text := next(parts[rng.choice(len(parts), p=rates)], None)) is not None:
        yield text


def from_python_sources(
    vocabulary: seqio.Vocabulary,
    seed: int | None = None,
    /,
    *,
    roots: Sequence[os.PathLike | str] | None = None,
    held_out: float = 0.1,
) -> Corpus:
    """Gives the Python sources installed here, validated on held-out code, on prose and on C and C++ headers.

    Args:
      vocabulary: tokenises the text.
      seed: as `build`.
      roots: folders to read; the standard library and the installed packages if not given.
      held_out: share of the base names that are held out.
    """
    sources = python_sources.PythonSources(roots, held_out)
    return Corpus(
        train=_task("python_sources", vocabulary, {TRAIN: sources.train(seed or 0)}, sources.content),
        validation={
            name: _task(f"python_sources:{name}", vocabulary, {VALIDATION: {"files": texts}})
            for name, texts in (("code", sources.code), ("prose", sources.prose), ("foreign", sources.foreign))
        },
    )


def from_text(
    vocabulary: seqio.Vocabulary,
    seed: int | None = None,
    /,
    *,
    path: str,
    validation: Mapping[str, str] | None = None,
    held_out: float = 0.1,
) -> Corpus:
    """Gives the text files at `path`, a document each; fewer than 20 are cut at line ends into pieces of 16 kB.

    Args:
      vocabulary: tokenises the text.
      seed: as `build`.
      path: a file, a folder (all files below it but hidden ones) or a glob.
      validation: further validation sets, name to path; where there are any, nothing is held out of `path`.
      held_out: share held out.

    Raises:
      ValueError: no file there, or none with text; a file that is not UTF-8, on reading.
    """
    return _from_files("text", vocabulary, seed, path, validation, held_out, documents.text)


def from_jsonl(
    vocabulary: seqio.Vocabulary,
    seed: int | None = None,
    /,
    *,
    path: str,
    field: str = "text",
    validation: Mapping[str, str] | None = None,
    held_out: float = 0.1,
) -> Corpus:
    """Gives the JSON Lines files at `path`, a document a line.

    Args:
      vocabulary: tokenises the text.
      seed: as `build`.
      path: a file, a folder (all files below it but hidden ones) or a glob.
      field: of each line's object, which holds the text.
      validation: further validation sets, name to path; where there are any, nothing is held out of `path`.
      held_out: share held out.

    Raises:
      ValueError: no file there; on reading, a line without such a field, named by file and number.
    """
    collect = functools.partial(documents.jsonl, field=field)
    return _from_files("jsonl", vocabulary, seed, path, validation, held_out, collect)


def from_parquet(
    vocabulary: seqio.Vocabulary,
    seed: int | None = None,
    /,
    *,
    path: str,
    field: str = "text",
    validation: Mapping[str, str] | None = None,
    held_out: float = 0.1,
) -> Corpus:
    """Gives the Parquet files at `path`, a document a row; options as `from_jsonl`, `field` is the column.

    Raises:
      ValueError: no file there; on reading, a file that is not Parquet or has no such column of text.
    """
    collect = functools.partial(documents.parquet, field=field)
    return _from_files("parquet", vocabulary, seed, path, validation, held_out, collect)


def from_tfds(
    vocabulary: seqio.Vocabulary,
    seed: int | None = None,
    /,
    *,
    name: str,
    field: str = "text",
    data_dir: str | None = None,
) -> Corpus:
    """Gives a TensorFlow Datasets corpus, validated on `validation`, else `test`, else the last tenth of `train`.

    Args:
      vocabulary: tokenises the text.
      seed: as `build`.
      name: such as `wikipedia/20230601.en` or `c4/en:3.1.0`.
      field: the feature that holds the text.
      data_dir: where it is prepared, local or gs://; TFDS's own folder if not given.

    Raises:
      ValueError: unknown to TFDS, not prepared, or without the field.
    """
    builder = tfds_source.builder(name, field, data_dir, TRAIN)
    own = [split for split in (VALIDATION, "test") if split in builder.info.splits]
    splits = {TRAIN: TRAIN, VALIDATION: own[0]} if own else {TRAIN: "train[:90%]", VALIDATION: "train[90%:]"}
    task = _text_task("tfds", tfds_source.TfdsSource(builder, field, data_dir, splits, seed), vocabulary)
    return Corpus(train=task, validation={HELD_OUT: task})


def from_mixture(vocabulary: seqio.Vocabulary, seed: int | None = None, /, *, parts: Mapping[str, Mapping]) -> Corpus:
    """Gives several corpora as one, each at a rate.

    Args:
      vocabulary: tokenises the text.
      seed: as `build`.
      parts: name → `rate`, its share of the tokens relative to the others', `kind`, and that kind's `options`. A
        part's validation sets are called `<part>_<set>`, or as the part where it holds out only `held_out`.

    Raises:
      ValueError: naming the part; no rate above 0, a mixture in a mixture, or what `build` refuses.
    """
    if not (isinstance(parts, Mapping) and parts):
        raise ValueError("corpus 'mixture': parts must name corpora, each with a rate, a kind and its options")
    tasks = []
    validation_tasks: dict[str, seqio.Task] = {}
    for name, part in parts.items():
        try:
            corpus = _part(vocabulary, seed, name, part)
        except ValueError as error:
            raise ValueError(f"corpus 'mixture', part {name!r}: {error}") from None
        tasks.append((corpus.train.replace(name=name), part["rate"]))
        alone = set(corpus.validation) == {HELD_OUT}
        validation_tasks |= {name if alone else f"{name}_{own}": task for own, task in corpus.validation.items()}
    return Corpus(seqio.Mixture("mixture", tasks), validation_tasks)


def _part(vocabulary: seqio.Vocabulary, seed: int | None, name: str, part: Mapping) -> Corpus:
    if not isinstance(part, Mapping) or not {"rate", "kind"} <= set(part) <= {"rate", "kind", "options"}:
        raise ValueError(f"needs rate and kind, and options where its kind has some; it has {cut(repr(part))}")
    if not re.fullmatch(r"\w+", name):
        raise ValueError("the name is a folder's: use letters, digits and _ only")
    rate = part["rate"]
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < math.inf:
        raise ValueError(f"rate is {cut(repr(rate))}; it must be a number above 0")
    if part["kind"] == "mixture":
        raise ValueError("is a mixture itself; name its parts here")
    return build(part["kind"], vocabulary, seed, **part.get("options", {}))


def validation(name: str, kind: str, vocabulary: seqio.Vocabulary, /, **options) -> seqio.Task:
    """Gives a validation set, all of its text in split `validation`, whatever is trained on.

    Args:
      name: of the set.
      kind: `jsonl` or `parquet` (options `path` and `field`), `text` (`path`), `tfds` (`name`, `split`, `field`,
        `data_dir`), or `paper`, one of the paper's eight by its name (`source`, the folder that they lie in).
      vocabulary: tokenises the text.
      **options: of that kind.

    Raises:
      ValueError: naming the set; an unknown kind or option, or a set that is not there.
    """
    try:
        inspect.signature(_VALIDATION_KINDS[kind]).bind(name, vocabulary, **options)
    except KeyError:
        raise ValueError(f"validation set {name!r}: kind {kind!r}; known: {', '.join(_VALIDATION_KINDS)}") from None
    except TypeError as error:
        raise ValueError(f"validation set {name!r}, kind {kind!r}: {error}") from None
    try:
        return _VALIDATION_KINDS[kind](name, vocabulary, **options)
    except ValueError as error:
        raise ValueError(f"validation set {name!r}: {error}") from None


def _jsonl_validation(name: str, vocabulary: seqio.Vocabulary, *, path: str, field: str = "text") -> seqio.Task:
    return _task(name, vocabulary, {VALIDATION: documents.jsonl(path, field).whole()})


def _parquet_validation(name: str, vocabulary: seqio.Vocabulary, *, path: str, field: str = "text") -> seqio.Task:
    return _task(name, vocabulary, {VALIDATION: documents.parquet(path, field).whole()})


def _text_validation(name: str, vocabulary: seqio.Vocabulary, *, path: str) -> seqio.Task:
    return _task(name, vocabulary, {VALIDATION: documents.text(path).whole()})


def _tfds_validation(
    task_name: str,
    vocabulary: seqio.Vocabulary,
    /,
    *,
    name: str,
    split: str = VALIDATION,
    field: str = "text",
    data_dir: str | None = None,
) -> seqio.Task:
    builder = tfds_source.builder(name, field, data_dir, split.partition("[")[0])
    source = tfds_source.TfdsSource(builder, field, data_dir, {VALIDATION: split})
    return _text_task(task_name, source, vocabulary)


def _paper_validation(name: str, vocabulary: seqio.Vocabulary, *, source: str) -> seqio.Task:
    if name not in PAPER:
        raise ValueError(f"is none of the paper's; they are {', '.join(PAPER)}")
    published = PAPER[name]
    options = dict(published.options)
    if "path" in options:
        options["path"] = os.path.join(source, options["path"])
    try:
        return _VALIDATION_KINDS[published.kind](name, vocabulary, **options)
    except ValueError as error:
        raise ValueError(f"{error}; get it from {published.where}") from None


_VALIDATION_KINDS: Mapping[str, Callable[..., seqio.Task]] = {
    "jsonl": _jsonl_validation,
    "parquet": _parquet_validation,
    "text": _text_validation,
    "tfds": _tfds_validation,
    "paper": _paper_validation,
}


KINDS: Mapping[str, Callable[..., Corpus]] = {
    "python_sources": from_python_sources,
    "text": from_text,
    "jsonl": from_jsonl,
    "parquet": from_parquet,
    "tfds": from_tfds,
    "mixture": from_mixture,
}


def _from_files(
    kind: str,
    vocabulary: seqio.Vocabulary,
    seed: int | None,
    path: str,
    validation: Mapping[str, str] | None,
    held_out: float,
    collect: Callable[[str], documents.Collection],
) -> Corpus:
    found = collect(path)
    train = found.whole() if seed is None else found.sample(seed)
    content = functools.partial(files.content, kind, path, validation)
    if not validation:
        is_held_out = lambda text: python_sources.hash_fraction(text) < held_out  # noqa: E731
        splits = {
            TRAIN: _each(train, lambda texts: itertools.filterfalse(is_held_out, texts)),
            VALIDATION: _each(found.sample(HELD_OUT_SEED), lambda texts: filter(is_held_out, texts)),
        }
        task = _task(kind, vocabulary, splits, content)
        return Corpus(train=task, validation={HELD_OUT: task})
    sets = {name: collect(set_path) for name, set_path in validation.items()}

    @functools.cache
    def validated() -> frozenset[bytes]:
        return frozenset(
            hashlib.sha256(text).digest() for own in sets.values() for texts in own.whole().values() for text in texts()
        )

    trained_on = lambda texts: (text for text in texts if hashlib.sha256(text).digest() not in validated())  # noqa: E731
    return Corpus(
        train=_task(kind, vocabulary, {TRAIN: _each(train, trained_on)}, content),
        validation={
            name: _task(f"{kind}:{name}", vocabulary, {VALIDATION: own.sample(HELD_OUT_SEED)})
            for name, own in sets.items()
        },
    )


def _each(shards: Shards, change: Callable[[Iterator[bytes]], Iterator[bytes]]) -> Shards:
    return {name: functools.partial(lambda texts: change(texts()), texts) for name, texts in shards.items()}


def _task(
    name: str,
    vocabulary: seqio.Vocabulary,
    splits: Mapping[str, Shards],
    content: Callable[[], Mapping[str, str]] = dict,
) -> seqio.Task:
    return _text_task(name, ShardedSource(splits, content), vocabulary)


def _text_task(name: str, source: seqio.DataSource, vocabulary: seqio.Vocabulary) -> seqio.Task:
    return seqio.Task(
        name,
        source=source,
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"targets": seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)},
        shuffle_buffer_size=None,
    )
