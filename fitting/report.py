"""The report of a fitted law: report.html for people, report.md for repositories, report.json for programs.

`summarise` says everything once, as plain data; the templates beside this file only lay it out. *Prediction* is said
of a target that has been measured, *projection* of one that has not.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fitting import artifact, drawing, figures, laws
from fitting.fitted import FittedLaw, LawFit, Prediction

Curves = Mapping[str, Sequence[tuple[float, float]]]
Rows = Sequence[Mapping[str, Any]]


def write(
    law: FittedLaw,
    out: Any,
    *,
    curves: Curves | None = None,
    plan: Rows | None = None,
    settings_yaml: str | None = None,
    chance_error: float | None = None,
    title: str = "Scaling ladder",
) -> Any:
    """Writes report.html (self-contained), report.md with figures/*.svg, and report.json into the folder of law.json.

    Args:
      law: what to report.
      out: the folder, local or on `gs://`.
      curves: (tokens, training loss in nats) of each run, by run.
      plan: every planned run, with any of the columns of `PLAN_COLUMNS`.
      settings_yaml: the settings that repeat the ladder.
      chance_error: the error of guessing, as a fraction.
      title: the page's heading.

    Returns:
      The path of report.html. Each file is written whole or not at all, report.html last.
    """
    from etils import epath

    out = epath.Path(out)
    summary = summarise(law, title=title)
    drawn = _draw(law, curves, chance_error)
    formulas = {
        f"{part}_law_{kind}": figures.formula(fit[latex])
        for part, fit in summary["laws"].items()
        for kind, latex in (("in_symbols", "latex_symbols"), ("in_numbers", "latex"))
    }
    context = {
        "law": law,
        "plan": plan or (),
        "plan_columns": _plan_columns(plan or ()),
        "settings_yaml": settings_yaml,
    }
    for name, figure in drawn.items():
        artifact.write_text(out / "figures" / f"{name}.svg", figures.svg(figure, name, background=drawing.PAPER) + "\n")
    artifact.write_text(out / "report.json", json.dumps(_finite(summary), indent=1, allow_nan=False) + "\n")
    artifact.write_text(out / "report.md", _render("report.md.j2", **summary, **context, figures=list(drawn)))
    colours = _colours(law)
    inline = {name: _themed(figures.svg(figure, name), colours) for name, figure in {**drawn, **formulas}.items()}
    page = _render("report.html.j2", **summary, **context, figures=inline, colours=colours)
    artifact.write_text(out / "report.html", page)
    return out / "report.html"


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


def summarise(law: FittedLaw, *, title: str) -> dict[str, Any]:
    """Everything a report says in words and numbers, as JSON-ready data (NaN where unknown)."""
    runs = {point.run: point for fit in _fits(law).values() for point in fit.points}
    ladder = {
        "runs": len(runs),
        "flops": sum(point.flops for point in runs.values()),
        **{
            name: (min(values), max(values))
            for name in ("params", "tokens", "token_multiplier", "flops_of_a_run")
            for values in [[getattr(point, name.removesuffix("_of_a_run")) for point in runs.values()]]
        },
    }
    predictions = [_scored(prediction, ladder) for prediction in law.predictions]
    summary = {
        "title": title,
        "created": law.created,
        "method": law.method,
        "level": law.level,
        "ladder": ladder,
        "predictions": predictions,
        "laws": {part: _fit_summary(fit, part) for part, fit in _fits(law).items()},
        "runs": _runs(law),
        "left_out": [{"run": row.run, "reason": row.reason} for row in law.left_out],
        "cautions": list(cautions(law)),
        "provenance": {
            "command": law.command,
            "select": law.select,
            "select_error": law.select_error,
            "seed": law.seed,
            "testbed_sha256": law.testbed_sha256,
            "versions": dict(law.versions),
        },
    }
    return {**summary, "headline": _headline(summary), "cards": _cards(summary)}


def cautions(law: FittedLaw) -> Iterator[str]:
    """What a reader should know before trusting the numbers, one sentence each."""
    for part, fit in _fits(law).items():
        for name in fit.at_bound:
            yield f"Parameter {name} of the {part} law lies at its bound: the data do not determine it."
        if fit.degrees_of_freedom <= 2:
            yield (
                f"The {part} law has {_count(fit.degrees_of_freedom, 'degree')} of freedom "
                f"({_count(len(fit.points), 'run')}, {len(fit.theta)} parameters): its fit says little about its error."
            )
        if fit.share_at_optimum < 0.5:
            yield (
                f"Only {100 * fit.share_at_optimum:.0f} % of the {part} law's {fit.starts} starts reached the optimum: "
                "there may be a better one."
            )
        for point in fit.points:
            noise = fit.noise * (point.fitted if fit.noise_is_relative else 1)
            deviations = abs(point.measured - point.fitted) / noise if noise > 0 else 0
            if deviations > 3:
                yield f"{point.run} lies {deviations:.1f} noise standard deviations off the {part} law."
    points = law.loss.points
    for prediction in law.predictions:
        if prediction.run in {point.run for point in points}:
            yield f"{prediction.run} is among the runs that were fitted: its prediction proves nothing."
        elif prediction.flops <= max(point.flops for point in points):
            yield f"{prediction.run} takes no more compute than the largest run fitted: its prediction is no extrapolation."
        for what, interval, measured in (
            ("loss", prediction.loss_interval, prediction.measured_loss),
            ("error", prediction.error_interval, prediction.measured_error),
        ):
            if interval and (measured < interval[0] or measured > interval[1]):
                yield f"The measured {what} of {prediction.run} lies outside its {100 * prediction.level:.0f} % interval."


def _fits(law: FittedLaw) -> dict[str, LawFit]:
    return {"loss": law.loss} | ({"error": law.error} if law.error else {})


def _fit_summary(fit: LawFit, part: str) -> dict[str, Any]:
    form = {"loss": laws.LOSS_LAWS, "error": laws.ERROR_LAWS}[part][fit.law]
    return {
        "column": fit.column,
        "name": figures.name_of(fit.column),
        "law": fit.law,
        "citation": form.citation,
        "latex_symbols": laws.latex_symbols(form),
        "latex": laws.latex(fit),
        "theta": {name: {"value": fit.theta[name], "interval": fit.theta_intervals[name]} for name in fit.theta},
        "at_bound": list(fit.at_bound),
        "noise": fit.noise,
        "noise_is_relative": fit.noise_is_relative,
        "objective": fit.objective,
        "objective_value": fit.objective_value,
        "starts": fit.starts,
        "share_at_optimum": fit.share_at_optimum,
        "points": len(fit.points),
        "degrees_of_freedom": fit.degrees_of_freedom,
        "draws": len(fit.theta_draws),
        "rms_relative_residual": math.sqrt(sum((p.measured / p.fitted - 1) ** 2 for p in fit.points) / len(fit.points)),
    }


def _runs(law: FittedLaw) -> list[dict[str, Any]]:
    """Each run fitted, once, with what was measured and fitted by either law."""
    rows: dict[str, dict[str, Any]] = {}
    for part, fit in _fits(law).items():
        for point in sorted(fit.points, key=lambda point: point.flops):
            row = rows.setdefault(
                point.run,
                {name: getattr(point, name) for name in ("run", "params", "tokens", "token_multiplier", "flops")},
            )
            row[part] = {"measured": point.measured, "stderr": point.measured_stderr, "fitted": point.fitted}
    return list(rows.values())


def _scored(prediction: Prediction, ladder: Mapping[str, Any]) -> dict[str, Any]:
    def outcome(value: float, interval: tuple[float, float], measured: float) -> dict[str, Any]:
        known = math.isfinite(measured)
        return {
            "value": value,
            "interval": interval,
            "measured": measured,
            "relative_error": value / measured - 1 if known else math.nan,
            "absolute_error": value - measured if known else math.nan,
            "covered": interval[0] <= measured <= interval[1] if known else None,
        }

    error = prediction.error
    return {
        "run": prediction.run,
        "kind": "prediction" if math.isfinite(prediction.measured_loss) else "projection",
        "params": prediction.params,
        "tokens": prediction.tokens,
        "token_multiplier": prediction.token_multiplier,
        "flops": prediction.flops,
        "loss": outcome(prediction.loss, prediction.loss_interval, prediction.measured_loss),
        "error": None if error is None else outcome(error, prediction.error_interval, prediction.measured_error),
        "beyond_ladder": {
            "flops": _beyond(prediction.flops, ladder["flops_of_a_run"]),
            "params": _beyond(prediction.params, ladder["params"]),
            "token_multiplier": _beyond(prediction.token_multiplier, ladder["token_multiplier"]),
        },
        "times_ladder_flops": prediction.flops / ladder["flops"],
    }


def _beyond(value: float, ladder: tuple[float, float]) -> float:
    """How many times beyond the ladder's range: above 1 beyond its largest, below 1 beneath its smallest, 1 within."""
    low, high = ladder
    return value / high if value > 1.01 * high else value / low if value < low / 1.01 else 1.0


def _headline(summary: Mapping[str, Any]) -> str:
    runs = _count(summary["ladder"]["runs"], "small run")
    loss = summary["laws"]["loss"]
    measured = [p for p in summary["predictions"] if p["kind"] == "prediction"]
    if not summary["predictions"]:
        return (
            f"A law of the loss on {loss['name']}, fitted on {_count(summary['ladder']['runs'], 'run')} to "
            f"{100 * loss['rms_relative_residual']:.2g} % (root mean square). No target has been predicted yet."
        )
    cheapest = min(measured or summary["predictions"], key=lambda p: p["flops"])
    ratio = cheapest["times_ladder_flops"]
    cost = f"{ratio:.2g} times less compute" if ratio >= 1 else f"{1 / ratio:.2g} times the compute"
    if not measured:
        return f"{runs} project the loss of {_count(len(summary['predictions']), 'larger run')}, from {cost}."
    worst = max(abs(p["loss"]["relative_error"]) for p in measured)
    covered = sum(p["loss"]["covered"] for p in measured)
    inside = {0: "none", len(measured): "it" if len(measured) == 1 else "all"}.get(
        covered, f"{covered} of {len(measured)}"
    )
    return (
        f"{runs} predicted the loss of {_count(len(measured), 'larger run')} to within {100 * worst:.2g} %, "
        f"from {cost}; {inside} within {100 * summary['level']:.0f} % intervals."
    )


def _cards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers to remember, large on the page."""
    loss, predictions = summary["laws"]["loss"], summary["predictions"]
    measured = [p for p in predictions if p["kind"] == "prediction"]
    cards = []
    if measured:
        worst = max(abs(p["loss"]["relative_error"]) for p in measured)
        covered = sum(p["loss"]["covered"] for p in measured)
        level = f"{100 * summary['level']:.0f} %"
        cards.append((f"{100 * worst:.2g} %", "largest miss of a predicted loss"))
        cards.append((f"{covered} of {len(measured)}", f"measured losses inside their {level} intervals"))
        errors = [p["error"]["absolute_error"] for p in measured if p["error"]]
        errors = [abs(error) for error in errors if math.isfinite(error)]
        if errors:
            cards.append((f"{100 * max(errors):.2g} points", "largest miss of a predicted error"))
    for p in [p for p in predictions if p["kind"] == "projection"][: 3 - len(cards)]:
        cards.append((f"{p['loss']['value']:.4g}", f"projected loss of {p['run']}, nats per token"))
    if predictions:
        cheapest = min(predictions, key=lambda p: p["flops"])
        cards.append((f"{cheapest['times_ladder_flops']:.2g}×", f"the ladder's compute would train {cheapest['run']}"))
    else:
        cards.append((str(summary["ladder"]["runs"]), "runs fitted"))
        cards.append((f"{100 * loss['rms_relative_residual']:.2g} %", "root mean square residual of the loss"))
        cards.append((str(loss["degrees_of_freedom"]), "degrees of freedom of the loss law"))
    return [{"number": number, "words": words} for number, words in cards]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _draw(law: FittedLaw, curves: Curves | None, chance_error: float | None) -> dict[str, Any]:
    drawn = {"reducible_loss": figures.reducible_loss(law)}
    if law.error:
        drawn["error_against_loss"] = figures.error_against_loss(law, chance_error=chance_error)
    for part in _fits(law):
        for against in ("params", "tokens", "token_multiplier"):
            drawn[f"{part}_residuals_{against}"] = figures.residuals(law, part, against=against)
    if curves:
        for against in ("tokens", "flops"):
            drawn[f"training_{against}"] = figures.training_curves(law, curves, against=against)
    return drawn


def _colours(law: FittedLaw) -> dict[str, tuple[str, str, str]]:
    """Every colour of the figures, as CSS variable: (name, on light, on dark)."""
    inks = [("ink", drawing.INK), ("muted", drawing.MUTED), ("grid", drawing.GRID), ("paper", drawing.PAPER)]
    colours = {light: (name, light, drawing.DARK[light]) for name, light in inks}
    for i, kind in enumerate(drawing.families(law)):
        colours[kind.colour] = (f"m{i}", kind.colour, kind.dark_colour)
    return colours


def _themed(svg: str, colours: Mapping[str, tuple[str, str, str]]) -> str:
    """An SVG whose colours follow the page's, light or dark; formulas, black by default, take the ink."""
    return re.sub(
        r"#[0-9a-f]{6}\b", lambda found: f"var(--{colours[found[0]][0]})" if found[0] in colours else found[0], svg
    )


def _plan_columns(plan: Rows) -> dict[str, str]:
    return {key: words for key, words in PLAN_COLUMNS.items() if any(key in row for row in plan)}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _render(template: str, **context: Any) -> str:
    import jinja2

    def number(value: Any, digits: int = 4) -> str:
        return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}g}".replace("-", "−")

    def fixed(value: float, decimals: int) -> str:
        return "–" if value is None or not math.isfinite(value) else f"{value:.{decimals}f}".replace("-", "−")

    def percent(value: float, decimals: int = 2, signed: bool = False) -> str:
        if value is None or not math.isfinite(value):
            return "–"
        return f"{100 * value:{'+' if signed else ''}.{decimals}f}".replace("-", "−") + "\u00a0%"

    def cell(value: Any) -> str:
        """One line of a Markdown table, with nothing in it that Markdown or HTML would read as markup."""
        return (
            re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", " ".join(str(value).split()))
            .replace("&", "&amp;")
            .replace("<", "&lt;")
        )

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fitting", package_path=""),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "fixed": fixed,
        "percent": percent,
        "short": figures.short,
        "power": figures.power,
        "cell": cell,
    }
    return environment.get_template(template).render(**context)
