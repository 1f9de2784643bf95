"""What a ladder came to, whatever happened on the way: its checkpoints, rows, records, table and law."""

import json

import jax
import numpy as np
from etils import epath

from ladder import spec as specs
from ladder.spec import Workdir
from ladder.training import mesh as meshes
from ladder.training.checkpoint import Checkpoints
from ladder.training.step import abstract_on_disk


def runs_of(workdir):
    """Names of all runs of a workdir."""
    return [row["run"] for row in json.loads((workdir / "plan.json").read_text())["runs"]]


def _state(workdir, run):
    """Every array of a run's last checkpoint, on one device whatever saved it."""
    w = Workdir(epath.Path(workdir))
    spec = specs.load(w.spec(run))
    with Checkpoints(w.checkpoints(run)) as checkpoints:
        assert checkpoints.latest_step() == spec.steps
        one_device = meshes.make((1, 1, 1), jax.devices()[:1])
        return checkpoints.restore(spec.steps, abstract_on_disk(spec, one_device))


def same_results(workdir, other):
    """Asserts that two workdirs hold the same, to the last bit, but for times."""
    for run in runs_of(other):
        jax.tree.map(np.testing.assert_array_equal, _state(workdir, run), _state(other, run))
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
