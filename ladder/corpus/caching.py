"""A corpus on disk once, as token records: by this process, by several, or by many machines with Apache Beam."""

import dataclasses
import functools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from etils import epath

from ladder import quiet, storage
from ladder.config import Corpus, LadderConfig
from ladder.events import Cached
from tasks import store

if TYPE_CHECKING:
    from tasks.text import corpora

Report = Callable[[Cached], None]


def cache(
    config: LadderConfig, report: Report, *, processes: int = 1, beam: Sequence[str] | None = None
) -> dict[str, store.Records]:
    """Writes the whole of a config's corpus to its `corpus.cache`; shards that are there already stay.

    Args:
      config: names the corpus, its vocabulary and the length of a sequence.
      report: is called now and then.
      processes: that write shards side by side on this machine.
      beam: flags of an Apache Beam pipeline that writes them instead, such as --runner=DataflowRunner.

    Returns:
      Records by part of the corpus.

    Raises:
      ValueError: no `corpus.cache`, a corpus that cannot be read, or a folder that holds another one.
    """
    if not config.corpus.cache:
        raise ValueError("the config has no corpus.cache; name a folder, such as --set corpus.cache=gs://bucket/c4")
    if processes < 1:
        raise ValueError(f"--processes {processes} must be at least 1")
    quiet.import_tensorflow()
    corpus, root = _built(config.corpus), storage.place(config.corpus.cache)
    if processes > 1 or beam is not None:
        todo = list(_missing(config, corpus, root))
        if beam is not None:
            _write_with_beam(todo, beam)
        else:
            _write_side_by_side(todo, processes, report)
    return write(config, corpus, root, report)


def write(
    config: LadderConfig,
    corpus: "corpora.Corpus",
    root: epath.Path,
    report: Report,
    max_records: Mapping[str, int] | None = None,
    anew: bool = False,
) -> dict[str, store.Records]:
    """Writes a corpus's records below `root`, a folder a part, where they are not there yet, and opens them.

    Args:
      config: the corpus's.
      corpus: to write.
      root: local or gs://.
      report: is called now and then.
      max_records: of each part; all where it is None.
      anew: empties folders that hold other records, or finished ones; see `store.begin`.
    """
    from tasks.text import corpora, records

    length = config.model.sequence_length

    def told(part: str, shards: int) -> Callable[[int, int], None]:
        return lambda index, count: report(Cached(part, index, shards, count * length))

    if not all(store.is_finished(root / part) for part in corpus.parts):
        storage.refuse_closed(root)
    opened = {}
    for part, (task, _) in corpus.parts.items():
        limit = None if max_records is None else max_records[part]
        store.begin(root / part, _origin(config, corpus, part, limit), anew=anew)
        if store.is_finished(root / part):
            opened[part] = store.Records(root / part)
            continue
        opened[part] = records.cache(
            task,
            corpora.TRAIN,
            root / part,
            record_length=length,
            max_records=limit,
            progress=told(part, records.shard_count(task, corpora.TRAIN)),
        )
    return opened


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard to write, of one part of a corpus: all that a process needs to know, on any machine."""

    corpus: Corpus
    record_length: int
    root: str
    part: str
    index: int

    def write(self) -> "Shard":
        """Writes it, unless it is there, and gives itself."""
        quiet.import_tensorflow()
        from tasks.text import corpora, records

        task, _ = _built(self.corpus).parts[self.part]
        folder = epath.Path(self.root) / self.part
        records.cache_shard(task, corpora.TRAIN, folder, self.index, record_length=self.record_length)
        return self


def _missing(config: LadderConfig, corpus: "corpora.Corpus", root: epath.Path) -> Iterator[Shard]:
    from tasks.text import corpora, records

    for part, (task, _) in corpus.parts.items():
        store.begin(root / part, _origin(config, corpus, part, None))
        if not store.is_finished(root / part):
            for index in range(records.shard_count(task, corpora.TRAIN)):
                yield Shard(config.corpus, config.model.sequence_length, str(root), part, index)


def _write_side_by_side(todo: Sequence[Shard], processes: int, report: Report) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            for done, future in enumerate(as_completed([pool.submit(Shard.write, shard) for shard in todo]), start=1):
                report(Cached(future.result().part, done, len(todo)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_with_beam(todo: Iterable[Shard], flags: Sequence[str]) -> None:
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError:
        raise ValueError("Apache Beam is not installed: pip install 'scaling-ladder[beam]'") from None
    with apache_beam.Pipeline(options=PipelineOptions(list(flags))) as pipeline:
        shards = pipeline | apache_beam.Create(list(todo))
        # Each to whatever machine is free, not all to the one that made the list.
        shards | apache_beam.Reshuffle() | apache_beam.Map(Shard.write)


def _built(corpus: Corpus) -> "corpora.Corpus":
    return _build(corpus.kind, json.dumps(corpus.options), corpus.vocabulary)


@functools.lru_cache(maxsize=1)  # a process writes many shards of one corpus
def _build(kind: str, options: str, vocabulary: str) -> "corpora.Corpus":
    from tasks.text import corpora, vocab

    return corpora.build(kind, vocab.load(vocabulary), **json.loads(options))


def _origin(config: LadderConfig, corpus: "corpora.Corpus", part: str, max_records: int | None) -> dict[str, Any]:
    """What the records are made of. A part's rate is not: mixtures of other rates share its records."""
    from tasks.text import corpora

    kind, options = config.corpus.kind, config.corpus.options
    if kind == "mixture":
        kind, options = options["parts"][part]["kind"], options["parts"][part].get("options", {})
    task, _ = corpus.parts[part]
    return {
        "kind": kind,
        "options": options,
        "vocabulary": config.corpus.vocabulary,
        "record_length": config.model.sequence_length,
        "max_records": max_records,
        "shards": list(task.source.list_shards(corpora.TRAIN)),
    }
