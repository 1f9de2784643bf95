"""Figures of a ladder in time: which run is where and when, planned or as it went, and how its forecast narrows."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fitting.reports import drawing
from fitting.reports.drawing import GRID, INK, MUTED, PAPER

WIDTH_INCHES = 9.4
# What became of an attempt, if not its run's end: how its bar is filled, and its words.
ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "running": ({"alpha": 0.55}, "under way"),
    "taken away": ({"hatch": "////"}, "taken away"),
    "failed": ({"hatch": "xxxx"}, "failed"),
}
LETTER_INCHES = 0.066  # of a name in a bar
Bar = Mapping[str, Any]


@matplotlib.rc_context(drawing.STYLE)
def on_chips(bars: Sequence[Bar], chips: int) -> Figure:
    """A schedule: what each chip does at which hour.

    Args:
      bars: of each run `run`, `token_multiplier`, `start_hours`, `hours`, `first_chip`, `chips` and `slice`.
      chips: that there are.
    """
    figure, panel = _panel(3.4)
    panel.set_ylim(0, chips)
    panel.set_ylabel("chips")
    panel.set_yticks([chips * quarter / 4 for quarter in range(5)])
    kinds = drawing.families_of([bar["token_multiplier"] for bar in bars])
    end = max((bar["start_hours"] + bar["hours"] for bar in bars), default=1.0)
    panel.set_xlim(0, end)
    for bar in bars:
        _bar(panel, bar, kinds, bar["first_chip"], bar["chips"], f"{bar['slice']}, {_hours(bar['hours'])}")
    _legend(panel, kinds, [])
    return figure


@matplotlib.rc_context(drawing.STYLE)
def on_machines(bars: Sequence[Bar]) -> Figure:
    """What each machine did when: a row for each of as many runs as it carried out side by side.

    Args:
      bars: of each attempt `run`, `token_multiplier`, `start_hours`, `hours`, `machine`, `why` (of `ENDS`, or another).
    """
    rows = _rows(bars)
    figure, panel = _panel(0.9 + 0.24 * max(len(rows), 2), left_inches=1.5)
    panel.set_ylim(len(rows) or 1, 0)
    panel.set_yticks([row + 0.5 for row in range(len(rows))], [machine for machine, _ in rows], fontsize=7.5)
    panel.grid(axis="y", visible=False)
    kinds = drawing.families_of([bar["token_multiplier"] for bar in bars])
    panel.set_xlim(0, max((bar["start_hours"] + bar["hours"] for bar in bars), default=1.0))
    for row, (_, in_row) in enumerate(rows):
        for bar in in_row:
            how, words = ENDS.get(bar["why"], ({}, ""))
            tip = f"{_hours(bar['hours'])}{f', {words}' if words else ''}"
            _bar(panel, bar, kinds, row + 0.1, 0.8, tip, **how)
    _legend(panel, kinds, [why for why in ENDS if any(bar["why"] == why for bar in bars)])
    return figure


@matplotlib.rc_context(drawing.STYLE)
def forecast(history: Sequence[Mapping[str, Any]], target: str, measured: float | None = None) -> Figure:
    """How the predicted loss of a target narrows as rungs land.

    Args:
      history: of each number of runs fitted `runs`, and of each target `predictions` by run: `loss`, `loss_interval`.
      target: the run.
      measured: its loss, where it is known by now.
    """
    figure, panel = drawing.axes()
    panel.set_xlabel("rungs that have landed")
    panel.set_ylabel(f"predicted loss of {target} (nats per token)", parse_math=False)
    told = [(at["runs"], at["predictions"][target]) for at in history if target in at["predictions"]]
    runs = [count for count, _ in told]
    low, high = zip(*(said["loss_interval"] for _, said in told), strict=True)
    panel.fill_between(runs, low, high, color=MUTED, alpha=0.18, linewidth=0)
    for count, said in told:
        drawing.interval(panel, count, said["loss"], y_interval=said["loss_interval"])
    panel.plot(runs, [said["loss"] for _, said in told], color=INK)
    if measured is not None:
        panel.axhline(measured, color=drawing.PAGE["good"][0], linestyle=drawing.DASHES)
    # The first intervals may be so wide that nothing of the last would be seen.
    narrow = told[-1][1]["loss_interval"]
    room = 4 * (narrow[1] - narrow[0])
    panel.set_ylim(max(min(low), narrow[0] - room), min(max(high), narrow[1] + room))
    panel.set_xticks(range(runs[0], runs[-1] + 1, max(1, (runs[-1] - runs[0]) // 6)))
    panel.margins(x=0.08)
    return figure


def _panel(height_inches: float, left_inches: float = 0.55) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    bottom, top = 0.45 / height_inches, 0.3 / height_inches
    left = left_inches / WIDTH_INCHES
    panel = figure.add_axes((left, bottom, 0.99 - left, 1 - bottom - top))
    panel.set_xlabel("hours since the start")
    return figure, panel


def _bar(
    panel: Axes, bar: Bar, kinds: Sequence[drawing.Family], low: float, height: float, tip: str, **how: Any
) -> None:
    kind = next(kind for kind in kinds if kind.low <= bar["token_multiplier"] <= kind.high)
    start, hours = bar["start_hours"], bar["hours"]
    (mark,) = panel.barh(
        low, hours, height, start, align="edge", color=kind.colour, edgecolor=PAPER, linewidth=0.6, zorder=3, **how
    )
    drawing.tooltip(mark, bar["run"], f"{bar['run']}: {tip}")
    figure = panel.get_figure()
    assert figure is not None
    left, right = panel.get_xlim()
    inches = hours / (right - left) * panel.get_position().width * WIDTH_INCHES
    if inches > LETTER_INCHES * len(bar["run"]) + 0.08:
        place = (start + hours / 2, low + height / 2)
        colour = INK if "alpha" in how else PAPER
        panel.text(*place, bar["run"], color=colour, fontsize=7, ha="center", va="center", zorder=4, parse_math=False)


def _rows(bars: Sequence[Bar]) -> list[tuple[str, list[Bar]]]:
    """Bars that do not overlap in a row; a machine has as many rows as it needs."""
    rows: list[tuple[str, list[Bar]]] = []
    for bar in sorted(bars, key=lambda bar: (bar["machine"], bar["start_hours"])):
        free = (
            in_row
            for machine, in_row in rows
            if machine == bar["machine"] and in_row[-1]["start_hours"] + in_row[-1]["hours"] <= bar["start_hours"]
        )
        if (in_row := next(free, None)) is not None:
            in_row.append(bar)
        else:
            rows.append((bar["machine"], [bar]))
    return rows


def _legend(panel: Axes, kinds: Sequence[drawing.Family], ends: Sequence[str]) -> None:
    handles: list[Artist] = [Patch(color=kind.colour, linewidth=0, label=kind.label) for kind in kinds]
    for why in ends:
        how, words = ENDS[why]
        handles.append(Patch(facecolor=MUTED, edgecolor=GRID, linewidth=0, label=words, **how))
    if handles:
        panel.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), borderaxespad=0.2)


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
