"""An attempt at a run, under the run's lease; how it ended is a line of attempts.jsonl, whatever ended it."""

import dataclasses
import json
import time
import traceback
from collections.abc import Callable
from typing import Literal

from etils import epath

from fitting.files import cut, write
from ladder import refusals, storage
from ladder.config import LadderConfig
from ladder.engines import lease as leases
from ladder.events import Begun, Claimed, Evaluating, Event, Finished, Trained
from ladder.spec import RunSpec, Workdir
from ladder.training.preemption import Preempted

Report = Callable[[Event], None]
Job = Callable[[LadderConfig, RunSpec, Workdir, Report], None]
# Taken away: its machine, or for a while its storage, was; lost: its process died, and did not say of what.
# Held by another, it never began.
Why = Literal["finished", "taken away", "failed", "refused", "diverged", "lost", "held"]

LATER = ("attention",)  # which the lines of before do not have
LONGEST_MESSAGE = 10_000
PAUSE_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One line. `first_step` and `last_step` are those that it trained, as far as is known; 0 where none is known.

    `attention` is what its machine attended by, if it trained.
    """

    host: str
    engine: str
    start: str
    end: str
    why: Why
    message: str
    first_step: int
    last_step: int
    steps_redone: int
    attention: str = ""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    run: str
    why: Why
    message: str = ""


class Steps:
    """Follows the events of one attempt: which steps it trained, and whether it did anything."""

    def __init__(self) -> None:
        self.first = self.last = self._done = 0
        self.attention = self.holder = self.quarantine = ""
        self.did_anything = False

    def __call__(self, event: Event) -> None:
        """Takes note of one event."""
        match event:
            case Claimed():
                self.holder = event.holder
            case Begun():
                self._done, self.attention, self.did_anything = event.done, event.attention, True
            case Trained():
                self.first, self.last = self._done + 1, event.step
            case Evaluating():
                self.did_anything = True
            case Finished():
                self.quarantine = event.quarantine


def attempt(job: Job, config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report, engine: str) -> Ended:
    """Does a job for a run, if nobody else holds it; nothing that goes wrong with the run is raised.

    Args:
      job: such as one of `ladder.engines.jobs`.
      config, spec, workdir: its arguments.
      report: called with all that happens.
      engine: the name of what started this.

    Raises:
      Preempted, KeyboardInterrupt: this process is to leave; the attempt is written down.
    """
    path = workdir.attempts(spec.run)
    try:
        load(path)  # a damaged one is refused before anything is done
        lease = leases.claim(workdir.lease(spec.run), engine)
    except leases.Busy as e:
        return Ended(spec.run, "held", leases.told(e.holder))
    except Exception as e:
        return ended_by(spec.run, e)
    steps = Steps()

    def watched(event: Event) -> None:
        lease.check()
        steps(event)
        report(event)

    with lease:
        if lease.after:
            _of_the_dead(lease, lease.after, workdir, spec.run)
        ended, leaving = Ended(spec.run, "finished"), None
        try:
            watched(Claimed(spec.run, lease.holder.holder))
            job(config, spec, workdir, watched)
        except leases.Lost as e:
            return Ended(spec.run, "lost", str(e))  # which whoever has taken it writes down
        except (Preempted, KeyboardInterrupt) as e:
            ended, leaving = Ended(spec.run, "taken away", str(e) or "stopped"), e
        except Exception as e:
            ended = ended_by(spec.run, e)
        if steps.quarantine:
            ended = Ended(spec.run, "diverged", steps.quarantine)
        if steps.did_anything or ended.why != "finished":
            add(lease, path, _line(lease.holder, ended.why, ended.message, steps))
    if leaving:
        raise leaving
    return ended


def bury(workdir: Workdir, ended: Ended, steps: Steps, engine: str) -> None:
    """Ends the lease of a process that is known to be dead, and writes down its attempt."""
    lease = leases.bury(workdir.lease(ended.run), steps.holder, engine)
    if lease and lease.after:
        with lease:
            add(lease, workdir.attempts(ended.run), _line(lease.after, ended.why, ended.message, steps))


def load(path: epath.Path) -> list[Attempt]:
    """The attempts at a run, oldest first; none where nobody has begun it."""
    names = [field.name for field in dataclasses.fields(Attempt)]
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [Attempt(**{name: row[name] for name in names if name in row or name not in LATER}) for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as e:
        raise ValueError(f"{path} is damaged ({cut(e)}); remove it: it is the story of the run alone") from None


def add(lease: leases.Lease, path: epath.Path, attempt: Attempt) -> None:
    """Writes one more line, as soon as there is room for it; only the holder of the run's lease may."""
    while True:
        try:
            earlier = load(path)
            before = max((a.last_step for a in earlier), default=0)
            redone = max(0, min(attempt.last_step, before) - attempt.first_step + 1) if attempt.first_step else 0
            lines = [*earlier, dataclasses.replace(attempt, steps_redone=redone)]
            return write(path, "".join(json.dumps(dataclasses.asdict(line)) + "\n" for line in lines))
        except Exception as e:
            if not storage.is_outage(e):
                raise
            if not lease.is_held():
                return  # whoever has it next writes a line for this process
            time.sleep(PAUSE_SECONDS)


def last_words(message: str) -> str:
    """The last line of what an attempt ended with, which says what it was."""
    return message.rstrip().rpartition("\n")[2]


def _of_the_dead(lease: leases.Lease, dead: leases.Holder, workdir: Workdir, run: str) -> None:
    metrics, steps = workdir.metrics(run), Steps()
    rows = storage.read_rows(metrics) if metrics.exists() else []
    steps.last = rows[-1]["step"] if rows else 0  # as far as it has told
    line = _line(dead, "lost", "its process is gone", steps)
    add(lease, workdir.attempts(run), dataclasses.replace(line, end=dead.heartbeat))


def _line(holder: leases.Holder, why: Why, message: str, steps: Steps) -> Attempt:
    end = leases.iso(time.time())
    return Attempt(
        holder.host, holder.engine, holder.since, end, why, message, steps.first, steps.last, 0, steps.attention
    )


def ended_by(run: str, error: Exception) -> Ended:
    """How an attempt ended that an exception ended."""
    if storage.is_outage(error):
        return Ended(run, "taken away", storage.told(error))
    if told := refusals.told(error):
        return Ended(run, "refused", told)
    trace = "".join(traceback.format_exception(error))
    return Ended(run, "failed", trace[-LONGEST_MESSAGE:].rstrip())
