"""How long the paper's ladder takes on a pod that its runs share, against one run after another on the whole pod.

    python benchmarks/schedule.py

prints one JSON line: for each pod its hours, what no schedule can undercut, and `used`, the share of the chips' time
that a ladder without any waste would need (`ladder.pods.packing.used`); the same of one run after another, each on
the largest slice that it can use; and of the rungs alone. A step takes what `ladder precompile` found, if it has, and
what `ladder.pods.estimate` says if it has not: `compiled` of the runs. No TPU has confirmed either.
"""

import dataclasses
import json
import pathlib
import warnings

from ladder import config_file
from ladder import plan as plans
from ladder.engines import schedule

ROOT = pathlib.Path(__file__).parents[1]
PODS = {"v5p-128": ("v5p", 64), "v4-128": ("v4", 64), "v5p-256": ("v5p", 128)}  # the cloud's names count cores


def main() -> None:
    """Schedules the ladder on each pod and prints what comes of it."""
    warnings.simplefilter("ignore")  # the shortest rungs, which the paper's recipe leaves out
    found = {}
    for name, (generation, chips) in PODS.items():
        config = config_file.load(str(ROOT / "configs" / "pods" / f"{generation}.yaml"))
        config = dataclasses.replace(config, machines={generation: chips})
        specs = plans.plan(config, plans.vocab_size(config))
        rungs = [spec for spec in specs if spec.role == "rung"]
        found[name] = _told(schedule.plan(config, specs)) | {"rungs": _told(schedule.plan(config, rungs))}
    print(json.dumps(found))


def _told(s: schedule.Schedule | None) -> dict[str, float]:
    assert s is not None
    numbers = {"hours": s.hours, "least_hours": s.least_hours, "used": s.used}
    numbers |= {"in_turn_hours": s.in_turn_hours, "in_turn_used": s.in_turn_used}
    told = {key: round(value, 3) for key, value in numbers.items()}
    return {"runs": len(s.runs), "compiled": sum(run.compiled for run in s.runs), **told}


if __name__ == "__main__":
    main()
