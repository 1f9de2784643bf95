"""Plans, predictions, advice and scores, as data for programs and as text for people."""

from __future__ import annotations

import dataclasses
import datetime
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from fitting import files
from fitting.reports import advised
from fitting.reports.words import counted, short

if typing.TYPE_CHECKING:
    from fitting.advice import Advice
    from fitting.artifacts.fitted import FittedLaw, Prediction
    from fitting.artifacts.frozen import Score
    from fitting.comparison import Comparison
    from fitting.settings import Settings


def print_plan(plan: Mapping[str, Any], console: Console) -> None:
    """What `ladder.plan.as_table` gives, as a table, and what share of the targets' cost the rungs are."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for name in ("run", "role"):
        table.add_column(name, no_wrap=True)
    of_pool = ("of pool",) if any(row["pool_share"] is not None for row in plan["runs"]) else ()
    given = ("slice", "hours", "$", "from hour") if plan["totals"]["schedule"] else ()
    from_trunk = ("shared",) if any(row["trunk"] for row in plan["runs"]) else ()
    no_embeddings = () if given else ("N no emb.",)  # there is no room for all
    for name in ("N", *no_embeddings, "D", "M", "C FLOPs", "steps", *from_trunk, "batch", "lr", *of_pool, *given):
        table.add_column(name, justify="right", no_wrap=bool(given))
    for row in plan["runs"]:
        counts = [short(row[key]) for key in ("params", *("params_non_embedding" for _ in no_embeddings), "tokens")]
        table.add_row(
            row["run"],
            row["role"],
            *counts,
            f"{row['token_multiplier']:.4g}",
            f"{row['flops']:.1e}".replace("e+", "e"),
            f"{row['steps']:,}",
            *(f"{row['first_step']:,}" if row["trunk"] else "" for _ in from_trunk),
            str(row["batch_size"]),
            f"{'~' if row['extrapolated'] else ''}{row['learning_rate']:.2g}",
            *("" if row["pool_share"] is None else f"{row['pool_share']:.2g}" for _ in of_pool),
            *(_given(row["given"]) if given else ()),
        )
    console.print(table, soft_wrap=False)
    if given:
        console.print(_schedule(plan))
    for row in plan["runs"]:
        if row["chip_hours"]:
            hours = ", ".join(f"{hours:,.0f} on {where}" for where, hours in row["chip_hours"].items())
            console.print(f"{row['run']}: estimated chip-hours {hours}")
    if from_trunk:
        console.print(_trunks(plan))
    share = plan["totals"]["ladder_share_of_smallest_target"]
    if share is not None:
        console.print(f"the rungs cost {share:.0%} of the smallest target's FLOPs")


def _trunks(plan: Mapping[str, Any]) -> str:
    own, alone = plan["totals"]["ladder_flops"], plan["totals"]["ladder_flops_alone"]
    trunks = sorted({row["trunk"] for row in plan["runs"] if row["trunk"]})
    told = f"{', '.join(trunks)} {'is a trunk' if len(trunks) == 1 else 'are trunks'}, of which others share steps"
    return f"{told}: the rungs cost {own:.2g} FLOPs in place of {alone:.2g}, {1 - own / alone:.0%} less"


def _given(given: Mapping[str, Any]) -> tuple[str, ...]:
    about = "" if given["compiled"] else "~"
    hours, dollars = f"{about}{given['hours']:,.1f}", f"{about}{given['dollars']:,.0f}"
    return given["slice"], hours, dollars, f"{given['start_hours']:,.1f}"


def _schedule(plan: Mapping[str, Any]) -> str:
    s = plan["totals"]["schedule"]
    guessed = sum(not row["given"]["compiled"] for row in plan["runs"])
    return (
        f"on {s['chips']:,} chips: {s['hours']:,.1f} hours, ${s['dollars']:,.0f} on demand, {s['used']:.0%} of the "
        f"chips' time used; no schedule takes less than {s['least_hours']:,.1f} hours, one run after another takes "
        f"{s['in_turn_hours']:,.1f} and uses {s['in_turn_used']:.0%}"
        + (f"; ~ is an estimate, of {guessed} runs: `ladder precompile` knows more" if guessed else "")
    )


def print_predictions(predictions: Sequence[Prediction], console: Console) -> None:
    """A line each: loss and error with their intervals, and how far off they are where they have been measured."""
    for p in predictions:
        name = p.run or f"N = {p.params:.4g}, D = {p.tokens:.4g}"
        line = f"{name}: loss {_with_interval(p.loss, p.loss_interval)}{_against(p.measured_loss, p.loss)}"
        if p.error is not None and p.error_interval:
            line += f"; error {_with_interval(p.error, p.error_interval)}{_against(p.measured_error, p.error)}"
        console.print(line)


def print_what_n_is(params_column: str, console: Console) -> None:
    """Says what N counts, where it is not all parameters."""
    if params_column != "params":
        console.print(f"N is {params_column}: {counted(params_column)}, here and in C = 6ND")


def print_settings(settings: Settings, params_column: str, console: Console) -> None:
    """The best settings as two short tables."""
    print_what_n_is(params_column, console)
    print_tables(advised.settings_tables(settings), console)


def as_data(advice: Advice | Settings) -> dict[str, Any]:
    """Advice as JSON-ready data; null where a number is unknown or infinite."""
    return files.finite(dataclasses.asdict(advice))


def law_as_data(law: FittedLaw) -> dict[str, Any]:
    """What a fit found as JSON-ready data: its laws, predictions and the runs it left out, without draws or points."""
    untold = ("theta_draws", "points")
    laws = {
        part: {f.name: getattr(fit, f.name) for f in dataclasses.fields(fit) if f.name not in untold}
        | {"unit": fit.unit, "runs": len(fit.points)}
        for part, fit in law.fits.items()
    }
    others = {fit.column: {"law": fit.law, "theta": dict(fit.theta), "noise": fit.noise} for fit in law.others}
    about = {name: getattr(law, name) for name in ("method", "level", "seed", "select", "params_column")}
    about["predictions"] = [dataclasses.asdict(prediction) for prediction in law.predictions]
    about["left_out"] = [dataclasses.asdict(row) for row in law.left_out]
    return files.finite({**about, "loss": None, "error": None, **laws} | ({"others": others} if others else {}))


def score_as_data(score: Score) -> dict[str, Any]:
    """A score as JSON-ready data: what was predicted, measured, how far off, and whether the interval held it."""
    p = score.prediction
    outcomes = {
        name: {
            "predicted": predicted,
            "interval": interval,
            "measured": measured,
            "relative_error": predicted / measured - 1 if measured else math.nan,
            "absolute_error": predicted - measured,
            "covered": interval[0] <= measured <= interval[1] if math.isfinite(interval[0]) else None,
        }
        for name, predicted, interval, measured in (
            ("loss", p.loss, p.loss_interval, p.measured_loss),
            ("error", p.error, p.error_interval, p.measured_error),
        )
        if predicted is not None and interval and math.isfinite(measured)
    }
    about = {"run": p.run, "params": p.params, "params_column": score.params_column}
    about |= {"tokens": p.tokens, "level": p.level}
    return files.finite(
        about | outcomes | {"frozen": score.frozen, "measured": score.measured or None, "digest": score.digest}
    )


def when(score: Score) -> str:
    """In which order prediction and measurement came, and how far that is known."""
    if score.measured:
        return f"frozen {score.frozen}, measured {score.measured}; digest {score.digest}"
    return (
        f"frozen {score.frozen}; the table does not say when {score.prediction.run} was measured (a column `measured` "
        f"would); digest {score.digest}"
    )


def iso_time(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def print_advice(advice: Advice, console: Console) -> None:
    """Advice as three short tables."""
    print_what_n_is(advice.params_column, console)
    print_tables(advised.tables(advice), console)


def print_comparison(compared: Comparison, console: Console) -> None:
    """Two ladders compared: which is better, the numbers, and where to be careful."""
    from fitting.reports import compared as reporting  # brings matplotlib, which `--help` need not wait for

    print_what_n_is(compared.params_column, console)
    console.print(reporting.headline(compared), style="bold")
    print_tables(reporting.tables(compared), console)
    for caution in compared.cautions:
        console.print(f"warning: {caution}")


def print_tables(some: Sequence[advised.Table], console: Console) -> None:
    """Tables of text, each under its title."""
    for told in some:
        console.print(f"\n{told.title}", style="bold")
        if told.rows:
            table = Table(box=None, pad_edge=False)
            table.add_column(told.columns[0], no_wrap=True)
            for name in told.columns[1:]:
                table.add_column(name, justify="right", no_wrap=True)
            for row in told.rows:
                table.add_row(*row)
            console.print(table, soft_wrap=False)
        if told.remark:
            console.print(told.remark)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})" if math.isfinite(interval[0]) else f"{value:.4f}"


def _against(measured: float, predicted: float) -> str:
    return "" if math.isnan(measured) else f", measured {measured:.4f}, off by {predicted / measured - 1:+.2%}"
