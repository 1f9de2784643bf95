"""How far a ladder is, read from its workdir alone: from outside, by anybody, while others write it. Writes nothing.

A hang is told from outside by two signs that come from two threads: the lease's heartbeat, which says that the process
is there, and the run's own files, which say that it gets on. Where the first goes on and the second do not, it hangs.
How long they may be silent follows from a window of steps, whose length is the run's own or, before its first row, that
of a run of so many FLOPs at the speed of the ladder's others: so a run that never comes to its first row is known too.
"""

import dataclasses
import datetime
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any, Literal

from etils import epath

from fitting.reports.words import span
from fitting.testbeds.testbed import RunRecord
from ladder import config_file, storage
from ladder.config import LadderConfig
from ladder.engines import lease as leases
from ladder.engines import schedule as schedules
from ladder.engines.lease import (  # of the rows, too, of a run without a lease, as older versions leave
    FRESH_SECONDS,
    Holder,
)
from ladder.engines.schedule import Schedule
from ladder.pods.cloud import Slice
from ladder.pods.topology import CHIPS
from ladder.spec import RECORD_REMEDY, Workdir

State = Literal["waiting", "running", "hung", "stale", "failed", "quarantined", "finished"]
AT_REST: tuple[State, ...] = ("failed", "quarantined", "finished")  # until somebody does something about it

# What a run may be silent for: until its first row, beyond three windows of steps; after it; and while it is measured.
STARTING_SECONDS, SAVING_SECONDS, MEASURING_SECONDS = 900, 300, 3600
WINDOWS = 3
UNKNOWN_WINDOW_SECONDS = 900
SECONDS_PER_HOUR = 3600
READERS = 16
PLANNED = ("role", "params", "token_multiplier", "flops", "steps")
ATTEMPT = ("host", "start", "end", "why", "message", "steps_redone")
ROW = ("step", "tokens", "loss_nats", "tokens_per_second", "step_seconds", "goodput", "started")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the files of one run said at one look; times are seconds since 1970, NaN-free: None where not known.

    Attributes:
      lease: who has it.
      attempts: of attempts.jsonl, those that have ended.
      rows: of metrics.jsonl.
      record: of record.json.
      heard: when one of its own files was last written.
      measuring: whether it has been measured in part.
      landed: when its record was written.
    """

    lease: Holder | None
    attempts: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, float]]
    record: RunRecord | None
    heard: float | None
    measuring: bool
    landed: float | None


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """One run at one look.

    Attributes:
      run, role, token_multiplier, steps: as planned.
      first_step: after which a branch begins.
      state: see `State`; `stale` is a run whose holder was not heard of, `hung` one whose holder is, and gets nowhere.
      note: by whom it is run, what it does, or why it is not.
      step: the last one that it has told.
      loss_nats, tokens_per_second: of its last window.
      seconds_left: of training, at that speed.
      attempts: begun so far.
      steps_redone: in all of them.
      held_seconds: for which it had machines, in all of them.
      dollars: what those cost on demand, where the config names machines.
      goodput: the share of the time since its first start that went into steps that counted.
    """

    run: str
    role: str
    token_multiplier: float
    state: State
    note: str
    step: int
    steps: int
    loss_nats: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    attempts: int
    steps_redone: int
    held_seconds: float
    dollars: float | None
    goodput: float | None
    first_step: int = 0

    @property
    def progress(self) -> float:
        """The share of its own steps that are done."""
        done = (self.step - self.first_step) / (self.steps - self.first_step)
        return 1.0 if self.state in ("finished", "quarantined") else min(1.0, max(0.0, done))


@dataclasses.dataclass(frozen=True)
class Status:
    """A ladder at one look.

    Attributes:
      name: of its config.
      looked: when, seconds since 1970.
      runs: in the order of the plan.
      flops, flops_done: of all runs.
      seconds_left: at the speed of the runs that are under way.
      dollars: so far, where the config names machines.
      goodput: of all runs together.
      schedule: as it was planned, where the config names machines.
    """

    name: str
    looked: float
    runs: tuple[RunStatus, ...]
    flops: float
    flops_done: float
    seconds_left: float | None
    dollars: float | None
    goodput: float | None
    schedule: Schedule | None = dataclasses.field(repr=False, default=None)

    @property
    def is_at_rest(self) -> bool:
        """Whether no run is under way or waits for one."""
        return all(run.state in AT_REST for run in self.runs)

    def count(self, *states: State) -> int:
        """How many runs are in one of these states."""
        return sum(run.state in states for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a workdir held at one look, and what it comes to."""

    config: LadderConfig
    plan: Sequence[Mapping[str, Any]]
    seen: Mapping[str, Seen]
    status: Status


def look(workdir: Workdir) -> Look:
    """Reads a workdir.

    Raises:
      ValueError: it is no workdir, or one of its files is damaged, naming it.
    """
    plan = workdir.planned(*PLANNED)
    config = config_file.load(str(workdir.config))
    schedule = schedules.load(workdir.schedule) if workdir.schedule.exists() else None
    with futures.ThreadPoolExecutor(READERS) as readers:  # a bucket answers each question late
        seen = dict(
            zip([row["run"] for row in plan], readers.map(lambda row: _seen(workdir, row["run"]), plan), strict=True)
        )
    return Look(config, plan, seen, _status(config, plan, seen, schedule, time.time()))


def as_data(status: Status) -> dict[str, Any]:
    """JSON-ready; null where something is not known."""
    told = {f.name: getattr(status, f.name) for f in dataclasses.fields(status) if f.name != "schedule"}
    told["runs"] = [dataclasses.asdict(run) | {"progress": run.progress} for run in status.runs]
    return {"schema_version": 1, **told}


def held_spans(seen: Seen, now: float) -> list[dict[str, Any]]:
    """When a run had machines: `machine`, `start` and `end` in seconds since 1970, and `why` it ended, or `running`."""
    spans = [
        {"machine": a["host"], "start": _seconds(a["start"]), "end": _seconds(a["end"]), "why": a["why"]}
        for a in seen.attempts
    ]
    if seen.lease:
        end = now if _is_fresh(seen.lease, now) else _seconds(seen.lease.heartbeat)
        since = _seconds(seen.lease.since)
        spans.append({"machine": seen.lease.host, "start": since, "end": max(since, end), "why": "running"})
    if not spans and seen.rows:  # as older versions leave them
        end = seen.landed or seen.heard or now
        why = "finished" if seen.landed else "running"
        spans.append({"machine": "this ladder", "start": seen.rows[0]["started"], "end": end, "why": why})
    return spans


def _seen(workdir: Workdir, run: str) -> Seen:
    metrics, record, partial = workdir.metrics(run), workdir.record(run), workdir.partial_record(run)
    attempts = workdir.attempts(run)
    written = {path: _written(path) for path in (metrics, record, partial)}
    return Seen(
        lease=leases.read(workdir.lease(run)),
        attempts=storage.read_rows(attempts, *ATTEMPT) if attempts.exists() else [],
        rows=storage.read_rows(metrics, *ROW) if written[metrics] is not None else [],
        record=RunRecord.load(record, RECORD_REMEDY) if written[record] is not None else None,
        heard=max((when for when in written.values() if when is not None), default=None),
        measuring=written[partial] is not None,
        landed=written[record],
    )


def _written(path: epath.Path) -> float | None:
    """When a file was written; None where there is none, as one that is written anew may not be for a moment."""
    try:
        return float(path.stat().mtime)
    except FileNotFoundError:
        return None


def _status(
    config: LadderConfig,
    plan: Sequence[Mapping[str, Any]],
    seen: Mapping[str, Seen],
    schedule: Schedule | None,
    now: float,
) -> Status:
    flops_per_second = _flops_per_second(plan, seen)
    runs = tuple(_run(row, seen[row["run"]], config, schedule, flops_per_second, now) for row in plan)
    done = {run.run: run.progress for run in runs}
    flops, flops_done = (sum(_own_flops(row) * (done[row["run"]] if d else 1) for row in plan) for d in (False, True))
    usual = statistics.median(flops_per_second.values()) if flops_per_second else 0.0
    speed = sum(flops_per_second.get(run.run, usual) for run in runs if run.state == "running")
    left = sum(_own_flops(row) * (1 - done[row["run"]]) for row, run in zip(plan, runs, strict=True) if _is_open(run))
    good = [(_good_seconds(one.rows), one.rows[-1]["goodput"]) for one in seen.values() if one.rows]
    spent = sum(seconds / share for seconds, share in good if share > 0)
    priced = [run.dollars for run in runs if run.dollars is not None]
    return Status(
        name=config.name,
        looked=now,
        runs=runs,
        flops=flops,
        flops_done=flops_done,
        seconds_left=left / speed if speed else (0.0 if not left else None),
        dollars=sum(priced) if priced else None,
        goodput=sum(seconds for seconds, _ in good) / spent if spent else None,
        schedule=schedule,
    )


def _is_open(run: RunStatus) -> bool:
    return run.state not in AT_REST


def _run(
    row: Mapping[str, Any],
    seen: Seen,
    config: LadderConfig,
    schedule: Schedule | None,
    flops_per_second: Mapping[str, float],
    now: float,
) -> RunStatus:
    last = seen.rows[-1] if seen.rows else None
    state, note = _state(row, seen, _window_seconds(row, seen, config, schedule, flops_per_second), now)
    first_step = row.get("first_step", 0)
    step = int(last["step"]) if last else first_step
    left = (row["steps"] - step) * last["step_seconds"] if last and state == "running" else None
    held = sum(span["end"] - span["start"] for span in held_spans(seen, now))
    given = schedule.of(row["run"]) if schedule else None
    return RunStatus(
        run=row["run"],
        role=row["role"],
        token_multiplier=row["token_multiplier"],
        state=state,
        note=note,
        step=step,
        steps=row["steps"],
        loss_nats=last["loss_nats"] if last else None,
        tokens_per_second=last["tokens_per_second"] if last else None,
        seconds_left=left,
        attempts=max(len(seen.attempts) + (seen.lease is not None), 1 if seen.rows else 0),
        steps_redone=sum(attempt["steps_redone"] for attempt in seen.attempts),
        held_seconds=held,
        dollars=_dollars(given.slice, given.chips, held) if given else None,
        goodput=last["goodput"] if last else None,
        first_step=first_step,
    )


def _own_flops(row: Mapping[str, Any]) -> float:
    """Of a row of plan.json; older versions know no branches."""
    return row.get("own_flops", row["flops"])


def _dollars(name: str, chips: int, seconds: float) -> float | None:
    chip = CHIPS.get(Slice.of(name).generation)
    return chip.dollars_per_hour * chips * seconds / SECONDS_PER_HOUR if chip else None


def _state(row: Mapping[str, Any], seen: Seen, window_seconds: float, now: float) -> tuple[State, str]:
    if seen.record:
        return ("quarantined", seen.record.quarantine) if seen.record.quarantine else ("finished", "")
    last = seen.rows[-1]["step"] if seen.rows else 0
    is_trained = seen.measuring or last == row["steps"]
    if seen.lease:
        by = f"{seen.lease.host}, {seen.lease.engine}".rstrip(", ")
        if not _is_fresh(seen.lease, now):
            return "stale", f"{by}, not heard of for {span(now - _seconds(seen.lease.heartbeat))}"
        silent, allowed = _silence(seen, is_trained, window_seconds, now)
        if silent > allowed:
            return "hung", f"{by}: it lives, and has told nothing for {span(silent)}"
        return "running", f"{by}{': measuring' if is_trained else '' if seen.rows else ': starting'}"
    if seen.heard is not None and now - seen.heard < FRESH_SECONDS + WINDOWS * window_seconds and not seen.attempts:
        return "running", "measuring" if is_trained else ""  # as versions without leases do
    if not seen.attempts:
        return "waiting", ""
    why, words = seen.attempts[-1]["why"], str(seen.attempts[-1]["message"]).strip()
    if why in ("failed", "refused"):
        return "failed", f"{why}: {words.splitlines()[-1]}" if words else why
    return "waiting", "trained, to be measured" if is_trained else why


def _silence(seen: Seen, is_trained: bool, window_seconds: float, now: float) -> tuple[float, float]:
    """For how many seconds a run has told nothing, and how long it may."""
    assert seen.lease
    since = _seconds(seen.lease.since)
    has_told = seen.heard is not None and seen.heard > since
    silent = now - (seen.heard if has_told and seen.heard else since)
    if is_trained:
        return silent, MEASURING_SECONDS
    return silent, WINDOWS * window_seconds + (SAVING_SECONDS if has_told else STARTING_SECONDS)


def _window_seconds(
    row: Mapping[str, Any],
    seen: Seen,
    config: LadderConfig,
    schedule: Schedule | None,
    flops_per_second: Mapping[str, float],
) -> float:
    """What a window of steps takes, as well as is known."""
    steps = config.training.log_every_steps
    if seen.rows:
        return steps * statistics.median(one["step_seconds"] for one in seen.rows)
    if schedule and (given := schedule.of(row["run"])):
        return steps * given.hours * SECONDS_PER_HOUR / (row["steps"] - row.get("first_step", 0))
    if flops_per_second:
        return steps * row["flops"] / row["steps"] / min(flops_per_second.values())
    return UNKNOWN_WINDOW_SECONDS


def _flops_per_second(plan: Sequence[Mapping[str, Any]], seen: Mapping[str, Seen]) -> dict[str, float]:
    """Of every run that has told its speed."""
    return {
        row["run"]: 6 * row["params"] * seen[row["run"]].rows[-1]["tokens_per_second"]
        for row in plan
        if seen[row["run"]].rows
    }


def _good_seconds(rows: Sequence[Mapping[str, float]]) -> float:
    before = [rows[0].get("first_step", 0) if rows else 0, *(row["step"] for row in rows)]
    return sum((row["step"] - b) * row["step_seconds"] for row, b in zip(rows, before[:-1], strict=True))


def _is_fresh(lease: Holder, now: float) -> bool:
    return now - _seconds(lease.heartbeat) < FRESH_SECONDS


def _seconds(iso: str) -> float:
    return datetime.datetime.fromisoformat(iso).timestamp()
