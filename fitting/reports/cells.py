"""How a table of runs, a law, a prediction, advice and a comparison show themselves in a notebook, light or dark."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from fitting.advice import Advice
from fitting.artifacts.fitted import FittedLaw, Prediction
from fitting.comparison import Comparison
from fitting.laws import catalogue
from fitting.reports import advised, drawing, figures
from fitting.reports import compared as in_words
from fitting.reports.rendering import render
from fitting.reports.summary import outcome, summarise
from fitting.settings import Settings
from fitting.testbeds.curves import run_of, steps_by_run
from fitting.testbeds.testbed import LOSS_KINDS, Testbed, is_average

MOST_NAMES = 12
ASKED_BY_NOTEBOOKS = "_repr_html_"
DRAWN = ("reducible_loss", "error_against_loss", "residuals", "over_training", "law_along_runs")


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure, as SVG, that a notebook shows on light or on dark."""

    svg: str = dataclasses.field(repr=False)

    def _repr_html_(self) -> str:
        return _cell("figure", svg=drawing.on_light_or_dark(self.svg))


def draw(law: FittedLaw, figure: str, **options: Any) -> Drawing:
    """Draws one figure of a law.

    >>> import fitting
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> fitting.draw(law, "over_training", budgets_flops=[1e20, 1e22]).svg[:4]
    '<svg'

    Args:
      law: the law.
      figure: `reducible_loss`, `error_against_loss`, `residuals`, `over_training` or `law_along_runs`.
      options: of the figure, as `fitting.reports.figures` says.

    Raises:
      ValueError: no such figure, or one that the law cannot give.
    """
    if figure not in DRAWN:
        raise ValueError(f"figure {figure!r} is unknown; there are {', '.join(DRAWN)}")
    return Drawing(drawing.svg(getattr(figures, figure)(law, **options), figure))


def law(law: FittedLaw) -> str:
    """A law: how its targets came out, its figures, its formulas, its parameters with their intervals."""
    along = "lr_area" in catalogue.named(law.loss.law).inputs
    drawn: dict[str, Figure] = {"loss": (figures.law_along_runs if along else figures.reducible_loss)(law)}
    if along:  # of every run that was predicted, its end says enough
        last = {run_of(p): p for p in sorted(law.predictions, key=lambda p: p.tokens)}
        law = dataclasses.replace(law, predictions=tuple(last.values()))
    if law.error:
        drawn["error"] = figures.error_against_loss(law)
    summary = summarise(law, title="")
    for part, fit in summary["laws"].items():
        drawn[f"{part}_latex_symbols"] = figures.formula(fit["latex_symbols"])  # its numbers stand in the table
    return _cell("law", **summary, along=along, figures=_svgs(drawn))


def prediction(prediction: Prediction) -> str:
    """A prediction: loss and error, each with its interval and, where there is one, the measurement."""
    parts = ("loss", "error") if prediction.error is not None else ("loss",)
    outcomes = {part: outcome(prediction, part) for part in parts}
    return _cell("prediction", level=prediction.level, prediction=prediction, outcomes=outcomes)


def testbed(testbed: Testbed) -> str:
    """A table of runs: what it holds, and where its runs lie or, where it has their steps, their loss on the way."""
    table = testbed.table
    losses = [name for name in table if name.partition("/")[0] in LOSS_KINDS and table[name].notna().any()]
    steps = steps_by_run(table)
    on_the_way = [name for name in losses if any(rows[name].notna().any() for rows in steps.values())]
    if on_the_way:
        figure = figures.measured_curves(testbed, "loss/train" if "loss/train" in on_the_way else on_the_way[0])
    else:
        figure = figures.sizes(testbed)
    kinds = [name for name in ("corpus", "role") if name in table]
    groups = [
        {
            "name": " ".join(filter(None, key)),
            "rows": len(rows),
            "quarantined": int((rows["quarantine"] != "").sum()),
            "spans": {name: (rows[name].min(), rows[name].max()) for name in ("params", "tokens", "token_multiplier")},
        }
        for key, rows in table.groupby(kinds, sort=False)
    ]
    errors = [name for name in table if name.startswith("error/")]
    errors.sort(key=lambda name: not is_average(name))
    measured = {"loss": list(map(figures.name_of, losses)), "error": list(map(figures.name_of, errors))}
    return _cell(
        "testbed",
        groups=groups,
        measured=measured,
        most_names=MOST_NAMES,
        runs=len(set(map(run_of, table.itertuples()))),
        figures=_svgs({"runs": figure}),
    )


def advice(advice: Advice) -> str:
    """Advice: the best runs for the budget, what other sizes cost, which run to add to the ladder."""
    return _cell("tables", tables=advised.tables(advice), remarks=())


def settings(settings: Settings) -> str:
    """The best settings, and what others cost."""
    return _cell("tables", tables=advised.settings_tables(settings), remarks=())


def comparison(compared: Comparison) -> str:
    """Two ladders compared: which is better, how surely, by how much, and where to be careful."""
    return _cell("tables", tables=in_words.tables(compared), remarks=(in_words.headline(compared), *compared.cautions))


def _svgs(drawn: Mapping[str, Figure]) -> dict[str, str]:
    return {name: drawing.on_light_or_dark(drawing.svg(figure, name)) for name, figure in drawn.items()}


def _cell(what: str, **context: Any) -> str:
    return re.sub(r"\s*\n\s*", " ", render("cell.html.j2", what=what, colours=drawing.PAGE, **context))
