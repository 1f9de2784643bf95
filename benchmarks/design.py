"""Do chosen runs tell more than others that cost as much?

    python benchmarks/design.py FOLDER [PART…]   # parts: synthetic gadre2024 scalebench demo; all but demo if not given
    python benchmarks/design.py FOLDER demo=SEED,SEED,…   # trains, 8 minutes of two cores a seed

FOLDER has the published testbeds, gadre2024/ and scalebench2026/ among them. Prints one JSON line; progress on stderr.

No choice sees a measurement that it has not bought, nor one of the corpus that it is scored on: what is believed of
Gadre et al.'s ladders is learned from the other testbeds. The rules, `Rules` of `fitting.designs.design`, came first.

- `synthetic`: laws of known truth, drawn with another seed than the design's. Of 12 candidates every
  set of five that a budget allows is tried; the regret is the doubt of the chosen set over that of the least. For three
  of the nine problems ladders are simulated too, eight true laws each, and the default's root mean square miss is
  compared with that of eight of those sets, picked at random.
- `gadre2024`: for each of the two targets, at 3, 10 and 30 % of the compute of all rungs of up to 411M parameters, the
  design's rungs from the testbed's own, of M = 20 and more (below it runs are under-trained; their losses on C4 were
  seen when this was decided, no score was). The mean miss of the default over 3 corpora x 8 losses, beside the paper's
  five rungs, random sets that cost as much (of the same candidates, filled until nothing fits), and all rungs.
- `scalebench`: eight kinds of law, runs bought one after another; see `buying`.
- `demo`: the demo's five rungs against as many FLOPs of the design's, trained, and the misses of both targets.
"""

import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from fitting import priors
from fitting.artifacts import fitted
from fitting.designs import design, plausible
from fitting.designs.design import Rules
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.testbeds import published
from fitting.testbeds.published import Ladder
from fitting.testbeds.testbed import Testbed

SHARES = (0.03, 0.1, 0.3)
RANDOM_SEEDS = 3
MOST_PARAMS = "params < 5e8"
LEAST_MULTIPLIER = 20
ANY = "quarantine == '' or quarantine != ''"  # a simulated loss may be higher than a run's ever is
TRUTHS, OTHERS = 8, 8  # of the synthetic part: true laws a problem, and sets that the design is compared with


def main() -> None:
    """Runs the parts that are named, or all but the demo."""
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/design.py FOLDER [PART…], the folder of published testbeds")
    folder = pathlib.Path(sys.argv[1])
    parts = {"synthetic": synthetic, "gadre2024": gadre2024, "scalebench": scalebench, "demo": demo}
    found = {}
    for asked in sys.argv[2:] or [name for name in parts if name != "demo"]:
        name, _, seeds = asked.partition("=")
        started = time.perf_counter()
        found[name] = demo(tuple(map(int, seeds.split(",")))) if seeds else parts[name](folder)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(json.dumps(found))


def gadre2024(folder: pathlib.Path) -> list[dict[str, object]]:
    """One row a target, share and way to choose: the mean miss over 24 losses."""
    ladders = published.ladders(folder)
    examples = published.examples(ladders)
    others = [example for example in examples["coupled_tied"] if example.testbed != "gadre2024"]
    learned = {
        law: priors.learn(catalogue.named(law), [e for e in examples[law] if e.testbed != "gadre2024"])
        for law in ("coupled_tied", "over_training")
    }
    reducible = plausible.learn_reducible(others)
    print(f"without Gadre: {learned}, {reducible}", file=sys.stderr)
    gadre = [ladder for ladder in ladders if ladder.corpus.startswith("gadre2024/")]
    rows = []
    for corpus in dict.fromkeys(ladder.corpus for ladder in gadre):
        own = [ladder for ladder in gadre if ladder.corpus == corpus]
        table = own[0].testbed.table
        pool = table[(table["role"] == "rung") & (table["quarantine"] == "")].query(MOST_PARAMS)
        total = float(pool["flops"].sum())
        pool = pool[pool["token_multiplier"].round() >= LEAST_MULTIPLIER].sort_values("flops")
        sizes_Kx2 = pool[["params", "tokens"]].to_numpy(float)
        flops_K = pool["flops"].to_numpy(float)
        sets = {
            ("the paper's five", None, None): table["run"][own[0].testbed.select(published.GADRE_FIVE)].tolist(),
            ("all", None, None): table["run"][own[0].testbed.select(f"role == 'rung' and {MOST_PARAMS}")].tolist(),
            ("all of M >= 20", None, None): pool["run"].tolist(),
        }
        for share in SHARES:
            for seed in range(RANDOM_SEEDS):
                chosen = at_random(sizes_Kx2, flops_K, share * total, seed)
                sets["random", share, f"seed {seed}"] = pool["run"].iloc[chosen].tolist()
            for target in table[table["role"] == "target"].to_dict("records"):
                outlook = plausible.outlook(
                    sizes_Kx2,
                    np.array([(target["params"], target["tokens"])]),
                    priors=learned,
                    reducible=reducible,
                )
                chosen = design.best(outlook, additive(flops_K), share * total, Rules(seeds=1))
                sets["design", share, target["run"].split("-", 1)[1]] = pool["run"].iloc[list(chosen)].tolist()
        for (way, share, which), runs in sets.items():
            cost = float(table[table["run"].isin(runs)]["flops"].sum())
            for run, miss_L in misses(own, runs).items():
                of = run.split("-", 1)[1]
                if way != "design" or of == which:
                    size = of.rpartition("-")[0]  # each corpus's 1B has a token multiplier of its own
                    rows.append({"corpus": corpus, "way": way, "share": share, "target": size, "runs": len(runs)})
                    rows[-1] |= {"cost": cost / total, "miss": float(np.mean(miss_L))}
            if way == "design" and corpus.endswith("rpj"):
                print(f"{share:.0%} {which}: {', '.join(runs)}", file=sys.stderr)
    # Each corpus weighs the same, and within it each random set.
    grouped = pd.DataFrame(rows).groupby(["way", "share", "target"], dropna=False, sort=False)
    return [
        {"way": way, "share": None if share is None or np.isnan(share) else share, "target": target}
        | {"runs": round(float(g["runs"].mean()), 1), "cost": round(float(g["cost"].mean()), 4)}
        | {"mean_miss": round(float(g["miss"].mean()), 5)}
        for (way, share, target), g in grouped
    ]


def misses(ladders: Sequence[Ladder], runs: Sequence[str]) -> Mapping[str, list[float]]:
    """The relative miss of each target's loss by the default, fitted to these runs alone, of every loss of a corpus."""
    found: dict[str, list[float]] = {}
    for ladder in ladders:
        with warnings.catch_warnings(action="ignore"):
            law = fit(ladder.testbed, loss=ladder.loss, select=f"run in {list(runs)}")
        for p in law.predictions:
            found.setdefault(p.run, []).append(abs(p.loss / p.measured_loss - 1))
    return found


def additive(cost_K: np.ndarray):
    """Runs that share nothing."""
    return lambda set_SxR: cost_K[set_SxR].sum(1)


def at_random(sizes_Kx2: np.ndarray, cost_K: np.ndarray, budget: float, seed: int) -> list[int]:
    """Runs in a random order, each bought where it still fits, until five at least can be fitted."""
    rng = np.random.default_rng(seed)
    while True:
        chosen: list[int] = []
        for k in rng.permutation(len(cost_K)):
            if cost_K[[*chosen, k]].sum() <= budget:
                chosen.append(int(k))
        if len(chosen) >= 5 and len({*sizes_Kx2[chosen, 0]}) >= 2:
            return chosen


def synthetic(folder: pathlib.Path) -> dict[str, object]:
    """Regret against every set of five that a budget allows, of a dozen candidates."""
    del folder
    regrets, of_misses = [], []
    for seed, (sizes_Kx2, target, budget) in enumerate(_small_problems()):
        flops_K = 6 * sizes_Kx2.prod(1)
        rules = Rules(most_runs=5, seeds=1)
        outlook = plausible.outlook(sizes_Kx2, target[None])
        chosen = design.best(outlook, additive(flops_K), budget, rules)
        every = np.array([*itertools.combinations(range(len(flops_K)), 5)])
        every = every[rules.allow(outlook, every) & (flops_K[every].sum(1) <= budget)]
        doubt_S = np.array([outlook.doubt(some) for some in every])
        regrets.append(outlook.doubt(chosen) / doubt_S.min() - 1)
        if seed % 3 == 1:  # fits take longer than all else
            others = every[np.random.default_rng(seed).choice(len(every), OTHERS, replace=False)]
            miss_S = _true_misses([chosen, *others], sizes_Kx2, target, seed)
            of_misses.append((miss_S[0], miss_S[1:].min(), float(np.median(miss_S[1:]))))
    chosen, least, median = np.array(of_misses).T
    return {
        "problems": len(regrets),
        "regret_of_doubt": {"mean": round(float(np.mean(regrets)), 4), "max": round(float(np.max(regrets)), 4)},
        "rms_miss": {
            "design": round(float(chosen.mean()), 4),
            f"best_of_{OTHERS}": round(float(least.mean()), 4),
            f"median_of_{OTHERS}": round(float(median.mean()), 4),
        },
    }


def scalebench(folder: pathlib.Path) -> list[dict[str, object]]:
    """R² at each share of a pool's cost, beside the paper's."""
    import buying

    rows = buying.scores(folder / "scalebench2026")
    print(buying.table(rows), file=sys.stderr)
    return rows


def demo(seeds: object) -> list[dict[str, object]]:
    """Relative misses of the demo's targets by its own rungs and by the design's, of equal FLOPs, trained here."""
    rows = []
    for seed in seeds if isinstance(seeds, tuple) else (0,):
        with tempfile.TemporaryDirectory() as place:
            own, chosen, config = (pathlib.Path(place) / name for name in ("own", "chosen", "chosen.yaml"))
            _ladder("run", "demo", "--workdir", own, "--set", f"seed={seed}")
            flops = json.loads((own / "plan.json").read_text())["totals"]["ladder_flops"]
            _ladder("design", "demo", "--budget-flops", flops, "--out", config, "--set", f"seed={seed}")
            _ladder("run", config, "--workdir", chosen, "--reuse", own)
            for way, workdir in (("the demo's", own), ("the design's", chosen)):
                law = fitted.load(workdir / "fits" / "default" / "law.json")
                rungs = {point.run: point.flops for point in law.loss.points}
                rows.append({"seed": seed, "way": way, "flops": sum(rungs.values()), "rungs": sorted(rungs)})
                rows[-1] |= {p.run: round(p.loss / p.measured_loss - 1, 5) for p in law.predictions}
                rows[-1]["covered"] = [
                    p.loss_interval[0] <= p.measured_loss <= p.loss_interval[1] for p in law.predictions
                ]
    return rows


def _ladder(*arguments: object) -> None:
    command = ["ladder", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr, stderr=sys.stderr)


def _small_problems() -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    for params, share in itertools.product((2e8, 1e9, 7e9), (0.003, 0.01, 0.03)):
        sizes = np.geomspace(params / 60, params / 5, 4)
        sizes_Kx2 = np.array([(n, m * n) for n in sizes for m in (20, 80, 320)])
        yield sizes_Kx2, np.array([params, 20 * params]), share * 6 * 20 * params**2 * 5


def _true_misses(sets: Sequence[Sequence[int]], sizes_Kx2: np.ndarray, target: np.ndarray, seed: int) -> np.ndarray:
    """Root mean square miss of the default over true laws and noise drawn as believed, of each set."""
    rng = np.random.default_rng(1000 + seed)
    law = catalogue.named("coupled_tied")
    squares = np.zeros(len(sets))
    for _ in range(TRUTHS):
        prior = priors.believed(law, priors.PUBLISHED).shapes
        shape = [median * np.exp(sd * rng.standard_normal()) for median, sd in prior.values()]
        u = float(law.evaluate([0.0, 1.0, *shape], 1e9, 1e9 * shape[2]))
        median, sd = plausible.REDUCIBLE
        theta = [2.0, 2 * median * np.exp(sd * rng.standard_normal()) / u, *shape]
        loss_K = law.evaluate(theta, *sizes_Kx2.T) * (1 + 0.01 * rng.standard_normal(len(sizes_Kx2)))
        truth = float(law.evaluate(theta, *target))
        table = pd.DataFrame({"run": [f"r{k}" for k in range(len(loss_K))], "loss/x": loss_K})
        table = table.assign(params=sizes_Kx2[:, 0], tokens=sizes_Kx2[:, 1])
        for i, some in enumerate(sets):
            with warnings.catch_warnings(action="ignore"):  # such a loss need be no text's
                law_of = fit(Testbed(table.iloc[list(some)]), loss="x", method="published", select=ANY)
            foretold = float(law.evaluate(tuple(law_of.loss.theta.values()), *target))
            squares[i] += (foretold / truth - 1) ** 2 / TRUTHS
    return np.sqrt(squares)


if __name__ == "__main__":
    main()
