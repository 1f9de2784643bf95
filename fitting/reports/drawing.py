"""The hand that draws every figure: colours, marks, ticks, words for numbers, and the SVG itself.

Colour tells the token multiplier M = D/N, in an order (plasma) that stays an order in print and to colour-blind eyes;
the marker's shape says it again. Small marks are rungs, stars are targets.
"""

import dataclasses
import html
import io
import math
import re
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fitting.artifacts.fitted import FittedLaw, Run
from fitting.reports.words import short

INK, MUTED, GRID, PAPER = "#1b1f24", "#667080", "#e4e7eb", "#ffffff"
# What a page calls its colours: each for light paper and for dark.
PAGE = {
    "ink": (INK, "#e6e9ee"),
    "muted": (MUTED, "#98a2b0"),
    "grid": (GRID, "#2a3039"),
    "paper": (PAPER, "#14171c"),
    "good": ("#1a7f4b", "#4cc38a"),
    "bad": ("#b3361b", "#ff8a6b"),
}
DASHES = (0, (4, 2))
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "mathtext.fontset": "cm",
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.labelsize": 8,
    "ytick.major.size": 3,
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_MARKERS = "osD^vp<>"


@dataclasses.dataclass(frozen=True)
class Family:
    """Runs drawn alike since they share a token multiplier, or nearly: M from `low` to `high`."""

    low: float
    high: float
    colour: str
    dark_colour: str
    marker: str

    @property
    def token_multiplier(self) -> float:
        """The M whose curve stands for the family: the geometric middle."""
        return math.sqrt(self.low * self.high)

    @property
    def label(self) -> str:
        """Such as `M = 20`, or `M = 18 to 25` where neighbours share a colour."""
        near = self.high < 1.1 * self.low
        return f"M = {self.token_multiplier:.3g}" if near else f"M = {self.low:.3g} to {self.high:.3g}"


def families(law: FittedLaw) -> tuple[Family, ...]:
    """The families of all runs that a law fits or predicts."""
    runs = [*law.loss.points, *(law.error.points if law.error else ()), *law.predictions]
    return families_of([run.token_multiplier for run in runs])


def families_of(multipliers: Sequence[float]) -> tuple[Family, ...]:
    """Groups runs by their M, within 10 %; more than 8 groups become 6 of equal ratio."""
    multipliers = sorted(multipliers)
    groups: list[list[float]] = []
    for multiplier in multipliers:
        if groups and multiplier < 1.1 * groups[-1][0]:
            groups[-1].append(multiplier)
        else:
            groups.append([multiplier])
    if len(groups) > len(_MARKERS):
        bins = np.digitize(multipliers, np.geomspace(multipliers[0], multipliers[-1], 7)[1:-1])
        groups = [[m for m, b in zip(multipliers, bins, strict=True) if b == kind] for kind in sorted(set(bins))]
    looks = zip(groups, *_palettes(len(groups)), _MARKERS, strict=False)
    return tuple(Family(group[0], group[-1], *look) for group, *look in looks)


def family_of(run: Run, kinds: Sequence[Family]) -> Family:
    """The family that holds `run`'s token multiplier."""
    return next(kind for kind in kinds if kind.low <= run.token_multiplier <= kind.high)


def axes(width_inches: float = 4.6, height_inches: float = 3.7) -> tuple[Figure, Axes]:
    """A figure of one panel, its margins in inches so that panels side by side line up."""
    figure = Figure(figsize=(width_inches, height_inches))
    left, right, bottom, top = 0.55 / width_inches, 0.06 / width_inches, 0.45 / height_inches, 0.08 / height_inches
    return figure, figure.add_axes((left, bottom, 1 - left - right, 1 - bottom - top))


def rung(panel: Axes, kind: Family, point: Run, x: float, y: float) -> None:
    """Marks a fitted run."""
    (mark,) = panel.plot(x, y, kind.marker, color=kind.colour, ms=6.5, mec=PAPER, mew=0.8, zorder=3)
    tooltip(mark, point.run, _sizes(point))


def star(panel: Axes, kind: Family, target: Run, x: float, y: float) -> None:
    """Marks a measured target; nothing where it is not measured."""
    if math.isfinite(x) and math.isfinite(y):
        (mark,) = panel.plot(x, y, "*", color=kind.colour, ms=15, mec=PAPER, mew=0.8, zorder=4)
        tooltip(mark, target.run, _sizes(target))


def interval(panel: Axes, x: float, y: float, *, x_interval: Sequence[float] = (), y_interval: Sequence[float]) -> None:
    """Marks a predicted point and its intervals, which need not be symmetric."""
    style: dict[str, Any] = {"color": INK, "lw": 1.1, "ms": 7, "mew": 1.1, "zorder": 5}
    panel.plot((x, x), y_interval, marker="_", **style)
    if x_interval:
        panel.plot(x_interval, (y, y), marker="|", **style)
    panel.plot(x, y, "o", **style | {"ms": 2.5})


def legend(panel: Axes, law: FittedLaw, *, curves: str) -> None:
    """Tells the marks of a figure of `law`, whose curves are `one`, one `per family`, or `none`."""
    level, line = f"{100 * law.level:.3g} %", "-" if curves == "per family" else ""
    handles = keys(families(law), line=line)
    if curves == "none":
        handles.append(Line2D([], [], color=MUTED, marker="_", ls="", ms=12, label="law"))
    else:
        handles.append(Patch(color=MUTED, alpha=0.2, linewidth=0, label=f"law, {level} band"))
    if curves == "per family" and law.predictions:
        handles.append(Line2D([], [], color=MUTED, ls=DASHES, label="beyond the ladder"))
    if law.predictions:
        handles.append(Line2D([], [], color=INK, marker="o", ms=2.5, lw=1.1, label=f"predicted, {level} interval"))
    if any(math.isfinite(target.measured_loss) for target in law.predictions):
        handles.append(Line2D([], [], color=MUTED, ls="", marker="*", mec=PAPER, ms=13, label="target, measured"))
    if curves == "one":
        panel.legend(handles=handles, loc="lower right", ncols=2)
    else:
        panel.legend(handles=handles, loc="lower left")


def keys(kinds: Sequence[Family], *, line: str = "") -> list[Artist]:
    """A legend's entry for every family."""
    return [
        Line2D([], [], color=kind.colour, marker=kind.marker, ls=line, mec=PAPER, ms=6.5, label=kind.label)
        for kind in kinds
    ]


def tooltip(mark: Artist, run: str, text: str) -> None:
    """Has `svg` name the run of a mark, and say `text` where one points at it."""
    mark.set_gid(f"tip:{urllib.parse.quote(run)}:{urllib.parse.quote(text)}")


def log_ticks(panel: Axes, which: str, words: Callable[[float], str], *, at_most: int = 7) -> None:
    """Sets round ticks on the logarithmic axis `x` or `y`, however few or many decades it spans."""
    axis, (low, high) = getattr(panel, f"{which}axis"), getattr(panel, f"get_{which}lim")()
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), 1), ((1, 1.5, 2, 3, 4, 5, 7), 1), ((1, 2, 5), 1), ((1, 3), 1)]
    choices += [((1,), stride) for stride in range(1, len(decades) + 1)]
    for digits, stride in choices:
        ticks = [digit * 10.0**decade for decade in decades[::stride] for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= at_most:
            break
    axis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_ticks(ticks, [words(tick) for tick in ticks])


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element: equal bytes for equal data, `name` in its ids so that a page can hold several.

    Text stays text in the page's own font, except in a formula, which a figure without axes is. Marks tell their run
    as a tooltip.
    """
    is_formula = not figure.axes
    tight = {"bbox_inches": "tight", "pad_inches": 0.02} if is_formula else {}
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path" if is_formula else "none"}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", metadata=metadata, transparent=True, **tight)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*", _FONTS, text)
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\d+\.\d{3,}", _rounded, path[0].replace(" \n", "")), text)

    def named(found: re.Match) -> str:
        run, tip = (html.escape(urllib.parse.unquote(part)) for part in found.groups())
        return f'<g class="mark" data-run="{run}"><title>{tip}</title>'

    return re.sub(f'<g id="{name}-tip:([^":]*):([^"]*)">', named, text)


def pdf(figure: Figure) -> bytes:
    """The figure as a PDF for papers: equal bytes for equal data, text as text."""
    out = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(out, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return out.getvalue()


def on_light_or_dark(svg: str) -> str:
    """An SVG whose colours follow the colour scheme of the page around it, which has the variables of `PAGE`."""
    pairs = [pair for count in range(1, len(_MARKERS) + 1) for pair in zip(*_palettes(count), strict=True)]
    said = {light: f"light-dark({light}, {dark})" for light, dark in pairs}
    said |= {light: f"var(--{name})" for name, (light, _) in PAGE.items()}
    return re.sub("|".join(said), lambda found: said[found[0]], svg)


def on_paper(svg: str) -> str:
    """An SVG to stand alone: on white, whatever lies behind it."""
    return re.sub(r"(<svg[^>]*>)", rf'\1<rect width="100%" height="100%" fill="{PAPER}"/>', svg, count=1)


def _palettes(count: int) -> tuple[list[str], list[str]]:
    """So many colours in an order, for light paper and for dark."""
    plasma = matplotlib.colormaps["plasma"]
    light, dark = (plasma(np.linspace(*ends, count)) for ends in ((0.08, 0.70), (0.42, 0.92)))
    return list(map(matplotlib.colors.to_hex, light)), list(map(matplotlib.colors.to_hex, dark))


def _rounded(number: re.Match) -> str:
    """To a hundredth of a point, which no one sees."""
    return f"{float(number[0]):.2f}"


def _sizes(run: Run) -> str:
    return f"{run.run}: N = {short(run.params)}, D = {short(run.tokens)}, M = {run.token_multiplier:.3g}"
