"""Finished runs of other workdirs, taken over in place of training them again."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fitting.files import write
from fitting.testbeds.testbed import RunRecord
from ladder import storage
from ladder.config import LadderConfig
from ladder.evaluation import record as records
from ladder.events import Say
from ladder.spec import RECORD_REMEDY, RunSpec, Workdir
from ladder.training import data
from tasks.questions import questions, rows


def reuse(
    config: LadderConfig, specs: Sequence[RunSpec], workdir: Workdir, others: Sequence[Workdir], say: Say
) -> None:
    """Takes the runs that other workdirs have finished into this one, where their identities are the same.

    Of each come its metrics, its last checkpoint and, last, its record: a kill in between leaves a run that is not
    finished, and the next command goes on with it. Of what was measured there stays what was measured on the very data
    of this workdir; the rest is measured anew, for which the checkpoint must be there.

    Args:
      config: of the ladder that takes them.
      specs: its runs; those that have a record already are left alone.
      workdir: prepared (`ladder.corpus.prepare`).
      others: to take from; the first that has a run gives it.
      say: is told which were taken, and from where.

    Raises:
      ValueError: one of the others is no workdir.
    """
    finished: dict[str, tuple[Workdir, RunRecord]] = {}
    for other in others:
        for theirs in _finished(other, say):
            finished.setdefault(theirs.identity, (other, theirs))
    for spec in specs:
        identity = records.identity(spec, workdir)
        if identity not in finished or workdir.record(spec.run).exists():
            continue
        other, theirs = finished[identity]
        taken = _as_ours(config, spec, workdir, theirs)
        trained = other.checkpoints(theirs.run) / str(spec.steps)
        is_trained = storage.is_whole(trained)
        is_measured = not any(records.unmeasured(config, workdir, taken))
        if not is_measured and not is_trained:
            say(f"{spec.run}: {theirs.run} of {other.root} has no checkpoint to measure; it is trained again")
            continue
        if other.metrics(theirs.run).exists():
            write(workdir.metrics(spec.run), other.metrics(theirs.run).read_bytes())
        for step in (*spec.branches, *((spec.steps,) if is_trained else ())):
            if storage.is_whole(there := other.checkpoints(theirs.run) / str(step)):
                _copy_whole(there, workdir.checkpoints(spec.run) / str(step))
        if is_measured:
            records.finish(taken, workdir)
        else:
            records.keep(taken, workdir)
        say(f"{spec.run}: taken from {other.root}, where it is {theirs.run}")


def _finished(other: Workdir, say: Say) -> list[RunRecord]:
    if not other.plan.exists():
        raise ValueError(f"{other.root} is no workdir: it has no plan.json, so no run of it can be reused")
    runs = [folder.name for folder in sorted((other.root / "runs").iterdir())]
    found = [RunRecord.load(other.record(run), RECORD_REMEDY) for run in runs if other.record(run).exists()]
    if unknown := [record.run for record in found if not record.identity]:
        say(f"{other.root}: not known by content, so not reused: {', '.join(unknown)}")
    return [record for record in found if record.identity]


def _as_ours(config: LadderConfig, spec: RunSpec, workdir: Workdir, theirs: RunRecord) -> RunRecord:
    """The record under this ladder's names, with what was measured on the data that this ladder asks for."""
    sources = _sources(config, workdir, theirs) if not theirs.quarantine else {}
    kept = {name for name, source in theirs.sources.items() if source and sources.get(name) == source}
    ours: dict[str, Any] = {"run": spec.run, "role": spec.role, "corpus": config.corpus.kind, "model": spec.size}
    for field in ("losses", "errors", "chance_errors", "scores", "sources"):
        ours[field] = {name: value for name, value in getattr(theirs, field).items() if name in kept}
    return dataclasses.replace(theirs, **ours)


def _sources(config: LadderConfig, workdir: Workdir, theirs: RunRecord) -> Mapping[str, str]:
    """The sha256 of the data of each set and task that is asked for and that they have measured."""
    sets = [*data.validation_sets(workdir), *config.evaluation.validation_sets]
    found = {name: data.validation_set(workdir, name).sha256 for name in sets if name in theirs.losses}
    for name in config.evaluation.tasks:
        found[name] = questions.load(workdir.questions(name)).sha256
    for name, task in records.suite(config.evaluation).items():
        if name in theirs.errors and config.evaluation.suite:
            found[name] = rows.read(task, config.evaluation.suite.sources).sha256
    return found


def _copy_whole(source: epath.Path, target: epath.Path) -> None:
    """Copies a checkpoint so that it is there whole or, to orbax, not at all."""
    if storage.is_whole(target):
        return
    if storage.is_remote(target):
        storage.copy(source, target, last=storage.COMMITTED)
        (target / storage.COMMITTED).write_bytes(b"committed")  # a checkpoint from a disk may have none
        return
    beside = target.parent / f"{target.name}.orbax-checkpoint-tmp"  # which orbax removes where it finds it
    if beside.exists():
        beside.rmtree()
    storage.copy(source, beside, last=storage.COMMITTED)
    beside.rename(target)
