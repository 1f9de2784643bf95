"""Runs one after another in this process, on all its devices, and in the others that carry out the command with it."""

import time
from collections.abc import Sequence

from ladder.config import LadderConfig, Training
from ladder.engines.attempts import Ended, Job, Report, attempt, last_words
from ladder.engines.launch import RunFailed
from ladder.events import Claimed, Event
from ladder.spec import RunSpec, Workdir
from ladder.training import hosts, preemption

NO_RUN = ""


class Here:
    """An engine whose first process holds the leases and says to the others which run is next."""

    def __init__(self, job: Job, config: LadderConfig, workdir: Workdir, name: str):
        self.name = name
        self._job, self._config, self._workdir = job, config, workdir
        self._next: RunSpec | None = None
        self._word, self._listening = hosts.Word("next run"), preemption.raised()

    def __enter__(self) -> "Here":
        self._listening.__enter__()
        return self

    def __exit__(self, *exception):
        self._listening.__exit__(*exception)
        if hosts.is_first() and not any(exception):
            self._word.say(NO_RUN)

    def has_room(self, spec: RunSpec) -> bool:
        """Whether no run is to be done before."""
        return self._next is None

    def submit(self, spec: RunSpec) -> None:
        """Does it when it is asked how it goes."""
        self._next = spec

    def poll(self, report: Report, seconds: float) -> list[Ended]:
        """Does the run that was submitted."""
        if (spec := self._next) is None:
            time.sleep(seconds)
            return []
        self._next = None
        ended = self.attempt(spec, report)
        if hosts.are_many() and ended.why not in ("finished", "diverged", "held"):
            # The others are somewhere in the run, and cannot be called back from there.
            codes = {"refused": 1, "failed": hosts.FAULT_CODE}
            message = f"{ended.run} {ended.why}: {last_words(ended.message)}"
            raise RunFailed(message, codes.get(ended.why, preemption.EXIT_CODE))
        return [ended]

    def attempt(self, spec: RunSpec, report: Report) -> Ended:
        """Does a run together with the others, once this process holds its lease."""

        def watched(event: Event) -> None:
            if isinstance(event, Claimed):
                self._word.say(event.run)
            report(event)

        return attempt(self._job, self._config, spec, self._workdir, watched, self.name)

    def stop(self, report: Report) -> list[Ended]:
        """Does nothing: a run under way has ended by what ends this."""
        return []

    def follow(self, specs: Sequence[RunSpec]) -> None:
        """Does what the first process says, until it leaves; to be called by all others."""
        by_name = {spec.run: spec for spec in specs}
        while run := self._word.hear():
            self._job(self._config, by_name[run], self._workdir, lambda event: None)


def suiting(training: Training, specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The runs that split over the devices of this machine, and of those that carry out the command with it.

    Raises:
      ValueError: none does; with what is wrong with the first.
    """
    if training.cores_per_run:
        return list(specs)
    from ladder.training import mesh as meshes
    from ladder.training.step import abstract_on_disk

    mesh, refused = meshes.of(training.mesh), ""
    suit = []
    for spec in specs:
        try:
            batch_size = spec.hyperparameters.batch_size
            parts = training.for_batch(batch_size // meshes.shares(mesh)).accumulation_steps
            meshes.refuse_ragged(batch_size, mesh, spec.run, parts)
            abstract_on_disk(spec, mesh)
            suit.append(spec)
        except ValueError as e:
            refused = refused or str(e)
    if not suit:
        raise ValueError(f"no run of this ladder suits this machine: {refused}")
    return suit
