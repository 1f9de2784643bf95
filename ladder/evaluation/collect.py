"""Records of the runs of one workdir, or of several → testbed.csv."""

import dataclasses
from collections.abc import Iterator, Sequence

from etils import epath

from fitting.testbeds.testbed import RunRecord, Testbed
from ladder import spec as specs
from ladder.events import Say
from ladder.spec import RECORD_REMEDY, Workdir

Found = tuple[Workdir, RunRecord]


def collect(workdirs: Sequence[Workdir], out: epath.Path, say: Say, *, curves: bool = False) -> None:
    """Writes a testbed, a row for every run that has a record; tells which have none, and which are in quarantine.

    A run that is in several workdirs, by its identity, is one row. With `curves`, those of all runs are below.

    Raises:
      ValueError: a folder that is no workdir, or one without any record; two runs of one name; a set or a task that was
        measured on other data in one workdir than in another.
    """
    found = _once([measured for workdir in workdirs for measured in _measured(workdir, say, curves)], say)
    known = {record.run: settings(workdir, record.run) for workdir, record in found}
    measured = Testbed.from_records([record for _, record in found], known) if found else None
    if curves:
        from ladder.evaluation.curves import with_curves

        planned = {run: workdir for workdir in workdirs for run in _roles(workdir)}
        measured = with_curves(measured, planned | {record.run: workdir for workdir, record in found}, say)
    if measured is None:
        raise ValueError("there are no runs to collect: train and evaluate some first")
    for run, why in measured.quarantined.items():
        say(f"quarantined: {run}, {why}")
    measured.write_csv(out)


def _roles(workdir: Workdir) -> dict[str, str]:
    """Of every run of a workdir's plan."""
    return {row["run"]: row["role"] for row in workdir.planned("role")}


def _measured(workdir: Workdir, say: Say, curves: bool) -> Iterator[Found]:
    roles = _roles(workdir)
    missing = [run for run in roles if not workdir.record(run).exists()]
    if len(missing) == len(roles) and not curves:
        raise ValueError(f"no run of {workdir.root} has a record.json yet; train and evaluate some first")
    if missing:
        say(f"not measured yet{'' if curves else ', so not in the table'}: {', '.join(missing)}")
    for run, role in roles.items():
        if run not in missing:  # a rung may have become a target since it was measured
            yield workdir, dataclasses.replace(RunRecord.load(workdir.record(run), RECORD_REMEDY), role=role)


def settings(workdir: Workdir, run: str) -> dict[str, float]:
    """What the quality gates judge of a run of ours. Its batch is left out: tiny models are well trained on one."""
    if not workdir.spec(run).exists():
        return {}
    spec = specs.load(workdir.spec(run))
    return {"warmup_steps": spec.hyperparameters.warmup_steps, "steps": spec.steps}


def _once(found: Sequence[Found], say: Say) -> list[Found]:
    once: list[Found] = []
    for workdir, record in found:
        for other, earlier in once:
            _refuse_other_data(workdir, record, other, earlier)
        twin = next(((w, r) for w, r in once if _is_same(r, record)), None)
        if twin is None:
            once.append((workdir, record))
        else:
            say(f"{record.run} of {workdir.root} is {twin[1].run} of {twin[0].root} and counts once")
        for other, earlier in once:
            if earlier.run == record.run and not _is_same(earlier, record):
                raise ValueError(
                    f"{record.run} of {workdir.root} is another run than that of {other.root}: pool, seed, recipe or "
                    "shape differ; collect them into tables of their own, or give the size another name in one of them"
                )
    return once


def _is_same(record: RunRecord, other: RunRecord) -> bool:
    if record.identity or other.identity:
        return record.identity == other.identity
    return repr(record) == repr(other)  # unknown stderrs, NaN, are the same too


def _refuse_other_data(workdir: Workdir, record: RunRecord, other: Workdir, earlier: RunRecord) -> None:
    for name in record.sources.keys() & earlier.sources.keys():
        if record.sources[name] != earlier.sources[name]:
            raise ValueError(
                f"{name} is other data in {workdir.root} than in {other.root}, so what was measured on it does not "
                "compare; evaluate one of them on the data of the other"
            )
