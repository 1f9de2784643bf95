"""What records are made of, by content: a corpus that is another now is told from the one that they were made of."""

import contextlib
from typing import TYPE_CHECKING, Any

from etils import epath

from ladder.config import LadderConfig, part_of
from tasks import store

if TYPE_CHECKING:
    from tasks.text import corpora

# What tells the text and the vocabulary by content; records of before lack it.
CONTENT = (store.FILES, "vocabulary_sha256")


def begin(
    config: LadderConfig,
    corpus: "corpora.Corpus",
    part: str,
    folder: epath.Path,
    *,
    sampled: bool = False,
    anew: bool = False,
) -> None:
    """Claims a folder for the records of a part of a corpus, whole or sampled; see `store.begin`.

    Raises:
      ValueError: it holds records of other text or another vocabulary; says what differs.
    """
    store.begin(folder, _origin(config, corpus, part, sampled), anew=anew, of_late=CONTENT)


def refuse_changes(config: LadderConfig, part: str, folder: epath.Path) -> None:
    """Refuses a corpus of files, or a vocabulary, that is not what the records of a part were made of.

    What cannot be told without reading is passed over: files and vocabularies that are gone or out of reach, corpora of
    other kinds, and records that do not tell what they were made of by content.

    Raises:
      ValueError: says what differs.
    """
    from tasks.text import files, vocab

    there = store.origin(folder)
    if not there.keys() >= set(CONTENT):
        return
    here = dict(there)
    with contextlib.suppress(ValueError):
        here["vocabulary_sha256"] = vocab.sha256(config.corpus.vocabulary)
    kind, options = part_of(config.corpus, part)
    if "path" in options:
        with contextlib.suppress(files.NoFiles):
            here[store.FILES] = files.content(kind, options["path"], options.get("validation"))
    if told := store.differences(there, here):
        raise ValueError(
            f"the text or the vocabulary of {folder} has changed since its records were made: {'; '.join(told)}; "
            "put it back as it was, or name another folder"
        )


def _origin(config: LadderConfig, corpus: "corpora.Corpus", part: str, sampled: bool) -> dict[str, Any]:
    """What the records are made of. A part's rate is not: mixtures of other rates share its records."""
    from tasks.text import corpora, vocab

    kind, options = part_of(config.corpus, part)
    task, _ = corpus.parts[part]
    return {
        "kind": kind,
        "options": options,
        "vocabulary": config.corpus.vocabulary,
        "vocabulary_sha256": vocab.sha256(config.corpus.vocabulary),
        "record_length": config.model.sequence_length,
        "sample_seed": config.corpus.seed if sampled else None,
        "shards": None if sampled else list(task.source.list_shards(corpora.TRAIN)),
        store.FILES: dict(task.source.content()),
    }
