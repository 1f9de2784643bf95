"""Figures of a fitted law: data in, `matplotlib.figure.Figure` out; `svg` writes one down, byte for byte the same each time.

Colour tells the token multiplier M = D/N, in an order (plasma) that stays an order in print and to colour-blind eyes;
the marker's shape says it again. Small markers are rungs, stars are targets.
"""

import dataclasses
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fitting import laws
from fitting.fitted import FittedLaw, LawFit, Point, Prediction

INK, MUTED, GRID, PAPER = "#1b1f24", "#667080", "#e4e7eb", "#ffffff"
DARK = {INK: "#e6e9ee", MUTED: "#98a2b0", GRID: "#2a3039", PAPER: "#14171c"}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
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
_MARKERS = "osD^vPXp"
_DASHES = (0, (4, 2))


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
        return (
            f"M = {self.token_multiplier:.3g}"
            if self.high < 1.1 * self.low
            else f"M = {self.low:.3g} to {self.high:.3g}"
        )


def families(law: FittedLaw) -> tuple[Family, ...]:
    """Groups every run that a law fits or predicts by M, within 10 %; more than 8 groups become 6 of equal ratio."""
    runs = [*law.loss.points, *(law.error.points if law.error else ()), *law.predictions]
    multipliers = sorted(run.token_multiplier for run in runs)
    groups: list[list[float]] = []
    for multiplier in multipliers:
        if groups and multiplier < 1.1 * groups[-1][0]:
            groups[-1].append(multiplier)
        else:
            groups.append([multiplier])
    if len(groups) > len(_MARKERS):
        edges = np.geomspace(multipliers[0], multipliers[-1], 7)[1:-1]
        bins = np.digitize(multipliers, edges)
        groups = [[m for m, b in zip(multipliers, bins, strict=True) if b == kind] for kind in sorted(set(bins))]
    plasma = matplotlib.colormaps["plasma"]
    light, dark = (plasma(np.linspace(low, high, len(groups))) for low, high in ((0.08, 0.70), (0.42, 0.92)))
    hexadecimal = matplotlib.colors.to_hex
    return tuple(
        Family(group[0], group[-1], hexadecimal(light[i]), hexadecimal(dark[i]), _MARKERS[i])
        for i, group in enumerate(groups)
    )


@matplotlib.rc_context(_STYLE)
def reducible_loss(law: FittedLaw) -> Figure:
    """Loss above the law's irreducible E against training compute (Gadre et al. 2024, Figure 1 left)."""
    fit, kinds = law.loss, families(law)
    irreducible = fit.theta.get("E", 0.0)
    flops_all = [run.flops for run in (*fit.points, *law.predictions)]
    largest_rung_flops = max(point.flops for point in fit.points)
    heights = [point.measured for point in fit.points]
    heights += [value for p in law.predictions for value in (*p.loss_interval, p.loss, p.measured_loss)]
    heights = [value - irreducible for value in heights if value > irreducible]
    figure, axes = _axes()
    axes.set(xscale="log", yscale="log")
    axes.set_xlim(0.6 * min(flops_all), 1.7 * max(flops_all))
    axes.set_ylim(0.75 * min(heights), 1.35 * max(heights))
    axes.set_xlabel("training compute, C = 6ND (FLOPs)")
    axes.set_ylabel("reducible loss, L − E (nats per token)")
    flops = np.geomspace(*axes.get_xlim(), 161)
    for kind in kinds:
        params = np.sqrt(flops / 6 / kind.token_multiplier)
        curve = _curve(laws.LOSS_LAWS[fit.law], fit, law.level, params, kind.token_multiplier * params)
        middle, low, high = (np.maximum(values - irreducible, 0.1 * min(heights)) for values in curve)
        axes.fill_between(flops, low, high, color=kind.colour, alpha=0.14, linewidth=0)
        inside = flops <= largest_rung_flops
        axes.plot(flops[inside], middle[inside], color=kind.colour)
        axes.plot(flops[~inside], middle[~inside], color=kind.colour, linestyle=_DASHES)
    for point in fit.points:
        _rung(axes, kinds, point, point.flops, point.measured - irreducible)
    for target in law.predictions:
        _star(axes, kinds, target, target.flops, target.measured_loss - irreducible)
        low, high = (max(bound - irreducible, 0.1 * min(heights)) for bound in target.loss_interval)
        _interval(axes, target.flops, target.loss - irreducible, y_interval=(low, high))
    _log_ticks(axes, "x", power)
    _log_ticks(axes, "y", plain)
    _legend(axes, law, loc="lower left", beyond=True)
    return figure


@matplotlib.rc_context(_STYLE)
def error_against_loss(law: FittedLaw, *, chance_error: float | None = None) -> Figure:
    """Downstream error against loss, with the error law (Gadre et al. 2024, Figure 1 right).

    Args:
      law: a law with an error part.
      chance_error: the error of guessing, as a fraction; drawn where known.

    Raises:
      ValueError: the law has no error part.
    """
    if law.error is None:
        raise ValueError("this law has no error part: fit it with an error column to draw error against loss")
    fit, kinds = law.error, families(law)
    losses = [point.loss for point in fit.points]
    losses += [value for p in law.predictions for value in (p.loss, p.measured_loss) if math.isfinite(value)]
    margin = 0.06 * (max(losses) - min(losses))
    figure, axes = _axes()
    axes.set_xlim(min(losses) - margin, max(losses) + margin)
    axes.set_xlabel(f"validation loss, {name_of(law.loss.column)} (nats per token)")
    axes.set_ylabel(f"top-1 error, {name_of(fit.column)}")
    loss = np.linspace(*axes.get_xlim(), 161)
    middle, low, high = _curve(laws.ERROR_LAWS[fit.law], fit, law.level, loss)
    axes.fill_between(loss, low, high, color=MUTED, alpha=0.16, linewidth=0)
    axes.plot(loss, middle, color=MUTED)
    for point in fit.points:
        _rung(axes, kinds, point, point.loss, point.measured)
    for target in law.predictions:
        _star(axes, kinds, target, target.measured_loss, target.measured_error)
        if target.error is not None:
            _interval(
                axes, target.loss, target.error, y_interval=target.error_interval, x_interval=target.loss_interval
            )
    if chance_error is not None:
        axes.axhline(chance_error, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.annotate(
            "chance",
            (0, chance_error),
            (4, -3),
            ("axes fraction", "data"),
            "offset points",
            color=MUTED,
            fontsize=8,
            va="top",
        )
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    _legend(axes, law, loc="best", beyond=False)
    return figure


@matplotlib.rc_context(_STYLE)
def training_curves(law: FittedLaw, curves: Mapping[str, Sequence[tuple[float, float]]], *, against: str) -> Figure:
    """Training loss of every run, `(tokens, loss)` by run, against `tokens` or `flops`; targets are drawn bold.

    Each line's points are means over up to 200 slices of equal ratio. Runs that the law does not know are grey, and are
    left out against FLOPs, since their size is unknown.
    """
    kinds, rungs = families(law), {point.run: point for point in law.loss.points}
    targets = {target.run: target for target in law.predictions}
    known = rungs | targets
    figure, axes = _axes()
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel({"tokens": "training tokens", "flops": "training compute so far (FLOPs)"}[against])
    axes.set_ylabel("training loss (nats per token)")
    for run, curve in sorted(curves.items(), key=lambda item: item[0] in targets):
        if against == "flops" and run not in known:
            continue
        tokens, loss = _thinned(np.asarray(curve, float))
        spent = tokens if against == "tokens" else 6 * known[run].params * tokens
        kind = _kind(kinds, known[run]) if run in known else None
        (line,) = axes.plot(
            spent,
            loss,
            color=kind.colour if kind else MUTED,
            linewidth=1.9 if run in targets else 1,
            alpha=1 if run in targets else 0.85,
        )
        line.set_gid(f"tip:{run}")
    _log_ticks(axes, "x", short if against == "tokens" else power)
    _log_ticks(axes, "y", plain)
    handles = [Line2D([], [], color=kind.colour, label=kind.label) for kind in kinds]
    if targets:
        handles.append(Line2D([], [], color=INK, linewidth=1.9, label="target"))
    axes.legend(handles=handles, loc="upper right")
    return figure


@matplotlib.rc_context(_STYLE)
def residuals(fit: LawFit, law: FittedLaw, *, against: str) -> Figure:
    """How far each run lies above `fit`, one of `law`'s two parts, in %, against `params`, `tokens` or `token_multiplier`."""
    kinds = families(law)
    figure, axes = _axes(width_inches=3.1, height_inches=2.5)
    axes.set_xscale("log")
    axes.set_xlabel(
        {"params": "parameters, N", "tokens": "tokens, D", "token_multiplier": "tokens per parameter, M"}[against]
    )
    axes.set_ylabel("measured above law (%)")
    axes.axhline(0, color=MUTED, linewidth=1)
    noise_percent = 100 * (
        fit.noise if fit.noise_is_relative else fit.noise / np.median([p.fitted for p in fit.points])
    )
    if math.isfinite(noise_percent):
        axes.axhspan(-noise_percent, noise_percent, color=MUTED, alpha=0.12, linewidth=0)
    for point in fit.points:
        _rung(axes, kinds, point, getattr(point, against), 100 * (point.measured / point.fitted - 1))
    for target in law.predictions:
        expected, measured = (
            (target.loss, target.measured_loss) if fit is law.loss else (target.error, target.measured_error)
        )
        if expected is not None:
            _star(axes, kinds, target, getattr(target, against), 100 * (measured / expected - 1))
    axes.margins(0.12)
    _log_ticks(axes, "x", plain if against == "token_multiplier" else short)
    return figure


@matplotlib.rc_context(_STYLE)
def formula(latex: str) -> Figure:
    """One line of mathematics, typeset; the figure is as large as the formula."""
    figure = Figure(figsize=(0.1, 0.1), layout="none")
    figure.text(0, 0, f"${latex}$", fontsize=13)
    return figure


def svg(figure: Figure, name: str, *, background: str = "none") -> str:
    """The figure as an SVG element, equal for equal data: no dates, no random names; `name` makes its ids unique in a page.

    Text stays text in the page's own font, except in a formula. A point's tooltip tells its run.
    """
    is_formula = not figure.axes
    tight = {"bbox_inches": "tight", "pad_inches": 0.02} if is_formula else {}
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path" if is_formula else "none"}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(out, format="svg", metadata=metadata, facecolor=background, **tight)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<g id="tip:([^"]*)">', r"<g><title>\1</title>", text)
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r"'DejaVu Sans'[^;\"]*", FONTS, text)


def name_of(column: str) -> str:
    """What a testbed's column measures: `code` of `loss/code`."""
    return column.partition("/")[2] or column


def _axes(width_inches: float = 4.6, height_inches: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_inches, height_inches))
    return figure, figure.add_subplot()


def _curve(form: laws.Law, fit: LawFit, level: float, *x_G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The law on a grid: its value at theta, and the central interval of its draws, each [grid]."""
    value_G = form.evaluate(tuple(fit.theta.values()), *x_G)
    if not fit.theta_draws:
        return value_G, value_G, value_G
    theta_PxSx1 = np.asarray(fit.theta_draws).T[..., None]
    low_G, high_G = np.quantile(form.evaluate(theta_PxSx1, *x_G), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return value_G, low_G, high_G


def _kind(kinds: Sequence[Family], run: Point | Prediction) -> Family:
    return next(kind for kind in kinds if kind.low <= run.token_multiplier <= kind.high)


def _tip(run: Point | Prediction) -> str:
    return f"tip:{run.run}: N = {short(run.params)}, D = {short(run.tokens)}, M = {run.token_multiplier:.3g}"


def _rung(axes: Axes, kinds: Sequence[Family], point: Point, x: float, y: float) -> None:
    kind = _kind(kinds, point)
    (marker,) = axes.plot(
        x, y, kind.marker, color=kind.colour, markersize=6, markeredgecolor=PAPER, markeredgewidth=0.8
    )
    marker.set(gid=_tip(point), zorder=3)


def _star(axes: Axes, kinds: Sequence[Family], target: Prediction, x: float, y: float) -> None:
    if math.isfinite(x) and math.isfinite(y):
        colour = _kind(kinds, target).colour
        (star,) = axes.plot(x, y, "*", color=colour, markersize=15, markeredgecolor=PAPER, markeredgewidth=0.8)
        star.set(gid=_tip(target), zorder=4)


def _interval(
    axes: Axes, x: float, y: float, *, y_interval: tuple[float, float], x_interval: tuple[float, float] | None = None
) -> None:
    y_error = [[y - y_interval[0]], [y_interval[1] - y]]
    x_error = [[x - x_interval[0]], [x_interval[1] - x]] if x_interval else None
    axes.errorbar(
        x, y, y_error, x_error, color=INK, elinewidth=1.1, capsize=3, capthick=1.1, marker="o", markersize=2.5, zorder=5
    )


def _legend(axes: Axes, law: FittedLaw, *, loc: str, beyond: bool) -> None:
    handles = [
        Line2D([], [], color=kind.colour, marker=kind.marker, markeredgecolor=PAPER, markersize=6, label=kind.label)
        for kind in families(law)
    ]
    handles.append(Patch(color=MUTED, alpha=0.2, linewidth=0, label=f"law, {100 * law.level:.0f} % band"))
    if beyond and any(p.flops > max(point.flops for point in law.loss.points) for p in law.predictions):
        handles.append(Line2D([], [], color=MUTED, linestyle=_DASHES, label="beyond the ladder"))
    if law.predictions:
        handles.append(
            Line2D(
                [],
                [],
                color=INK,
                marker="o",
                markersize=2.5,
                linewidth=1.1,
                label=f"predicted, {100 * law.level:.0f} % interval",
            )
        )
    if any(math.isfinite(p.measured_loss) for p in law.predictions):
        handles.append(
            Line2D(
                [],
                [],
                color=MUTED,
                linestyle="",
                marker="*",
                markeredgecolor=PAPER,
                markersize=13,
                label="target, measured",
            )
        )
    axes.legend(handles=handles, loc=loc)


def _thinned(curve_Tx2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tokens, loss = curve_Tx2[np.isfinite(curve_Tx2).all(axis=1) & (curve_Tx2 > 0).all(axis=1)].T
    slices = np.digitize(tokens, np.geomspace(tokens[0], tokens[-1], 200))
    kinds, counts = np.unique(slices, return_counts=True)[0], np.bincount(slices)
    means = [np.bincount(slices, values)[kinds] / counts[kinds] for values in (tokens, loss)]
    return means[0], means[1]


def _log_ticks(axes: Axes, which: str, words: Callable[[float], str], *, at_most: int = 7) -> None:
    """Sets round ticks on a logarithmic axis, however few or many decades it spans."""
    axis, (low, high) = getattr(axes, f"{which}axis"), sorted(getattr(axes, f"get_{which}lim")())
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


def plain(value: float) -> str:
    return f"{value:.4g}"


def power(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**exponent:.2g}"
    power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if digits == "1" else f"{digits}×{power}"


def short(value: float) -> str:
    """Such as 15k, 1.4B, 138B."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"
