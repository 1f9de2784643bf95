"""Many runs: one after another in this process, or side by side, each on cores of its own."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import cast

from ladder import quiet, storage
from ladder.config import LadderConfig
from ladder.events import Event, Finished
from ladder.spec import RECORD_REMEDY, RunSpec, Workdir
from ladder.training.preemption import Preempted

Report = Callable[[Event], None]
Job = Callable[[LadderConfig, RunSpec, Workdir, Report], None]


# Has glibc, when a process starts, ask for huge pages. XLA takes fresh memory for every step, and on small pages a
# sixth of a step goes into mapping it.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# A spot machine is taken away 30 seconds after its notice.
GRACE_SECONDS = 25


class RunFailed(RuntimeError):
    """A run broke off for another reason than divergence."""


def launch(job: Job, config: LadderConfig, specs: Sequence[RunSpec], workdir: Workdir, report: Report) -> None:
    """Does `job` for every run: in this process, or where `training.cores_per_run` says so side by side.

    Args:
      job: a function of this module.
      config: the ladder's.
      specs: the runs, in the order in which they start.
      workdir: prepared (`ladder.corpus.prepare`).
      report: called in this process with all that happens.

    Raises:
      ValueError: if there are fewer cores than one run asks for.
      RunFailed: if a run was refused or failed for another reason than divergence; the others are stopped.
      Preempted: this process was told to leave (SIGTERM); the runs under way are saved.
    """
    if config.training.cores_per_run:
        _side_by_side(job, config, specs, workdir, report)
    else:
        for spec in specs:
            job(config, spec, workdir, report)


def train_and_evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> None:
    """Trains a run and measures it, unless it diverges."""
    quarantine = _train(config, spec, workdir, report)
    if not quarantine:
        quarantine = _evaluate(config, spec, workdir, report)
    report(Finished(spec.run, quarantine))


def train(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> None:
    """Trains a run that has no record yet; if it diverges, its quarantined record says so."""
    report(Finished(spec.run, _train(config, spec, workdir, report)))


def evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> None:
    """Measures a trained run."""
    report(Finished(spec.run, _evaluate(config, spec, workdir, report)))


# What these two import waits until they are called, because a worker must own its cores before JAX starts its threads.


def _train(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> str:
    from fitting.testbeds.testbed import RunRecord
    from ladder.evaluation.record import quarantine
    from ladder.training.train import Diverged, train

    if workdir.record(spec.run).exists():
        return RunRecord.load(workdir.record(spec.run), RECORD_REMEDY).quarantine
    try:
        train(config, spec, workdir, report)
    except Diverged as e:
        return quarantine(config, spec, workdir, str(e)).quarantine
    return ""


def _evaluate(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Report) -> str:
    from ladder.evaluation.evaluate import evaluate

    return evaluate(config, spec, workdir, report).quarantine


def _side_by_side(job: Job, config: LadderConfig, todo: Sequence[RunSpec], workdir: Workdir, report: Report) -> None:
    os.environ |= {name: value for name, value in HUGE_PAGES.items() if name not in os.environ}
    context = multiprocessing.get_context("spawn")
    waiting, workers, busy = list(todo), [], {}
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        for cores in _shares(config.training.cores_per_run)[: len(todo)]:
            here, there = context.Pipe()
            worker = context.Process(target=_work, args=(job, config, workdir, cores, there))
            worker.start()
            there.close()  # so that a worker's death ends its pipe
            workers.append(worker)
            busy[here] = waiting.pop(0)
            _give(busy[here], here)
        while busy:
            for pipe in cast(list[Connection], wait(list(busy))):
                try:
                    event = pipe.recv()
                except (EOFError, ConnectionResetError):
                    raise RunFailed(f"the process that ran {busy[pipe].run} was killed; run again to go on") from None
                if isinstance(event, Exception):
                    raise event
                report(event)
                if isinstance(event, Finished):
                    if waiting:
                        busy[pipe] = waiting.pop(0)
                        _give(busy[pipe], pipe)
                    else:
                        del busy[pipe]
                        pipe.close()
    except Preempted:
        for worker in workers:
            worker.terminate()  # which its run answers by saving
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in workers:
            worker.join(max(0, deadline - time.monotonic()))
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        for worker in workers:
            worker.kill()
            worker.join()


def _leave(number: int, frame: FrameType | None) -> None:
    raise Preempted


def _give(spec: RunSpec, pipe: Connection) -> None:
    with contextlib.suppress(BrokenPipeError):  # a dead worker's pipe says so when it is read
        pipe.send(spec)


def _work(job: Job, config: LadderConfig, workdir: Workdir, cores: set[int], pipe: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent stops its workers
    quiet.libraries()
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr, flush=True)
    os.environ["JAX_PLATFORMS"] = "cpu"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    with contextlib.suppress(EOFError):  # the parent closes the pipe when no run is left
        while True:
            spec = pipe.recv()
            try:
                job(config, spec, workdir, pipe.send)
            except (ValueError, OSError) as e:  # a refusal, as the command line takes them
                pipe.send(RunFailed(f"{spec.run}: {storage.told(e)}"))
            except ModuleNotFoundError as e:
                pipe.send(e)
            except Exception:
                pipe.send(RunFailed(f"{spec.run} failed:\n{traceback.format_exc()}"))


def _die_with_parent() -> None:
    # An orphan would go on writing into a workdir that a restart of the ladder has taken over.
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _shares(cores_per_run: int) -> list[set[int]]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if cores_per_run > len(cores):
        raise ValueError(f"training.cores_per_run: {cores_per_run} are asked for, there are {len(cores)}")
    starts = range(0, len(cores) - cores_per_run + 1, cores_per_run)
    return [set(cores[start : start + cores_per_run]) for start in starts]
