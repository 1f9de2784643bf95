"""Records of a workdir's runs → testbed.csv."""

import json
from collections.abc import Callable

from fitting.testbeds.testbed import RunRecord, Testbed
from ladder.spec import Workdir


def collect(workdir: Workdir, say: Callable[[str], None]) -> None:
    """Writes testbed.csv, a row for every run that has a record, and tells which have none.

    Raises:
      ValueError: a folder that is no workdir, or one without any record.
    """
    if not workdir.plan.exists():
        raise ValueError(
            f"{workdir.root} is no workdir: it has no plan.json; make one with `ladder run CONFIG --workdir DIR`"
        )
    runs = [row["run"] for row in json.loads(workdir.plan.read_text())["runs"]]
    missing = [run for run in runs if not workdir.record(run).exists()]
    if len(missing) == len(runs):
        raise ValueError(f"no run of {workdir.root} has a record.json yet; train and evaluate some first")
    if missing:
        say(f"not measured yet, so not in the table: {', '.join(missing)}")
    records = [RunRecord.load(workdir.record(run)) for run in runs if run not in missing]
    Testbed.from_records(records).write_csv(workdir.testbed)
