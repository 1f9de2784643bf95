"""What a ladder came to, whatever happened on the way: its checkpoints, rows, records, table and law."""

import json

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ladder.spec import Workdir


def runs_of(workdir):
    """Names of all runs of a workdir."""
    return [row["run"] for row in json.loads((workdir / "plan.json").read_text())["runs"]]


def _params(workdir, run):
    """Every array of a run's last checkpoint."""
    folder = Workdir(epath.Path(workdir)).checkpoints(run)
    with ocp.CheckpointManager(folder) as manager:
        step = manager.latest_step()
        assert step == next(
            row["steps"] for row in json.loads((workdir / "plan.json").read_text())["runs"] if row["run"] == run
        )
        return manager.restore(step, args=ocp.args.StandardRestore())


def same_results(workdir, other):
    """Asserts that two workdirs hold the same, to the last bit, but for times."""
    for run in runs_of(other):
        jax.tree.map(np.testing.assert_array_equal, _params(workdir, run), _params(other, run))
        name = f"runs/{run}/record.json"
        assert (workdir / name).read_bytes() == (other / name).read_bytes()
        rows, expected = (
            [json.loads(line) for line in (w / f"runs/{run}/metrics.jsonl").read_text().splitlines()]
            for w in (workdir, other)
        )
        for row in (*rows, *expected):
            for time_taken in ("tokens_per_second", "step_seconds", "goodput", "started"):
                del row[time_taken]
        assert rows == expected
    assert (workdir / "testbed.csv").read_bytes() == (other / "testbed.csv").read_bytes()
    law, expected = (json.loads((w / "fits/default/law.json").read_text()) for w in (workdir, other))
    for artifact in (law, expected):
        for key in ("command", "created", "versions"):
            del artifact[key]
    assert law == expected
