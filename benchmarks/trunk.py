"""What a trunk and its branches come to, against cosine runs of the same N and D: their losses, and what both foretell.

    python benchmarks/trunk.py --out /tmp/trunk --seeds 0 1 2 --targets   # six ladders like the demo's
    python benchmarks/trunk.py --out /tmp/trunk --sizes w16   # of the smallest size alone: minutes, and no prediction

Trains the demo's rungs, with the first of their sizes at M = 20, 40, 80, 160 and 320, once with the recipe's cosine and
once with `recipe.schedule=wsd`, into OUT/<schedule>-<seed>; run again, it goes on. Prints one JSON line: `runs`, by run
the loss of each seed with either schedule and `difference`, the mean over seeds of wsd's over cosine's less 1;
`targets`, what either ladder's law says of the demo's targets and, where they are trained (always with the cosine),
how far that is off; `flops` of the rungs with either, and the share `saved`. `arithmetic` needs no training: the share
that five doublings from M = 20 on save, with cooldowns of 20 % and of 10 %.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import yaml

from fitting.artifacts import fitted
from fitting.prediction import predict
from fitting.testbeds.testbed import RunRecord
from ladder import config_file
from ladder import plan as plans
from ladder.config import Grid, LadderConfig
from ladder.spec import RunSpec, Workdir

ROOT = pathlib.Path(__file__).parents[1]
SCHEDULES = ("cosine", "wsd")
MULTIPLIERS = (20.0, 40.0, 80.0, 160.0, 320.0)
LOSS = "code"


def main() -> None:
    """Trains what is not trained yet, and prints what it came to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", required=True, help="folder of all workdirs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sizes", nargs="+", default=["w16", "w24", "w32", "w48"], help="the first has all M")
    parser.add_argument("--targets", action="store_true", help="train the demo's targets too, with the cosine")
    parser.add_argument("--reuse", nargs="*", default=[], help="workdirs whose finished runs are taken")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for schedule in SCHEDULES:
            train(asked, schedule, seed)
    print(json.dumps(told(asked) | {"arithmetic": arithmetic()}))


def train(asked: argparse.Namespace, schedule: str, seed: int) -> None:
    """Carries out one ladder."""
    values = {"seed": seed, "recipe.schedule": schedule, "rungs": grids(asked.sizes)}
    if not (asked.targets and schedule == "cosine"):
        values["targets"] = []
    sets = [f"--set={key}={yaml.safe_dump(value, default_flow_style=True).strip()}" for key, value in values.items()]
    sets = [one.removesuffix("\n...") for one in sets]
    reuse = [word for folder in asked.reuse for word in ("--reuse", folder)]
    command = (sys.executable, "-c", "from ladder.cli.main import main; main()", "run", "demo")
    where = ("--workdir", str(workdir(asked, schedule, seed).root))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run((*command, *where, *reuse, *sets), env=environment, stdout=sys.stderr, check=False)
    if done.returncode:
        print(f"{schedule}, seed {seed}: left with {done.returncode}", file=sys.stderr)  # too few rungs for a law, say


def grids(sizes: list[str]) -> list[dict[str, Any]]:
    """All sizes at M = 20, the first at all the others."""
    return [
        {"sizes": sizes, "token_multipliers": list(MULTIPLIERS[:1])},
        {"sizes": sizes[:1], "token_multipliers": list(MULTIPLIERS[1:])},
    ]


def workdir(asked: argparse.Namespace, schedule: str, seed: int) -> Workdir:
    """Of one ladder."""
    return Workdir.at(str(pathlib.Path(asked.out) / f"{schedule}-{seed}"))


def told(asked: argparse.Namespace) -> dict[str, Any]:
    """What all ladders came to."""
    runs: dict[str, dict[str, Any]] = {}
    targets: dict[str, dict[str, Any]] = {}
    flops: dict[str, float] = {}
    demo = config_file.load("demo")
    for schedule in SCHEDULES:
        config = with_rungs(demo, asked.sizes, schedule)
        rungs = [spec for spec in specs_of(config) if spec.role == "rung"]
        flops[schedule] = sum(spec.own_flops for spec in rungs)
        for spec in rungs:
            losses = [loss(workdir(asked, schedule, seed), spec.run) for seed in asked.seeds]
            runs.setdefault(spec.run, {})[schedule] = losses
        for target in specs_of(demo):
            if target.role == "target":
                said = [foretold(asked, schedule, seed, target) for seed in asked.seeds]
                targets.setdefault(target.run, {})[schedule] = said
    for one in runs.values():
        pairs = [(c, w) for c, w in zip(one["cosine"], one["wsd"], strict=True) if c and w]
        one["difference"] = round(statistics.mean(w / c - 1 for c, w in pairs), 5) if pairs else None
    saved = {"saved": round(1 - flops["wsd"] / sum(spec.flops for spec in rungs), 4)}
    return {"seeds": asked.seeds, "runs": runs, "targets": targets, "flops": flops | saved}


def with_rungs(demo: LadderConfig, sizes: list[str], schedule: str, cooldown: float = 0.2) -> LadderConfig:
    """The demo's config with these rungs."""
    recipe = dataclasses.replace(demo.recipe, schedule=schedule, cooldown=cooldown)
    rungs = tuple(Grid(sizes=tuple(g["sizes"]), token_multipliers=tuple(g["token_multipliers"])) for g in grids(sizes))
    return dataclasses.replace(demo, rungs=rungs, recipe=recipe)


def specs_of(config: LadderConfig) -> tuple[RunSpec, ...]:
    """The runs of a config."""
    return plans.plan(config, plans.vocab_size(config))


def loss(workdir: Workdir, run: str) -> float | None:
    """Of one run, in nats a token; None where it has none."""
    path = workdir.record(run)
    record = RunRecord.load(path) if path.exists() else None
    return round(record.losses[LOSS].value, 5) if record and LOSS in record.losses else None


def foretold(asked: argparse.Namespace, schedule: str, seed: int, target: RunSpec) -> dict[str, Any] | None:
    """What one ladder's law says of a target; None where it has no law."""
    path = workdir(asked, schedule, seed).fit() / "law.json"
    if not path.exists():
        return None
    said = predict(fitted.load(path), params=target.params, tokens=target.tokens)
    measured = loss(workdir(asked, "cosine", seed), target.run)
    off = round(said.loss / measured - 1, 5) if measured else None
    interval = [round(end, 4) for end in said.loss_interval]
    return {"loss": round(said.loss, 4), "interval": interval, "measured": measured, "off": off}


def arithmetic() -> dict[str, float]:
    """The share of FLOPs that one size at M = 20 to 640 saves, by the cooldown's share."""
    demo, saved = config_file.load("demo"), {}
    for cooldown in (0.2, 0.1):
        config = with_rungs(demo, ["w48"], "wsd", cooldown)
        doubled = (*MULTIPLIERS, 640.0)
        config = dataclasses.replace(config, rungs=(Grid(sizes=("w48",), token_multipliers=doubled),), targets=())
        specs = specs_of(config)
        own, alone = (sum(getattr(spec, flops) for spec in specs) for flops in ("own_flops", "flops"))
        saved[f"{cooldown:.0%}"] = round(1 - own / alone, 4)
    return saved


if __name__ == "__main__":
    main()
