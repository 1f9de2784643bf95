"""What a reader must know to repeat or to doubt a law: the questions of (Mis)Fitting, answered from the artifact.

Li, Kudugunta & Zettlemoyer 2025, "(Mis)Fitting: A Survey of Scaling Laws", ask for the hypothesis, the training setup,
the data collection and the fit. What the artifact does not know is said to be unknown.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fitting.artifacts.fitted import FittedLaw
from fitting.reports.words import count, counted, fixed, flops, number, percent, short

Answers = dict[str, str]
NOT_TOLD = "not in the table of runs"


def checklist(
    law: FittedLaw,
    summary: Mapping[str, Any],
    *,
    plan: Sequence[Mapping[str, Any]] = (),
    has_settings: bool = False,
    chance_errors: Mapping[str, float] | None = None,
) -> dict[str, Answers]:
    """By section, each question's answer.

    Args:
      law: the law.
      summary: what `fitting.reports.summary.summarise` says of it.
      plan: every planned run, where the ladder is known.
      has_settings: whether the report shows the settings that train the ladder.
      chance_errors: the error of guessing, by task, where known.
    """
    return {
        "Hypothesis": _hypothesis(summary),
        "Training setup": _setup(law, summary, plan, has_settings),
        "Data collection": _collection(law, chance_errors or {}),
        "Fitting": _fitting(law, summary),
    }


def _hypothesis(summary: Mapping[str, Any]) -> Answers:
    answers = {}
    for part, fit in summary["laws"].items():
        answers[f"Form of the {part} law"] = f"{fit['law'].replace('_', ' ')}: {fit['citation']}"
        answers[f"Its free parameters, {len(fit['theta'])}"] = ", ".join(fit["theta"])
    return answers | {
        "Variables": f"N, {summary['n']}; D, training tokens"
        + ("; the error law’s is the loss" if "error" in summary["laws"] else ""),
        "Assumed between them": "C = 6ND (Kaplan et al. 2020), M = D/N; one recipe at every size",
    }


def _setup(
    law: FittedLaw, summary: Mapping[str, Any], plan: Sequence[Mapping[str, Any]], has_settings: bool
) -> Answers:
    ladder = summary["ladder"]
    elsewhere = "see the settings below" if has_settings else NOT_TOLD
    return {
        "Runs": f"{ladder['runs']} fitted, {len(summary['left_out'])} left out, {len(law.predictions)} to predict",
        "Sizes": f"N {_span(ladder['params'], short)}, D {_span(ladder['tokens'], short)}, "
        f"M {_span(ladder['token_multiplier'], short)}, C {_span(ladder['flops'], flops)}",
        "How N is counted": f"as the table’s column {law.params_column}: {_counted(law)}",
        "How C is counted": f"6ND for every law, which leaves attention out; {_head(law)}",
        "Hyperparameters": "one rule for all sizes: learning rate, batch and steps of every run stand in the plan below"
        if plan
        else elsewhere,
        "Warm-up and schedule": elsewhere,
        "Data and tokenizer": elsewhere,
        "Architecture and aspect ratio": elsewhere,
        "Repeated data": f"not modelled; {elsewhere}",
        "Three confounds of Porian et al. 2024": f"{_head(law)}; warm-up length and tuning by scale: "
        + ("the recipe’s rule, in the settings and the plan below" if has_settings else NOT_TOLD),
    }


def _counted(law: FittedLaw) -> str:
    if law.params_column != "params":
        return counted(law.params_column)
    if not (embeddings := _embeddings(law)):
        return "the table does not say whether with embeddings, as it has no column params_non_embedding"
    return f"all parameters; embeddings are up to {percent(max(embeddings), 0)} of them"


def _embeddings(law: FittedLaw) -> list[float]:
    """What share of each run's parameters embeddings are, where the table says."""
    return [1 - p.columns["params_non_embedding"] / p.params for p in law.loss.points if _counts(p.columns)]


def _head(law: FittedLaw) -> str:
    """Whether the head's FLOPs are counted."""
    if law.params_column == "params_non_embedding":
        return "N leaves out the head, so C does too"
    if law.params_column == "params" and max(_embeddings(law), default=0) > 0:
        return "N includes the head, so C does too"
    return f"the head’s FLOPs are in C where {law.params_column} counts the head"


def _collection(law: FittedLaw, chance_errors: Mapping[str, float]) -> Answers:
    stderrs = [p.measured_stderr / p.measured for p in law.loss.points if p.measured_stderr == p.measured_stderr]
    answers = {
        "Points per run": "one: the run’s row in the table; the fit smooths and interpolates nothing",
        "Metric": f"{law.loss.column}, {law.loss.unit}; compare losses of different tokenizers only in bits per byte",
        "Sampling error of the loss": f"up to {percent(max(stderrs))} of it" if stderrs else NOT_TOLD,
    }
    if law.error:
        answers["Downstream metric"] = f"{law.error.column}, top-1 error"
        answers["Tasks and their chance level"] = (
            "; ".join(f"{task} {percent(chance, 0)}" for task, chance in chance_errors.items())
            + ". The error law’s asymptote is free, not tied to chance"
            if chance_errors
            else NOT_TOLD
        )
        answers["Contamination of evaluation sets"] = "not checked here"
    return answers


def _fitting(law: FittedLaw, summary: Mapping[str, Any]) -> Answers:
    answers = {}
    for part, fit in summary["laws"].items():
        answers[f"Objective of the {part} law"] = fit["objective"]
        answers[f"Search of the {part} law"] = (
            f"{count(fit['starts'], 'start')} in float64, of which {percent(fit['share_at_optimum'], 0)} reached the "
            f"optimum, {number(fit['objective_value'])}"
        )
        answers[f"Goodness of the {part} law’s fit"] = (
            f"root mean square residual {percent(fit['rms_relative_residual'])}, {count(fit['runs'], 'run')}, "
            f"{count(fit['degrees_of_freedom'], 'degree')} of freedom"
        )
        if fit["beliefs"]:
            answers[f"Belief about the {part} law beforehand"] = _belief(fit)
        answers[f"The {part} law’s parameters at a bound"] = ", ".join(fit["at_bound"]) or "none"
    left_out = f"{count(len(summary['left_out']), 'run')}, listed with the reason" if summary["left_out"] else "none"
    checks = summary["checks"]
    held_out = "not made" if not checks else _held_out(checks)
    return answers | {
        "Points dropped": left_out,
        "Held-out check": held_out,
        "AICc of the loss law": _aicc(checks["aicc"]) if checks else "not made",
        "Intervals": f"central {100 * law.level:.3g} % of {len(law.loss.theta_draws)} joint draws of the parameters "
        "given the runs; of a prediction, with one run’s own noise added"
        if len(law.loss.theta_draws) > 1
        else "none: the best fit alone",
        "Noise between seeds": "; ".join(f"{part} law: {_noise(fit, part)}" for part, fit in summary["laws"].items())
        + ", estimated with the fit",
    }


def _aicc(value: float) -> str:
    return "unknown with so few runs" if math.isnan(value) else fixed(value, 1)


def _held_out(checks: Mapping[str, Any]) -> str:
    if not checks["roll_outs"]:
        return "too few runs to leave any out"
    last = checks["roll_outs"][-1]
    if last["problem"]:
        return f"without the largest run the law cannot be fitted: {last['problem']}"
    side = {True: ", inside the interval", False: ", outside the interval", None: ""}[last["covered"]]
    return f"without the largest run, the law misses its loss by {percent(last['relative_error'], 2, '+')}{side}"


def _noise(fit: Mapping[str, Any], part: str) -> str:
    grows = f", growing as the loss to the power {number(fit['noise_growth'], 2)}" if fit["noise_growth"] else ""
    shared = (
        f", {percent(fit['misfit'], 0)} of its variance the law’s misfit, which they share" if fit["misfit"] else ""
    )
    if fit["noise_is_relative"]:
        return f"{percent(fit['noise'])} of the value{grows}{shared}"
    return (
        f"{number(100 * fit['noise'], 3)} points"
        if part == "error"
        else f"{number(fit['noise'], 3)} {fit['unit'].split()[0]}"
    ) + f"{grows}{shared}"


def _belief(fit: Mapping[str, Any]) -> str:
    return ", ".join(
        f"log {name} normal around log {number(belief['median'], 3)} with standard deviation {belief['log_sd']:.3g}"
        for name, belief in fit["beliefs"].items()
    )


def _span(ends: Sequence[float], words: Any) -> str:
    return f"{words(ends[0])} to {words(ends[1])}"


def _counts(columns: Mapping[str, float]) -> bool:
    return columns.get("params_non_embedding", 0) > 0


def limits(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers do not cover, one sentence or two each."""
    ladder = summary["ladder"]
    held = "noise and doubt about its parameters"
    if summary["laws"]["loss"]["misfit"]:
        held = "noise, doubt about its parameters and a misfit that grows with the distance from the runs"
    said = [
        "A prediction is of a run that exists and was measured, without being fitted; a projection is of one that does "
        "not exist yet.",
        f"The runs fitted span N {_span(ladder['params'], short)} and M {_span(ladder['token_multiplier'], short)}. "
        f"Further out the law is an assumption: the intervals hold {held}, not doubt about its form.",
        "The law holds for one recipe: the same data, tokenizer, architecture, schedule and rule for the learning rate "
        "at every size, each token seen as often as in the ladder. A recipe that suits one size less than another "
        "bends it.",
        "Regimes that the ladder does not hold, such as repeated data, other schedules or runs broken off early, are "
        "not covered.",
        f"C = 6ND leaves attention out. N is counted as the table’s column {summary['params_column']} counts it.",
    ]
    if "error" in summary["laws"]:
        said.append("Errors averaged over tasks extrapolate; single tasks seldom do.")
    return said
