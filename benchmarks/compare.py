"""Which of two corpora is better for a model beyond the ladder: is `fitting.compare` right, and as sure as it may be?

    python benchmarks/compare.py [FOLDER [docs/compare.md]]   # a minute of one core

FOLDER has gadre2024/ as published; without it the small table is taken that is shipped, of one validation set.

The three corpora of Gadre et al. 2024 are compared, two by two, on each validation set that all were measured on, from
small runs, and scored at 1.4B and 6.9B parameters, 20 tokens a parameter. A decision is right where the measured loss
of B is below A's and B was called better, or neither. Small runs are the paper's five, the largest a thirteenth of
the smaller target's compute; and, as another ladder, all runs of up to 0.4B parameters, some 28 a corpus.

- `largest rung`: what people do: the corpus whose largest small run of 20 tokens a parameter has the lower loss. It is
  as sure as can be of every decision.
- `laws apart`: the two laws' predictions, taken for independent and normal.
- `compare`: what `ladder compare` says.

The decisions are not independent: 48 of them come of 6 models and 8 sets that are much alike, so that a single one says
little. The grid over which `fitting.pairs` sums was chosen knowing these; nothing was fitted to them.

Prints one JSON line, and the tables on stderr; where a second argument names a file, they replace there what stands
beneath `## Measured`. Of each method: the share of right decisions; the Brier score of its probabilities (0.25 for a
coin); of `compare`, by how sure it was, how often it was right; and what share of the measured differences the 80 %
intervals of it hold.
"""

import collections
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.markdown import Markdown

from fitting.artifacts.fitted import FittedLaw, Prediction
from fitting.comparison import compare
from fitting.methods import fit
from fitting.pairs import pairs_of
from fitting.testbeds import importers, published
from fitting.testbeds.testbed import Testbed

LEVEL = 0.8
TARGETS = "token_multiplier.round() == 20 and params > 1e9"
LADDERS = {"the paper's five": published.GADRE_FIVE, "all up to 0.4B": "params < 1e9"}
SURE = (0.5, 0.75, 0.95, 0.99, 1.0)
MEASURED = "## Measured\n"


@dataclasses.dataclass(frozen=True)
class Decision:
    """How likely a method held B to be better, whether it was, and whether an interval held the difference."""

    ladder: str
    method: str
    probability: float
    b_is_better: bool
    covered: bool | None = None

    @property
    def right(self) -> bool:
        """Whether the likelier was the better."""
        return (self.probability > 0.5) == self.b_is_better

    @property
    def sure(self) -> float:
        """The probability of what was decided."""
        return max(self.probability, 1 - self.probability)


def main() -> None:
    """Scores the methods on the testbed."""
    if len(sys.argv) > 3:
        sys.exit("usage: python benchmarks/compare.py [FOLDER [TABLE.md]], the folder of published testbeds")
    testbed = (
        importers.read("gadre2024", pathlib.Path(sys.argv[1]) / "gadre2024")
        if len(sys.argv) > 1
        else Testbed.read_csv(importers.shipped("gadre2024"))
    )
    warnings.simplefilter("ignore")  # of quarantine and the like, the same for every method
    decisions = list(decide(testbed))
    found = {"methods": summary(decisions), "reliability": reliability(decisions)}
    text = markdown(found)
    Console(stderr=True, width=120).print(Markdown(text))
    if len(sys.argv) == 3:
        page = pathlib.Path(sys.argv[2])
        page.write_text(page.read_text().partition(MEASURED)[0] + MEASURED + "\n" + text)
    print(json.dumps(found))


def decide(testbed: Testbed, ladders: Mapping[str, str] = LADDERS) -> Iterator[Decision]:
    """Every decision of every method, from the small runs that `ladders` select."""
    table = testbed.table
    sets = [name for name in published.GADRE_SETS if f"loss/{name}" in table and table[f"loss/{name}"].notna().any()]
    corpora = {name: Testbed(table[table["corpus"] == name]) for name in sorted(set(table["corpus"]))}
    for (ladder, select), name in itertools.product(ladders.items(), sets):
        laws = {corpus: fit(runs, loss=name, select=select, level=LEVEL) for corpus, runs in corpora.items()}
        for corpus_a, corpus_b in itertools.combinations(corpora, 2):
            targets = [corpora[corpus].table.query(TARGETS) for corpus in (corpus_a, corpus_b)]
            for a, b in zip(*(of_one.sort_values("params").to_dict("records") for of_one in targets), strict=True):
                difference = b[f"loss/{name}"] - a[f"loss/{name}"]
                yield from _decisions(ladder, laws[corpus_a], laws[corpus_b], a["params"], a["tokens"], difference)


def _decisions(
    ladder: str, law_a: FittedLaw, law_b: FittedLaw, params: float, tokens: float, difference: float
) -> Iterator[Decision]:
    compared = compare(law_a, law_b, params=params, tokens=tokens)
    pairs = [pair for pair in pairs_of(law_a.loss.points, law_b.loss.points) if round(pair[0].token_multiplier) == 20]
    largest_a, largest_b = max(pairs, key=lambda pair: pair[0].params)
    low, high = compared.loss.interval
    better = difference < 0
    yield Decision(ladder, "largest rung", float(largest_b.measured < largest_a.measured), better)
    yield Decision(ladder, "laws apart", _apart(compared.a, compared.b), better)
    yield Decision(ladder, "compare", compared.loss.probability, better, low <= difference <= high)


def _apart(a: Prediction, b: Prediction) -> float:
    """The probability that B's loss is the lower, of two normal predictions."""
    ends = 2 * statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
    deviation = np.hypot(*(np.subtract(*p.loss_interval) / ends for p in (a, b)))
    return statistics.NormalDist().cdf((a.loss - b.loss) / deviation)


def summary(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    """A row for each ladder and method."""
    groups = collections.defaultdict(list)
    for decision in decisions:
        groups[decision.ladder, decision.method].append(decision)
    return [
        {
            "ladder": ladder,
            "method": method,
            "decisions": len(some),
            "right": float(np.mean([d.right for d in some])),
            "brier": float(np.mean([(d.probability - d.b_is_better) ** 2 for d in some])),
            "covered": float(np.mean([d.covered for d in some])) if some[0].covered is not None else None,
        }
        for (ladder, method), some in groups.items()
    ]


def reliability(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    """How often `compare` was right, by how sure it was."""
    rows = []
    for ladder, (low, high) in itertools.product(LADDERS, itertools.pairwise(SURE)):
        some = [d for d in decisions if d.method == "compare" and d.ladder == ladder]
        some = [d for d in some if low <= d.sure < high or (high == 1 and d.sure == 1)]
        if some:
            said, right = (float(np.mean([getattr(d, name) for d in some])) for name in ("sure", "right"))
            rows.append(
                {"ladder": ladder, "from": low, "to": high, "decisions": len(some), "said": said, "right": right}
            )
    return rows


def markdown(found: dict[str, list]) -> str:
    """The tables."""
    lines = [
        "Written by `python benchmarks/compare.py FOLDER docs/compare.md`, whose first lines say what is decided, from "
        "what and how.",
        "",
        "| small runs | method | decisions | right | Brier score | 80 % covers |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in found["methods"]:
        covered = "" if row["covered"] is None else f"{row['covered']:.0%}"
        lines.append(
            f"| {row['ladder']} | {row['method']} | {row['decisions']} | {row['right']:.0%} | {row['brier']:.3f} "
            f"| {covered} |"
        )
    lines += ["", "How often `compare` was right, by how sure it was:", ""]
    lines += ["| small runs | sure | decisions | said | right |", "| --- | --- | ---: | ---: | ---: |"]
    for row in found["reliability"]:
        lines.append(
            f"| {row['ladder']} | {row['from']:.0%} to {row['to']:.0%} | {row['decisions']} | {row['said']:.1%} "
            f"| {row['right']:.1%} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
