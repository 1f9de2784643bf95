"""Checkpoint × validation sets and downstream tasks → RunRecord."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import jax
import numpy as np
import pandas as pd

from fitting.files import write
from fitting.testbeds.testbed import Measurement, RunRecord
from ladder import storage
from ladder.config import Attention, Evaluation, LadderConfig, ValidationSet
from ladder.evaluation import record as records
from ladder.evaluation import trained
from ladder.evaluation.scorer import Scored, Scorer
from ladder.events import Evaluating
from ladder.spec import RunSpec, Workdir
from ladder.training import data, hosts
from ladder.training import mesh as meshes
from ladder.training.train import final_params
from models.decoder import Decoder
from tasks.questions import prompts, questions, rows, scoring, validation
from tasks.questions.gauntlet import Definition
from tasks.questions.questions import Question
from tasks.text import vocab

NOT_FINITE = "its loss on {} is not finite"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A downstream task, ready to be scored: its questions, a blind guess's accuracy, the sha256 of its data or ""."""

    questions: Iterable[Question]
    chance_accuracy: float
    source: str = ""


Sets = Mapping[str, Callable[[], validation.ValidationSet]]
Tasks = Mapping[str, Callable[[], Asked]]
Report = Callable[[Evaluating], None]


def evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> RunRecord:
    """Measures what the config asks for and a trained run's record.json does not have yet.

    What was measured before stays as it is, so tasks can be added to a ladder that is done; a kill costs no more than
    the task that was being scored. A run with a loss that is not finite is quarantined.

    Raises:
      ValueError: if the run is not trained to its end, or a task cannot be asked.
    """
    record = records.begun(config, spec, workdir)
    sets, tasks = records.unmeasured(config, workdir, record)
    if not sets and not tasks:
        return records.settled(record, workdir)
    mesh = meshes.of(config.training.mesh)
    # A kernel that was asked for to train by may be another machine's.
    attention: Attention = "plain" if config.training.attention == "plain" else "auto"

    def own(name: str) -> Asked:
        asked = questions.load(workdir.questions(name))
        return Asked(asked, 1 - asked.chance_error, asked.sha256)

    suite = _suite(config.evaluation, config.corpus.vocabulary, spec.sequence_length)
    return _measure(
        record,
        Scorer(spec.decoder, final_params(spec, workdir, mesh), mesh, attention),
        {name: partial(data.validation_set, workdir, name) for name in sets},
        {name: suite.get(name, partial(own, name)) for name in tasks},
        config.evaluation.examples,
        workdir,
        report,
    )


def evaluate_checkpoint(evaluation: Evaluation, checkpoint: str, workdir: Workdir, report: Report) -> RunRecord:
    """Measures a trained model, wherever it comes from, on the suite and the validation sets of an `evaluation:`.

    Args:
      evaluation: what to measure; sets and tasks that are made of a ladder's corpus are not for other models.
      checkpoint: a folder that `ladder convert` wrote, or `<workdir>/runs/<run>`, local or gs://.
      workdir: gets runs/<the folder's name>/record.json; what is there already is not measured again.
      report: called now and then.

    Raises:
      ValueError: if the folder holds no model or one of unknown vocabulary, nothing is asked for, another model was
        measured there, or a task cannot be asked.
    """
    storage.refuse_placeholders(dataclasses.asdict(evaluation), "evaluation")
    name = storage.place(checkpoint).name
    model, params = trained.load(checkpoint)
    if not model.vocabulary:
        raise ValueError(f"{checkpoint} does not name its vocabulary; convert it again with --vocabulary")
    record = records.begun_checkpoint(name, model, workdir)
    records.refuse_unaskable(evaluation, model.vocabulary, model.sequence_length)
    suite = _suite(evaluation, model.vocabulary, model.sequence_length)
    sets = {
        own: partial(_read_set, own, source, model.vocabulary, model.sequence_length)
        for own, source in evaluation.validation_sets.items()
    }
    if not suite and not sets:
        raise ValueError("the config asks for nothing that a checkpoint can be measured on; see docs/evaluation.md")
    sets = {own: read for own, read in sets.items() if own not in record.losses}
    tasks = {own: ask for own, ask in suite.items() if own not in record.errors}
    if record.quarantine or not (sets or tasks):
        return records.settled(record, workdir)
    mesh = meshes.make()
    token_1x1 = np.zeros((1, 1), np.int32)
    boxed = jax.eval_shape(Decoder(model.decoder).init, jax.random.key(0), token_1x1)["params"]
    params = jax.device_put(params, meshes.sharding_of(boxed, mesh))
    return _measure(record, Scorer(model.decoder, params, mesh), sets, tasks, evaluation.examples, workdir, report)


def _measure(
    record: RunRecord,
    scorer: Scorer,
    sets: Sets,
    tasks: Tasks,
    examples: str | None,
    workdir: Workdir,
    report: Report,
) -> RunRecord:
    """The record with these sets and tasks measured; it is kept after each."""

    def score(name: str, asked: Iterable[Question]) -> Scored | None:
        """None where the model's losses are not finite."""
        report(Evaluating(record.run, name))
        scored = scorer(asked, lambda done: report(Evaluating(record.run, name, done)))
        return scored if np.isfinite(scored.loss_sum_N).all() else None

    def quarantined(name: str) -> RunRecord:
        return records.finish(dataclasses.replace(record, quarantine=NOT_FINITE.format(name)), workdir)

    for name, read in sets.items():
        held_out = read()
        if (scored := score(name, held_out)) is None:
            return quarantined(name)
        record = records.with_set(record, name, _losses(scored, held_out), held_out.sha256)
        records.keep(record, workdir)

    for name, ask in tasks.items():
        asked = ask()
        if (scored := score(name, asked.questions)) is None:
            return quarantined(name)
        scores = scoring.score(scored.rows, scored.loss_sum_N, scored.greedy_N)
        if examples and hosts.is_first():
            write(workdir.examples(record.run, name, examples), _table(scored, scores, examples))
        measured = _measured(scoring.summarise(scores, asked.chance_accuracy))
        record = records.with_task(record, name, measured, 1 - asked.chance_accuracy, asked.source)
        records.keep(record, workdir)
    return records.finish(record, workdir)


def _suite(evaluation: Evaluation, vocabulary: str, sequence_length: int) -> Tasks:
    """The tasks of an evaluation's suite, each read when it is its turn."""
    # With it comes TensorFlow, which a corpus's own tasks do without.
    loaded = functools.cache(partial(vocab.load, vocabulary))
    sources = evaluation.suite.sources if evaluation.suite else ()

    def ask(task: Definition) -> Asked:
        read = rows.read(task, sources)
        asked = prompts.ask(task, read.rows, loaded(), sequence_length)
        return Asked(asked, prompts.chance_accuracy(task, read.rows), read.sha256)

    return {name: partial(ask, task) for name, task in records.suite(evaluation).items()}


def _read_set(name: str, source: ValidationSet, vocabulary: str, sequence_length: int) -> validation.ValidationSet:
    from tasks.text import corpora

    task = corpora.validation(name, source.kind, vocab.load(vocabulary), **source.options)
    return validation.read(task, corpora.VALIDATION, record_length=sequence_length, max_sequences=source.sequences)


def _losses(scored: Scored, held_out: validation.ValidationSet) -> dict[str, Measurement]:
    """Loss and bits a byte: errors over sequences and over tokens, and 95 % intervals named as open_lm names them."""
    loss_sum_N, tokens_N = scored.loss_sum_N, scored.rows.tokens_N
    loss = scoring.mean_loss(loss_sum_N, tokens_N)
    over_tokens = scoring.mean_loss_over_tokens(loss_sum_N, scored.square_sum_N, tokens_N)
    ends = {
        "sequences": scoring.interval_over_sequences(loss_sum_N, tokens_N),
        "tokens": scoring.interval_over_tokens(over_tokens),
    }
    nats = {"loss": loss, "loss_over_tokens": over_tokens}
    for over, (lower, upper) in ends.items():
        # The end of an interval has no error of its own.
        nats[f"loss_{over}_lower_95"] = scoring.Estimate(lower, 0)
        nats[f"loss_{over}_upper_95"] = scoring.Estimate(upper, 0)
    if not held_out.text_bytes:
        return _measured(nats)
    tokens, text_bytes = len(held_out.token_T), held_out.text_bytes
    bits = {
        name.replace("loss", "bits_per_byte"): scoring.bits_per_byte(estimate, tokens, text_bytes)
        for name, estimate in nats.items()
    }
    return _measured(nats | bits)


def _measured(estimates: dict[str, scoring.Estimate]) -> dict[str, Measurement]:
    return {name: Measurement(estimate.value, estimate.stderr) for name, estimate in estimates.items()}


def _table(scored: Scored, scores: scoring.Scores, kind: str) -> bytes:
    """One line a question, so that two runs can be compared question by question."""
    losses_Q = np.split(scored.loss_sum_N / scored.rows.tokens_N, np.flatnonzero(np.diff(scored.rows.question_N)) + 1)
    table = pd.DataFrame(
        {
            "question": np.arange(len(scores.gold_Q)),
            "category": scores.category_Q,
            "gold": scores.gold_Q,
            "answer": scores.answer_Q,
            "correct": scores.answer_Q == scores.gold_Q,
            "loss": scores.loss_Q,
            "bits_per_byte": scores.bits_per_byte_Q,
            "margin": scores.margin_Q,
            "probability": scores.probability_Q,
            "choice_losses": [losses_C.tolist() for losses_C in losses_Q],
        }
    )
    if kind == "parquet":
        return table.to_parquet(index=False)
    return table.to_json(orient="records", lines=True, double_precision=15).encode()
