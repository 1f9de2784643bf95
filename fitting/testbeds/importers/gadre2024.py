"""The testbed of Gadre et al. 2024."""

import collections
import itertools
import math
from typing import Any

from fitting.testbeds.importers.sources import Record
from fitting.testbeds.testbed import Testbed


def gadre2024(folder: Any) -> Testbed:
    """The 104 models of Gadre et al. 2024 (arXiv:2403.08540): `exp_data` of github.com/mlfoundations/scaling.

    Losses are named as the paper's code names them, after their folder. `error/average` is over the tasks that most
    runs have, the paper's 46, and `error/average_17` over its 17-task subset, of runs that have them all. Targets are
    the six runs the paper held out.
    """
    import pandas as pd

    paths = sorted((folder / "models").glob("*.json"))
    if not paths:
        raise ValueError(f"{folder}: no models/*.json; give the exp_data folder of github.com/mlfoundations/scaling")
    rows = [_gadre_run(folder, path) for path in paths]
    errors = [{name: value for name, value in row.items() if name.startswith("error/")} for row in rows]
    ((usual, _),) = collections.Counter(map(frozenset, errors)).most_common(1)
    for row, of_run in zip(rows, errors, strict=True):
        for average, tasks in {"average": usual, "average_17": {f"error/{task}" for task in _GADRE_SUBSET}}.items():
            if tasks and tasks <= of_run.keys():
                row[f"error/{average}"] = math.fsum(of_run[task] for task in tasks) / len(tasks)
    return Testbed(pd.DataFrame(rows))


_GADRE_TARGETS = (
    *("c4_original-open_lm_1b-4.0", "c4_original-open_lm_7b-1.0"),
    *("rpj-open_lm_1b-32.0", "rpj-open_lm_7b-1.0"),
    *("rw_original-open_lm_1b-16.0", "rw_original-open_lm_7b-1.0"),
)
_GADRE_SUBSET = (
    *("arc_easy", "bigbench_cs_algorithms", "bigbench_dyck_languages", "bigbench_novel_concepts"),
    *("bigbench_operators", "bigbench_qa_wikidata", "boolq", "commonsense_qa", "copa", "coqa", "hellaswag"),
    *("hellaswag_zeroshot", "lambada_openai", "piqa", "pubmed_qa_labeled", "squad", "winograd"),
)


def _gadre_run(folder: Any, path: Any) -> dict[str, Any]:
    """What a model's file and that of its evaluation say; what only a gate looks at may be missing."""
    model, evaluation = Record.read(path), Record.read(folder / "evals" / f"evaluation_{path.stem}_heavy.json")
    arguments = _arguments(model.maybe("open_lm_args", []))
    batch_size = model.maybe("hyperparameters", "global_bs", math.nan)
    tokens = model.number("hyperparameters", "tokens")
    row = {
        "run": model["name"],
        "role": "target" if model["name"] in _GADRE_TARGETS else "rung",
        "corpus": model["dataset_name"],
        "model": str(model["hyperparameters", "model"]).split("/")[-1].removesuffix(".json"),
        "params": model.number("hyperparameters", "params"),
        "params_non_embedding": model.maybe("hyperparameters", "params_no_embed", math.nan),
        "tokens": tokens,
        "batch_size": batch_size,
        "warmup_steps": model.maybe("hyperparameters", "warmup", math.nan),
        "steps": tokens / (2048 * batch_size),
    }
    if {"train-num-samples", "epochs"} <= arguments.keys():
        row["tokens_seen"] = int(arguments["train-num-samples"]) * int(arguments["epochs"])
    for i in range(len(model.several("results", kind=list))):
        where = str(model["results", i, "val_data", 0]).split("/")
        name = where[-2] if len(where) > 1 else where[0]
        row[f"loss/{name}"] = model.number("results", i, "loss")
        ends = [model.maybe("results", i, f"loss_tokens_{end}_95", math.nan) for end in ("lower", "upper")]
        # A 95 % interval of the mean over tokens: 2 × 1.96 standard errors wide.
        row[f"loss_stderr/{name}"] = (ends[1] - ends[0]) / 3.92
    for task in evaluation.several("eval_metrics", "icl", kind=dict):
        row[f"error/{task}"] = 1 - evaluation.number("eval_metrics", "icl", task)
    return row


def _arguments(words: list[str]) -> dict[str, str]:
    return {a.removeprefix("--"): b for a, b in itertools.pairwise(words) if a.startswith("--")}
