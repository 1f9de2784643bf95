"""The report of a fitted law: report.html for people, report.md for repositories, report.json for programs."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from fitting import artifact, drawing, figures, words
from fitting.fitted import FittedLaw
from fitting.summary import summarise

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
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    plan: Sequence[Mapping[str, Any]] | None = None,
    settings_yaml: str | None = None,
    chance_error: float | None = None,
    title: str = "Scaling ladder",
) -> Any:
    """Writes report.html (self-contained), report.md with figures/*.svg, and report.json into the folder of law.json.

    Args:
      law: what to report.
      out: the folder, local or on `gs://`.
      curves: (tokens, training loss in nats) of each run, by run.
      plan: every planned run, with any of the keys of `PLAN_COLUMNS`.
      settings_yaml: the settings that repeat the ladder.
      chance_error: the error of guessing, as a fraction.
      title: the page's heading.

    Returns:
      The path of report.html, the last file to be written. Each is written whole or not at all.
    """
    from etils import epath

    out = epath.Path(out)
    summary = summarise(law, title=title)
    colours = _colours(law)
    drawings = {name: drawing.svg(figure, name) for name, figure in _draw(law, curves, chance_error).items()}
    formulas = {
        f"{part}_{latex}": drawing.svg(figures.formula(fit[latex]), f"{part}_{latex}")
        for part, fit in summary["laws"].items()
        for latex in ("latex_symbols", "latex")
    }
    plan_columns = {key: words for key, words in PLAN_COLUMNS.items() if any(key in row for row in plan or ())}
    context = summary | {"plan": plan or (), "plan_columns": plan_columns, "settings_yaml": settings_yaml}
    for name, text in drawings.items():
        artifact.write_text(out / "figures" / f"{name}.svg", _on_paper(text))
    artifact.write_text(out / "report.json", json.dumps(_finite(summary), indent=1, allow_nan=False) + "\n")
    artifact.write_text(out / "report.md", _render("report.md.j2", **context, figures=drawings))
    themed = {name: _themed(text, colours) for name, text in (drawings | formulas).items()}
    artifact.write_text(out / "report.html", _render("report.html.j2", **context, figures=themed, colours=colours))
    return out / "report.html"


def _draw(law: FittedLaw, curves: Any, chance_error: float | None) -> dict[str, Figure]:
    drawn = {"reducible_loss": figures.reducible_loss(law)}
    if law.error:
        drawn["error_against_loss"] = figures.error_against_loss(law, chance_error=chance_error)
    for part in ("loss", "error") if law.error else ("loss",):
        for against in ("params", "tokens", "token_multiplier"):
            drawn[f"{part}_residuals_{against}"] = figures.residuals(law, part, against=against)
    for against in ("tokens", "flops") if curves else ():
        drawn[f"training_{against}"] = figures.training_curves(law, curves, against=against)
    return drawn


def _colours(law: FittedLaw) -> dict[str, tuple[str, str]]:
    """Every colour of the figures, as a CSS variable: its name -> (on light, on dark)."""
    inks = {"ink": drawing.INK, "muted": drawing.MUTED, "grid": drawing.GRID, "paper": drawing.PAPER}
    colours = {name: (light, drawing.DARK[light]) for name, light in inks.items()}
    return colours | {f"m{i}": (kind.colour, kind.dark_colour) for i, kind in enumerate(drawing.families(law))}


def _themed(svg: str, colours: Mapping[str, tuple[str, str]]) -> str:
    """An SVG whose colours follow the page's, light or dark."""
    names = {light: name for name, (light, _) in colours.items()}
    return re.sub("|".join(names), lambda found: f"var(--{names[found[0]]})", svg)


def _on_paper(svg: str) -> str:
    """An SVG to stand alone: on white, whatever lies behind it."""
    return re.sub(r"(<svg[^>]*>)", rf'\1<rect width="100%" height="100%" fill="{drawing.PAPER}"/>', svg, count=1)


def _finite(value: Any) -> Any:
    """The same data, with null for what is not a finite number, as JSON has no other word."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _render(template: str, **context: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fitting", package_path=""),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("number", "short", "flops", "fixed", "percent", "plus_minus")
    }
    environment.filters["cell"] = _cell
    return environment.get_template(template).render(**context)


def _cell(value: Any) -> str:
    """One line of Markdown that shows `value` as it is: nothing in it is read as markup or HTML."""
    line = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", " ".join(str(value).split()))
    return line.replace("&", "&amp;").replace("<", "&lt;")
