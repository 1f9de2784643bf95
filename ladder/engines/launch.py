"""Many runs by one engine: each begun when there is room for it, again when it was lost, set aside when it fails."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ladder import storage
from ladder.engines import attempts as attempting
from ladder.engines import lease as leases
from ladder.engines.attempts import Ended, Report, Steps, last_words
from ladder.events import Again, Event, Finished, SetAside, Stops
from ladder.spec import RunSpec, Workdir

RETRIES = 2
LOOK_SECONDS = 2.0  # between two looks at a run that another holds
LONGEST_PAUSE_SECONDS = 60.0
MOST_LOST = 20  # attempts in a row that died, told nothing and came no further: a run that takes its machine along


class Engine(Protocol):
    """Starts runs and tells how they end. It holds no state: the workdir does."""

    name: str

    def has_room(self, spec: RunSpec) -> bool:
        """Whether it can start this run at once."""

    def submit(self, spec: RunSpec) -> None:
        """Starts an attempt at a run."""

    def poll(self, report: Report, seconds: float) -> list[Ended]:
        """Attempts that have ended, as soon as there are any, after so long at most; reports what happens meanwhile."""

    def stop(self, report: Report) -> list[Ended]:
        """Has the runs under way save where that is possible, and ends them; the attempts that ended meanwhile."""


class RunFailed(RuntimeError):
    """Runs were set aside, or one has ended all processes that share it; `exit_code` says whether to try again."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


@dataclasses.dataclass(frozen=True)
class Left:
    """What a launch leaves behind: runs that others hold, or that await their trunk, and those that were set aside."""

    held: Mapping[str, str]
    aside: Sequence[SetAside]

    def refuse_failures(self) -> None:
        """Raises RunFailed if runs were set aside: a line for each, with its last words."""
        _refuse(self.aside)


@dataclasses.dataclass
class _Run:
    """A run that is not finished yet."""

    spec: RunSpec
    failures: int
    not_before: float = 0.0
    held_by: str = ""
    first_step: int = 0  # of the newest attempt that trained
    stuck: int = 0  # attempts in a row that began no later than the one before

    @property
    def name(self) -> str:
        return self.spec.run

    def is_due(self) -> bool:
        return self.not_before <= time.monotonic()

    def pause(self, seconds: float) -> None:
        self.not_before = time.monotonic() + seconds


def launch(
    engine: Engine,
    specs: Sequence[RunSpec],
    workdir: Workdir,
    report: Report,
    *,
    finished: Callable[[RunSpec], str | None] = lambda spec: None,
    awaits: Callable[[RunSpec], str] = lambda spec: "",
    retries: int = RETRIES,
    remember: bool = False,
) -> Left:
    """Has an engine carry out runs until each is finished, set aside, or held by somebody else.

    A run that was taken away or lost goes on again and again, after a pause where it came no further. One that failed
    is tried again `retries` times, one that was refused is not. All others go on meanwhile.

    Args:
      engine: to start them.
      specs: the runs, in the order in which they start.
      workdir: prepared (`ladder.corpus.prepare`).
      report: called in this process with all that happens.
      finished: the quarantine of a run that somebody has finished, "" where it has none; None where it is not finished.
      awaits: the trunk that has not come yet to where a branch leaves it; "" where a run may begin.
      retries: how often a run that failed is tried again.
      remember: whether failures that earlier commands wrote down count.

    Raises:
      ValueError: a negative number of retries.
      Preempted: this process was told to leave (SIGTERM). What is saved of the runs under way is reported, then as
        whenever this ends by an exception.
    """
    if retries < 0:
        raise ValueError(f"retries is {retries}: it must be zero or more")
    waiting = [_Run(spec, _failures(workdir, spec) if remember else 0) for spec in specs]
    busy, aside = dict[str, tuple[_Run, Steps]](), list[SetAside]()

    def told(event: Event) -> None:
        if event.run in busy:
            busy[event.run][1](event)
        report(event)

    def give_up(run: _Run, why: str, message: str) -> None:
        aside.append(SetAside(run.name, why, message))
        report(aside[-1])

    try:
        while True:
            # Those that await a trunk are looked at after it, at every turn.
            for run in sorted((run for run in waiting if run.is_due()), key=lambda run: bool(awaits(run.spec))):
                if not engine.has_room(run.spec):
                    continue
                waiting.remove(run)
                if (quarantine := finished(run.spec)) is not None:
                    report(Finished(run.name, quarantine))
                elif run.failures > retries:
                    give_up(run, "failed", _given_up(workdir, run.spec, run.failures))
                elif (trunk := awaits(run.spec)) in [set_aside.run for set_aside in aside]:
                    give_up(run, "refused", f"its trunk {trunk} was set aside")
                elif trunk:
                    run.held_by = f"its trunk {trunk}"
                    waiting.append(run)
                elif holder := leases.live_holder(workdir.lease(run.name)):
                    run.held_by = leases.told(holder)
                    run.pause(LOOK_SECONDS)
                    waiting.append(run)
                else:
                    run.held_by = ""
                    busy[run.name] = (run, Steps())
                    engine.submit(run.spec)
            if not busy and all(run.held_by for run in waiting):
                return Left({run.name: run.held_by for run in waiting}, aside)
            pauses = [run.not_before - time.monotonic() for run in waiting if not run.is_due()]
            for ended in engine.poll(told, max(0.0, min([LOOK_SECONDS, *pauses]))):
                run, steps = busy.pop(ended.run)
                _bury(workdir, ended, steps, engine)
                if ended.why in ("finished", "diverged"):
                    continue
                if _goes_on(run, ended, steps, retries):
                    waiting.insert(0, run)
                    if ended.why != "held":
                        report(Again(run.name, ended.why, ended.message))
                else:
                    give_up(run, ended.why, ended.message)
    except BaseException:
        try:
            for ended in engine.stop(told):
                _bury(workdir, ended, busy[ended.run][1], engine)
                if ended.why in ("finished", "diverged"):
                    del busy[ended.run]
        finally:
            for name, (_, steps) in busy.items():
                report(Stops(name, _what_is_saved(workdir, name, steps)))
        raise


def refuse_given_up(workdir: Workdir, specs: Sequence[RunSpec], retries: int) -> None:
    """Raises RunFailed if runs were refused or have failed too often, in whatever process, to be tried again."""
    aside = []
    for spec in specs:
        story = attempting.load(workdir.attempts(spec.run))
        is_over = story and (story[-1].why == "refused" or _failures(workdir, spec) > retries)
        if is_over and not workdir.record(spec.run).exists():
            aside.append(SetAside(spec.run, story[-1].why, story[-1].message))
    _refuse(aside)


def _refuse(aside: Sequence[SetAside]) -> None:
    if aside:
        width = max(len(a.run) for a in aside)
        lines = [f"  {a.run:{width}}  {a.why}: {last_words(a.message)}" for a in aside]
        raise RunFailed("\n".join([f"{len(aside)} of the runs did not come to their end:", *lines]))


def _given_up(workdir: Workdir, spec: RunSpec, failures: int) -> str:
    return f"it has failed {failures} times; remove {workdir.attempts(spec.run)} to have it tried again"


def _goes_on(run: _Run, ended: Ended, steps: Steps, retries: int) -> bool:
    """Whether a run is tried again; it is told when."""
    run.stuck = 0 if steps.first > run.first_step else run.stuck + 1
    run.first_step = steps.first or run.first_step
    match ended.why:
        case "held":
            run.held_by = ended.message
            run.pause(LOOK_SECONDS)
        case "refused":
            return False
        case "failed":
            run.failures += 1
            return run.failures <= retries
        case _:
            run.pause(min(LONGEST_PAUSE_SECONDS, 2.0 ** (run.stuck - 1)) if run.stuck else 0)
            return ended.why == "taken away" or run.stuck < MOST_LOST
    return True


def _what_is_saved(workdir: Workdir, run: str, steps: Steps) -> str:
    """Of a run that was stopped: as its checkpoints say, whatever it had told."""
    try:
        saved = max(workdir.checkpoint_steps(run), default=0)
    except Exception as e:
        if not storage.is_outage(e):
            raise
        return f"it goes on from its newest checkpoint, which cannot be told now: {storage.told(e)}"
    goes_on = f"it is saved after step {saved:,}, and goes on from there" if saved else "nothing of it is saved"
    return goes_on + (f"; what it did since, up to step {steps.last:,}, is lost" if steps.last > saved else "")


def _bury(workdir: Workdir, ended: Ended, steps: Steps, engine: Engine) -> None:
    # A process that could end as it should has released its lease itself.
    if steps.holder and ended.why not in ("finished", "diverged", "held"):
        try:
            attempting.bury(workdir, ended, steps, engine.name)
        except Exception as e:
            if not storage.is_outage(e):
                raise  # else whoever claims the run next does it


def _failures(workdir: Workdir, spec: RunSpec) -> int:
    return sum(attempt.why == "failed" for attempt in attempting.load(workdir.attempts(spec.run)))
