"""Where the runs under way will end, foretold from their curves so far, and which of them have left the others' law."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fitting.dynamics import curves
from fitting.dynamics.curves import Curve, CurveLaw, Strayed
from fitting.testbeds.testbed import RunRecord
from ladder import spec as specs
from ladder.recipe import learning_rate
from ladder.spec import Workdir


@dataclasses.dataclass(frozen=True)
class Ending:
    """Where a run under way will end.

    Attributes:
      run: its name.
      share: of its steps that are done.
      loss: the column that the ladder's law is of, at the run's end.
      loss_interval: of it, at the level of the ladder's intervals.
      strayed: where the run has left the others' law, and by how much; None where it keeps to it.
    """

    run: str
    share: float
    loss: float
    loss_interval: tuple[float, float]
    strayed: Strayed | None


class Endings:
    """Foretells runs at one look after another; the law is fitted again when a run has landed.

    Args:
      workdir: has the runs' specs.
      measured: the loss that the ladder's law is of, of a record; NaN where it was not measured.
      level: of the intervals.
    """

    def __init__(self, workdir: Workdir, measured: Callable[[RunRecord], float], level: float):
        self._workdir, self._measured, self._level = workdir, measured, level
        self._rates: dict[str, np.ndarray] = {}
        self._law: CurveLaw | None = None
        self._whole: list[str] = []
        self._told: dict[tuple[str, int], Ending] = {}  # by run and how many rows it had

    def __call__(
        self, rows: Mapping[str, Sequence[Mapping[str, float]]], records: Mapping[str, RunRecord]
    ) -> tuple[Ending, ...]:
        """The endings of the runs that have no record yet; none where too few have one.

        Args:
          rows: of metrics.jsonl, by run.
          records: of the runs that have ended well, by run.
        """
        whole = {run: self._curve(run, rows[run]) for run in records if rows.get(run)}
        measured = {run: self._measured(records[run]) for run in whole}
        long = {run for run, c in whole.items() if len(c.loss_W) >= curves.FEWEST_WHOLE}
        whole = {run: c for run, c in whole.items() if run in long and math.isfinite(measured[run])}
        if len(whole) < curves.FEWEST_RUNS:
            return ()
        if self._law is None or self._whole != list(whole):
            self._law, self._whole, self._told = curves.fit(list(whole.values())), list(whole), {}
        ends, endings = [measured[run] for run in whole], list[Ending]()
        for run, own in rows.items():
            if run in records or not own:
                continue
            part, key = self._curve(run, own), (run, len(own))
            if key not in self._told and len(part.loss_W) >= curves.FEWEST:
                end = curves.foretold_end(self._law, part, list(whole.values()), ends)
                share = float(own[-1]["step"]) / part.steps
                told = Ending(run, share, end.loss, end.interval(self._level), self._law.strayed(part))
                self._told[key] = told
            if key in self._told:
                endings.append(self._told[key])
        return tuple(endings)

    def _curve(self, run: str, rows: Sequence[Mapping[str, float]]) -> Curve:
        if run not in self._rates:
            spec = specs.load(self._workdir.spec(run))
            self._rates[run] = learning_rate(spec.hyperparameters, spec.steps, np.arange(spec.steps))
        steps, losses = [int(row["step"]) for row in rows], [row["loss_nats"] for row in rows]
        return curves.curve(steps, losses, self._rates[run])
