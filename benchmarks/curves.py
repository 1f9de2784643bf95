"""What do training curves tell of a ladder: a run's end, from a part of it; that it strays; the loss law?

`python benchmarks/curves.py FOLDER` takes OLMo's task ladder (Bhagia et al. 2024), whose logs lie in
FOLDER/olmo_ladder2024/ladder-runs: 25 runs of 190M to 3B parameters on 10 to 200 tokens each, their loss on C4
measured along the way. Prints one JSON line:

- `ends`: from so large a share of its curve the end of each run is foretold, by the law of the curves of all runs of
  less compute; root mean square of the miss, and how many of the nominal 95 % intervals hold; beside it the miss where
  the loss still falls by the ratio that it fell by in those runs.
- `strayed`: of as many runs whose loss leaps by so much at three tenths, how many are named within a tenth of the run,
  and how many of the runs as they were.
- `sharpened`: three ladders of cheap runs predict dearer ones by the default method, from final losses alone, and with
  each curve's first half added as a run of half the tokens, its loss brought to the end of the schedule by the law of
  the curves. Mean miss of the targets, the intervals' mean width, and how many of them hold.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pandas as pd

import fitting
from fitting.dynamics import curves
from fitting.testbeds.testbed import Testbed
from ladder.recipe import Hyperparameters, learning_rate

PARAMS = {"190M": 190_354_176, "370M": 371_262_464, "760M": 758_220_288, "1B": 1_279_395_840, "3B": 3_169_537_280}
COLUMN = "eval/c4_en-validation/CrossEntropyLoss"
SHARES = (0.25, 0.3, 0.5, 0.7, 0.9)
FEWEST = 4
LADDERS = {
    "five": ["190M-1xC", "370M-1xC", "760M-1xC", "1B-1xC", "190M-10xC"],
    "one ray and two": ["190M-1xC", "370M-1xC", "760M-1xC", "1B-1xC", "190M-2xC", "370M-2xC"],
    "twelve": [f"{size}-{m}xC" for size in ("190M", "370M", "760M") for m in (1, 2, 5, 10)],
}
TARGETS = ["1B-5xC", "1B-10xC", "3B-1xC", "3B-5xC", "3B-10xC"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as logged; `end` is the last loss."""

    params: int
    tokens: float
    curve: curves.Curve
    end: float


def read(folder: pathlib.Path) -> dict[str, Run]:
    """The runs by name; of a run that was repeated, the repetition, whose log is whole."""
    runs = {}
    for size, params in PARAMS.items():
        for multiple in ("0.5", "1", "2", "5", "10"):
            name = f"{size}-{multiple}xC"
            rerun = folder / f"{name}-rerun.csv"
            table = pd.read_csv(rerun if rerun.exists() else folder / f"{name}.csv").dropna(subset=[COLUMN])
            step, loss = table["_step"].to_numpy(), table[COLUMN].to_numpy()
            tokens, steps = 20.0 * float(multiple) * params, int(step[-1])
            # Bhagia et al. 2024, section 3: a warm-up of N tokens, half a cosine to a tenth; shares need no peak.
            warmup = round(params * steps / tokens)
            h = Hyperparameters(1, 1.0, 0.1, warmup, 0.1)
            rate_S = learning_rate(h, steps, np.arange(steps))
            runs[name] = Run(params, tokens, curves.curve(step, loss, rate_S), float(loss[-1]))
    return runs


def cheaper(runs: dict[str, Run], name: str) -> list[Run]:
    """The runs of less compute."""
    own = runs[name].params * runs[name].tokens
    return [run for run in runs.values() if run.params * run.tokens < 0.9 * own]


def ends_and_strays(runs: dict[str, Run]) -> tuple[dict, dict]:
    """See the module."""
    miss, held, plain = ({share: [] for share in SHARES} for _ in range(3))
    named = {by: [] for by in (0.0, 0.01, 0.02, 0.03)}
    for name, run in runs.items():
        others = cheaper(runs, name)
        if len(others) < FEWEST:
            continue
        law = curves.fit([other.curve for other in others])
        for share in SHARES:
            part = run.curve.until(share)
            told = curves.foretold_end(law, part, [o.curve for o in others], [o.end for o in others])
            low, high = told.interval(0.95)
            miss[share].append(told.loss / run.end - 1)
            held[share].append(low <= run.end <= high)
            fell = [np.log(o.end / o.curve.until(share).loss_W[-1]) for o in others]
            plain[share].append(part.loss_W[-1] * np.exp(np.mean(fell)) / run.end - 1)
        for by, found in named.items():
            leapt_W = np.where(run.curve.share_W > 0.3, run.curve.loss_W * (1 + by), run.curve.loss_W)
            leapt = dataclasses.replace(run.curve, loss_W=leapt_W)
            found.append(law.strayed(leapt if not by else leapt.until(0.4)) is not None)
    ends = {
        share: {
            "rms_miss": rms(miss[share]),
            "held": round(float(np.mean(held[share])), 2),
            "rms_miss_of_ratio": rms(plain[share]),
            "runs": len(miss[share]),
        }
        for share in SHARES
    }
    return ends, {by: f"{sum(found)} of {len(found)}" for by, found in named.items()}


def sharpened(runs: dict[str, Run]) -> dict:
    """See the module."""
    scores = {}
    for ladder, names in LADDERS.items():
        rungs = {name: runs[name] for name in names}
        law = curves.fit([run.curve for run in rungs.values()])
        ends = [(name, run.params, run.tokens, run.end) for name, run in rungs.items()]
        halves = [(f"{name}-half", r.params, r.tokens / 2, annealed(law, r.curve)) for name, r in rungs.items()]
        whole = {(params, round(tokens / 1e8)) for _, params, tokens, _ in ends}
        halves = [half for half in halves if (half[1], round(half[2] / 1e8)) not in whole]
        scores[ladder] = {"finals": score(ends, runs), "with_curves": score(ends + halves, runs)}
    return scores


def annealed(law: curves.CurveLaw, curve: curves.Curve) -> float:
    """The loss at half of a run, had its schedule come to its end there."""
    fall = float(law.weight_K @ law.cells_Kx4[:, 1])
    near = curve.until(0.5)
    rate, loss = float(near.rate_W[-3:].mean()), float(near.loss_W[-3:].mean())
    return loss * (1 + fall * curve.end_rate) / (1 + fall * rate)


def score(rows: list[tuple], runs: dict[str, Run]) -> dict:
    """How a law of these runs predicts the targets."""
    table = pd.DataFrame(rows, columns=["run", "params", "tokens", "loss/c4"])
    law = fitting.fit(Testbed(table), loss="c4")
    told = [(fitting.predict(law, runs[name].params, runs[name].tokens), runs[name].end) for name in TARGETS]
    return {
        "mean_miss": round(float(np.mean([abs(p.loss / end - 1) for p, end in told])), 5),
        "mean_width": round(float(np.mean([(p.loss_interval[1] - p.loss_interval[0]) / end for p, end in told])), 4),
        "held": f"{sum(p.loss_interval[0] <= end <= p.loss_interval[1] for p, end in told)} of {len(told)}",
    }


def rms(values: list[float]) -> float:
    """Root mean square."""
    return round(float(np.sqrt(np.mean(np.square(values)))), 5)


def main() -> None:
    """Prints the line."""
    runs = read(pathlib.Path(sys.argv[1]) / "olmo_ladder2024/ladder-runs")
    ends, strayed = ends_and_strays(runs)
    print(json.dumps({"ends": ends, "strayed": strayed, "sharpened": sharpened(runs)}))


if __name__ == "__main__":
    main()
