"""A prediction frozen before its target is run, and scored when the target has been measured.

prediction.json says what was predicted, from which law, and when. Its digest gives an edit away; shown to others at
once, in a commit or a message, it proves the date. The law tells which runs were already known.
"""

import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from fitting import files
from fitting.artifacts.fitted import FittedLaw, Prediction
from fitting.files import cut
from fitting.testbeds.testbed import Testbed

_SAME_SIZE = 0.01  # relative difference of N, or of D, that still is the run meant: targets end on a whole step


@dataclasses.dataclass(frozen=True)
class FrozenPrediction:
    """prediction.json.

    Attributes:
      prediction: what was predicted; its `run` may be empty.
      columns: what is predicted, `loss` and perhaps `error`, and what N counts, `params`, by the testbed's column.
      law_sha256: of law.json's bytes.
      known_runs: the runs measured when the law was fitted: none of them can be predicted any more.
      frozen: ISO 8601 time.
      command: the command that made this file.
      digest: SHA-256 of all of the above.
    """

    prediction: Prediction
    columns: Mapping[str, str]
    law_sha256: str
    known_runs: tuple[str, ...]
    frozen: str
    command: str
    digest: str
    schema_version: int = 1

    @property
    def params_column(self) -> str:
        """The testbed's column that N is of."""
        return self.columns.get("params", "params")

    def sizes(self, testbed: Testbed) -> tuple[dict[str, float], dict[str, list[float]]]:
        """What was asked about, and the same columns of the runs of a testbed that were known by then."""
        p = self.prediction
        rows = testbed.table[testbed.table["run"].isin(self.known_runs)]
        asked = {self.params_column: p.params, "tokens": p.tokens, **p.columns}
        return asked, {name: rows[name].dropna().tolist() for name in asked if name in rows}


@dataclasses.dataclass(frozen=True)
class Score:
    """How a frozen prediction fared.

    Attributes:
      prediction: with what was measured beside it.
      frozen: when it was frozen.
      measured: when its target was measured, ISO 8601; empty where the table does not say.
      digest: the frozen prediction's.
      params_column: what its N counts, as in the law.
    """

    prediction: Prediction
    frozen: str
    measured: str
    digest: str
    params_column: str = "params"


def freeze(law: FittedLaw, law_sha256: str, prediction: Prediction, *, command: str = "") -> FrozenPrediction:
    """Dates a prediction that `law` makes.

    Raises:
      ValueError: the run was measured before the law was fitted.
    """
    columns = {part: fit.column for part, fit in law.fits.items()} | {"params": law.params_column}
    measured = [p.run for p in law.predictions if math.isfinite(p.measured_loss) or math.isfinite(p.measured_error)]
    fitted = [point.run for fit in law.fits.values() for point in fit.points]
    frozen = FrozenPrediction(
        prediction=prediction,
        columns=columns,
        law_sha256=law_sha256,
        known_runs=tuple(dict.fromkeys(fitted + measured)),
        frozen=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        digest="",
    )
    _refuse_known(frozen, prediction.run)
    return dataclasses.replace(frozen, digest=_digest(frozen))


def save(frozen: FrozenPrediction, path: Any) -> None:
    """Writes prediction.json. Raises ValueError where there is one: what is frozen is not frozen again."""
    from etils import epath

    if epath.Path(path).exists():
        raise ValueError(f"{path} is already frozen; freeze into another file")
    files.save(frozen, path)


def load(path: Any) -> FrozenPrediction:
    """Reads prediction.json. Raises ValueError where it is not, in every digit, what `save` wrote."""
    frozen = files.load(FrozenPrediction, path)
    if frozen.digest != _digest(frozen):
        raise ValueError(f"{path}: changed since it was frozen: its digest should be {_digest(frozen)}")
    return frozen


def score(frozen: FrozenPrediction, testbed: Testbed, run: str, *, measured: str = "") -> Score:
    """Sets a frozen prediction against the run of a testbed.

    Args:
      frozen: the prediction.
      testbed: a table that has the run by now.
      run: its name.
      measured: ISO 8601 time of its measurement; where absent, the table's column `measured`, if it has one.

    Raises:
      ValueError: no such run, another size than predicted, not measured, measured before the prediction was frozen.
    """
    rows = testbed.table[testbed.table["run"] == run]
    if rows.empty:
        raise ValueError(f"the testbed has no run {cut(repr(run))}; it has {cut(', '.join(testbed.table['run']), 400)}")
    row = rows.iloc[0].to_dict()
    prediction, params_column = frozen.prediction, frozen.params_column
    if prediction.run not in ("", run):
        raise ValueError(f"the prediction is of {prediction.run}, not of {run}")
    _refuse_known(frozen, run)
    if row["quarantine"]:
        raise ValueError(f"{run} is quarantined: {row['quarantine']}")
    if params_column not in row:
        raise ValueError(f"the prediction is of a run of {prediction.params:.4g} {params_column}: no such column")
    for name, size in frozen.sizes(testbed)[0].items():
        if name in row and abs(row[name] / size - 1) > _SAME_SIZE:
            raise ValueError(f"the prediction is of a run of {size:.4g} {name}, but {run} has {row[name]:.4g}")
    measurable = {part: column for part, column in frozen.columns.items() if part != "params"}
    found = {part: float(row.get(column, math.nan)) for part, column in measurable.items()}
    if math.isnan(found["loss"]):
        raise ValueError(f"{run} has no {frozen.columns['loss']} yet: measure it first")
    measured = measured or str(row.get("measured", ""))
    if measured and _time(measured) <= _time(frozen.frozen):
        raise ValueError(f"{run} was measured at {measured}, before the prediction was frozen at {frozen.frozen}")
    error = found.get("error", prediction.measured_error)
    return Score(
        prediction=dataclasses.replace(prediction, run=run, measured_loss=found["loss"], measured_error=error),
        frozen=frozen.frozen,
        measured=measured,
        digest=frozen.digest,
        params_column=params_column,
    )


def _refuse_known(frozen: FrozenPrediction, run: str) -> None:
    if run in frozen.known_runs:
        raise ValueError(f"{run} was measured before the law was fitted: there is nothing left to predict")


def _digest(frozen: FrozenPrediction) -> str:
    content = {name: value for name, value in dataclasses.asdict(frozen).items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _time(text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"measured: {cut(repr(text))} is no ISO 8601 time, such as 2026-11-24T15:00:00+00:00"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
