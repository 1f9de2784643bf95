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
        self._curves: dict[tuple[str, int], Curve] = {}
        self._known: tuple[list[str], CurveLaw | None] = ([], None)

    def __call__(
        self, rows: Mapping[str, Sequence[Mapping[str, float]]], records: Mapping[str, RunRecord]
    ) -> tuple[Ending, ...]:
        """The endings of the runs that have no record yet; none where too few have one.

        Args:
          rows: of metrics.jsonl, by run.
          records: of the runs that have ended well, by run.
        """
        whole = {run: self._curve(run, rows[run]) for run in records if rows.get(run)}
        whole = {run: c for run, c in whole.items() if len(c.loss_W) >= curves.FEWEST_WHOLE}
        measured = {run: self._measured(records[run]) for run in whole}
        whole = {run: c for run, c in whole.items() if math.isfinite(measured[run])}
        if len(whole) < curves.FEWEST_RUNS:
            return ()
        if self._known[0] != list(whole):
            self._known = list(whole), curves.fit(list(whole.values()))
        (_, law), endings = self._known, list[Ending]()
        parts = {run: self._curve(run, own) for run, own in rows.items() if own and run not in records}
        for run, part in parts.items():
            if law and len(part.loss_W) >= curves.FEWEST:
                end = curves.foretold_end(law, part, list(whole.values()), [measured[name] for name in whole])
                share = float(rows[run][-1]["step"]) / part.steps
                endings.append(Ending(run, share, end.loss, end.interval(self._level), law.strayed(part)))
        return tuple(endings)

    def _curve(self, run: str, rows: Sequence[Mapping[str, float]]) -> Curve:
        key = (run, len(rows))
        if key not in self._curves:
            spec = specs.load(self._workdir.spec(run))
            rate_S = learning_rate(spec.hyperparameters, spec.steps, np.arange(spec.steps))
            steps, losses = [int(row["step"]) for row in rows], [row["loss_nats"] for row in rows]
            self._curves[key] = curves.curve(steps, losses, rate_S)
        return self._curves[key]
