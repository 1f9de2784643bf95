"""law.json → its report; where the law belongs to a workdir, with what the workdir knows of its runs."""

from concurrent import futures
from typing import Any

from etils import epath

from fitting import selection
from fitting.artifacts import fitted
from fitting.artifacts.fitted import FittedLaw
from fitting.reports import report as reports
from fitting.testbeds.testbed import RunRecord
from ladder import config_file, storage
from ladder.events import Say
from ladder.spec import PLAN_REMEDY, RECORD_REMEDY, Workdir


def report(folder: epath.Path, say: Say) -> None:
    """Writes the report of the law.json in `folder` beside it.

    Raises:
      ValueError: no such law, or one that this version cannot read.
    """
    law = fitted.load(folder / "law.json")
    say("fitting again without each run, and otherwise")
    with futures.ThreadPoolExecutor() as beside:  # the figures, since most of it is compiling
        checks = beside.submit(selection.checks, law)
        path = reports.write(law, folder, checks=checks.result, **_of_workdir(Workdir(folder.parent.parent), law))
    say(f"report: {path}")


def _of_workdir(workdir: Workdir, law: FittedLaw) -> dict[str, Any]:
    """The plan, the settings, the training curves and the errors of guessing, where there is a workdir."""
    if not workdir.plan.exists():
        return {}
    runs = workdir.planned("token_multiplier")
    first = RunRecord.load(workdir.record(law.error.points[0].run), RECORD_REMEDY) if law.error else None
    return {
        "plan": runs,
        "schedule": _schedule(workdir, {row["run"]: row["token_multiplier"] for row in runs}),
        "settings_yaml": workdir.config.read_text(),
        "title": config_file.load(str(workdir.config)).name,
        "curves": {row["run"]: _curve(workdir, row["run"]) for row in runs if workdir.metrics(row["run"]).exists()},
        "chance_errors": dict(first.chance_errors) if first else {},
    }


def _schedule(workdir: Workdir, token_multipliers: dict[str, float]) -> dict[str, Any] | None:
    """How the runs share their machines, where the config names some."""
    if not workdir.schedule.exists():
        return None
    schedule = storage.read_json(workdir.schedule, PLAN_REMEDY, "chips", "hours", "used", "runs")
    known = [given for given in schedule["runs"] if given["run"] in token_multipliers]
    return schedule | {"bars": [given | {"token_multiplier": token_multipliers[given["run"]]} for given in known]}


def _curve(workdir: Workdir, run: str) -> list[tuple[float, float]]:
    return [(row["tokens"], row["loss_nats"]) for row in storage.read_rows(workdir.metrics(run))]
