"""Runs side by side on this machine, each in a process with cores of its own."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import cast

from ladder import quiet
from ladder.config import LadderConfig
from ladder.engines.attempts import Ended, Job, Report, attempt
from ladder.engines.launch import LOOK_SECONDS
from ladder.events import Stops
from ladder.spec import RunSpec, Workdir
from ladder.training import preemption
from ladder.training.preemption import EXIT_CODE

# Has glibc, when a process starts, ask for huge pages. XLA takes fresh memory for every step, and on small pages a
# sixth of a step goes into mapping it.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# A run that is told to stop ends the steps that JAX has begun, and saves: minutes, where its cores are starved. It
# hangs if it is silent for so long, and for the longest that it was silent before.
GRACE_SECONDS = 300


@dataclasses.dataclass
class _Slot:
    """Cores, the process that has them, the run that it does, and when that was last heard of."""

    cores: set[int]
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    run: str | None = None
    heard: float = 0.0
    longest_silence: float = 0.0

    def hear(self) -> None:
        now = time.monotonic()
        self.longest_silence, self.heard = max(self.longest_silence, now - (self.heard or now)), now

    def hangs(self) -> bool:
        return time.monotonic() > self.heard + GRACE_SECONDS + self.longest_silence


class Local:
    """An engine of processes, each on `training.cores_per_run` cores; a context manager that leaves none behind.

    A process does one run after another, since it takes seconds to start.

    Raises:
      ValueError: there are fewer cores than one run asks for.
    """

    def __init__(self, job: Job, config: LadderConfig, workdir: Workdir, name: str):
        self.name = name
        self._given = (job, config, workdir, name)
        self._slots = [_Slot(cores) for cores in _shares(config.training.cores_per_run)]
        self._listening = preemption.raised()

    def __enter__(self) -> "Local":
        os.environ |= {name: value for name, value in HUGE_PAGES.items() if name not in os.environ}
        self._listening.__enter__()
        return self

    def __exit__(self, *exception):
        self._listening.__exit__(*exception)
        self._kill()

    def has_room(self, spec: RunSpec) -> bool:
        """Whether there are cores without a run."""
        return any(slot.run is None for slot in self._slots)

    def submit(self, spec: RunSpec) -> None:
        """Gives it to a process, which is started where there is none."""
        slot = min((slot for slot in self._slots if slot.run is None), key=lambda slot: slot.process is None)
        if slot.process is None:
            context = multiprocessing.get_context("spawn")
            slot.pipe, there = context.Pipe()
            slot.process = context.Process(target=_work, args=(*self._given, slot.cores, there))
            slot.process.start()
            there.close()  # so that a worker's death ends its pipe
        slot.run, slot.heard, slot.longest_silence = spec.run, 0.0, 0.0
        with contextlib.suppress(BrokenPipeError):  # a dead worker's pipe says so when it is read
            cast(Connection, slot.pipe).send(spec)

    def poll(self, report: Report, seconds: float) -> list[Ended]:
        """Hears what the processes tell."""
        at_work = {cast(Connection, slot.pipe): slot for slot in self._at_work()}
        if not at_work:
            time.sleep(seconds)
        ended = []
        for pipe in cast(list[Connection], wait(list(at_work), seconds)):
            slot = at_work[pipe]
            slot.hear()
            try:
                told = pipe.recv()
            except (EOFError, ConnectionResetError):
                told = _how_it_died(slot)
            if isinstance(told, Ended):
                slot.run = None
                ended.append(told)
            else:
                report(told)
        return ended

    def stop(self, report: Report) -> list[Ended]:
        """Lets the runs under way save, and ends those that hang; where it is itself interrupted, all at once."""
        ended = list[Ended]()
        try:
            for process in self._processes():
                process.terminate()  # which its run answers by saving
            for slot in self._at_work():
                slot.heard = time.monotonic()
                report(Stops(cast(str, slot.run), "it is to save first; stop once more to end it at once"))
            while self._at_work():
                ended += self.poll(report, LOOK_SECONDS)
                ended += [_killed(slot) for slot in self._at_work() if slot.hangs()]
        finally:
            self._kill()
        return ended

    def _kill(self) -> None:
        for process in self._processes():
            process.kill()
            process.join()

    def _at_work(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.run]

    def _processes(self) -> list[SpawnProcess]:
        return [slot.process for slot in self._slots if slot.process]


def _killed(slot: _Slot) -> Ended:
    process, run = cast(SpawnProcess, slot.process), cast(str, slot.run)
    process.kill()
    process.join()
    slot.process = slot.run = None
    silent = time.monotonic() - slot.heard
    return Ended(run, "taken away", f"its process was told to stop, was silent for {silent:.0f} s, and was killed")


def _how_it_died(slot: _Slot) -> Ended:
    process, run = cast(SpawnProcess, slot.process), cast(str, slot.run)
    process.join()
    code, slot.process = process.exitcode or 0, None
    if code in (EXIT_CODE, -signal.SIGTERM):
        return Ended(run, "taken away", "its process was told to stop")
    if code == -signal.SIGKILL:
        return Ended(run, "lost", "its process was killed, by a person or for want of memory")
    how = f"died of {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
    return Ended(run, "failed", f"its process {how}")


def _work(job: Job, config: LadderConfig, workdir: Workdir, name: str, cores: set[int], pipe: Connection) -> None:
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
            pipe.send(attempt(job, config, spec, workdir, pipe.send, name))


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
