"""A workdir made ready to train in: claimed by its config, planned, its corpus on disk."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from ladder import config as configs
from ladder import plan as plans
from ladder import quiet, storage
from ladder import spec as specs_
from ladder.config import LadderConfig
from ladder.corpus import caching
from ladder.evaluation import record as runs
from ladder.events import Cached
from ladder.spec import CORPUS_REMEDY, RunSpec, Workdir, write
from ladder.training import data
from ladder.training.order import Mixing

# What may change between two commands on one workdir: these say how runs are carried out, measured and read, not what
# they are. Validation sets and tasks may be added when runs are done.
FREE_TO_CHANGE = (
    "training.",
    "fit.",
    "evaluation.suite",
    "evaluation.validation.",
    "evaluation.paper_validation",
    "evaluation.examples",
)
HELD_OUT_SEED = 0


def prepare(
    config: LadderConfig,
    specs: Sequence[RunSpec],
    workdir: Workdir,
    say: Callable[[str], None],
    report: Callable[[Cached], None],
) -> None:
    """Writes the corpus, every spec.json, plan.json and ladder.yaml, where they are not there yet.

    Raises:
      ValueError: if another config made the workdir, the corpus is missing or too small, or it does not measure what is
        to be fitted.
    """
    claimed = workdir.config.exists()
    if claimed:
        _refuse_other_config(config, workdir)
        _refuse_other_plan(specs, workdir)
    if not (claimed and workdir.corpus.exists()):
        _write_corpus(config, specs, workdir, say, report)
    summary = storage.read_json(workdir.corpus, CORPUS_REMEDY, "train_tokens", "train_rates", "validation_tokens")
    _refuse_unaskable(config, summary)
    _write_validation(config, workdir, say)
    _refuse_repetition(config, specs, summary)
    _refuse_unmeasured(config, summary)
    for spec in specs:
        write(workdir.spec(spec.run), specs_.dump(spec))
    write(workdir.plan, json.dumps(plans.as_table(specs), indent=2) + "\n")
    # Last: a config that is refused, or stopped on the way here, does not claim the workdir, so it can be put right.
    write(workdir.config, configs.dump(config))


def train_tokenizer(config: LadderConfig, size: int, out: epath.Path) -> None:
    """Trains a byte-level BPE of `size` ids on the config's corpus and writes its tokenizer.json.

    Raises:
      ValueError: if the file exists, the corpus is missing, or has too little text for so many ids.
    """
    from tasks.text import corpora, tokenizer, vocab

    if out.exists():
        raise ValueError(f"{out} exists; remove it or choose another file")
    corpus = corpora.build(config.corpus.kind, vocab.load(vocab.BYTES), **config.corpus.options)
    write(out, tokenizer.train(corpora.train_texts(corpus), size))


def _write_corpus(
    config: LadderConfig,
    specs: Sequence[RunSpec],
    workdir: Workdir,
    say: Callable[[str], None],
    report: Callable[[Cached], None],
) -> None:
    say("reading the corpus")
    quiet.import_tensorflow()
    from tasks.questions import questions, suites
    from tasks.text import corpora, records, vocab

    length = config.model.sequence_length
    corpus = corpora.build(config.corpus.kind, vocab.load(config.corpus.vocabulary), **config.corpus.options)
    shared = config.corpus.cache
    root = storage.place(shared) if shared else workdir.train_records
    rates = {part: rate for part, (_, rate) in corpus.parts.items()}
    drawn = _drawn(config, specs, rates)
    limit = None if shared else drawn
    train = caching.write(config, corpus, root, report, max_records=limit, anew=not shared)
    data.write_mixture(
        workdir.train_records, [(rate, str(root / part) if shared else part) for part, rate in rates.items()]
    )
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
    summary = {
        "train_tokens": {part: len(records) * length for part, records in train.items()},
        "train_rates": rates,
        "validation_tokens": {name: count * length for name, count in validation_records.items()},
        "validation_bytes_per_token": {
            name: records.bytes_per_token(task, corpora.VALIDATION) for name, task in corpus.validation.items()
        },
    }
    write(workdir.corpus, json.dumps(summary, indent=2) + "\n")
    tokens = sum(summary["train_tokens"].values())
    say(f"corpus: {tokens:,} tokens to train on; validation sets: {', '.join(corpus.validation)}")


def _write_validation(config: LadderConfig, workdir: Workdir, say: Callable[[str], None]) -> None:
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


def _refuse_unaskable(config: LadderConfig, summary: Mapping[str, Any]) -> None:
    suite = runs.suite(config.evaluation)
    names = [*summary["validation_tokens"], *config.evaluation.validation_sets, *config.evaluation.tasks, *suite]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"evaluation: {', '.join(twice)} is there twice; give each set and task a name of its own")
    runs.refuse_unaskable(config.evaluation, config.corpus.vocabulary, config.model.sequence_length)


def _drawn(config: LadderConfig, specs: Sequence[RunSpec], rates: Mapping[str, float]) -> dict[str, int]:
    """How many records of each part the longest run reads."""
    longest = max(spec.tokens for spec in specs) // config.model.sequence_length
    return dict(zip(rates, Mixing(list(rates.values()), config.seed).drawn(longest).tolist(), strict=True))


def _refuse_repetition(config: LadderConfig, specs: Sequence[RunSpec], summary: Mapping[str, Any]) -> None:
    length, longest = config.model.sequence_length, max(specs, key=lambda spec: spec.tokens)
    for part, records in _drawn(config, specs, summary["train_rates"]).items():
        there = summary["train_tokens"][part]
        epochs = -(-records * length // there)
        if epochs > config.corpus.epochs:
            of = "the corpus" if len(summary["train_rates"]) == 1 else f"the corpus's part {part}"
            raise ValueError(
                f"{of} has {there:,} tokens and {longest.run} trains on {records * length:,}: give more text, shorten "
                f"the run, or ask for repetition with --set corpus.epochs={epochs}"
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


def _refuse_other_config(config: LadderConfig, workdir: Workdir) -> None:
    theirs, ours = _flat(configs.as_tree(configs.load(str(workdir.config)))), _flat(configs.as_tree(config))
    differing = [
        f"{key} is {theirs.get(key, 'absent')} there and {ours.get(key, 'absent')} here"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key) and not key.startswith(FREE_TO_CHANGE)
    ]
    if differing:
        raise ValueError(f"{workdir.root} was made by another config: {'; '.join(differing)}; choose another --workdir")


def _refuse_other_plan(specs: Sequence[RunSpec], workdir: Workdir) -> None:
    # The same config gives other runs where a recipe has changed since; their checkpoints must not be mixed.
    for spec in specs:
        path = workdir.spec(spec.run)
        if not path.exists() or path.read_bytes() != specs_.dump(spec):
            raise ValueError(f"{path} was planned by another version of this program; choose another --workdir")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}
