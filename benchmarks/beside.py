"""Apart from the laws: what do ScaleBench's own laws say of its regions, fitted to the runs that `buying` buys?

    git clone https://github.com/PlanarG/active-sl && git -C active-sl checkout e0a58ff
    python benchmarks/beside.py FOLDER active-sl TASK…   # one core; minutes for parallel, sparsity, farseer and moe

FOLDER has scalebench2026/. The paper's purchases are judged by the mean R² over its own laws, some ten a task, each
having bought for itself. Ours are bought by laws of ours, once, and then judged by the same laws, fitted by the paper's
own code (`multistart_fit` of its mspe.py, 64 starts). Its own numbers: `python mspe.py <task>_scaling_law 1` there,
one core. Prints one JSON line a task: mean R² at each share, and each law's.
"""

import json
import pathlib
import sys

import buying
import numpy as np
import scalebench

SEED = 42  # the first of the paper's


def main() -> None:
    """Scores the tasks named."""
    folder, checkout = pathlib.Path(sys.argv[1]), sys.argv[2]
    tasks, sys.argv[1:] = sys.argv[3:], []  # mspe reads the command line
    sys.path.insert(0, checkout)
    import mspe
    from benchmark.metrics import r_squared
    from benchmark.task import load_tasks_for_dataset

    for task in tasks:
        paths = [folder / f"scalebench2026/{task}.{half}.parquet" for half in ("train", "test")]
        pool, region = (scalebench._read(path, task) for path in paths)
        bought = buying.bought(task, pool, region, 0)
        group_N = pool["group"].str.split(" loss_").str[0]
        laws = {}
        for law in load_tasks_for_dataset(f"{task}_scaling_law"):
            laws[law.sl_id] = []
            for chosen, _ in bought.values():
                foretold, measured = [], []
                for g, group in enumerate(law.groups):
                    rows = group_N.index[group_N == group.group][: len(group.X_train)]
                    own = np.flatnonzero(rows.isin(chosen))
                    if len(own):
                        mspe.setup_task(law, g)
                        mspe.rng = np.random.RandomState(SEED)
                        theta_BxP, miss_B = mspe.multistart_fit(group.X_train[own], group.y_train[own], mspe.N_STARTS)
                        foretold.append(np.ravel(law.model_fn(theta_BxP[miss_B.argmin()], group.X_test)[0]))
                        measured.append(np.ravel(group.y_test))
                r2 = r_squared(np.concatenate(measured), np.concatenate(foretold)) if foretold else -1.0
                laws[law.sl_id].append(round(r2 if np.isfinite(r2) else -1.0, 3))
            print(task, law.sl_id, laws[law.sl_id], file=sys.stderr)
        r2_S = np.mean([*laws.values()], 0).round(3)
        runs = [len(chosen) for chosen, _ in bought.values()]
        print(json.dumps({"task": task, "r2": r2_S.tolist(), "runs": runs, "laws": laws}), flush=True)


if __name__ == "__main__":
    main()
