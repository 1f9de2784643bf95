"""The task ladder of Bhagia et al. 2024."""

import math
import re
import typing
from typing import Any

from fitting.testbeds.importers.sources import read_csv, refuse_words
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd


def olmo_ladder(folder: Any) -> Testbed:
    """The task ladder of Bhagia et al. 2024 (arXiv:2412.04403): `ladder-runs` of github.com/allenai/OLMo-ladder.

    A run is the mean of its last 5 checkpoints. Its other checkpoints are rows too, of role `checkpoint`, named
    `<run>@<step>`: the first 10 % are left out, then losses and errors are moving averages over 5. Losses on validation
    sets are `loss/<set>` in nats a token, on tasks `bpb/<task>` in bits a byte; `error/<task>` is 1 - accuracy. The
    averages over MMLU are the paper's. Targets are 7B-4T and 13B-5T. N without embeddings is what the paper fits.
    """
    import pandas as pd

    paths = sorted(path for path in folder.glob("*.csv") if _OLMO_NAMES.fullmatch(path.stem) or path.stem in _OLMO_7B)
    if not paths:
        raise ValueError(f"{folder}: no runs such as 190M-1xC.csv; give the ladder-runs folder of allenai/OLMo-ladder")
    return Testbed(pd.concat([_olmo_run(path) for path in paths], ignore_index=True))


_OLMO_NAMES = re.compile(r"(\d+[MB])-([\d.]+xC)(-rerun)?")
_OLMO_7B = {"peteish7_eval_anneal": "7B-4T", "peteish13_eval_final": "13B-5T"}
# Parameters without the input embedding, as the paper counts them, and the width of that embedding.
_OLMO_SIZES = {
    "190M": (190354176, 768),
    "370M": (371262464, 1024),
    "760M": (758220288, 1536),
    "1B": (1279395840, 2048),
    "3B": (3169537280, 3328),
    "7B": (6887575552, 4096),
    "13B": (13202396160, 5120),
}
_OLMO_VOCABULARY = 100352
_OLMO_MMLU = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}
_OLMO_COLUMNS = (
    (re.compile(r"eval/(.+)-validation/CrossEntropyLoss"), "loss"),
    (re.compile(r"eval/downstream_bpb/(.+)_rc_5shot_bpb"), "bpb"),
    (re.compile(r"eval/downstream/(.+)_rc_5shot_(?:len_norm|acc)"), "error"),
)


def _olmo_run(path: Any) -> "pd.DataFrame":
    import pandas as pd

    run = _OLMO_7B.get(path.stem, path.stem)
    size = run.split("-")[0]
    if size not in _OLMO_SIZES:
        raise ValueError(
            f"{path}: how many parameters {size} has is not known, only of {', '.join(_OLMO_SIZES)}; give a table of "
            "its own, of kind csv"
        )
    log = read_csv(path, "batch_size_in_tokens")
    measured = _olmo_measured(path, log)
    counters = ["batch_size_in_tokens", "throughput/total_tokens" if "throughput/total_tokens" in log else "_step"]
    if counters[1] not in log:
        raise ValueError(f"{path}: missing column _step, or throughput/total_tokens")
    refuse_words(path, log, *counters)
    tokens = log[counters[1]] if counters[1] != "_step" else log["_step"] * log["batch_size_in_tokens"]
    steps = (tokens / log["batch_size_in_tokens"]).round().astype(int)
    params, width = _OLMO_SIZES[size]
    common = {
        "corpus": "olmo-mix",
        "model": size,
        "params": params + _OLMO_VOCABULARY * width,
        "params_non_embedding": params,
        "learning_rate": log["learning_rate_peak"].iloc[-1] if "learning_rate_peak" in log else math.nan,
    }
    final = measured.iloc[-5:].mean().to_frame().T
    final = final.assign(run=run, role="target" if run in _OLMO_7B.values() else "rung", tokens=int(tokens.iloc[-1]))
    if path.stem in _OLMO_7B:
        return final.assign(**common)
    skipped = math.ceil(0.1 * len(log))
    along = measured.iloc[skipped:].rolling(5, min_periods=1).mean()
    names = [f"{run}@{step}" for step in steps.iloc[skipped:]]
    along = along.assign(run=names, role="checkpoint", tokens=tokens.iloc[skipped:].astype(int))
    return pd.concat([final, along], ignore_index=True).assign(**common)


def _olmo_measured(path: Any, log: "pd.DataFrame") -> "pd.DataFrame":
    """Losses and errors of every checkpoint, by our names; averages over MMLU where all its parts are."""
    import pandas as pd

    measured = {}
    for column in log:
        for pattern, kind in _OLMO_COLUMNS:
            if match := pattern.fullmatch(column):
                refuse_words(path, log, column)
                measured[f"{kind}/{match[1]}"] = 1 - log[column] if kind == "error" else log[column]
    for kind in ("bpb", "error"):
        for split in ("val", "test"):
            parts = {f"{kind}/mmlu_{name}_{split}": weight for name, weight in _OLMO_MMLU.items()}
            if parts.keys() <= measured.keys():
                total = sum(weight * measured[name] for name, weight in parts.items())
                measured[f"{kind}/mmlu_avg_{split}"] = total / sum(_OLMO_MMLU.values())
    return pd.DataFrame(measured)
