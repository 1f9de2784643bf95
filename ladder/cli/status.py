"""The verb that watches a ladder from outside: a table in the terminal, JSON, or a page beside the runs."""

import contextlib
import dataclasses
import functools
import json as encoding
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from tyro.conf import FlagCreatePairsOff, Positional, arg

from fitting import files
from fitting.reports.words import dollars, span
from ladder.cli.arguments import Json, print_json, to_person
from ladder.cli.quick import quick
from ladder.engines import forecast as forecasts
from ladder.engines import status as statuses
from ladder.engines.forecast import Forecast
from ladder.engines.status import Look, RunStatus, State, Status
from ladder.spec import Workdir

COLOURS: dict[State, str] = {"running": "bold", "hung": "bold red", "stale": "yellow", "failed": "red"}
COLOURS |= {"quarantined": "magenta", "finished": "green", "waiting": "dim"}


@quick
def status(
    workdir: Annotated[Positional[str], arg(metavar="DIR", help="a ladder's, local or gs://bucket/path")],
    *,
    watch: Annotated[
        FlagCreatePairsOff[bool], arg(help="look again and again, until no run is left to wait for")
    ] = False,
    html: Annotated[
        FlagCreatePairsOff[bool], arg(help="keep status.html in the workdir up to date, which refreshes itself")
    ] = False,
    every: Annotated[float, arg(metavar="SECONDS", help="between two looks; 0 looks once")] = 10.0,
    json: Json = False,
) -> None:
    """Show how far a ladder is, what it costs, and what its law says so far; reads the workdir and disturbs nothing."""
    w = Workdir.at(workdir)
    forecaster = forecasts.Forecaster(w)
    with contextlib.suppress(KeyboardInterrupt), _shown(watch and not json) as show:
        while True:
            look = statuses.look(w)
            forecast = forecaster(look)
            again = (watch or html) and every > 0 and not look.status.is_at_rest
            if html:
                from ladder.engines import page

                page.write(look, forecast, w, refresh_seconds=every if again else 0)
            if json and watch:
                print(encoding.dumps(as_data(look, forecast), allow_nan=False), flush=True)
            elif json:
                print_json(as_data(look, forecast))
            elif watch or not again:
                show(as_text(look.status, forecast))
            if not again:
                break
            time.sleep(every)
    if html:
        to_person.print(f"page: {w.status_page}")


def as_data(look: Look, forecast: Forecast) -> dict[str, Any]:
    """JSON-ready: the status, and the law's history."""
    history = [{"runs": said.runs, "predictions": dict(said.predictions)} for said in forecast.history]
    law = {
        "history": history,
        "problem": forecast.problem,
        "measured": dict(forecast.measured),
        "level": forecast.level,
        "endings": [dataclasses.asdict(ending) for ending in forecast.endings],
    }
    return files.finite(statuses.as_data(look.status) | {"law": law})


def as_text(status: Status, forecast: Forecast) -> RenderableType:
    """What a person sees: the ladder in a line, a row for each run, and what the law says of the targets."""
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state")
    columns = ("done", "loss", "tokens/s", "left", "tries", "held", *(("cost",) if status.dollars is not None else ()))
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for run in status.runs:
        cells = _cells(run) if status.dollars is not None else _cells(run)[:-1]
        state = f"[{COLOURS[run.state]}]{run.state}[/]"
        table.add_row(escape(run.run), state, *cells, f"[dim]{escape(run.note)}[/]")
    whole = f"[bold]{escape(status.name)}[/]  {_whole(status)}"
    return Group(whole, table, *_law(forecast), *_endings(forecast))


def _cells(run: RunStatus) -> tuple[str, ...]:
    return (
        f"{run.progress:.0%}",
        "" if run.loss_nats is None else f"{run.loss_nats:.3f}",
        "" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}",
        "" if run.seconds_left is None else span(run.seconds_left),
        str(run.attempts or ""),
        span(run.held_seconds) if run.held_seconds else "",
        "" if run.dollars is None else dollars(run.dollars),
    )


def _whole(status: Status) -> str:
    parts = [f"{status.count('finished', 'quarantined')} of {len(status.runs)} runs"]
    parts += [f"{count} {state}" for state in ("running", "hung", "stale", "failed") if (count := status.count(state))]
    parts.append(f"{status.flops_done / status.flops:.0%} of the FLOPs")
    if status.seconds_left:
        parts.append(f"{span(status.seconds_left)} left")
    if status.dollars is not None:
        parts.append(f"{dollars(status.dollars)} so far")
    if status.goodput is not None:
        parts.append(f"goodput {status.goodput:.0%}")
    return ", ".join(parts)


def _law(forecast: Forecast) -> list[str]:
    if not forecast.history:
        return [f"no law yet: {escape(forecast.problem)}"]
    now, before = forecast.history[-1], forecast.history[-2] if len(forecast.history) > 1 else None
    lines = []
    for run, said in now.predictions.items():
        line = f"{run}: loss {_interval(said['loss'], said['loss_interval'])}"
        if before and run in before.predictions:
            earlier = before.predictions[run]
            line += f", of {before.runs} rungs {_interval(earlier['loss'], earlier['loss_interval'])}"
        if run in forecast.measured:
            line += f"; measured {forecast.measured[run]:.4f}"
        lines.append(escape(line))
    problem = [f"[yellow]{escape(forecast.problem)}[/]"] if forecast.problem else []
    return [f"the law of {now.runs} rungs, {forecast.level:.0%} intervals", *lines, *problem]


def _endings(forecast: Forecast) -> list[str]:
    lines = []
    for ending in forecast.endings:
        interval = _interval(ending.loss, ending.loss_interval)
        lines.append(escape(f"{ending.run}: will end at {interval}, as its own curve says at {ending.share:.0%}"))
        if left := ending.strayed:
            off = f"left the others' law by step {left.step:,}, and is {left.by:+.1%} off it now"
            lines.append(f"[bold red]{escape(ending.run)}: {off}[/], {abs(left.deviations):.0f} standard deviations")
    return lines


def _interval(loss: float, loss_interval: tuple[float, float]) -> str:
    return f"{loss:.4f} ({loss_interval[0]:.4f} to {loss_interval[1]:.4f})"


@contextlib.contextmanager
def _shown(live: bool) -> Iterator[Callable[[RenderableType], None]]:
    """What shows a text: in place of the one before where a person watches, else after it."""
    if not live or not to_person.is_terminal:
        yield functools.partial(to_person.print, soft_wrap=False)
        return
    with Live(console=to_person, auto_refresh=False) as view:
        yield functools.partial(view.update, refresh=True)
