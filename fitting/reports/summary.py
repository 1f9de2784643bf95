"""What a report says, in words and numbers, as plain data: said once here, laid out by the templates.

A *prediction* is of a target that has been measured, a *projection* of one that has not.
"""

import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from fitting.artifacts.fitted import FittedLaw, LawFit, Prediction, is_lawful
from fitting.doubts import doubts
from fitting.laws import catalogue, latex
from fitting.prediction import predict
from fitting.reports import figures
from fitting.reports.hull import hull, is_inside
from fitting.reports.words import count, counted

if typing.TYPE_CHECKING:
    from fitting.selection import Checks, Refit

_NAMED = 3  # of the runs that lie far off a law


def summarise(law: FittedLaw, *, title: str, checks: "Checks | None" = None) -> dict[str, Any]:
    """Everything a report says in words and numbers, as JSON-ready data (NaN where unknown)."""
    points = law.loss.points
    corners = hull((point.params, point.tokens) for point in points)
    ladder = {
        "runs": len(points),
        "params": _range(point.params for point in points),
        "tokens": _range(point.tokens for point in points),
        "token_multiplier": _range(point.token_multiplier for point in points),
        "flops": _range(point.flops for point in points),
        "hull": corners,
    }
    predictions = [_scored(prediction, law, ladder) for prediction in law.predictions]
    summary = {
        "title": title,
        "created": law.created,
        "method": law.method,
        "level": law.level,
        "params_column": law.params_column,
        "n": counted(law.params_column),
        "unit": law.loss.unit,
        "ladder": ladder,
        "predictions": predictions,
        "laws": {part: _fit_summary(fit) for part, fit in law.fits.items()},
        "tasks": [
            {"name": figures.name_of(column), "foretold": foretold, "lawful": is_lawful(foretold)}
            for column, foretold in sorted(law.tasks.items(), key=lambda task: -task[1])
        ],
        "others": [_other(one, law.predictions) for one in law.each[1:]],
        "runs": _runs(law),
        "left_out": [{"run": row.run, "reason": row.reason} for row in law.left_out],
        "checks": _checks_summary(checks, law) if checks else None,
        "cautions": list(cautions(law, checks)),
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


def cautions(law: FittedLaw, checks: "Checks | None" = None) -> Iterator[str]:
    """What a reader should know before trusting the numbers, one sentence each."""
    if law.params_column != "params":
        yield (
            f"N is the table’s column {law.params_column} everywhere here, {counted(law.params_column)}: ask for "
            "predictions in that count; M = D/N and C = 6ND are of it."
        )
    yield from doubts(law)
    for part, fit in law.fits.items():
        if fit.degrees_of_freedom <= 2:
            yield (
                f"The {part} law has {count(fit.degrees_of_freedom, 'degree')} of freedom "
                f"({count(len(fit.points), 'run')}, {len(fit.theta)} parameters): its fit says little about its error."
            )
        if fit.share_at_optimum < 0.5:
            yield (
                f"Only {100 * fit.share_at_optimum:.0f} % of the {part} law's {fit.starts} starts reached the optimum: "
                "there may be a better one."
            )
        yield from _far_off(fit, part)
    fitted = {point.run: point.flops for point in law.loss.points}
    for prediction in law.predictions:
        if prediction.run in fitted:
            yield f"{prediction.run} is among the runs that were fitted: its prediction proves nothing."
        elif prediction.flops <= max(fitted.values()):
            yield f"{prediction.run} takes no more compute than the largest run fitted: nothing is extrapolated."
        for what, interval, measured in (
            ("loss", prediction.loss_interval, prediction.measured_loss),
            ("error", prediction.error_interval, prediction.measured_error),
        ):
            if interval and (measured < interval[0] or measured > interval[1]):
                level = f"{100 * prediction.level:.3g} %"
                yield f"The measured {what} of {prediction.run} lies outside its {level} interval."
    if checks:
        yield from _shaken(law, checks)


def _far_off(fit: LawFit, part: str) -> Iterator[str]:
    """The runs farthest off a law, in standard deviations of its noise, and how many more there are."""
    off = {}
    for point in fit.points:
        noise = fit.noise_at(point.fitted, point.loss if part == "error" else point.fitted)
        off[point.run] = abs(point.measured - point.fitted) / noise if noise > 0 else 0
    far = sorted((run for run in off if off[run] > 3), key=lambda run: -off[run])
    for run in far[:_NAMED]:
        yield f"{run} lies {off[run]:.1f} noise standard deviations off the {part} law."
    if more := far[_NAMED:]:
        yield f"{count(len(more), 'run')} more of {len(off)} lie over 3 noise standard deviations off the {part} law."


def _shaken(law: FittedLaw, checks: "Checks") -> Iterator[str]:
    """Where a choice or a single run moves a prediction by more than its own interval allows for."""
    for refit in (*checks.influence, *checks.sensitivity):
        moved = [
            (again, prediction)
            for again, prediction in zip(refit.predictions, law.predictions, strict=False)
            if _covered(prediction.loss_interval, again.loss) is False
        ]
        for again, prediction in moved[:1]:
            yield (
                f"{refit.name[0].upper()}{refit.name[1:]}, the predicted loss of {prediction.run} is {again.loss:.4f}, "
                f"outside the interval around {prediction.loss:.4f}."
            )
    if checks.roll_outs and checks.roll_outs[-1].problem:
        yield "The law cannot be fitted without its largest run: nothing here tests it on the ladder itself."


def _checks_summary(checks: "Checks", law: FittedLaw) -> dict[str, Any]:
    dearest = sorted(law.predictions, key=lambda prediction: -prediction.flops)[:3]
    return {
        "aicc": checks.aicc,
        "forms": [{"law": form.law, "weight": form.weight, "miss": form.miss} for form in checks.forms],
        "targets": [prediction.run for prediction in dearest],
        "roll_outs": [_roll_out(refit, law) for refit in checks.roll_outs],
        "influence": [_refit(refit, dearest) for refit in checks.influence],
        "sensitivity": [_refit(refit, dearest) for refit in checks.sensitivity],
    }


def _roll_out(refit: "Refit", law: FittedLaw) -> dict[str, Any]:
    """What the cheapest runs said of the dearest, and on average of all that were held out."""
    if refit.problem:
        return {"name": refit.name, "problem": refit.problem}
    held_out = {prediction.run for prediction in refit.predictions}
    fitted_flops = max(point.flops for point in law.loss.points if point.run not in held_out)
    dearest = max(refit.predictions, key=lambda prediction: prediction.flops)
    misses = [abs(_relative(p.loss, p.measured_loss)) for p in refit.predictions]
    return {
        "name": refit.name,
        "problem": "",
        "held_out": len(held_out),
        "mean_absolute_relative_error": fmean(misses),
        "run": dearest.run,
        "times_flops": dearest.flops / fitted_flops,
        "value": dearest.loss,
        "interval": dearest.loss_interval,
        "measured": dearest.measured_loss,
        "relative_error": _relative(dearest.loss, dearest.measured_loss),
        "covered": _covered(dearest.loss_interval, dearest.measured_loss),
    }


def _refit(refit: "Refit", targets: Sequence[Prediction]) -> dict[str, Any]:
    """What a refit says of the targets, and how far that is from what the law says and from what was measured."""
    again = {prediction.run: prediction for prediction in refit.predictions}
    return {
        "name": refit.name,
        "problem": refit.problem,
        "theta": dict(refit.theta),
        "targets": [
            {
                "run": target.run,
                "loss": again[target.run].loss,
                "moved": _relative(again[target.run].loss, target.loss),
                "relative_error": _relative(again[target.run].loss, target.measured_loss),
                "error": again[target.run].error,
            }
            for target in targets
            if target.run in again
        ],
    }


def _fit_summary(fit: LawFit) -> dict[str, Any]:
    form = catalogue.named(fit.law)
    return {
        "column": fit.column,
        "name": figures.name_of(fit.column),
        "law": fit.law,
        "citation": form.citation,
        "latex_symbols": latex.in_symbols(form),
        "latex": latex.in_numbers(form, fit.theta),
        "theta": {name: {"value": fit.theta[name], "interval": fit.theta_intervals[name]} for name in fit.theta},
        "at_bound": list(fit.at_bound),
        "unit": fit.unit,
        "noise": fit.noise,
        "noise_is_relative": fit.noise_is_relative,
        "noise_growth": fit.noise_growth,
        "lowest_loss": fit.lowest_loss,
        "misfit": fit.misfit,
        "beliefs": {name: {"median": median, "log_sd": log_sd} for name, (median, log_sd) in fit.beliefs.items()},
        "objective": fit.objective,
        "objective_value": fit.objective_value,
        "starts": fit.starts,
        "share_at_optimum": fit.share_at_optimum,
        "runs": len(fit.points),
        "total_flops": _total_flops(fit),
        "degrees_of_freedom": fit.degrees_of_freedom,
        "draws": len(fit.theta_draws),
        "rms_relative_residual": math.sqrt(fmean(_relative(p.measured, p.fitted) ** 2 for p in fit.points)),
    }


def _other(law: FittedLaw, targets: Sequence[Prediction]) -> dict[str, Any]:
    """A further loss: its law, and what it says of the targets."""
    form, predictions = catalogue.named(law.loss.law), []
    for target in targets:
        given = {name: target.columns[name] for name in form.inputs if name in target.columns}
        told = predict(law, target.params, target.tokens, columns=given)
        measured = target.columns.get(law.loss.column, math.nan)
        predictions.append(
            {
                "run": target.run,
                "value": told.loss,
                "interval": told.loss_interval,
                "measured": measured,
                "relative_error": _relative(told.loss, measured),
                "covered": _covered(told.loss_interval, measured),
            }
        )
    return _fit_summary(law.loss) | {"predictions": predictions}


def _runs(law: FittedLaw) -> list[dict[str, Any]]:
    """Each run fitted, once, with what was measured and fitted by either law."""
    rows: dict[str, dict[str, Any]] = {}
    for part, fit in law.fits.items():
        for point in sorted(fit.points, key=lambda point: point.flops):
            row = rows.setdefault(
                point.run,
                {name: getattr(point, name) for name in ("run", "params", "tokens", "token_multiplier", "flops")},
            )
            row[part] = {
                "measured": point.measured,
                "stderr": point.measured_stderr,
                "fitted": point.fitted,
                "relative_residual": _relative(point.measured, point.fitted),
            }
    return list(rows.values())


def _scored(prediction: Prediction, law: FittedLaw, ladder: Mapping[str, Any]) -> dict[str, Any]:
    scored: dict[str, Any] = {
        "run": prediction.run,
        "kind": "prediction" if math.isfinite(prediction.measured_loss) else "projection",
        "params": prediction.params,
        "tokens": prediction.tokens,
        "token_multiplier": prediction.token_multiplier,
        "flops": prediction.flops,
        "beyond_ladder": {
            name: _beyond(getattr(prediction, name), ladder[name]) for name in ("flops", "params", "token_multiplier")
        },
        "inside_hull": is_inside(ladder["hull"], prediction.params, prediction.tokens),
        "error": None,
    }
    for part, fit in law.fits.items():
        scored[part] = outcome(prediction, part) | {"times_fitted_flops": prediction.flops / _total_flops(fit)}
    return scored


def outcome(prediction: Prediction, part: str) -> dict[str, Any]:
    """What was predicted of a `loss` or an `error`, what was measured (NaN where nothing), and how far off it is."""
    value, interval = getattr(prediction, part), getattr(prediction, f"{part}_interval")
    measured = getattr(prediction, f"measured_{part}")
    return {
        "value": value,
        "interval": interval,
        "measured": measured,
        "relative_error": _relative(value, measured),
        "absolute_error": value - measured,
        "covered": _covered(interval, measured),
    }


def _covered(interval: tuple[float, float], measured: float) -> bool | None:
    """None where nothing was measured, or there is no interval."""
    return interval[0] <= measured <= interval[1] if math.isfinite(measured) and not math.isnan(interval[0]) else None


def _total_flops(fit: LawFit) -> float:
    return sum(point.flops for point in fit.points)


def _relative(value: float, reference: float) -> float:
    return value / reference - 1 if reference else math.nan


def _range(values: Iterable[float]) -> tuple[float, float]:
    values = list(values)
    return min(values), max(values)


def _beyond(value: float, ladder: tuple[float, float]) -> float:
    """How many times beyond the ladder's range: above 1 beyond its largest, below 1 beneath its smallest, 1 within."""
    low, high = ladder
    return value / high if value > 1.01 * high else value / low if value < low / 1.01 else 1.0


def _headline(summary: Mapping[str, Any]) -> str:
    loss, targets = summary["laws"]["loss"], summary["predictions"]
    if not targets:
        return (
            f"A law of the loss on {loss['name']}, fitted to {count(loss['runs'], 'run')} within "
            f"{100 * loss['rms_relative_residual']:.2f}\u00a0% root mean square. No target has been predicted yet."
        )
    measured = [p for p in targets if p["kind"] == "prediction"]
    runs, larger = count(loss["runs"], "small run"), count(len(measured or targets), "larger run")
    takes = {1: "it takes", 2: "either takes"}.get(len(measured or targets), "any of them takes")
    cost = _cost(measured or targets, "loss")
    if not measured:
        return f"{runs} project the loss of {larger}, with {cost} {takes}."
    said = f"{runs} predicted the loss of {larger} to within {_largest_miss(measured, 'loss')}, with {cost} {takes}"
    if miss := _largest_miss(measured, "error"):
        error = summary["laws"]["error"]
        alike = error["total_flops"] == loss["total_flops"]
        said += f"; their top-1 error to within {miss}"
        said += "" if alike else f", from {count(error['runs'], 'run')} with {_cost(measured, 'error')} {takes}"
    return said + "."


def _cards(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers to remember, large on the page."""
    loss, targets = summary["laws"]["loss"], summary["predictions"]
    measured = [p for p in targets if p["kind"] == "prediction"]
    cards = []
    if measured:
        covered = [p["loss"]["covered"] for p in measured if p["loss"]["covered"] is not None]
        cards.append((_largest_miss(measured, "loss"), "largest miss of a predicted loss"))
        if covered:
            told = f"losses inside their {100 * summary['level']:.3g} % intervals"
            cards.append((f"{sum(covered)} of {len(covered)}", told))
        if miss := _largest_miss(measured, "error"):
            cards.append((miss, "largest miss of a predicted top-1 error"))
    for p in [p for p in targets if p["kind"] == "projection"][: 3 - len(cards)]:
        cards.append((f"{p['loss']['value']:.4g}", f"projected loss of {p['run']}, {summary['unit']}"))
    if targets:
        cheapest = min(targets, key=lambda p: p["flops"])
        ratio = cheapest["loss"]["times_fitted_flops"]
        words = "less compute for the whole ladder than for" if ratio > 1 else "the compute, for the whole ladder, of"
        cards.append((f"{_two_digits(max(ratio, 1 / ratio))}×", f"{words} {cheapest['run']}"))
    else:
        cards.append((str(loss["runs"]), "runs fitted"))
        cards.append((f"{100 * loss['rms_relative_residual']:.2f} %", "root mean square residual of the loss"))
        cards.append((str(loss["degrees_of_freedom"]), "degrees of freedom of the loss law"))
    return [{"number": number, "words": words} for number, words in cards]


def _largest_miss(measured: Sequence[Mapping[str, Any]], part: str) -> str:
    """Of losses in %, of errors in points; empty where none was measured."""
    kind, unit = {"loss": ("relative_error", "%"), "error": ("absolute_error", "points")}[part]
    misses = [abs(p[part][kind]) for p in measured if p[part]]
    misses = [miss for miss in misses if math.isfinite(miss)]
    return f"{100 * max(misses):.2f}\u00a0{unit}" if misses else ""


def _cost(targets: Sequence[Mapping[str, Any]], part: str) -> str:
    ratio = min(p[part]["times_fitted_flops"] for p in targets)
    words = "times less compute than" if ratio > 1 else "times the compute"
    return f"{_two_digits(max(ratio, 1 / ratio))} {words}"


def _two_digits(value: float) -> str:
    """Such as 1.7, 240, 12,000."""
    return f"{float(f'{value:.2g}'):,g}"
