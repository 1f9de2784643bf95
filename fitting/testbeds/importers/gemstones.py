"""The models of Gemstones, McLeish et al. 2025."""

import json
import math
import re
from typing import Any

from fitting import files
from fitting.files import cut
from fitting.testbeds import cells
from fitting.testbeds.testbed import Testbed

_LOSSES = {"fineweb_edu": "fineweb_edu_losses_combined.jsonl", "dclm": "fineweb_dclm_losses_combined.jsonl"}
_TOKENS_PER_STEP = 2048 * 2048
_LAST_STEP = 83475  # `main` in the names of evaluations
_EVALUATED = re.compile(r"Gemstone-(\d+x\d+)-(?:step_0*(\d+)|main)")


def gemstones(folder: Any) -> Testbed:
    """22 shapes of 48M to 2B (arXiv:2502.06857): a clone of github.com/mcleish7/gemstone-scaling-laws.

    Every checkpoint is a run, `<width>x<depth>@<step>`: the rate is constant, so each is as good as the end of one.
    Losses are on FineWeb-Edu and DCLM, errors those of nine lighteval tasks with their sampling errors, where they were
    evaluated, and `error/average` their mean. N counts parameters with one embedding table.
    """
    import pandas as pd

    folder = folder / "benchmarks" if (folder / "benchmarks").is_dir() else folder
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for name, file in _LOSSES.items():
        for measured in _lines(folder / file):
            key = f"{measured['width']}x{measured['depth']}", int(measured["step"])
            rows.setdefault(key, _run(*key, measured))[f"loss/{name}"] = measured["final_loss"]
    errors, stderrs = (_evaluated(folder / f"light_eval_df{kind}.parquet") for kind in ("", "_err"))
    for key in rows.keys() & errors.keys():
        tasks = {
            re.sub(r"\W", "_", task): (1 - value, stderrs.get(key, {})[task]) for task, value in errors[key].items()
        }
        for task, (error, stderr) in tasks.items():
            rows[key] |= {f"error/{task}": error, f"error_stderr/{task}": stderr}
        mean = math.fsum(error for error, _ in tasks.values()) / len(tasks)
        spread = math.hypot(*(stderr for _, stderr in tasks.values())) / len(tasks)
        rows[key] |= {"error/average": mean, "error_stderr/average": spread}
    return Testbed(pd.DataFrame([rows[key] for key in sorted(rows)]))


def _run(model: str, step: int, measured: dict[str, Any]) -> dict[str, Any]:
    width, depth = map(int, model.split("x"))
    return {
        "run": f"{model}@{step}",
        "corpus": "dolma",
        "model": model,
        "params": measured["params_active_precise"],
        "tokens": step * _TOKENS_PER_STEP,
        "width": width,
        "depth": depth,
    }


def _lines(path: Any) -> list[dict[str, Any]]:
    """A file of JSON lines, each with all that is asked of a checkpoint."""
    found = []
    for number, line in enumerate(files.read_text(path).splitlines(), start=1):
        try:
            row = json.loads(line)
            found.append(
                {name: row[name] for name in ("width", "depth", "step", "final_loss", "params_active_precise")}
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: line {number}: not a checkpoint's loss: {cut(error)}") from None
    return found


def _evaluated(path: Any) -> dict[tuple[str, int], dict[str, float]]:
    """What a table of evaluations says of each (model, step), by task."""
    table, found = cells.read_parquet(path), {}
    for name, row in table.iterrows():
        if match := _EVALUATED.fullmatch(str(name)):
            found[match[1], int(match[2] or _LAST_STEP)] = row.to_dict()
    if not found:
        raise ValueError(f"{path}: no rows such as Gemstone-256x23-step_00002385")
    return found
