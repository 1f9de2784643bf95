"""Figures of a fitted law: data in, `matplotlib.figure.Figure` out. `drawing.svg` writes one down."""

import math
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from fitting.artifacts.fitted import FittedLaw, LawFit, Run
from fitting.laws import catalogue
from fitting.reports import drawing, words
from fitting.reports.drawing import INK, MUTED, PAPER
from fitting.testbeds.curves import run_of, steps_by_run
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    from fitting.comparison import Comparison  # brings jax, which `--help` need not wait for


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
    panel.set_ylabel(f"{'reducible loss, L − E' if irreducible else 'loss'} ({fit.unit})")
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
    panel.set_xlabel(f"validation loss, {name_of(law.loss.column)} ({law.loss.unit})", parse_math=False)
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
    known = {run.run: run for run in (*law.loss.points, *(law.error.points if law.error else ()), *law.predictions)}
    return _along(curves, known, drawing.families(law), {target.run for target in law.predictions}, against)


@matplotlib.rc_context(drawing.STYLE)
def measured_curves(testbed: Testbed, column: str) -> Figure:
    """A column of every run of a table that has checkpoints, against tokens; targets are drawn bold."""
    curves, known = {}, {}
    for run, rows in steps_by_run(testbed.table[testbed.table[column].notna()]).items():
        last = rows.iloc[-1]
        curves[run] = list(zip(rows["tokens"], rows[column], strict=True))
        known[run] = Run(run, last["params"], last["tokens"])
    kinds = drawing.families_of([run.token_multiplier for run in known.values()])
    targets = set(map(run_of, testbed.table[testbed.table["role"] == "target"].itertuples()))
    return _along(curves, known, kinds, targets & set(known), "tokens", what=name_of(column))


@matplotlib.rc_context(drawing.STYLE)
def curves_so_far(
    curves: Mapping[str, Sequence[tuple[float, float]]], runs: Sequence[Run], targets: Collection[str]
) -> Figure:
    """Training loss of runs that no law knows yet, `(tokens, loss)` by run, against tokens; targets are drawn bold."""
    kinds = drawing.families_of([run.token_multiplier for run in runs])
    return _along(curves, {run.run: run for run in runs}, kinds, targets & curves.keys(), "tokens")


def _along(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    known: Mapping[str, Run],
    kinds: Sequence[drawing.Family],
    targets: Collection[str],
    against: str,
    what: str = "training",
) -> Figure:
    figure, panel = drawing.axes()
    panel.set(xscale="log", yscale="log")
    panel.set_xlabel({"tokens": "training tokens", "flops": "training compute so far (FLOPs)"}[against])
    panel.set_ylabel(f"{'training' if what == 'train' else what} loss (nats per token)", parse_math=False)
    for run, curve in sorted(curves.items(), key=lambda item: item[0] in targets):
        tokens, loss = _thinned(np.asarray(curve, float).reshape(-1, 2))
        if not tokens.size or (against == "flops" and run not in known):
            continue
        spent = tokens if against == "tokens" else 6 * known[run].params * tokens
        colour = drawing.family_of(known[run], kinds).colour if run in known else MUTED
        mark = "o" if len(spent) == 1 else None
        width = 1.9 if run in targets else 1
        (line,) = panel.plot(spent, loss, color=colour, marker=mark, markersize=4, linewidth=width)
        drawing.tooltip(line, run, run)
    drawing.log_ticks(panel, "x", words.short if against == "tokens" else words.flops)
    drawing.log_ticks(panel, "y", words.number)
    handles = [Line2D([], [], color=kind.colour, label=kind.label) for kind in kinds]
    if targets:
        handles.append(Line2D([], [], color=INK, linewidth=1.9, label="target"))
    panel.legend(handles=handles, loc="upper right")
    return figure


@matplotlib.rc_context(drawing.STYLE)
def law_along_runs(law: FittedLaw) -> Figure:
    """A law of each step of a run: what was measured, faint, and what the law says, against tokens.

    Steps that were fitted have a solid line, steps that were predicted a dashed one and the law's interval around it.
    """
    points, predictions = law.loss.points, law.predictions
    last = {run_of(row): row for row in sorted((*points, *predictions), key=lambda row: row.tokens)}
    kinds = drawing.families_of([row.token_multiplier for row in last.values()])
    figure, panel = drawing.axes()
    panel.set_xlabel("training tokens")
    panel.set_ylabel(f"loss, {name_of(law.loss.column)} ({law.loss.unit})", parse_math=False)
    handles: list[Artist] = []
    for run, end in sorted(last.items(), key=lambda item: item[1].tokens):
        colour = drawing.family_of(end, kinds).colour
        fitted = [(point.tokens, point.measured, point.fitted) for point in points if run_of(point) == run]
        foretold = [(p.tokens, p.measured_loss, p.loss, *p.loss_interval) for p in predictions if run_of(p) == run]
        for rows, style in ((fitted, "-"), (foretold, drawing.DASHES)):
            if rows:
                tokens, measured, expected, *ends = np.array(sorted(rows)).T
                (line,) = panel.plot(tokens, measured, color=colour, linewidth=3.2, alpha=0.3)
                drawing.tooltip(line, run, run)
                panel.plot(tokens, expected, color=colour, linestyle=style)
                if ends:
                    panel.fill_between(tokens, *ends, color=colour, alpha=0.14, linewidth=0)
        handles.append(Line2D([], [], color=colour, linestyle="-" if fitted else drawing.DASHES, label=run))
    handles.append(Line2D([], [], color=MUTED, linewidth=3.2, alpha=0.4, label="measured"))
    if predictions:
        handles.append(Patch(color=MUTED, alpha=0.2, linewidth=0, label=f"predicted, {100 * law.level:.3g} % interval"))
    panel.legend(handles=handles, loc="upper right")
    panel.xaxis.set_major_formatter(lambda value, _: words.short(value))
    return figure


@matplotlib.rc_context(drawing.STYLE)
def over_training(law: FittedLaw, budgets_flops: Sequence[float], *, part: str = "loss") -> Figure:
    """What a law predicts of runs of equal compute, against their token multiplier M = D/N; the best M is dotted.

    Args:
      law: a law of N and D.
      budgets_flops: training compute, 6ND; a line each.
      part: `loss` or `error`.
    """
    from fitting.prediction import predict  # brings jax, which `--help` need not wait for

    kinds = drawing.families_of(budgets_flops)
    figure, panel = drawing.axes()
    panel.set_xscale("log")
    panel.set_xlabel("tokens per parameter, M = D/N")
    panel.set_ylabel({"loss": f"loss ({law.loss.unit})", "error": "top-1 error"}[part])
    multipliers = np.geomspace(2, 2000, 31)
    handles: list[Artist] = []
    for kind, budget in zip(kinds, sorted(budgets_flops), strict=True):
        params = np.sqrt(budget / 6 / multipliers)
        said = [predict(law, float(n), float(m * n)) for n, m in zip(params, multipliers, strict=True)]
        value = np.array([getattr(p, part) for p in said])
        low, high = np.array([getattr(p, f"{part}_interval") for p in said]).T
        panel.fill_between(multipliers, low, high, color=kind.colour, alpha=0.14, linewidth=0)
        panel.plot(multipliers, value, color=kind.colour)
        panel.plot(multipliers[value.argmin()], value.min(), kind.marker, color=kind.colour, ms=6.5, mec=PAPER, mew=0.8)
        handles.append(Line2D([], [], color=kind.colour, marker=kind.marker, mec=PAPER, label=words.flops(budget)))
    handles.append(Patch(color=MUTED, alpha=0.2, linewidth=0, label=f"one run, {100 * law.level:.3g} % interval"))
    panel.legend(handles=handles, loc="upper left", ncols=2, title="FLOPs", alignment="left")
    panel.set_ylim(top=panel.get_ylim()[1] + 0.25 * np.ptp(panel.get_ylim()))
    if part == "error":
        panel.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    drawing.log_ticks(panel, "x", words.number)
    return figure


@matplotlib.rc_context(drawing.STYLE)
def two_ladders(law_a: FittedLaw, law_b: FittedLaw, compared: "Comparison") -> Figure:
    """The losses of two ladders against compute, with their laws along the sizes compared and the run compared."""
    kinds = drawing.families_of([1, 2])
    figure, panel = drawing.axes()
    panel.set(xscale="log", yscale="log")
    panel.set_xlabel("training compute, C = 6ND (FLOPs)")
    panel.set_ylabel(f"loss, {name_of(law_a.loss.column)} ({law_a.loss.unit})", parse_math=False)
    sides = (("A", law_a, compared.a, 0.97), ("B", law_b, compared.b, 1.03))
    for (name, law, said, aside), kind in zip(sides, kinds, strict=True):
        for point in law.loss.points:
            alike = abs(math.log(point.token_multiplier / said.token_multiplier)) < 0.1
            face = kind.colour if alike else "none"
            (mark,) = panel.plot(point.flops, point.measured, kind.marker, color=face, mec=kind.colour, ms=5, zorder=3)
            drawing.tooltip(mark, point.run, f"{name}, {point.run}")
        flops_G, loss_G = np.array([(along.flops, getattr(along, name.lower())) for along in compared.along]).T
        panel.plot(flops_G, loss_G, color=kind.colour)
        panel.plot([aside * said.flops] * 2, said.loss_interval, color=kind.colour, marker="_", lw=1.1, ms=7)
        panel.plot(
            aside * said.flops, getattr(compared.loss, name.lower()), kind.marker, color=kind.colour, ms=5, zorder=4
        )
    drawing.log_ticks(panel, "x", words.flops)
    drawing.log_ticks(panel, "y", words.number)
    handles = [
        Line2D([], [], color=kind.colour, marker=kind.marker, mec=PAPER, ms=6.5, label=name)
        for kind, name in zip(kinds, "AB", strict=True)
    ]
    panel.legend(handles=handles, loc="upper right")
    return figure


@matplotlib.rc_context(drawing.STYLE)
def paired_difference(law_a: FittedLaw, law_b: FittedLaw, compared: "Comparison") -> Figure:
    """B's loss less A's: of every pair of runs, by the joint draws of the laws, and of one run of each compared."""
    from fitting.pairs import pairs_of

    figure, panel = drawing.axes()
    panel.set_xscale("log")
    panel.set_xlabel("training compute, C = 6ND (FLOPs)")
    panel.set_ylabel(f"loss of B less A’s ({law_a.loss.unit})")
    panel.axhline(0, color=MUTED, linewidth=1)
    flops_G, difference_G = np.array([(along.flops, along.difference) for along in compared.along]).T
    panel.fill_between(flops_G, *np.array([along.interval for along in compared.along]).T, color=MUTED, alpha=0.2, lw=0)
    panel.plot(flops_G, difference_G, color=MUTED)
    pairs = pairs_of(law_a.loss.points, law_b.loss.points)
    kinds = drawing.families_of([one.token_multiplier for one, _ in pairs])
    for one, other in pairs:
        drawing.rung(panel, drawing.family_of(one, kinds), one, one.flops, other.measured - one.measured)
    drawing.interval(panel, compared.a.flops, compared.loss.difference, y_interval=compared.loss.interval)
    drawing.log_ticks(panel, "x", words.flops)
    level = f"{100 * compared.level:.3g} %"
    handles = drawing.keys(kinds)
    handles.append(Patch(color=MUTED, alpha=0.2, linewidth=0, label=f"laws, {level} band"))
    handles.append(Line2D([], [], color=INK, marker="o", ms=2.5, lw=1.1, label=f"one run of each, {level} interval"))
    panel.legend(handles=handles, loc="best")
    return figure


@matplotlib.rc_context(drawing.STYLE)
def sizes(testbed: Testbed) -> Figure:
    """Where the runs of a table lie: tokens against parameters. Targets are stars, what is quarantined is hollow."""
    figure, panel = drawing.axes()
    panel.set(xscale="log", yscale="log")
    panel.set_xlabel("parameters, N")
    panel.set_ylabel("training tokens, D")
    kinds = drawing.families_of(testbed.table["token_multiplier"])
    for row in testbed.table.to_dict("records"):
        run = Run(row["run"], row["params"], row["tokens"])
        kind = drawing.family_of(run, kinds)
        if row["quarantine"]:
            panel.plot(run.params, run.tokens, kind.marker, color="none", mec=kind.colour, ms=6.5, zorder=2)
        else:
            mark = drawing.star if row["role"] == "target" else drawing.rung
            mark(panel, kind, run, run.params, run.tokens)
    panel.margins(0.08)
    drawing.log_ticks(panel, "x", words.short)
    drawing.log_ticks(panel, "y", words.short)
    handles = drawing.keys(kinds)
    if (testbed.table["role"] == "target").any():
        handles.append(Line2D([], [], color=MUTED, ls="", marker="*", mec=PAPER, ms=13, label="target"))
    if (testbed.table["quarantine"] != "").any():
        handles.append(Line2D([], [], color="none", marker="o", mec=MUTED, ms=6.5, label="quarantined"))
    panel.legend(handles=handles, loc="lower right", ncols=2)
    return figure


@matplotlib.rc_context(drawing.STYLE)
def residuals(law: FittedLaw, part: str, *, against: str) -> Figure:
    """How far runs lie above a law's `loss` or `error` part, in %, `against` params, tokens or token_multiplier."""
    fit, kinds = getattr(law, part), drawing.families(law)
    labels = {"params": "parameters, N", "tokens": "tokens, D", "token_multiplier": "tokens per parameter, M"}
    figure, panel = drawing.axes(width_inches=3.1, height_inches=2.4)
    panel.set_xscale("log")
    if len(at := {getattr(run, against) for run in (*fit.points, *law.predictions)}) == 1:  # mixtures of one size
        panel.set_xlim(min(at) / 2, 2 * min(at))
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
    edges = np.geomspace(tokens.min(), tokens.max(), 200)
    slices = np.digitize(tokens, np.maximum.accumulate(edges))  # which rounding may put out of order, where all are one
    counts = np.bincount(slices)
    full = counts > 0
    tokens, loss = (np.bincount(slices, values)[full] / counts[full] for values in (tokens, loss))
    return tokens, loss
