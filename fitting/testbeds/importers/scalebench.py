"""Testbeds as Li et al. 2026 collected them, in Parquet: github.com/PlanarG/active-sl, `benchmark/dataset`.

Of each the pool that may be bought are rungs, the dear region held out are targets.
"""

import typing
from typing import Any

from fitting.files import cut
from fitting.testbeds import cells
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd

_ROLES = {"train": "rung", "test": "target"}


def farseer(folder: Any) -> Testbed:
    """Some 400 runs of 0.1B to 25B of Farseer, Li et al. 2025 (arXiv:2506.10972), in bits a byte.

    N is without embeddings.
    """
    import pandas as pd

    runs = _runs(folder, "farseer", {"N": "params", "D": "tokens", "loss": "bpb/val"})
    name = [f"{n / 1e6:.5g}M-{d / 1e9:.5g}B" for n, d in zip(runs["params"], runs["tokens"], strict=True)]
    return Testbed(runs.assign(run=_apart(pd.Series(name)), corpus="farseer", params_non_embedding=runs["params"]))


def steplaw(folder: Any) -> Testbed:
    """2819 runs of Step Law, Li et al. 2025 (arXiv:2503.04715), over learning rate and batch; N without embeddings.

    A sweep: fit the best run of each size, `--best-of-size`.
    """
    import pandas as pd

    columns = {"lr": "learning_rate", "bsz": "batch_size", "data_size": "tokens", "lm_loss": "loss/train"}
    runs = _runs(folder, "lr_bsz", columns | {"non_embedding_param_size": "params"})
    rows = zip(*(runs[name] for name in ("params", "tokens", "learning_rate", "batch_size")), strict=True)
    name = [f"{n / 1e6:.4g}M-{d / 1e9:.4g}B-lr{rate:.4g}-b{batch:g}" for n, d, rate, batch in rows]
    return Testbed(runs.assign(run=_apart(pd.Series(name)), corpus="steplaw", params_non_embedding=runs["params"]))


def _runs(folder: Any, task: str, columns: dict[str, str]) -> "pd.DataFrame":
    """Both halves of a task by our columns' names, each run once."""
    import pandas as pd

    halves = []
    for half, role in _ROLES.items():
        path = _half(folder, task, half)
        table = cells.read_parquet(path)
        if missing := [name for name in columns if name not in table]:
            raise ValueError(f"{path}: missing column {', '.join(missing)}; columns are {cut(', '.join(table))}")
        halves.append(table[list(columns)].rename(columns=columns).assign(role=role))
    return pd.concat(halves).drop_duplicates().reset_index(drop=True)


def _half(folder: Any, task: str, half: str) -> Any:
    inside = f"{task}_scaling_law/{half}-00000-of-00001.parquet"
    names = (f"benchmark/dataset/{inside}", inside, f"{half}-00000-of-00001.parquet", f"{task}.{half}.parquet")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{folder}: no {names[0]}; give a clone of github.com/PlanarG/active-sl, or that folder in it")


def _apart(name: "pd.Series") -> "pd.Series":
    """Names, of which the second to be the same has -2 added, and so on."""
    again = name.groupby(name).cumcount()
    return name.where(again == 0, name + "-" + (again + 1).astype(str))
