"""metrics.jsonl of a workdir's runs → checkpoint rows: the training loss along each run, and the schedule behind it."""

import typing
from collections.abc import Mapping

import numpy as np

from fitting.testbeds.curves import annealing_sums
from fitting.testbeds.logs import importer, log
from fitting.testbeds.testbed import Testbed
from ladder import config_file
from ladder import spec as specs
from ladder.events import Say
from ladder.recipe import learning_rate
from ladder.spec import Workdir

if typing.TYPE_CHECKING:
    import pandas as pd


def with_curves(testbed: Testbed | None, runs: Mapping[str, Workdir], say: Say) -> Testbed:
    """The table of measured runs, and below them the curves of all runs, also of those that are not measured yet.

    A row of metrics.jsonl becomes the row `<run>@<step>`. `loss/train` is the mean over the steps since the row before,
    in nats a token; a run's own row has that of its last. `learning_rate` is the step's; `lr_area` and
    `lr_annealing` are the sums of the rates by then, which the law `annealing` is of.

    Args:
      testbed: of the runs that are measured, if any are.
      runs: where each run is, by its name.
      say: is told what each curve is, and which runs have none.

    Raises:
      ValueError: neither a measured run nor a curve.
    """
    import pandas as pd

    quarantined = testbed.quarantined if testbed else {}
    curves = {run: _curve(workdir, run, say) for run, workdir in runs.items() if _has_rows(workdir, run)}
    if without := [run for run in runs if run not in curves]:
        say(f"without a curve: {', '.join(without)}")
    tables = [curve.assign(quarantine=quarantined.get(run, "")) for run, curve in curves.items()]
    if testbed:
        ends = [curves[run]["loss/train"].iloc[-1] if run in curves else np.nan for run in testbed.table["run"]]
        tables.insert(0, testbed.table.assign(**{"loss/train": ends}))
    if not tables:
        raise ValueError("there are no runs to collect: train some first")
    return Testbed(pd.concat(tables, ignore_index=True))


def _has_rows(workdir: Workdir, run: str) -> bool:
    path = workdir.metrics(run)
    return path.exists() and path.stat().length > 0


def _curve(workdir: Workdir, run: str, say: Say) -> "pd.DataFrame":
    spec = specs.load(workdir.spec(run))
    described = log.make(
        columns={"loss/train": "loss_nats"},
        params=spec.params,
        params_non_embedding=spec.params_non_embedding,
        corpus=config_file.load(str(workdir.config)).corpus.kind,
        model=spec.size,
    )
    table = importer.read("logs", [workdir.metrics(run)], described, say, run=run).table
    table = table[table["role"] == "checkpoint"]
    rate_S = learning_rate(spec.hyperparameters, spec.steps, np.arange(spec.steps))
    area_S, annealing_S = annealing_sums(rate_S)
    step_N = table["run"].str.rpartition("@")[2].astype(int) - 1
    return table.assign(learning_rate=rate_S[step_N], lr_area=area_S[step_N], lr_annealing=annealing_S[step_N])
