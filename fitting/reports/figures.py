"""Figures of a fitted law: data in, `matplotlib.figure.Figure` out. `drawing.svg` writes one down."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fitting.artifacts.fitted import FittedLaw, LawFit
from fitting.laws import catalogue
from fitting.reports import drawing, words
from fitting.reports.drawing import INK, MUTED


@matplotlib.rc_context(drawing.STYLE)
def reducible_loss(law: FittedLaw) -> Figure:
    """Loss above the law's irreducible E against training compute (Gadre et al. 2024, Figure 1 left)."""
    fit, kinds = law.loss, drawing.families(law)
    irreducible = fit.theta.get("E", 0.0)
    flops_all = [run.flops for run in (*fit.points, *law.predictions)]
    heights = [point.measured for point in fit.points]
    heights += [value for p in law.predictions for value in (*p.loss_interval, p.loss, p.measured_loss)]
    heights = [value - irreducible for value in heights if value > irreducible]
    floor = 0.1 * min(heights)
    figure, panel = drawing.axes()
    panel.set(xscale="log", yscale="log")
    panel.set_xlim(0.6 * min(flops_all), 1.7 * max(flops_all))
    panel.set_ylim(0.75 * min(heights), 1.35 * max(heights))
    panel.set_xlabel("training compute, C = 6ND (FLOPs)")
    panel.set_ylabel("reducible loss, L − E (nats per token)" if irreducible else "loss (nats per token)")
    of_sizes = _is_of_sizes(fit)
    if of_sizes:
        _draw_law(panel, law, kinds, floor)
    for point in fit.points:
        kind = drawing.family_of(point, kinds)
        drawing.rung(panel, kind, point, point.flops, point.measured - irreducible)
        if not of_sizes:
            panel.plot(point.flops, point.fitted - irreducible, "_", color=kind.colour, ms=12)
    for target in law.predictions:
        measured = target.measured_loss - irreducible
        drawing.star(panel, drawing.family_of(target, kinds), target, target.flops, measured)
        ends = [max(end - irreducible, floor) for end in target.loss_interval]
        drawing.interval(panel, target.flops, max(target.loss - irreducible, floor), y_interval=ends)
    drawing.log_ticks(panel, "x", words.flops)
    drawing.log_ticks(panel, "y", words.number)
    drawing.legend(panel, law, curves="per family" if of_sizes else "none")
    return figure


def _is_of_sizes(fit: LawFit) -> bool:
    """Whether N and D are all that the law is given, so that there is one curve for every token multiplier."""
    return catalogue.named(fit.law).inputs == ("params", "tokens")


def _draw_law(panel: Axes, law: FittedLaw, kinds: Sequence[drawing.Family], floor: float) -> None:
    """The loss law's curve and band at every token multiplier, dashed beyond the largest rung."""
    fit, irreducible = law.loss, law.loss.theta.get("E", 0.0)
    flops = np.geomspace(*panel.get_xlim(), 121)
    inside = flops <= max(point.flops for point in fit.points)
    for kind in kinds:
        params = np.sqrt(flops / 6 / kind.token_multiplier)
        curve = _curve(fit, law.level, params, kind.token_multiplier * params)
        middle, low, high = (np.maximum(values - irreducible, floor) for values in curve)
        panel.fill_between(flops, low, high, color=kind.colour, alpha=min(0.14, 0.4 / len(kinds)), linewidth=0)
        panel.plot(flops[inside], middle[inside], color=kind.colour)
        panel.plot(flops[~inside], middle[~inside], color=kind.colour, linestyle=drawing.DASHES)


@matplotlib.rc_context(drawing.STYLE)
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
    fit, kinds = law.error, drawing.families(law)
    losses = [point.loss for point in fit.points]
    losses += [value for p in law.predictions for value in (p.loss, p.measured_loss) if math.isfinite(value)]
    margin = 0.06 * (max(losses) - min(losses))
    figure, panel = drawing.axes()
    panel.set_xlim(min(losses) - margin, max(losses) + margin)
    panel.set_xlabel(f"validation loss, {name_of(law.loss.column)} (nats per token)", parse_math=False)
    panel.set_ylabel(f"top-1 error, {name_of(fit.column)}", parse_math=False)
    loss = np.linspace(*panel.get_xlim(), 121)
    middle, low, high = _curve(fit, law.level, loss)
    panel.fill_between(loss, low, high, color=MUTED, alpha=0.16, linewidth=0)
    panel.plot(loss, middle, color=MUTED)
    for point in fit.points:
        drawing.rung(panel, drawing.family_of(point, kinds), point, point.loss, point.measured)
    for target in law.predictions:
        drawing.star(panel, drawing.family_of(target, kinds), target, target.measured_loss, target.measured_error)
        if target.error is not None and (ends := target.error_interval):
            drawing.interval(panel, target.loss, target.error, x_interval=target.loss_interval, y_interval=ends)
    if chance_error is not None:
        panel.axhline(chance_error, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        across = panel.get_yaxis_transform()
        corner: dict[str, Any] = {"xycoords": across, "xytext": (4, -3), "textcoords": "offset points"}
        panel.annotate("chance", (0, chance_error), **corner, color=MUTED, fontsize=8, va="top")
    panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    drawing.legend(panel, law, curves="one")
    return figure


@matplotlib.rc_context(drawing.STYLE)
def training_curves(law: FittedLaw, curves: Mapping[str, Sequence[tuple[float, float]]], *, against: str) -> Figure:
    """Training loss of every run, `(tokens, loss)` by run, against `tokens` or `flops`; targets are drawn bold.

    Each line's points are means over up to 200 slices of equal ratio. Runs that the law does not know are grey, and are
    left out against FLOPs, since their size is unknown.
    """
    kinds, targets = drawing.families(law), {target.run for target in law.predictions}
    known = {run.run: run for run in (*law.loss.points, *(law.error.points if law.error else ()), *law.predictions)}
    figure, panel = drawing.axes()
    panel.set(xscale="log", yscale="log")
    panel.set_xlabel({"tokens": "training tokens", "flops": "training compute so far (FLOPs)"}[against])
    panel.set_ylabel("training loss (nats per token)")
    for run, curve in sorted(curves.items(), key=lambda item: item[0] in targets):
        tokens, loss = _thinned(np.asarray(curve, float).reshape(-1, 2))
        if not tokens.size or (against == "flops" and run not in known):
            continue
        spent = tokens if against == "tokens" else 6 * known[run].params * tokens
        colour = drawing.family_of(known[run], kinds).colour if run in known else MUTED
        (line,) = panel.plot(spent, loss, color=colour, linewidth=1.9 if run in targets else 1)
        drawing.tooltip(line, run, run)
    drawing.log_ticks(panel, "x", words.short if against == "tokens" else words.flops)
    drawing.log_ticks(panel, "y", words.number)
    handles = [Line2D([], [], color=kind.colour, label=kind.label) for kind in kinds]
    if targets:
        handles.append(Line2D([], [], color=INK, linewidth=1.9, label="target"))
    panel.legend(handles=handles, loc="upper right")
    return figure


@matplotlib.rc_context(drawing.STYLE)
def residuals(law: FittedLaw, part: str, *, against: str) -> Figure:
    """How far runs lie above a law's `loss` or `error` part, in %, `against` params, tokens or token_multiplier."""
    fit, kinds = getattr(law, part), drawing.families(law)
    labels = {"params": "parameters, N", "tokens": "tokens, D", "token_multiplier": "tokens per parameter, M"}
    figure, panel = drawing.axes(width_inches=3.1, height_inches=2.4)
    panel.set_xscale("log")
    panel.set_xlabel(labels[against])
    panel.set_ylabel("measured above law (%)")
    panel.axhline(0, color=MUTED, linewidth=1)
    for point in fit.points:
        noise = 100 * fit.noise_at(point.fitted, point.loss if part == "error" else point.fitted) / point.fitted
        panel.vlines(getattr(point, against), -noise, noise, color=MUTED, alpha=0.18, linewidth=6)
    rungs = [(point, point.measured, point.fitted, drawing.rung) for point in fit.points]
    targets = [(p, getattr(p, f"measured_{part}"), getattr(p, part), drawing.star) for p in law.predictions]
    for run, measured, expected, mark in rungs + targets:
        if expected:
            mark(panel, drawing.family_of(run, kinds), run, getattr(run, against), 100 * (measured / expected - 1))
    panel.margins(0.12)
    drawing.log_ticks(panel, "x", words.number if against == "token_multiplier" else words.short, at_most=6)
    return figure


@matplotlib.rc_context(drawing.STYLE)
def formula(latex: str) -> Figure:
    """One line of mathematics, typeset; the figure is as large as the formula."""
    figure = Figure(figsize=(0.1, 0.1))
    figure.text(0, 0, f"${latex}$", fontsize=13)
    return figure


def name_of(column: str) -> str:
    """What a testbed's column measures: `code` of `loss/code`."""
    return column.partition("/")[2] or column


def _curve(fit: LawFit, level: float, *x_G: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The law on a grid: its value at theta, and the central interval of its draws, each [grid]."""
    form = catalogue.named(fit.law)
    value_G = form.evaluate(tuple(fit.theta.values()), *x_G)
    if not fit.theta_draws:
        return value_G, value_G, value_G
    theta_PxSx1 = np.asarray(fit.theta_draws).T[..., None]
    low_G, high_G = np.quantile(form.evaluate(theta_PxSx1, *x_G), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return value_G, low_G, high_G


def _thinned(curve_Tx2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and loss, averaged over slices of tokens of equal ratio; what is not positive and finite is dropped."""
    tokens, loss = curve_Tx2[(np.isfinite(curve_Tx2) & (curve_Tx2 > 0)).all(axis=1)].T
    if not tokens.size:
        return tokens, loss
    slices = np.digitize(tokens, np.geomspace(tokens.min(), tokens.max(), 200))
    counts = np.bincount(slices)
    full = counts > 0
    tokens, loss = (np.bincount(slices, values)[full] / counts[full] for values in (tokens, loss))
    return tokens, loss
