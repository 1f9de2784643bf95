"""What the HTML page computes with: the runs to show where one points, and the laws to ask for a prediction."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fitting.artifacts.fitted import FittedLaw
from fitting.laws import catalogue
from fitting.prediction import run_scores
from fitting.reports import javascript
from fitting.reports.words import flops, percent, short
from fitting.uncertainty import REACH


def formulas(law: FittedLaw) -> dict[str, str]:
    """By part, the law as a JavaScript function; empty for a law that a page cannot ask, as of more than N and D."""
    asked = {"loss": ("params", "tokens"), "error": ("loss",)}
    if any(catalogue.named(fit.law).inputs != asked[part] for part, fit in law.fits.items()):
        return {}
    try:
        return {part: javascript.function(catalogue.named(fit.law)) for part, fit in law.fits.items()}
    except ValueError:
        return {}


def data(law: FittedLaw, summary: Mapping[str, Any]) -> dict[str, Any]:
    """JSON-ready: what a page needs to predict as `ladder predict` does, and lines of text on every run."""
    scores = run_scores(law)
    return {
        "level": law.level,
        "ladder": {name: summary["ladder"][name] for name in ("flops", "params", "token_multiplier", "hull")},
        "beyond": {
            "misfit": law.loss.misfit,
            "reach": REACH,
            "sizes": [[math.log(point.params), math.log(point.tokens)] for point in law.loss.points],
        },
        "laws": {
            part: {
                "theta": list(fit.theta.values()),
                "draws": _packed(fit.theta_draws),
                "scores": _packed(scores[part]),
                "noise": fit.noise,
                "relative": fit.noise_is_relative,
                "growth": fit.noise_growth,
                "lowest": fit.lowest_loss,
            }
            for part, fit in law.fits.items()
        },
        "runs": {row["run"]: _told(row, row.get("loss"), row.get("error")) for row in summary["runs"]}
        | {p["run"]: _told(p, p["loss"], p["error"]) for p in summary["predictions"]},
    }


def _packed(numbers: Any) -> str:
    """Doubles, little-endian, in base64: every bit in half the room of decimals."""
    return base64.b64encode(np.asarray(numbers, "<f8").tobytes()).decode()


def _told(run: Mapping[str, Any], loss: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> list[list[str]]:
    lines = [
        ["N", short(run["params"])],
        ["D", short(run["tokens"])],
        ["M", short(run["token_multiplier"])],
        ["C", flops(run["flops"])],
    ]
    for name, outcome, words in (("loss", loss, "{:.4f}".format), ("error", error, percent)):
        if outcome and outcome.get("measured") == outcome.get("measured"):
            lines.append([name, words(outcome["measured"])])
        if outcome:
            expected = outcome.get("fitted", outcome.get("value"))
            lines.append([f"law’s {name}", words(expected)])
    return lines
