"""Records of a workdir's runs → testbed.csv."""

from collections.abc import Callable

from fitting.testbeds.testbed import Testbed
from ladder import spec as specs
from ladder import storage
from ladder.evaluation import record as records
from ladder.spec import PLAN_REMEDY, Workdir


def collect(workdir: Workdir, say: Callable[[str], None]) -> None:
    """Writes testbed.csv, a row for every run that has a record; tells which have none, and which are in quarantine.

    Raises:
      ValueError: a folder that is no workdir, or one without any record.
    """
    if not workdir.plan.exists():
        raise ValueError(
            f"{workdir.root} is no workdir: it has no plan.json; make one with `ladder run CONFIG --workdir DIR`"
        )
    runs = [row["run"] for row in storage.read_json(workdir.plan, PLAN_REMEDY, "runs")["runs"]]
    missing = [run for run in runs if not workdir.record(run).exists()]
    if len(missing) == len(runs):
        raise ValueError(f"no run of {workdir.root} has a record.json yet; train and evaluate some first")
    if missing:
        say(f"not measured yet, so not in the table: {', '.join(missing)}")
    measured = [records.load(workdir.record(run)) for run in runs if run not in missing]
    testbed = Testbed.from_records(measured, {record.run: _settings(workdir, record.run) for record in measured})
    for run, why in testbed.quarantined.items():
        say(f"quarantined: {run}, {why}")
    testbed.write_csv(workdir.testbed)


def _settings(workdir: Workdir, run: str) -> dict[str, float]:
    """What the quality gates judge of a run of ours. Its batch is left out: tiny models are well trained on one."""
    if not workdir.spec(run).exists():
        return {}
    spec = specs.load(workdir.spec(run))
    return {"warmup_steps": spec.hyperparameters.warmup_steps, "steps": spec.steps}
