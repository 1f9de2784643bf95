"""The isoFLOP sweeps of Marin."""

from typing import Any

from fitting.files import cut
from fitting.testbeds.importers.sources import read_csv, refuse_words
from fitting.testbeds.testbed import Testbed

_COLUMNS = {
    "Name": "run",
    "parameter_count": "params",
    "throughput/total_tokens": "tokens",
    "eval/paloma/macro_loss": "loss/paloma_macro",
}
_SETTINGS = {
    "model.hidden_dim": "width",
    "model.num_layers": "depth",
    "trainer.train_batch_size": "batch_size",
    "trainer.num_train_steps": "steps",
    "optimizer.learning_rate": "learning_rate",
}
_RAW = "data/isoflops/extract/marin_202603/raw"


def isoflops(path: Any) -> Testbed:
    """Sweeps on Comma, DCLM and Nemotron of github.com/marin-community/marin, as Open-Athena took them from W&B.

    A clone of github.com/Open-Athena/scaling-law-analysis, or a folder of `isoflop-<corpus>.csv`, or one of them: W&B's
    export of runs. The loss is the mean over Paloma's sources; N counts all parameters.
    """
    import pandas as pd

    folder = path / _RAW if (path / _RAW).is_dir() else path
    paths = sorted(folder.glob("isoflop-*.csv")) if folder.is_dir() else [path]
    if not paths:
        raise ValueError(f"{path}: no isoflop-<corpus>.csv; give a clone of Open-Athena/scaling-law-analysis")
    tables = []
    for file in paths:
        table = read_csv(file, *_COLUMNS)
        names = {name: ours for name, ours in (_COLUMNS | _SETTINGS).items() if name in table}
        refuse_words(file, table, *(name for name in names if name != "Name"))
        table = table[list(names)].rename(columns=names).dropna(subset=["loss/paloma_macro", "tokens"])
        if table.empty:
            raise ValueError(f"{cut(file)}: no run has both tokens and a loss")
        tables.append(table.assign(corpus=file.stem.removeprefix("isoflop-")))
    return Testbed(pd.concat(tables, ignore_index=True))
