"""A workdir made ready to train in: claimed by its config, planned, its corpus on disk."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from etils import epath

from fitting.files import write
from ladder import config_file, quiet, storage
from ladder import plan as plans
from ladder import spec as specs_
from ladder.config import LadderConfig
from ladder.corpus import caching, origins
from ladder.corpus.caching import Report
from ladder.evaluation import record as runs
from ladder.events import Say
from ladder.spec import CORPUS_REMEDY, RunSpec, Workdir
from ladder.training.pool import Part, Pool, sizes, write_mixture
from tasks.store import Records

# What may not change between two commands on one workdir: its corpus, and what is made of it to measure runs on.
FIXED = ("corpus.", "model.sequence_length", "evaluation.sequences", "evaluation.tasks", "evaluation.questions")
# What may change while runs of the workdir are under way.
OF_NO_WORKDIR = ("training.", "machines")
# What of the rest says which runs there are, how they are carried out, measured and read, but not what one of them is.
OF_NO_RUN = ("name", "rungs", "targets", "training.", "machines", "design", "fit.", "evaluation.")
HELD_OUT_SEED = 0


def prepare(config: LadderConfig, specs: Sequence[RunSpec], workdir: Workdir, say: Say, report: Report) -> None:
    """Writes the corpus, every spec.json, plan.json and ladder.yaml, where they are not there yet.

    Raises:
      ValueError: if another config made the workdir, the corpus is missing or too small, or it does not measure what is
        to be fitted.
    """
    _refuse_small_table(config)
    claimed = workdir.config.exists()
    if claimed:
        _refuse_other_corpus(config, workdir)
    if claimed and workdir.corpus.exists():
        for part, folder in _folders(config, workdir).items():
            origins.refuse_changes(config, part, folder)
        _refuse_other_runs(config, specs, workdir)
        _grow(config, specs, workdir, say, report)
    else:
        _write_corpus(config, specs, workdir, say, report)
    summary, pool = _summary(workdir), Pool(workdir.train_records)
    _refuse_unaskable(config, summary)
    _write_validation(config, workdir, say)
    _refuse_repetition(config, specs, list(summary["train_rates"]), pool)
    _refuse_unmeasured(config, summary)
    for spec in specs:
        write(workdir.spec(spec.run), specs_.dump(spec))
    shares = {spec.run: spec.tokens / (sum(pool.sizes_for(spec)) * spec.sequence_length) for spec in specs}
    say(f"the runs see {min(shares.values()):.2g} to {max(shares.values()):.2g} times their pool")
    write(workdir.plan, json.dumps(plans.as_table(specs, pool_shares=shares), indent=2) + "\n")
    # Last: a config that is refused, or stopped on the way here, does not claim the workdir, so it can be put right.
    write(workdir.config, config_file.dump(config))


def _summary(workdir: Workdir) -> dict[str, Any]:
    """corpus.json."""
    return storage.read_json(workdir.corpus, CORPUS_REMEDY, "train_tokens", "train_rates", "validation_tokens")


def refuse_change(config: LadderConfig, workdir: Workdir, under_way: str) -> None:
    """Raises a ValueError if the workdir's config is another, where runs of it are under way, as `under_way` tells."""
    if not workdir.config.exists():
        return
    differing = [told for key, told in _differences(config, workdir).items() if not key.startswith(OF_NO_WORKDIR)]
    if differing:
        raise ValueError(
            f"{workdir.root} is being carried out by another config: {'; '.join(differing)}; wait for its runs, or "
            f"stop them: {under_way}"
        )


def train_tokenizer(config: LadderConfig, size: int, out: epath.Path) -> None:
    """Trains a byte-level BPE of `size` ids on the config's corpus and writes its tokenizer.json.

    Raises:
      ValueError: if the file exists, the corpus is missing, or has too little text for so many ids.
    """
    from tasks.text import corpora, tokenizer, vocab

    if out.exists():
        raise ValueError(f"{out} exists; remove it or choose another file")
    storage.refuse_placeholders(config.corpus.options, "corpus.options")
    corpus = caching.built(dataclasses.replace(config.corpus, vocabulary=vocab.BYTES), config.corpus.seed)
    write(out, tokenizer.train(corpora.train_texts(corpus), size))


def _write_corpus(config: LadderConfig, specs: Sequence[RunSpec], workdir: Workdir, say: Say, report: Report) -> None:
    say("reading the corpus")
    quiet.import_tensorflow()
    from tasks.questions import questions, suites
    from tasks.text import corpora, records

    length = config.model.sequence_length
    cache = config.corpus.cache
    corpus = caching.built(config.corpus, None if cache else config.corpus.seed)
    rates = {part: rate for part, (_, rate) in corpus.parts.items()}
    if cache is not None:
        root = storage.place(cache)
        parts = [Part(rate, str(root / part)) for part, rate in rates.items()]
        train = caching.write(config, corpus, root, report)
    else:
        pool_tokens = config.corpus.pool_tokens
        parts = [Part(rate, part, math.ceil(rate * pool_tokens / length)) for part, rate in rates.items()]
        enough = dict(zip(rates, _enough(specs, parts, config.corpus.epochs), strict=True))
        train = caching.write(config, corpus, workdir.train_records, report, enough_records=enough, anew=True)
    write_mixture(workdir.train_records, parts, config.corpus.epochs)
    validation_records = {
        name: records.write_sample(
            task,
            corpora.VALIDATION,
            workdir.validation_records(name),
            record_length=length,
            max_records=config.evaluation.sequences,
            seed=HELD_OUT_SEED,
        )
        for name, task in corpus.validation.items()
    }
    # The first validation set is the one most like what is trained on.
    held_out = next(iter(corpus.validation.values()))
    asked = config.evaluation.questions
    for name, task in suites.build(config.evaluation.tasks, held_out, questions=asked, seed=HELD_OUT_SEED).items():
        questions.save(suites.questions(task, max_tokens=length + 1), workdir.questions(name))
    summary: dict[str, Any] = {
        "train_tokens": {part: len(records) * length for part, records in train.items()},
        "train_rates": rates,
        "validation_tokens": {name: count * length for name, count in validation_records.items()},
        "validation_bytes_per_token": {
            name: records.bytes_per_token(task, corpora.VALIDATION) for name, task in corpus.validation.items()
        },
    }
    write(workdir.corpus, json.dumps(summary, indent=2) + "\n")
    _say_pool(train, say)
    say(f"validation sets: {', '.join(corpus.validation)}")


def _grow(config: LadderConfig, specs: Sequence[RunSpec], workdir: Workdir, say: Say, report: Report) -> None:
    """Adds to the workdir's records what a larger run needs; those that are there stay as they are."""
    pool, summary = Pool(workdir.train_records), _summary(workdir)
    enough = _enough(specs, pool.parts, pool.epochs)
    if all(size is None or own.is_whole or len(own) >= size for size, own in zip(enough, pool.records, strict=True)):
        return
    say("reading more of the corpus")
    quiet.import_tensorflow()
    wanted = dict(zip(summary["train_rates"], enough, strict=True))
    corpus = caching.built(config.corpus, config.corpus.seed)
    train = caching.write(config, corpus, workdir.train_records, report, enough_records=wanted)
    summary["train_tokens"] = {part: len(own) * config.model.sequence_length for part, own in train.items()}
    write(workdir.corpus, json.dumps(summary, indent=2) + "\n")
    _say_pool(train, say)


def _enough(specs: Sequence[RunSpec], parts: Sequence[Part], epochs: int) -> list[int | None]:
    """How many records of each part the run with the largest pool needs."""
    by_run = [sizes(parts, epochs, spec.pool_records, spec.seed) for spec in specs]
    return [None if None in own else max(own) for own in zip(*by_run, strict=True)]


def _folders(config: LadderConfig, workdir: Workdir) -> dict[str, epath.Path]:
    """Where the records of each part are."""
    corpus = config.corpus
    parts = corpus.options.get("parts", {}) if corpus.kind == "mixture" else [corpus.kind]
    root = storage.place(corpus.cache) if corpus.cache else workdir.train_records
    return {part: root / part for part in parts}


def _say_pool(train: Mapping[str, Records], say: Say) -> None:
    for part, own in train.items():
        told = "all of it" if own.is_whole else "a fair sample of it"
        say(f"corpus {part}: {len(own) * (own.width - 1):,} tokens to train on, {told}")


def _write_validation(config: LadderConfig, workdir: Workdir, say: Say) -> None:
    missing = {n: s for n, s in config.evaluation.validation_sets.items() if not workdir.validation_set(n).exists()}
    if not missing:
        return
    from tasks.questions import validation
    from tasks.text import corpora, vocab

    vocabulary = vocab.load(config.corpus.vocabulary)
    for name, source in missing.items():
        say(f"reading the validation set {name}")
        task = corpora.validation(name, source.kind, vocabulary, **source.options)
        length, sequences = config.model.sequence_length, source.sequences
        read = validation.read(task, corpora.VALIDATION, record_length=length, max_sequences=sequences)
        validation.save(read, workdir.validation_set(name))


def _refuse_small_table(config: LadderConfig) -> None:
    # What lies beyond a table is read as not a number, and the run then seems to diverge.
    if (rows := config.model.vocab_size) is None:
        return
    from tasks.text import vocab

    if (ids := vocab.size(config.corpus.vocabulary)) > rows:
        raise ValueError(
            f"model.vocab_size is {rows:,} and the vocabulary {config.corpus.vocabulary} has {ids:,} ids; "
            f"set model.vocab_size={ids}, or leave it out"
        )


def _refuse_unaskable(config: LadderConfig, summary: Mapping[str, Any]) -> None:
    suite = runs.suite(config.evaluation)
    names = [*summary["validation_tokens"], *config.evaluation.validation_sets, *config.evaluation.tasks, *suite]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"evaluation: {', '.join(twice)} is there twice; give each set and task a name of its own")
    runs.refuse_unaskable(config.evaluation, config.corpus.vocabulary, config.model.sequence_length)


def _refuse_repetition(config: LadderConfig, specs: Sequence[RunSpec], parts: Sequence[str], pool: Pool) -> None:
    length, longest = config.model.sequence_length, max(specs, key=lambda spec: spec.tokens)
    for part, drawn, there in zip(parts, pool.drawn(longest), pool.sizes_for(longest), strict=True):
        epochs = -(-drawn // there)
        if epochs > config.corpus.epochs:
            of = "the corpus" if len(parts) == 1 else f"the corpus's part {part}"
            raise ValueError(
                f"{of} has {there * length:,} tokens and {longest.run} trains on {drawn * length:,}: give more text, "
                f"shorten the run, or ask for repetition with --set corpus.epochs={epochs}"
            )


def _refuse_unmeasured(config: LadderConfig, summary: Mapping[str, Any]) -> None:
    # The fit would refuse it too, after hours of training.
    sets = [*summary["validation_tokens"], *config.evaluation.validation_sets]
    tasks = [*config.evaluation.tasks, *runs.suite(config.evaluation)]
    losses = [*(f"loss/{name}" for name in sets), *(f"bpb/{name}" for name in (*sets, *tasks))]
    errors = [f"error/{name}" for name in (*tasks, "average")] if tasks else []
    for kind, asked, measured in (("loss", config.fit.loss, losses), ("error", config.fit.error, errors)):
        if asked is not None and asked not in measured and f"{kind}/{asked}" not in measured:
            raise ValueError(f"fit.{kind}: {asked!r} is not measured; there are {', '.join(measured) or 'no tasks'}")


def _refuse_other_corpus(config: LadderConfig, workdir: Workdir) -> None:
    differing = _differing(config, workdir)
    if any(key.startswith(FIXED) for key in differing):
        _refuse(workdir, differing)


def _refuse_other_runs(config: LadderConfig, specs: Sequence[RunSpec], workdir: Workdir) -> None:
    # Runs may come and go, and be rungs or targets; but one that stays must be what it was.
    parts = Pool(workdir.train_records).parts
    for spec in specs:
        path = workdir.spec(spec.run)
        if not path.exists():
            continue
        earlier = specs_.load(path)
        if dataclasses.replace(earlier.alone, role=spec.role) == spec.alone:
            _refuse_other_pool(spec, earlier, path, parts, config.corpus.epochs)
            continue
        if differing := _differing(config, workdir):
            _refuse(workdir, differing)
        raise ValueError(f"{path} was planned by another version of this program; choose another --workdir")


def _refuse_other_pool(spec: RunSpec, earlier: RunSpec, path: epath.Path, parts: Sequence[Part], epochs: int) -> None:
    was, now = (sizes(parts, epochs, one.pool_records, one.seed) for one in (earlier, spec))
    if was != now:
        trunk, tokens = (spec.trunk or earlier.trunk), spec.pool_records * spec.sequence_length
        raise ValueError(
            f"{path}: {spec.run} was planned to read from another pool than with the trunk "
            f"{trunk.run if trunk else spec.run}, which reads {tokens:,} tokens; choose another --workdir, or a larger "
            "corpus.pool_tokens there"
        )


def _differing(config: LadderConfig, workdir: Workdir) -> dict[str, str]:
    """How the workdir's config says otherwise what runs are, by key."""
    differences = _differences(config, workdir)
    return {k: told for k, told in differences.items() if k.startswith(FIXED) or not k.startswith(OF_NO_RUN)}


def _differences(config: LadderConfig, workdir: Workdir) -> dict[str, str]:
    theirs, ours = _flat(config_file.as_tree(config_file.load(str(workdir.config)))), _flat(config_file.as_tree(config))
    return {
        key: f"{key} is {theirs.get(key, 'absent')} there and {ours.get(key, 'absent')} here"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    }


def _refuse(workdir: Workdir, differing: Mapping[str, str]) -> NoReturn:
    told = "; ".join(differing.values())
    raise ValueError(f"{workdir.root} was made by another config: {told}; choose another --workdir")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}
