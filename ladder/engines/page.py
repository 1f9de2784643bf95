"""status.html: how far a ladder is, on a page that keeps itself up to date beside the runs."""

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from fitting import files
from fitting.artifacts.fitted import Run
from fitting.reports import drawing, figures, rendering, timelines, words
from ladder.engines import schedule as schedules
from ladder.engines import status as statuses
from ladder.engines.forecast import Forecast
from ladder.engines.status import SECONDS_PER_HOUR, Look, Status
from ladder.spec import Workdir
from ladder.spec import load as load_spec


def write(look: Look, forecast: Forecast, workdir: Workdir, refresh_seconds: float = 0) -> None:
    """Writes the page of a look into the workdir, whole; a browser reads it anew every so often, or not at all at 0."""
    files.write(workdir.status_page, render(look, forecast, workdir, refresh_seconds))


def render(look: Look, forecast: Forecast, workdir: Workdir, refresh_seconds: float = 0) -> str:
    """The page as HTML, which stands alone."""
    drawn = {name: drawing.svg(figure, name) for name, figure in _figures(look, forecast, workdir).items()}
    looked = datetime.datetime.fromtimestamp(look.status.looked, datetime.UTC)
    return rendering.render(
        "status.html.j2",
        status=look.status,
        forecast=forecast,
        targets=[row["run"] for row in look.plan if forecast.history and row["role"] == "target"],
        figures={name: drawing.on_light_or_dark(text) for name, text in drawn.items()},
        colours=drawing.PAGE,
        looked=looked.isoformat(sep=" ", timespec="seconds"),
        refresh_seconds=refresh_seconds and max(1, round(refresh_seconds)),
        cards=list(_cards(look.status)),
    )


def _cards(status: Status) -> Iterator[dict[str, str]]:
    done = f"{status.count('finished', 'quarantined')} of {len(status.runs)}"
    others = f"{status.count('running')} under way, {status.count('waiting')} waiting"
    yield {"number": done, "words": f"runs are done; {others}"}
    yield {"number": words.percent(status.flops_done / status.flops, 0), "words": "of all FLOPs are spent"}
    if status.seconds_left:
        yield {"number": words.span(status.seconds_left), "words": "left, at the speed of the runs under way"}
    if status.goodput is not None:
        share = words.percent(status.goodput, 0)
        yield {"number": share, "words": "goodput: time that went into steps that counted"}
    if status.dollars is not None:
        yield {"number": words.dollars(status.dollars), "words": "so far, at list prices on demand"}


def _figures(look: Look, forecast: Forecast, workdir: Workdir) -> dict[str, Any]:
    drawn = {}
    if bars := _bars(look):
        drawn["machines"] = timelines.on_machines(bars)
    if curves := {run: [(r["tokens"], r["loss_nats"]) for r in s.rows] for run, s in look.seen.items() if s.rows}:
        runs = [Run(row["run"], row["params"], row["tokens"]) for row in look.plan]
        targets = {row["run"] for row in look.plan if row["role"] == "target"}
        drawn["curves"] = figures.curves_so_far(curves, runs, targets)
    history = [{"runs": said.runs, "predictions": said.predictions} for said in forecast.history]
    for number, row in enumerate(row for row in look.plan if history and row["role"] == "target"):
        drawn[f"forecast_{number}"] = timelines.forecast(history, row["run"], forecast.measured.get(row["run"]))
    if (schedule := look.status.schedule) is not None:
        specs = [load_spec(workdir.spec(given.run)) for given in schedule.runs if workdir.spec(given.run).exists()]
        drawn["schedule"] = timelines.on_chips(schedules.bars(schedule, specs), schedule.chips)
    return drawn


def _bars(look: Look) -> list[Mapping[str, Any]]:
    """Every attempt, in hours since the first one began."""
    spans = [
        (row, span) for row in look.plan for span in statuses.held_spans(look.seen[row["run"]], look.status.looked)
    ]
    began = min((span["start"] for _, span in spans), default=0.0)
    return [
        {
            "run": row["run"],
            "token_multiplier": row["token_multiplier"],
            "machine": span["machine"],
            "why": span["why"],
            "start_hours": (span["start"] - began) / SECONDS_PER_HOUR,
            "hours": (span["end"] - span["start"]) / SECONDS_PER_HOUR,
        }
        for row, span in spans
    ]
