"""What a ladder's law says so far: refitted as rungs land, each target's prediction and how its interval narrows."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fitting.testbeds.testbed import RunRecord
from ladder.engines.endings import Ending, Endings
from ladder.engines.status import Look
from ladder.evaluation import collect
from ladder.spec import Workdir

MOST_REFITS = 12  # of a history, the newest always among them


@dataclasses.dataclass(frozen=True)
class Said:
    """What the law of so many rungs, in the order in which they landed, says of every target.

    `predictions` are by run: `loss`, `loss_interval`, and `error`, `error_interval` where an error law is fitted.
    """

    runs: int
    predictions: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What the law says so far.

    Attributes:
      history: oldest first; empty where no law can be fitted yet.
      problem: why not, or why not of the rungs that have landed since.
      measured: the loss of every target that is measured by now, by run.
      level: of all intervals.
      endings: where the runs under way will end, as their own curves say.
    """

    history: tuple[Said, ...]
    problem: str
    measured: Mapping[str, float]
    level: float
    endings: tuple[Ending, ...] = ()


class Forecaster:
    """Fits what was not fitted yet; to be asked at every look."""

    def __init__(self, workdir: Workdir, most_refits: int = MOST_REFITS):
        self._workdir, self._most = workdir, most_refits
        self._known: dict[tuple[str, ...], Said | str] = {}
        self._endings: Endings | None = None

    def __call__(self, look: Look) -> Forecast:
        """The forecast at one look."""
        fit = look.config.fit
        landed = sorted(
            (seen.landed or 0.0, run, seen.record)
            for run, seen in look.seen.items()
            if seen.record and not seen.record.quarantine
        )
        roles = {row["run"]: row["role"] for row in look.plan}
        rungs = [record for _, run, record in landed if roles[run] == "rung"]
        targets = [row for row in look.plan if row["role"] == "target"]
        measured = {run: _loss(record, fit.loss) for _, run, record in landed if roles[run] == "target"}
        history, problem = [], ""
        for count in _counts(len(rungs), self._most):
            said = self._said(look, rungs[:count], targets)
            if isinstance(said, Said):
                history.append(said)
                problem = ""
            else:
                problem = said
        if not rungs:
            problem = "no rung has landed yet"
        known = {run: loss for run, loss in measured.items() if math.isfinite(loss)}
        return Forecast(tuple(history), problem, known, fit.level, self._ended(look))

    def _ended(self, look: Look) -> tuple[Ending, ...]:
        fit = look.config.fit
        if self._endings is None:
            self._endings = Endings(self._workdir, lambda record: _loss(record, fit.loss), fit.level)
        quarantined = {run for run, seen in look.seen.items() if seen.record and seen.record.quarantine}
        rows = {run: seen.rows for run, seen in look.seen.items() if run not in quarantined}
        records = {run: seen.record for run, seen in look.seen.items() if seen.record and run not in quarantined}
        return self._endings(rows, records)

    def _said(self, look: Look, rungs: Sequence[RunRecord], targets: Sequence[Mapping[str, Any]]) -> Said | str:
        key = tuple(record.run for record in rungs)
        if key not in self._known:
            self._known[key] = self._fitted(look, rungs, targets)
        return self._known[key]

    def _fitted(self, look: Look, rungs: Sequence[RunRecord], targets: Sequence[Mapping[str, Any]]) -> Said | str:
        from fitting.methods import fit
        from fitting.prediction import predict
        from fitting.testbeds.testbed import Testbed

        asked = look.config.fit
        by_run = {record.run: dataclasses.replace(record, role="rung") for record in rungs}
        records = [by_run[row["run"]] for row in look.plan if row["run"] in by_run]  # in the order of `ladder collect`
        try:
            settings = {record.run: collect.settings(self._workdir, record.run) for record in records}
            testbed = Testbed.from_records(records, settings)
            law = fit(testbed, loss=asked.loss, error=asked.error, level=asked.level, seed=look.config.seed)
            said = [predict(law, row["params"], row["tokens"], row["run"]) for row in targets]
        except ValueError as e:  # too few of them, say
            return str(e)
        names = ("loss", "loss_interval", "error", "error_interval")
        return Said(len(rungs), {p.run: {name: getattr(p, name) for name in names} for p in said})


def _counts(rungs: int, most: int) -> list[int]:
    """So many numbers of rungs at most, from three to all, as evenly as can be; all, where they are fewer."""
    step = max(1, math.ceil((rungs - 2) / most))
    return sorted(range(rungs, min(rungs, 3) - 1, -step)) if rungs else []


def _loss(record: RunRecord, column: str) -> float:
    kind, _, name = column.rpartition("/")
    if kind == "bpb":
        bits = record.scores.get(name, {}).get("bits_per_byte")
        return bits.value if bits else math.nan
    return record.losses[name].value if name in record.losses else math.nan
