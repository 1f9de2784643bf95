"""What a person sees of what happens: a live table in a terminal, a line now and then in a log."""

import datetime
import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from ladder.engines.attempts import last_words
from ladder.events import (
    Again,
    Begun,
    Cached,
    Evaluating,
    Event,
    Finished,
    LeftOut,
    Say,
    SetAside,
    Stops,
    Trained,
    Waits,
)
from ladder.spec import RunSpec


class _Seldom:
    """Says when it is time for another line: once every so many seconds."""

    def __init__(self, every_s: float):
        self._every_s, self._last = every_s, time.monotonic()

    def due(self) -> bool:
        """Whether that long has gone by since the last time that it had."""
        now = time.monotonic()
        if now < self._last + self._every_s:
            return False
        self._last = now
        return True


class Display:
    """Shows events of many runs on stderr; a context manager to be called with each event.

    Args:
      specs: of all runs.
      done: names of those that were done before.
      console: to write to; where it is no terminal it gets a line for each run done, and one every `every_s` seconds.
      every_s: how often.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        done: Sequence[str] = (),
        console: Console | None = None,
        every_s: float = 30.0,
    ):
        self._specs = {spec.run: spec for spec in specs}
        self._step = {spec.run: spec.steps if spec.run in done else spec.first_step for spec in specs}
        self._console = console or Console(stderr=True, highlight=False)
        self._finished = len(done)
        self._seldom = _Seldom(every_s)
        self._started = time.monotonic()
        self._flops_at_start: float | None = None
        self._rows: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._total = self._progress.add_task("ladder", total=self._flops_of_all(), note="")

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *exception):
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Shows one event."""
        match event:
            case Begun():
                # What was done before took no time now, and must not make the rate look better than it is.
                before, self._step[event.run] = self._flops_done(), event.done
                if self._flops_at_start is not None:
                    self._flops_at_start += self._flops_done() - before
            case Trained():
                self._step[event.run] = event.step
                self._show(event.run, f"loss {event.loss_nats:.3f}  {event.tokens_per_second:,.0f} tokens/s")
            case Evaluating():
                self._step[event.run] = self._specs[event.run].steps
                self._show(event.run, f"evaluating {event.what} {event.done or ''}")
            case Finished():
                self._step[event.run] = self._specs[event.run].steps
                self._finished += 1
                self._remove_row(event.run)
                state = f"[red]quarantined[/red]: {escape(event.quarantine)}" if event.quarantine else "done"
                self._console.print(f"{event.run}  {state}  ({self._finished} of {len(self._specs)} runs)")
            case Waits():
                self._console.print(f"{event.run}  waits for {escape(event.why)}")
            case Again():
                self._remove_row(event.run)
                self._console.print(f"{event.run}  {event.why}: {escape(last_words(event.message))}; it is tried again")
            case SetAside():
                self._remove_row(event.run)
                self._console.print(f"{event.run}  [red]set aside[/red], {event.why}: {escape(event.message)}")
            case Stops():
                self._console.print(f"{event.run}  stops: {escape(event.message)}")
        self._progress.update(self._total, completed=self._flops_done(), note=self._overall())

    def _show(self, run: str, note: str) -> None:
        self._progress.update(self._row(run), completed=self._step[run], note=note)
        overall = self._overall()
        if not self._console.is_terminal and self._seldom.due():
            spec = self._specs[run]
            percent = 100 * (self._step[run] - spec.first_step) / spec.own_steps
            self._console.print(f"{run}  {percent:.0f}%  {note}  ({overall})", soft_wrap=True)

    def _remove_row(self, run: str) -> None:
        row = self._rows.pop(run, None)
        if row is not None:
            self._progress.remove_task(row)

    def _row(self, run: str) -> TaskID:
        if run not in self._rows:
            self._rows[run] = self._progress.add_task(run, total=self._specs[run].steps, note="")
        return self._rows[run]

    def _flops_of_all(self) -> float:
        return sum(spec.own_flops for spec in self._specs.values())

    def _flops_done(self) -> float:
        steps_done = {run: max(0, self._step[run] - spec.first_step) for run, spec in self._specs.items()}
        return sum(spec.own_flops * steps_done[run] / spec.own_steps for run, spec in self._specs.items())

    def _overall(self) -> str:
        done, now = self._flops_done(), time.monotonic()
        if self._flops_at_start is None:
            self._flops_at_start, self._started = done, now
        note = f"{self._finished} of {len(self._specs)} runs"
        if now > self._started and done > self._flops_at_start:
            left_s = (self._flops_of_all() - done) * (now - self._started) / (done - self._flops_at_start)
            note += f"  {datetime.timedelta(seconds=round(left_s))} left"
        return note


class Measuring:
    """Tells what a model is measured on and, every few seconds, how far; to be called with each event."""

    def __init__(self, say: Say, every_s: float = 5.0):
        self._say, self._seldom = say, _Seldom(every_s)

    def __call__(self, event: Evaluating) -> None:
        """Tells of one event, unless it is no new thing and the last line is not old enough."""
        if not event.done:
            self._say(f"evaluating {event.what}")
        elif self._seldom.due():
            self._say(f"evaluating {event.what}: {event.done:,} done")


class Caching:
    """Tells every few seconds how far the caching of a corpus is; to be called with each event."""

    def __init__(self, say: Say, every_s: float = 5.0):
        self._say, self._seldom = say, _Seldom(every_s)
        self._started = time.monotonic()
        self._part, self._tokens_at_start = "", 0

    def __call__(self, event: Cached | LeftOut) -> None:
        """Tells of one event, unless it says how far it is and the last line is not old enough."""
        if isinstance(event, LeftOut):
            return self._say(f"{event.part}: left out {event.documents:,} documents without text")
        now = time.monotonic()
        if event.part != self._part:
            self._part, self._started, self._tokens_at_start = event.part, now, event.tokens or 0
        if not self._seldom.due():
            return
        line = f"{event.part}: {event.shards_done} of {event.shards} shards"
        if event.tokens is not None:
            # What was there before took no time now.
            speed = (event.tokens - self._tokens_at_start) / max(now - self._started, 1e-9)
            line += f", {event.tokens:,} tokens, {speed:,.0f} a second"
        self._say(line)
