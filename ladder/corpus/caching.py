"""A corpus on disk once, as token records: by this process, by several, or by many machines with Apache Beam."""

import collections
import dataclasses
import functools
import itertools
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TYPE_CHECKING

from etils import epath

from ladder import quiet, storage
from ladder.config import Corpus, LadderConfig
from ladder.corpus import origins
from ladder.events import Cached, LeftOut
from tasks import store

if TYPE_CHECKING:
    from tasks.text import corpora

Report = Callable[[Cached | LeftOut], None]


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
    storage.refuse_placeholders(dataclasses.asdict(config.corpus), "corpus")
    root = storage.place(config.corpus.cache)
    storage.refuse_closed(root)
    quiet.import_tensorflow()
    corpus = built(config.corpus)
    if processes > 1 or beam is not None:
        todo = list(_missing(config, corpus, root))
        if beam is not None:
            _write_with_beam(todo, beam)
        else:
            _write_side_by_side(todo, processes, report)
    return write(config, corpus, root, report)


def built(corpus: Corpus, seed: int | None = None) -> "corpora.Corpus":
    """The corpus of a config, as it lies, or in the order of a seed; see `tasks.text.corpora.build`."""
    from tasks.text import corpora, vocab

    return corpora.build(corpus.kind, vocab.load(corpus.vocabulary), seed, **corpus.options)


def write(
    config: LadderConfig,
    corpus: "corpora.Corpus",
    root: epath.Path,
    report: Report,
    enough_records: Mapping[str, int | None] | None = None,
    anew: bool = False,
) -> dict[str, store.Records]:
    """Writes a corpus's records below `root`, a folder a part, where they are not there yet, and opens them.

    Args:
      config: the corpus's.
      corpus: to write.
      root: local or gs://.
      report: is called now and then.
      enough_records: of each part, which is then a sample of the corpus; all where it is None.
      anew: empties folders that hold other records, or finished ones; see `store.begin`.

    Raises:
      ValueError: a folder that holds records of other text or another vocabulary; says what differs.
    """
    from tasks.text import corpora, records

    length = config.model.sequence_length

    def told(part: str, shards: int) -> Callable[[int, int], None]:
        return lambda index, count: report(Cached(part, index, shards, count * length))

    if not all(store.is_finished(root / part) for part in corpus.parts):
        storage.refuse_closed(root)
    opened = {}
    for part, (task, _) in corpus.parts.items():
        enough = None if enough_records is None else enough_records[part]
        origins.begin(config, corpus, part, root / part, sampled=enough_records is not None, anew=anew)
        if store.is_finished(root / part):
            opened[part] = store.Records(root / part)
            if enough is None or opened[part].is_whole or len(opened[part]) >= enough:
                continue
        without_text = itertools.count()
        opened[part] = records.cache(
            task,
            corpora.TRAIN,
            root / part,
            record_length=length,
            enough_records=enough,
            progress=told(part, records.shard_count(task, corpora.TRAIN)),
            left_out=functools.partial(next, without_text),
        )
        _tell_left_out(report, part, next(without_text))
    return opened


def _tell_left_out(report: Report, part: str, documents: int) -> None:
    if documents:
        report(LeftOut(part, documents))


@dataclasses.dataclass(frozen=True)
class Shard:
    """One shard to write, of one part of a corpus: all that a process needs to know, on any machine."""

    corpus: Corpus
    record_length: int
    root: str
    part: str
    index: int

    def write(self) -> int:
        """Writes it, unless it is there, and gives how many documents without text were left out."""
        quiet.import_tensorflow()
        from tasks.text import corpora, records

        corpus = _built_once(self.corpus.kind, json.dumps(self.corpus.options), self.corpus.vocabulary)
        task, _ = corpus.parts[self.part]
        folder = epath.Path(self.root) / self.part
        without_text = itertools.count()
        count = functools.partial(next, without_text)
        records.cache_shard(task, corpora.TRAIN, folder, self.index, record_length=self.record_length, left_out=count)
        return next(without_text)


def _missing(config: LadderConfig, corpus: "corpora.Corpus", root: epath.Path) -> Iterator[Shard]:
    from tasks.text import corpora, records

    for part, (task, _) in corpus.parts.items():
        origins.begin(config, corpus, part, root / part)
        if not store.is_finished(root / part):
            for index in range(records.shard_count(task, corpora.TRAIN)):
                yield Shard(config.corpus, config.model.sequence_length, str(root), part, index)


def _write_side_by_side(todo: Sequence[Shard], processes: int, report: Report) -> None:
    context = multiprocessing.get_context("spawn")
    left_out: collections.Counter[str] = collections.Counter()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            writing = {pool.submit(Shard.write, shard): shard.part for shard in todo}
            for done, future in enumerate(as_completed(writing), start=1):
                left_out[writing[future]] += future.result()
                report(Cached(writing[future], done, len(todo)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for part, documents in left_out.items():
        _tell_left_out(report, part, documents)


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


@functools.lru_cache(maxsize=1)  # a process writes many shards of one corpus
def _built_once(kind: str, options: str, vocabulary: str) -> "corpora.Corpus":
    return built(Corpus(kind=kind, options=json.loads(options), vocabulary=vocabulary))
