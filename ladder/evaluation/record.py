"""record.json of a run: what has been measured, and what is still to be."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from fitting.testbeds.testbed import Measurement, RunRecord
from ladder import spec as specs
from ladder import storage
from ladder.config import Evaluation, LadderConfig
from ladder.spec import RECORD_REMEDY, RunSpec, Workdir
from ladder.training import data, hosts
from ladder.training.pool import Pool
from models import accounting
from models.config import DecoderConfig
from models.saved import SavedModel
from tasks.questions import prompts, rows, suite_files
from tasks.questions.gauntlet import Definition
from tasks.text import vocab


def suite(evaluation: Evaluation) -> Mapping[str, Definition]:
    """The downstream tasks of an evaluation's suite, by name; none where it has no suite."""
    return suite_files.choose(evaluation.suite.tasks) if evaluation.suite else {}


def refuse_unaskable(evaluation: Evaluation, vocabulary: str, sequence_length: int) -> None:
    """Raises the ValueError that an evaluation would, after hours: a task that is missing, malformed or too long."""
    loaded = functools.cache(functools.partial(vocab.load, vocabulary))
    sources = evaluation.suite.sources if evaluation.suite else ()
    for task in suite(evaluation).values():
        read = rows.read(task, sources)
        prompts.refuse_long_answers(task, read.rows, loaded, sequence_length)


def begun(config: LadderConfig, spec: RunSpec, workdir: Workdir) -> RunRecord:
    """What has been measured of a run so far, finished or broken off."""
    for path in (workdir.partial_record(spec.run), workdir.record(spec.run)):
        if path.exists():
            return RunRecord.load(path, RECORD_REMEDY)
    return _blank_of_run(config, spec, workdir, "")


def begun_checkpoint(name: str, model: SavedModel, workdir: Workdir) -> RunRecord:
    """What has been measured so far of a model from elsewhere; on how many tokens it was trained is not known.

    Raises:
      ValueError: if a model of another shape or origin was measured under that name.
    """
    origin = ", ".join(f"{key} {value}" for key, value in model.provenance.items() if value)
    blank = _blank(model.decoder, 0, run=name, role="checkpoint", corpus="", model=origin)
    for path in (workdir.partial_record(name), workdir.record(name)):
        if path.exists():
            record = RunRecord.load(path, RECORD_REMEDY)
            if (record.model, record.params) != (blank.model, blank.params):
                raise ValueError(f"{path} is of another model ({record.model}); choose another --workdir")
            return record
    return blank


def unmeasured(config: LadderConfig, workdir: Workdir, record: RunRecord) -> tuple[list[str], list[str]]:
    """Validation sets and downstream tasks that the config asks for and the record does not have."""
    if record.quarantine:
        return [], []
    sets = [*data.validation_sets(workdir), *config.evaluation.validation_sets]
    tasks = [*config.evaluation.tasks, *suite(config.evaluation)]
    return [name for name in sets if name not in record.losses], [name for name in tasks if name not in record.errors]


def is_finished(config: LadderConfig, spec: RunSpec, workdir: Workdir) -> bool:
    """Whether a run's record.json holds all that the config asks for, or says why it never will."""
    path = workdir.record(spec.run)
    return path.exists() and not any(unmeasured(config, workdir, RunRecord.load(path, RECORD_REMEDY)))


def keep(record: RunRecord, workdir: Workdir) -> None:
    """Writes what has been measured so far, for an evaluation that breaks off to go on from."""
    if hosts.is_first():
        record.save(workdir.partial_record(record.run))


def finish(record: RunRecord, workdir: Workdir) -> RunRecord:
    """Writes record.json, whole, in place of the partial one."""
    if hosts.is_first():
        record.save(workdir.record(record.run))
        workdir.partial_record(record.run).unlink(missing_ok=True)
    return record


def settled(record: RunRecord, workdir: Workdir) -> RunRecord:
    """A record to which nothing is to be added, finished where a kill came between its last measurement and that."""
    return finish(record, workdir) if workdir.partial_record(record.run).exists() else record


def quarantine(config: LadderConfig, spec: RunSpec, workdir: Workdir, why: str) -> RunRecord:
    """Writes the record of a run that has no measurements and must not be fitted, and why."""
    return finish(_blank_of_run(config, spec, workdir, why), workdir)


def with_set(record: RunRecord, name: str, scores: Mapping[str, Measurement], source: str = "") -> RunRecord:
    """The record with one more validation set measured, `loss` among its scores; the source is a sha256."""
    return dataclasses.replace(
        _with_scores(record, name, scores, source), losses={**record.losses, name: scores["loss"]}
    )


def with_task(
    record: RunRecord, name: str, scores: Mapping[str, Measurement], chance_error: float, source: str = ""
) -> RunRecord:
    """The record with one more downstream task measured, `accuracy` among its scores; the source is a sha256."""
    error = Measurement(1 - scores["accuracy"].value, scores["accuracy"].stderr)
    return dataclasses.replace(
        _with_scores(record, name, scores, source),
        errors={**record.errors, name: error},
        chance_errors={**record.chance_errors, name: chance_error},
    )


def _with_scores(record: RunRecord, name: str, scores: Mapping[str, Measurement], source: str) -> RunRecord:
    sources = {**record.sources, name: source} if source else record.sources
    return dataclasses.replace(record, scores={**record.scores, name: dict(scores)}, sources=sources)


def identity(spec: RunSpec, workdir: Workdir) -> str:
    """A run's identity (`ladder.spec.identity`) on the workdir's pool; "" where that is not known by content."""
    pool = Pool(workdir.train_records).described(spec)
    return specs.identity(spec, pool) if pool else ""


def _blank_of_run(config: LadderConfig, spec: RunSpec, workdir: Workdir, quarantine: str) -> RunRecord:
    names: dict[str, Any] = {"run": spec.run, "role": spec.role, "corpus": config.corpus.kind, "model": spec.size}
    names |= {"trunk": spec.trunk.run if spec.trunk else "", "spent_flops": _spent_flops(spec, workdir)}
    return _blank(spec.decoder, spec.tokens, **names, quarantine=quarantine, identity=identity(spec, workdir))


def _spent_flops(spec: RunSpec, workdir: Workdir) -> float:
    """Of the steps that a run has trained itself: all of them where its trunk had no checkpoint left for it."""
    rows = storage.read_rows(workdir.metrics(spec.run)) if workdir.metrics(spec.run).exists() else []
    first_step = rows[0].get("first_step", 0) if rows else spec.first_step
    return spec.flops * (spec.steps - first_step) / spec.steps


def _blank(decoder: DecoderConfig, tokens: int, **known: Any) -> RunRecord:
    """A record without measurements, of a model that was trained on so many tokens."""
    params = accounting.params(decoder)
    return RunRecord(
        params=params,
        params_non_embedding=accounting.params_non_embedding(decoder),
        tokens=tokens,
        token_multiplier=tokens / params,
        flops=accounting.training_flops(params, tokens),
        losses={},
        errors={},
        chance_errors={},
        **known,
    )
