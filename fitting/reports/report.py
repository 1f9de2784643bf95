"""The report of a law: HTML for people, Markdown for repositories, LaTeX for papers, JSON and CSV for programs."""

import json
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from fitting import files
from fitting.artifacts.fitted import FittedLaw
from fitting.laws import latex
from fitting.reports import drawing, figures, timelines, words
from fitting.reports.checklist import checklist, limits
from fitting.reports.rendering import render
from fitting.reports.summary import summarise

if typing.TYPE_CHECKING:
    from fitting.selection import Checks

PLAN_COLUMNS = {
    "run": "run",
    "role": "role",
    "params": "N",
    "params_non_embedding": "N without embeddings",
    "tokens": "D, tokens",
    "flops": "C, FLOPs",
    "steps": "steps",
    "batch_size": "batch",
    "learning_rate": "learning rate",
}


def write(
    law: FittedLaw,
    out: Any,
    *,
    checks: "Callable[[], Checks | None] | Checks | None" = None,
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    plan: Sequence[Mapping[str, Any]] | None = None,
    settings_yaml: str | None = None,
    chance_errors: Mapping[str, float] | None = None,
    schedule: Mapping[str, Any] | None = None,
    title: str = "Scaling ladder",
) -> Any:
    """Writes the report into the folder of law.json.

    report.html stands alone; report.md and report.tex use figures/*.svg and *.pdf; report.json and runs.csv are data.

    Args:
      law: what to report.
      out: the folder, local or on `gs://`.
      checks: what `fitting.selection.checks` found, or what gives it and is asked once all figures are drawn.
      curves: (tokens, training loss in nats) of each run, by run.
      plan: every planned run, with any of the keys of `PLAN_COLUMNS`.
      settings_yaml: the settings that repeat the ladder.
      chance_errors: the error of guessing, as a fraction, by task.
      schedule: how the runs share their machines: `chips`, `hours`, `used` and, for `timelines.on_chips`, `bars`.
      title: the page's heading.

    Returns:
      The path of report.html, the last file to be written. Each is written whole or not at all.
    """
    from etils import epath

    out = epath.Path(out)
    drawn = _draw(law, curves, _chance_error(law, chance_errors or {}))
    if schedule:
        drawn["schedule"] = timelines.on_chips(schedule["bars"], schedule["chips"])
    drawings = {name: drawing.svg(figure, name) for name, figure in drawn.items()}
    for name, text in drawings.items():
        files.write(out / "figures" / f"{name}.svg", drawing.on_paper(text))
        files.write(out / "figures" / f"{name}.pdf", drawing.pdf(drawn[name]))
    summary = summarise(law, title=title, checks=checks() if callable(checks) else checks)
    answers = checklist(
        law, summary, plan=plan or (), has_settings=settings_yaml is not None, chance_errors=chance_errors
    )
    summary |= {"checklist": answers, "limits": limits(summary)}
    files.write(out / "report.json", json.dumps(files.finite(summary), indent=1, allow_nan=False) + "\n")
    files.write(out / "runs.csv", _csv(summary))
    plan_columns = {key: name for key, name in PLAN_COLUMNS.items() if any(key in row for row in plan or ())}
    context = summary | {"plan": plan or (), "plan_columns": plan_columns, "settings_yaml": settings_yaml}
    context |= {"schedule": schedule}
    files.write(out / "report.md", render("report.md.j2", **context, figures=drawings))
    files.write(out / "report.tex", render("report.tex.j2", **context, symbols=_symbols(law)))
    files.write(out / "report.html", _html(law, summary, context, drawings))
    return out / "report.html"


def _html(law: FittedLaw, summary: Mapping[str, Any], context: Mapping[str, Any], drawings: Mapping[str, str]) -> str:
    from fitting.reports import page  # brings jax, which `--help` need not wait for

    colours = _colours(law)
    formulas = {
        f"{part}_{written}": drawing.svg(figures.formula(fit[written]), f"{part}_{written}")
        for part, fit in summary["laws"].items()
        for written in ("latex_symbols", "latex")
    }
    return render(
        "report.html.j2",
        **context,
        figures={name: _themed(text, colours) for name, text in {**drawings, **formulas}.items()},
        colours=colours,
        page=page.data(law, summary),
        formulas=page.formulas(law),
        asked=_asked(law),
        four_decimals=lambda value: words.fixed(value, 4),
        in_percent=words.percent,
    )


def _draw(law: FittedLaw, curves: Any, chance_error: float | None) -> dict[str, Figure]:
    drawn = {"reducible_loss": figures.reducible_loss(law)}
    if law.error:
        drawn["error_against_loss"] = figures.error_against_loss(law, chance_error=chance_error)
    for part in law.fits:
        for against in ("params", "tokens", "token_multiplier"):
            drawn[f"{part}_residuals_{against}"] = figures.residuals(law, part, against=against)
    for against in ("tokens", "flops") if curves else ():
        drawn[f"training_{against}"] = figures.training_curves(law, curves, against=against)
    return drawn


def _chance_error(law: FittedLaw, chance_errors: Mapping[str, float]) -> float | None:
    """Of the column that the error law was fitted to."""
    if law.error is None or not chance_errors:
        return None
    average = sum(chance_errors.values()) / len(chance_errors)
    return {"average": average, **chance_errors}.get(figures.name_of(law.error.column))


def _asked(law: FittedLaw) -> dict[str, str]:
    """The run that the page asks about first: the dearest target, or one four times the largest run."""
    dearest = max(law.predictions or law.loss.points, key=lambda run: run.flops)
    times = 1 if law.predictions else 4
    return {"params": f"{times * dearest.params:.12g}", "tokens": f"{times * dearest.tokens:.12g}"}


def _colours(law: FittedLaw) -> dict[str, tuple[str, str]]:
    """Every colour of the page and its figures, as a CSS variable: its name -> (on light, on dark)."""
    return drawing.PAGE | {f"m{i}": (kind.colour, kind.dark_colour) for i, kind in enumerate(drawing.families(law))}


def _themed(svg: str, colours: Mapping[str, tuple[str, str]]) -> str:
    """An SVG whose colours follow the page's, light or dark."""
    names = {light: name for name, (light, _) in colours.items()}
    return drawing.on_light_or_dark(re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", svg))


def _symbols(law: FittedLaw) -> dict[str, str]:
    """Every parameter as the formulas write it, in LaTeX."""
    return {name: latex.symbol(name) for fit in law.fits.values() for name in fit.theta}


def _csv(summary: Mapping[str, Any]) -> str:
    """One row a run, fitted ones first: what it is, what was measured and what the laws say."""
    import pandas as pd

    # As objects, that a column of whole numbers with a gap stays one.
    return pd.DataFrame(_csv_rows(summary), dtype=object).to_csv(index=False, lineterminator="\n")


def _csv_rows(summary: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    sizes = ("params", "tokens", "token_multiplier", "flops")
    for role, runs in (("rung", summary["runs"]), ("target", summary["predictions"])):
        for run in runs:
            row = {"run": run["run"], "role": role} | {name: run[name] for name in sizes}
            for part in summary["laws"]:
                outcome = run.get(part) or {}
                low, high = outcome.get("interval") or (math.nan, math.nan)
                expected = outcome.get("fitted", outcome.get("value"))
                row |= {
                    part: outcome.get("measured"),
                    f"{part}_stderr": outcome.get("stderr"),
                    f"{part}_law": expected,
                    f"{part}_low": low,
                    f"{part}_high": high,
                }
            yield row
