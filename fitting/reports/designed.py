"""A design in pictures: what interval to expect of the target for how much compute, and which runs it takes."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fitting.reports import drawing
from fitting.reports.drawing import DASHES, INK, MUTED
from fitting.reports.words import percent, short

Point = tuple[str, float, float]  # what it is, what it costs, half the width of the interval


@matplotlib.rc_context(drawing.STYLE)
def curve(points: Sequence[Point], chosen: Point, others: Sequence[Point], unit: str, level: float) -> Figure:
    """The interval to expect against what it costs: the best sets, the one that was chosen, and others.

    Args:
      points: of the best sets, the cheapest first.
      chosen: one of them.
      others: sets that are not the best for what they cost.
      unit: of costs.
      level: nominal coverage of the interval.
    """
    figure, panel = drawing.axes(5.4, 3.5)
    cost_I, half_I = np.array([point[1:] for point in points]).T
    panel.plot(cost_I, half_I, color=INK, marker="o", markersize=4, zorder=2)
    panel.scatter(*chosen[1:], s=90, marker="*", color=INK, zorder=4)
    panel.annotate(chosen[0], chosen[1:], (8, 6), textcoords="offset points", fontsize=8)
    for name, cost, half in others:
        panel.scatter(cost, half, s=26, marker="D", facecolor="none", edgecolor=MUTED, zorder=3)
        near = cost > chosen[1] / 2  # beside the design and below it, or the one would be written over the other
        offset, side = ((-8, -12), "right") if near else ((8, 4), "left")
        panel.annotate(name, (cost, half), offset, textcoords="offset points", ha=side, fontsize=8, color=MUTED)
    panel.axvline(chosen[1], color=MUTED, linewidth=0.8, linestyle=DASHES, zorder=1)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(f"cost of the rungs, {unit}")
    panel.set_ylabel(f"half of the {percent(level, 0)} interval expected")
    drawing.log_ticks(panel, "x", short)
    drawing.log_ticks(panel, "y", lambda value: percent(value, 0 if value >= 0.01 else 1))
    return figure
