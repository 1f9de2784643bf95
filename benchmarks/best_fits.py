"""Do the intervals of best fits hold on runs that published ladders held out, and do nearby runs tell of them?

    python benchmarks/best_fits.py FOLDER   # 2 minutes of one core

FOLDER has gadre2024/, olmo_ladder2024/, chinchilla2022/, datablations2023/ and unseen2026/. Every ladder of ten runs or
more (`fitting.testbeds.published`) is fitted as `ladder fit --method best` does, by three laws of N and D, and predicts
its targets three ways: `independent`, resamples taking each run's scatter for its own, as the field does; `misfit`, the
default, resamples moved by a misfit that runs of like sizes share; `nearby`, with what the fitted runs lead to expect
there. That misfit is not larger where the loss is, as it may be by the default method, was chosen with these scores in
view; nothing else was.

Prints one JSON line: of each law the mean over testbeds, one vote each, of how far targets are missed (percent of the
loss) and of what share nominal 80 and 95 % intervals cover; and the same of each testbed. A table goes to stderr.
"""

import collections
import dataclasses
import json
import sys
import warnings
from collections.abc import Iterator

import numpy as np

from fitting.artifacts.fitted import FittedLaw
from fitting.methods import fit
from fitting.prediction import predict
from fitting.testbeds import published

LAWS = ("chinchilla", "coupled_tied", "coupled")
WAYS = ("independent", "misfit", "nearby")
LEVELS = (0.8, 0.95)
_LEAST_RUNS = 10
_RESAMPLES = 200


def main() -> None:
    """Scores all ladders of the folder on the command line."""
    warnings.simplefilter("ignore")
    found: dict[tuple[str, str, str], list[np.ndarray]] = collections.defaultdict(list)
    for ladder in published.ladders(sys.argv[1]):
        for law in LAWS:
            for way, score in _scored(ladder, law):
                found[law, ladder.testbed_name, way].append(score)
    rows = [
        {"law": law, "testbed": testbed, "way": way} | _named(np.mean(scores, 0), len(scores))
        for (law, testbed, way), scores in found.items()
    ]
    means = [
        {"law": law, "way": way} | _mean([row for row in rows if (row["law"], row["way"]) == (law, way)])
        for law in LAWS
        for way in WAYS
    ]
    lines = ["| law | intervals | miss | 80 % cover | 95 % cover |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| `{m['law']}` | {m['way']} | {m['miss']:.2f} % | {m['covered_80']:.0f} % | {m['covered_95']:.0f} % |"
        for m in means
    ]
    print("\n".join(lines), file=sys.stderr)
    print(json.dumps({"best_fits": means, "testbeds": rows}))


def _scored(ladder: published.Ladder, law: str) -> Iterator[tuple[str, np.ndarray]]:
    """Each target by each way: the miss, and whether intervals of each level cover it; none of too small a ladder."""
    options = {"select": ladder.select, "method": "best", "law": law, "resamples": _RESAMPLES}
    try:
        alone, alike = (fit(ladder.testbed, loss=ladder.loss, independent=each, **options) for each in (True, False))
    except ValueError:  # runs along one ray, or fewer than parameters
        return
    if len(alike.loss.points) < _LEAST_RUNS:
        return
    for p in alike.predictions:
        for way, fitted in zip(WAYS, (alone, alike, alike), strict=True):
            yield way, _score(fitted, p.params, p.tokens, p.measured_loss, way == "nearby")


def _score(law: FittedLaw, params: float, tokens: float, measured: float, nearby: bool) -> np.ndarray:
    each = [predict(dataclasses.replace(law, level=level), params, tokens, nearby=nearby) for level in LEVELS]
    return np.array(
        [abs(each[0].loss / measured - 1), *(p.loss_interval[0] <= measured <= p.loss_interval[1] for p in each)]
    )


def _named(score: np.ndarray, targets: int) -> dict[str, float]:
    names = ("miss", *(f"covered_{100 * level:.0f}" for level in LEVELS))
    return {name: round(100 * float(value), 2) for name, value in zip(names, score, strict=True)} | {"targets": targets}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {
        name: round(float(np.mean([row[name] for row in rows])), 2) for name in ("miss", "covered_80", "covered_95")
    }


if __name__ == "__main__":
    main()
