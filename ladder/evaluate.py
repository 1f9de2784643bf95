"""Checkpoint × validation sets and downstream tasks → RunRecord."""

import dataclasses
import functools
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from fitting.testbed import Measurement, RunRecord
from ladder import data, hosts
from ladder import mesh as meshes
from ladder import record as records
from ladder.config import LadderConfig
from ladder.progress import Evaluating
from ladder.scorer import Scored, Scorer
from ladder.spec import RunSpec, Workdir, write
from ladder.train import final_params
from tasks import prompts, questions, rows, scoring, validation
from tasks.questions import Question

NOT_FINITE = "its loss on {} is not finite"


def evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Callable[[Evaluating], None]) -> RunRecord:
    """Measures what the config asks for and a trained run's record.json does not have yet.

    What was measured before stays as it is, so tasks can be added to a ladder that is done; a kill costs no more than
    the task that was being scored. A run with a loss that is not finite is quarantined.

    Raises:
      ValueError: if the run is not trained to its end, or a task cannot be asked.
    """
    record = records.begun(config, spec, workdir)
    sets, tasks = records.unmeasured(config, workdir, record)
    if not sets and not tasks:
        return records.finish(record, workdir) if workdir.partial_record(spec.run).exists() else record
    mesh = meshes.of(config.training.mesh)
    scorer = Scorer(spec.decoder, final_params(spec, workdir, mesh), mesh)

    def score(name: str, asked: Iterable[Question]) -> Scored:
        report(Evaluating(spec.run, name))
        return scorer(asked, lambda done: report(Evaluating(spec.run, name, done)))

    for name in sets:
        held_out = data.validation_set(workdir, name)
        scored = score(name, held_out)
        if not np.isfinite(scored.loss_sum_N).all():
            return records.finish(dataclasses.replace(record, quarantine=NOT_FINITE.format(name)), workdir)
        record = records.with_set(record, name, _losses(scored, held_out), held_out.sha256)
        records.keep(record, workdir)

    suite, ask = records.suite(config), _asker(config, spec)
    for name in tasks:
        if name in suite:
            read = rows.read(suite[name], config.evaluation.suite.sources)
            asked, chance, source = ask(suite[name], read), prompts.chance_accuracy(suite[name], read.rows), read.sha256
        else:
            asked = questions.load(workdir.questions(name))
            chance, source = 1 - asked.chance_error, ""
        scored = score(name, asked)
        if not np.isfinite(scored.loss_sum_N).all():
            return records.finish(dataclasses.replace(record, quarantine=NOT_FINITE.format(name)), workdir)
        scores = scoring.score(scored.rows, scored.loss_sum_N, scored.greedy_N)
        if config.evaluation.examples and hosts.is_first():
            path = workdir.examples(spec.run, name, config.evaluation.examples)
            write(path, _table(scored, scores, config.evaluation.examples))
        record = records.with_task(record, name, _measured(scoring.summarise(scores, chance)), 1 - chance, source)
        records.keep(record, workdir)
    return records.finish(record, workdir)


def _asker(config: LadderConfig, spec: RunSpec) -> Callable[..., Iterable[Question]]:
    @functools.cache
    def vocabulary():
        from tasks import vocab  # and with it TensorFlow, which a corpus's own tasks do without

        return vocab.load(config.corpus.vocabulary)

    return lambda task, read: prompts.ask(task, read.rows, vocabulary(), spec.sequence_length)


def _losses(scored: Scored, held_out: validation.ValidationSet) -> dict[str, Measurement]:
    """Loss with its error over sequences and over tokens, and bits a byte."""
    tokens_N = scored.rows.tokens_N
    loss = scoring.mean_loss(scored.loss_sum_N, tokens_N)
    over_tokens = scoring.mean_loss_over_tokens(scored.loss_sum_N, scored.square_sum_N, tokens_N)
    estimates = {"loss": loss, "loss_over_tokens": over_tokens}
    if held_out.text_bytes:
        estimates["bits_per_byte"] = scoring.bits_per_byte(loss, len(held_out.token_T), held_out.text_bytes)
    return _measured(estimates)


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
