"""Which law does the error of a single task follow, and which tasks follow one at all?

    python benchmarks/single_tasks.py FOLDER   # two minutes of one core

FOLDER has gadre2024/, olmo_ladder2024/ and unseen2026/. Every single task of every published ladder is predicted at the
held-out targets: by the exponential decay, by the logistic, and by the mean of the rungs, which is no law. The default
method fits both laws to the same rungs (`fitting.testbeds.published` states them; of Gadre et al. 2024, the losses on
C4). A task is lawful where leaving one rung out after another says so (`fitting.forms.foretold`): no target is seen.

That a single task takes the logistic by default follows from these scores, so for the default they are no test. The
half of the variance from which a task is called lawful was fixed before any was seen.

Prints one JSON line: for each testbed, and there for all tasks, the lawful and the others, how many (tasks times
ladders) and the mean miss of each in points of error: through the loss law (`chain`), and given the measured loss
(`given`).
"""

import collections
import json
import math
import sys
import warnings
from collections.abc import Iterator, Sequence

from fitting.artifacts.fitted import FittedLaw, is_lawful
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.testbeds import published
from fitting.testbeds.published import Ladder
from fitting.testbeds.testbed import is_task

LAWS = ("exponential_decay", "logistic")
GADRE_LOSS = "loss/c4_val"
Misses = dict[str, dict[str, list[dict[str, float]]]]


def main() -> None:
    """Scores both laws on every single task of the ladders in the folder on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/single_tasks.py FOLDER, the folder of published testbeds")
    warnings.simplefilter("ignore")  # of every fit anew
    misses: dict[str, dict[str, list[dict[str, float]]]] = collections.defaultdict(
        lambda: collections.defaultdict(list)
    )
    for ladder in published.ladders(sys.argv[1]):
        for task in _tasks(ladder):
            fitted = [_fitted(ladder, task, law) for law in LAWS]
            if any(math.isfinite(p.measured_error) for p in fitted[0].predictions):
                kind = "lawful" if is_lawful(fitted[0].tasks[task]) else "others"
                for group in ("all", kind):
                    misses[_testbed(ladder)][group].append(dict(_missed(fitted)))
        print(ladder.corpus, ladder.loss, file=sys.stderr)
    print(json.dumps({testbed: {g: _mean(some) for g, some in groups.items()} for testbed, groups in misses.items()}))


def _tasks(ladder: Ladder) -> list[str]:
    """The single tasks to predict through the ladder's loss."""
    if ladder.testbed_name == "gadre2024":
        every = ladder.testbed.table if ladder.loss == GADRE_LOSS else ()
    else:
        every = ladder.errors if ladder.testbed_name == "olmo_ladder2024" else ladder.testbed.table
    return [name for name in every if is_task(name)]


def _testbed(ladder: Ladder) -> str:
    return ladder.testbed_name + (", few" if ladder.select == published.FEW else "")


def _fitted(ladder: Ladder, task: str, law: str) -> FittedLaw:
    rungs = {"select": ladder.select_error, "select_error": ladder.select_error}
    return fit(ladder.testbed, loss=ladder.loss, error=task, error_law=law, **rungs)


def _missed(fitted: Sequence[FittedLaw]) -> Iterator[tuple[str, float]]:
    targets = [p for p in fitted[0].predictions if math.isfinite(p.measured_error)]
    points = [point.measured for point in fitted[0].error.points]
    measured = {p.run: p.measured_error for p in targets}
    yield "mean of the rungs", _points([sum(points) / len(points) - p.measured_error for p in targets])
    for law in fitted:
        form, theta = catalogue.named(law.error.law), tuple(law.error.theta.values())
        own = [p for p in law.predictions if p.run in measured]
        yield f"{law.error.law}, chain", _points([p.error - p.measured_error for p in own])
        given = [float(form.evaluate(theta, p.measured_loss)) - p.measured_error for p in own]
        yield f"{law.error.law}, given", _points(given)


def _points(misses: Sequence[float]) -> float:
    return 100 * sum(map(abs, misses)) / len(misses)


def _mean(some: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {name: round(sum(one[name] for one in some) / len(some), 2) for name in some[0]}
    return {"tasks": len(some), **means}


if __name__ == "__main__":
    main()
