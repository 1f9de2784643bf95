"""Two ladders compared: in words and a table, which the command line and a notebook lay out, and as a page."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from typing import Any

from fitting import files
from fitting.reports import drawing, figures
from fitting.reports.advised import Table
from fitting.reports.rendering import render
from fitting.reports.words import count, fixed, flops, number, percent, short

if typing.TYPE_CHECKING:
    from fitting.artifacts.fitted import FittedLaw
    from fitting.comparison import Comparison, Difference  # brings jax, which `--help` need not wait for


def headline(compared: Comparison) -> str:
    """Which is better, how surely, and by how much."""
    loss = compared.loss
    sure = max(loss.probability, 1 - loss.probability)
    better = "B" if loss.probability >= 0.5 else "A"
    return (
        f"{better} is better with a probability of {_percent_of(sure)}: the loss of B less A’s is "
        f"{fixed(loss.difference, 4, '+')} ({fixed(loss.interval[0], 4, '+')} to {fixed(loss.interval[1], 4, '+')}), "
        f"and A takes {times(compared.multiplier)} the compute to equal B ({between(compared.multiplier_interval)})."
    )


def tables(compared: Comparison) -> tuple[Table]:
    """What one run of each would measure, how they differ, and what stands behind it."""
    rows = [_row("loss", compared.loss, lambda v, sign="": fixed(v, 4, sign))]
    if compared.error:
        rows.append(_row("error", compared.error, lambda v, sign="": percent(v, 2, sign)))
    where = [f"{name}N {short(run.params)}, D {short(run.tokens)}" for name, run in _runs(compared).items()]
    remark = (
        f"effective compute multiplier: A takes {times(compared.multiplier)} the compute to equal B, "
        f"{between(compared.multiplier_interval)}; {pairs(compared)}"
    )
    return (
        Table(
            title=f"one run of each, {'; '.join(where)}",
            columns=("", "A", "B", "B less A", f"{100 * compared.level:.3g} % interval", "B is better"),
            rows=tuple(rows),
            remark=remark,
        ),
    )


def pairs(compared: Comparison) -> str:
    """What the pairs were, and how many more would settle it."""
    loss, more = compared.loss, compared.more_pairs
    had = f"{count(loss.pairs, 'pair')} of runs of one size, whose noise is correlated by {number(loss.shared, 2)}"
    if more == 0:
        return f"{had}: settled, zero lies outside the interval"
    if more is None:
        return f"{had}: more pairs would not settle it, for one run of each scatters as much as they differ"
    return f"{had}: some {count(more, 'more pair')} would settle it, if the difference is what it seems"


def times(multiplier: float) -> str:
    """Such as 2.1×."""
    return f"{number(multiplier, 3)}×" if math.isfinite(multiplier) else "more than 10,000×"


def between(interval: tuple[float, float]) -> str:
    """Such as 1.3× to 2.1×."""
    return f"{times(interval[0])} to {times(interval[1])}"


def as_data(compared: Comparison) -> dict[str, Any]:
    """JSON-ready; null where a number is unknown or infinite."""
    return files.finite(dataclasses.asdict(compared))


def write(compared: Comparison, law_a: FittedLaw, law_b: FittedLaw, out: Any, *, names: tuple[str, str]) -> Any:
    """Writes comparison.html, which stands alone, comparison.md with its figures, and comparison.json into a folder.

    Args:
      compared: what `fitting.comparison.compare` said.
      law_a: the laws compared.
      law_b: the same.
      out: the folder, local or on `gs://`.
      names: what A and B are called.

    Returns:
      The path of comparison.html, the last file to be written. Each is written whole or not at all.
    """
    from etils import epath

    out = epath.Path(out)
    drawn = {
        "two_ladders": figures.two_ladders(law_a, law_b, compared),
        "paired_difference": figures.paired_difference(law_a, law_b, compared),
    }
    drawings = {name: drawing.svg(figure, name) for name, figure in drawn.items()}
    for name, text in drawings.items():
        files.write(out / "figures" / f"{name}.svg", text)
    context = {
        "headline": headline(compared),
        "tables": tables(compared),
        "cautions": compared.cautions,
        "names": names,
        "column": law_a.loss.column,
        "cards": _cards(compared, law_a.loss.unit),
        "level": compared.level,
        "budget": compared.budget_flops and flops(compared.budget_flops),
    }
    files.write(
        out / "comparison.json", json.dumps({"names": names} | as_data(compared), indent=1, allow_nan=False) + "\n"
    )
    files.write(out / "comparison.md", render("comparison.md.j2", **context))
    themed = {name: drawing.on_light_or_dark(text) for name, text in drawings.items()}
    files.write(out / "comparison.html", render("comparison.html.j2", **context, figures=themed, colours=drawing.PAGE))
    return out / "comparison.html"


def _runs(compared: Comparison) -> dict[str, Any]:
    """The runs compared, by name: one where both have one size."""
    a, b = compared.a, compared.b
    return {"": a} if (a.params, a.tokens) == (b.params, b.tokens) else {"A at ": a, "B at ": b}


def _row(name: str, outcome: Difference, words: Any) -> tuple[str, ...]:
    ends = f"{words(outcome.interval[0], '+')} to {words(outcome.interval[1], '+')}"
    difference = words(outcome.difference, "+")
    return name, words(outcome.a), words(outcome.b), difference, ends, _percent_of(outcome.probability)


def _percent_of(probability: float) -> str:
    """A share of thousands of draws: no more certain than these."""
    if 0.001 <= probability <= 0.999:
        return percent(probability, 0 if 0.01 <= probability <= 0.99 else 1)
    return "above 99.9 %" if probability > 0.5 else "below 0.1 %"


def _cards(compared: Comparison, unit: str) -> list[dict[str, str]]:
    loss, error = compared.loss, compared.error
    cards = [
        {"number": _percent_of(loss.probability), "words": "that B’s loss is the lower"},
        {
            "number": times(compared.multiplier),
            "words": f"A’s compute to equal B; {between(compared.multiplier_interval)}",
        },
        {"number": fixed(loss.difference, 4, "+"), "words": f"{unit}, B less A"},
    ]
    if error:
        said = f"error, B less A; B’s is lower with {_percent_of(error.probability)}"
        cards.append({"number": percent(error.difference, 2, "+"), "words": said})
    return cards
