"""Pretraining corpora as seqio Tasks: `build(kind, vocabulary, **options)` gives a `Corpus`.

A corpus is one seqio Task for training (split `train`) and named ones for validation (split `validation`). Their
examples hold `targets`, token ids that end with the end-of-text token, and `targets_pretokenized`, the text.
`tasks.records` packs them, `tasks.suites` makes questions of their held-out text.

Kinds:
  python_sources: the Python files every machine has; see `tasks.python_sources`.
  text: a text file, a folder or a glob of them, local or gs://.
  jsonl: JSON Lines, the text in one field of each line.
  tfds: a prepared TensorFlow Datasets name.

No text is on both sides: a document of `text` or `jsonl` is held out by the hash of its text, or dropped from training
where it is in a validation set of its own.
"""

import dataclasses
import functools
import gzip
import hashlib
import inspect
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from tasks import python_sources

TRAIN, VALIDATION = "train", "validation"
HELD_OUT = "held_out"
FEW_FILES = 20
PIECE_BYTES = 16_384


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Text to train on (split `train` of `train`) and to validate on (split `validation` of each of `validation`)."""

    train: seqio.Task
    validation: Mapping[str, seqio.Task]


def build(kind: str, vocabulary: seqio.Vocabulary, **options) -> Corpus:
    """Gives the corpus of that kind.

    Args:
      kind: a key of `KINDS`.
      vocabulary: tokenises the text.
      **options: of the kind's function in this module.

    Raises:
      ValueError: an unknown kind or option, an option left out, or a corpus that is missing or empty.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown corpus kind {kind!r}; known: {', '.join(sorted(KINDS))}")
    try:
        inspect.signature(KINDS[kind]).bind(vocabulary, **options)
    except TypeError as error:
        raise ValueError(f"corpus {kind!r}: {error}; see tasks/corpora.py for its options") from None
    return KINDS[kind](vocabulary, **options)


def from_python_sources(
    vocabulary: seqio.Vocabulary, *, roots: Sequence[os.PathLike | str] | None = None, held_out: float = 0.1
) -> Corpus:
    """Gives the Python sources installed here, validated on held-out code, on prose and on C and C++ headers.

    Args:
      vocabulary: tokenises the text.
      roots: folders to read; the standard library and the installed packages if not given.
      held_out: share of the base names that are held out.
    """
    sources = python_sources.PythonSources(roots, held_out)
    return Corpus(
        train=_task("python_sources", vocabulary, {TRAIN: sources.train}),
        validation={
            name: _task(f"python_sources:{name}", vocabulary, {VALIDATION: documents})
            for name, documents in (("code", sources.code), ("prose", sources.prose), ("foreign", sources.foreign))
        },
    )


def from_text(
    vocabulary: seqio.Vocabulary, *, path: str, validation: Mapping[str, str] | None = None, held_out: float = 0.1
) -> Corpus:
    """Gives the text files at `path`, a document each; fewer than 20 are cut at line ends into pieces of 16 kB.

    Args:
      vocabulary: tokenises the text.
      path: a file, a folder (all files below it but hidden ones) or a glob.
      validation: further validation sets, name to path; where there are any, nothing is held out of `path`.
      held_out: share held out.

    Raises:
      ValueError: no file there, or none with text; a file that is not UTF-8, on reading.
    """
    return _from_files("text", vocabulary, path, validation, held_out, _text_documents)


def from_jsonl(
    vocabulary: seqio.Vocabulary,
    *,
    path: str,
    field: str = "text",
    validation: Mapping[str, str] | None = None,
    held_out: float = 0.1,
) -> Corpus:
    """Gives the JSON Lines files at `path`, a document a line.

    Args:
      vocabulary: tokenises the text.
      path: a file, a folder (all files below it but hidden ones) or a glob.
      field: of each line's object, which holds the text.
      validation: further validation sets, name to path; where there are any, nothing is held out of `path`.
      held_out: share held out.

    Raises:
      ValueError: no file there; on reading, a line without such a field, named by file and number.
    """
    return _from_files(
        "jsonl", vocabulary, path, validation, held_out, functools.partial(_jsonl_documents, field=field)
    )


def from_tfds(
    vocabulary: seqio.Vocabulary,
    *,
    name: str,
    field: str = "text",
    data_dir: str | None = None,
) -> Corpus:
    """Gives a TensorFlow Datasets corpus, validated on `validation`, else `test`, else the last tenth of `train`.

    Args:
      vocabulary: tokenises the text.
      name: such as `wikipedia/20230601.en` or `c4/en:3.0.1`.
      field: the feature that holds the text.
      data_dir: where it is prepared, local or gs://; TFDS's own folder if not given.

    Raises:
      ValueError: unknown to TFDS, not prepared, or without the field.
    """
    builder = _tfds_builder(name, field, data_dir, TRAIN)
    own = [split for split in (VALIDATION, "test") if split in builder.info.splits]
    splits = {TRAIN: TRAIN, VALIDATION: own[0]} if own else {TRAIN: "train[:90%]", VALIDATION: "train[90%:]"}
    task = _tfds_task("tfds", vocabulary, builder, field, data_dir, splits)
    return Corpus(train=task, validation={HELD_OUT: task})


def validation(name: str, kind: str, vocabulary: seqio.Vocabulary, /, **options) -> seqio.Task:
    """Gives a validation set, all of its text in split `validation`, whatever is trained on.

    Args:
      name: of the set.
      kind: `jsonl` (options `path` and `field`), `text` (`path`) or `tfds` (`name`, `split`, `field`, `data_dir`).
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
    documents = functools.partial(_jsonl_documents, _files("jsonl", path), field)
    return _task(name, vocabulary, {VALIDATION: documents})


def _text_validation(name: str, vocabulary: seqio.Vocabulary, *, path: str) -> seqio.Task:
    return _task(name, vocabulary, {VALIDATION: functools.partial(_text_documents, _files("text", path))})


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
    builder = _tfds_builder(name, field, data_dir, split.partition("[")[0])
    return _tfds_task(task_name, vocabulary, builder, field, data_dir, {VALIDATION: split})


_VALIDATION_KINDS: Mapping[str, Callable[..., seqio.Task]] = {
    "jsonl": _jsonl_validation,
    "text": _text_validation,
    "tfds": _tfds_validation,
}


KINDS: Mapping[str, Callable[..., Corpus]] = {
    "python_sources": from_python_sources,
    "text": from_text,
    "jsonl": from_jsonl,
    "tfds": from_tfds,
}


Documents = Callable[[], Iterator[bytes]]


def _tfds_builder(name: str, field: str, data_dir: str | None, split: str) -> tfds.core.DatasetBuilder:
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"corpus tfds {name!r}: not found in {data_dir or 'TFDS'}: {reason}") from None
    if not builder.info.splits:
        raise ValueError(
            f"corpus tfds {name!r}: nothing prepared in {builder.data_dir}; prepare it with `tfds build {name}` "
            "or name the folder that holds it in data_dir"
        )
    for kind, wanted, there in (("split", split, builder.info.splits), ("feature", field, builder.info.features)):
        if wanted not in there:
            raise ValueError(f"corpus tfds {name!r}: no {kind} {wanted!r}; it has {', '.join(there)}")
    return builder


def _tfds_task(
    task_name: str,
    vocabulary: seqio.Vocabulary,
    builder: tfds.core.DatasetBuilder,
    field: str,
    data_dir: str | None,
    splits: Mapping[str, str],
) -> seqio.Task:
    versioned = builder.get_reference().tfds_name(include_version=True)
    source = seqio.TfdsDataSource(versioned, tfds_data_dir=data_dir, splits=splits, read_only=True)
    rekey = functools.partial(seqio.preprocessors.rekey, key_map={"targets": field})
    return _text_task(task_name, source, vocabulary, rekey)


def _from_files(
    kind: str,
    vocabulary: seqio.Vocabulary,
    path: str,
    validation: Mapping[str, str] | None,
    held_out: float,
    read: Callable[[Sequence[str]], Iterator[bytes]],
) -> Corpus:
    documents = functools.partial(read, _files(kind, path))
    if not validation:
        is_held_out = lambda text: python_sources.hash_fraction(text) < held_out  # noqa: E731
        splits = {
            TRAIN: lambda: itertools.filterfalse(is_held_out, documents()),
            VALIDATION: lambda: filter(is_held_out, documents()),
        }
        task = _task(kind, vocabulary, splits)
        return Corpus(train=task, validation={HELD_OUT: task})
    sets = {name: functools.partial(read, _files(kind, set_path)) for name, set_path in validation.items()}

    def train() -> Iterator[bytes]:
        validated = {hashlib.sha256(text).digest() for set_documents in sets.values() for text in set_documents()}
        return (text for text in documents() if hashlib.sha256(text).digest() not in validated)

    return Corpus(
        train=_task(kind, vocabulary, {TRAIN: train}),
        validation={name: _task(f"{kind}:{name}", vocabulary, {VALIDATION: sets[name]}) for name in sets},
    )


def _files(kind: str, path: str) -> list[str]:
    if tf.io.gfile.isdir(path):
        found = [
            os.path.join(folder, name)
            for folder, _, names in tf.io.gfile.walk(path)
            for name in names
            if not name.startswith(".")
        ]
    else:
        found = [name for name in tf.io.gfile.glob(path) if not tf.io.gfile.isdir(name)]
    if not found:
        raise ValueError(f"corpus {kind!r}: no file at {path!r}; give a file, a folder or a glob that exists")
    return sorted(found)


def _text_documents(files: Sequence[str]) -> Iterator[bytes]:
    for file in files:
        text = tf.io.gfile.GFile(file, "rb").read()
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file}: not UTF-8 at byte {error.start}; convert it or leave it out of the path"
            ) from None
        if len(files) >= FEW_FILES:
            yield text
            continue
        start = 0
        while start < len(text):
            end = text.find(b"\n", start + PIECE_BYTES) + 1 or len(text)
            yield text[start:end]
            start = end


def _jsonl_documents(files: Sequence[str], field: str) -> Iterator[bytes]:
    for file in files:
        opened = tf.io.gfile.GFile(file, "rb")
        lines = gzip.GzipFile(fileobj=opened) if file.endswith(".gz") else opened
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)[field]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{file}, line {number}: no JSON object with a field {field!r} ({error!r})") from None
            if not isinstance(text, str):
                raise ValueError(f"{file}, line {number}: field {field!r} holds {type(text).__name__}, not text")
            yield text.encode()


def _task(name: str, vocabulary: seqio.Vocabulary, splits: Mapping[str, Documents]) -> seqio.Task:
    def dataset(split: str, shuffle_files: bool) -> tf.data.Dataset:
        del shuffle_files  # documents come in the one order that every run shares
        generate = lambda: ({"targets": text} for text in splits[split]())  # noqa: E731
        return tf.data.Dataset.from_generator(generate, output_signature={"targets": tf.TensorSpec((), tf.string)})

    return _text_task(name, seqio.FunctionDataSource(dataset, splits=list(splits)), vocabulary)


def _text_task(name: str, source: seqio.DataSource, vocabulary: seqio.Vocabulary, *preprocessors) -> seqio.Task:
    return seqio.Task(
        name,
        source=source,
        preprocessors=[*preprocessors, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"targets": seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)},
        shuffle_buffer_size=None,
    )
