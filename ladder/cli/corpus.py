"""The verbs of a corpus: its token records, written once for all ladders that train on it, and its tokenizer."""

import shlex
from typing import Annotated

from tyro.conf import arg

from ladder import config_file, storage
from ladder.cli.arguments import ConfigPath, Overrides, to_person


def cache(
    config: ConfigPath,
    *,
    processes: Annotated[int, arg(metavar="P", help="so many write shards side by side")] = 1,
    beam: Annotated[
        str | None,
        arg(metavar="FLAGS", help="let Apache Beam write them, such as '--runner=DataflowRunner --project=mine'"),
    ] = None,
    overrides: Overrides = (),
) -> None:
    """Write a ladder's corpus to its corpus.cache as token records; run again to go on."""
    from ladder.corpus import caching
    from ladder.engines.progress import Caching

    c = config_file.load(config, overrides)
    flags = None if beam is None else shlex.split(beam)
    for part, records in caching.cache(c, Caching(to_person.print), processes=processes, beam=flags).items():
        tokens = len(records) * (records.width - 1)
        to_person.print(f"{c.corpus.cache}/{part}: {len(records):,} records, {tokens:,} tokens to train on")


def tokenizer(
    config: ConfigPath,
    *,
    size: Annotated[int, arg(metavar="V", help="number of ids, 258 or more")],
    out: Annotated[str, arg(metavar="tokenizer.json", help="file to write, local or gs://bucket/path")],
    overrides: Overrides = (),
) -> None:
    """Train a tokenizer on a ladder's corpus, to be its corpus.vocabulary."""
    from ladder.corpus import prepare

    prepare.train_tokenizer(config_file.load(config, overrides), size, storage.place(out))
    to_person.print(f"tokenizer: {out}; train with it by --set corpus.vocabulary={out}")
