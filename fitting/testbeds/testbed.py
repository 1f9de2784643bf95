"""The testbed: one row a run, where training, published data and fitting meet."""

import dataclasses
import hashlib
import math
import re
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from fitting import files
from fitting.files import cut
from fitting.laws import catalogue
from fitting.laws.mixtures import PROPORTION
from fitting.testbeds import cells, gates, typed

if typing.TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TEXT_COLUMNS = ("run", "role", "corpus", "model", "quarantine")
SIZE_COLUMNS = ("params", "params_non_embedding", "tokens", "token_multiplier", "flops")
# What else a law may be a function of, and what the quality gates look at.
SETTING_COLUMNS = tuple(
    dict.fromkeys(
        name
        for name in (
            *(
                name
                for laws in (catalogue.LOSS_LAWS, catalogue.TASK_LAWS)
                for law in laws.values()
                for name in law.inputs
            ),
            *("warmup_steps", "steps", "tokens_seen"),
        )
        if name not in SIZE_COLUMNS
    )
)
COLUMNS = ("run", "role", "corpus", "model", *SIZE_COLUMNS)
ROLES = ("rung", "target", "checkpoint")
LOSS_KINDS = ("loss", "bpb")
_SYMBOLS = {"N": "params", "D": "tokens"}  # as papers write them
_LARGEST = sys.float_info.max
_FRACTIONS = {
    "error": (1, "an error is a fraction, 0 to 1, not percent: divide by 100"),
    "error_stderr": (0.5, "the standard error of a fraction is at most 0.5: is this in percent?"),
}


NOTHING: Mapping[str, Any] = types.MappingProxyType({})
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A measured value and its sampling standard error, NaN where that is unknown."""

    value: float
    stderr: float = math.nan


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """record.json: what one finished run is and what was measured on it.

    Attributes:
      run: its name.
      role: `rung` or `target`.
      corpus: what it was trained on.
      model: its size's name.
      params: N, all parameters.
      params_non_embedding: parameters without the embeddings.
      tokens: D, training tokens.
      token_multiplier: M = D / N.
      flops: C = 6ND.
      losses: by validation set, in nats a token.
      errors: by task, as fractions.
      chance_errors: by task, the error of guessing.
      quarantine: why the run must not be fitted; empty if it may be.
      scores: by validation set or task, all that was measured of it, by name (`tasks.questions.scoring`,
        `ladder.evaluation.evaluate`).
      sources: by task or set, the sha256 of the data that it was measured on.
      identity: the sha256 of all that determines what the run learned (`ladder.spec.identity`), or "" where that is not
        known.
      trunk: the run whose first steps it shares; "" where it was trained alone.
      spent_flops: what its own steps cost: less than 6ND where it has a trunk, NaN where that is not known.
    """

    run: str
    role: str
    corpus: str
    model: str
    params: int
    params_non_embedding: int
    tokens: int
    token_multiplier: float
    flops: float
    losses: Mapping[str, Measurement]
    errors: Mapping[str, Measurement]
    chance_errors: Mapping[str, float]
    quarantine: str = ""
    scores: Mapping[str, Mapping[str, Measurement]] = dataclasses.field(default_factory=dict)
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    identity: str = ""
    trunk: str = ""
    spent_flops: float = math.nan
    schema_version: int = 3

    def save(self, path: Any) -> None:
        """Writes record.json, whole or not at all."""
        files.save(self, path)

    @classmethod
    def load(cls, path: Any, remedy: str = "make it again") -> "RunRecord":
        """Reads record.json, of this version or one before. Raises ValueError where it is not what `save` writes."""
        alone = {"trunk": "", "spent_flops": None}
        return files.load(cls, path, added={1: {"identity": "", **alone}, 2: alone}, remedy=remedy)


@dataclasses.dataclass(frozen=True, eq=False)
class Testbed:
    """A checked table of runs; `table` is a pandas DataFrame with one row a run.

    >>> import fitting, pandas as pd
    >>> runs = pd.DataFrame({"run": ["small", "large"], "params": [1e7, 1e8], "tokens": 2e9, "loss/web": [4.1, 3.6]})
    >>> fitting.Testbed(runs).table["token_multiplier"].tolist()
    [200.0, 20.0]

    Columns, of which only `run`, `params` and `tokens` are required:

    - `run`, its name, each once; `role`: rung (the default), target, or checkpoint (a measurement within a run);
      `corpus`; `model`.
    - `params` (N, embeddings counted), `params_non_embedding`, `tokens` (D), `token_multiplier` (M = D/N where absent),
      `flops` (C = 6ND where absent). Columns N and D are params and tokens where no column is named so.
    - `proportion_<domain>`: how much of its tokens each domain is, 0 to 1, all of them one.
    - `unique_tokens`, `width`, `experts` and so on: what some laws are functions of (`SETTING_COLUMNS`, docs/laws.md).
    - `learning_rate`, `batch_size`, `warmup_steps`, `steps`, `tokens_seen`: what the quality gates look at.
    - `loss/<set>` (nats a token), `bpb/<task>` (bits a byte), `error/<task or average>` (fractions, 0 to 1), and
      `loss_stderr/<set>` and so on, their sampling standard errors; an empty cell was not measured.
    - `trunk`, `spent_flops`: of branches, the run whose first steps they share, and what their own cost.
    - `quarantine`: empty, or why the run must not be fitted, to which the quality gates (`fitting.testbeds.gates`) add
      their reasons. The numbers stay: a quarantined rung is fitted only by a selection that names `quarantine`, a
      quarantined target is still predicted and scored.
    - any others, for selections: numbers, or true and false, where all their cells are, else text.

    Lines before the header that begin with # are remarks.
    """

    __test__ = False  # the name looks like a test to pytest

    table: "pd.DataFrame"

    def __post_init__(self):
        table = _checked(self.table)
        object.__setattr__(self, "table", table.assign(quarantine=gates.judged(table)))

    @classmethod
    def from_records(
        cls, records: Sequence[RunRecord], settings: Mapping[str, Mapping[str, float]] = NOTHING
    ) -> "Testbed":
        """One row a record, with `error/average`, the mean over tasks, where a run has them all.

        `settings` has, by run, what else is known of it: some of the `SETTING_COLUMNS`.
        """
        import pandas as pd

        losses = _names(record.losses for record in records)
        tasks = _names(record.errors for record in records)
        in_bytes = _names([n for n, s in record.scores.items() if "bits_per_byte" in s] for record in records)
        rows = []
        for record in records:
            row = {name: getattr(record, name) for name in COLUMNS} | dict(settings.get(record.run, {}))
            if any(other.trunk for other in records):
                row |= {"trunk": record.trunk, "spent_flops": record.spent_flops}
            row |= _measurements("loss", {name: record.losses.get(name) for name in losses})
            bits = {name: record.scores.get(name, {}).get("bits_per_byte") for name in in_bytes}
            row |= _measurements("bpb", bits)
            errors = {task: record.errors.get(task) for task in tasks}
            if tasks:
                errors["average"] = _average(list(errors.values()))
            row |= _measurements("error", errors)
            rows.append(row | {"quarantine": record.quarantine})
        if not rows:
            raise ValueError("no runs to collect: train and evaluate some first")
        return cls(pd.DataFrame(rows))

    @classmethod
    def read(cls, path: Any) -> "Testbed":
        """Reads a table of runs: comma-separated values, or Parquet where the file is named so.

        Raises:
          ValueError: what `read_csv` refuses; Parquet without pyarrow to read it.
        """
        return cls._of(path, cells.read_parquet(path) if str(path).endswith(".parquet") else cells.read(path))

    @classmethod
    def read_csv(cls, path: Any) -> "Testbed":
        """Reads testbed.csv, ours or anyone's with columns of these names.

        Raises:
          ValueError: no such file, not a table, a required column missing, a cell that is not a number, a run named
            twice, sizes or losses that are not positive, errors outside 0 to 1.
        """
        return cls._of(path, cells.read(path))

    @classmethod
    def _of(cls, path: Any, table: "pd.DataFrame") -> "Testbed":
        try:
            return cls(table)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def to_csv(self) -> str:
        """The table as text: the same bytes for the same runs, floats to the last bit."""
        return self.table.to_csv(index=False, lineterminator="\n")

    def write_csv(self, path: Any) -> None:
        """Writes testbed.csv, whole or not at all."""
        files.write(path, self.to_csv())

    @property
    def sha256(self) -> str:
        """Of the bytes that `write_csv` writes."""
        return hashlib.sha256(self.to_csv().encode()).hexdigest()

    def column(self, name: str, kind: str) -> str:
        """The full name of a measured column: `c4_val` and `loss/c4_val` are both `loss/c4_val`, for kind `loss`.

        A loss may also be `bpb/<task>`, and is found without its kind where there is no `loss/<task>`; and an error,
        which is named in full, for laws of errors that know no loss.
        """
        kinds = LOSS_KINDS if kind == "loss" else (kind,)
        names = [name] if _kind(name) in (*kinds, "error") else [f"{kind}/{name}" for kind in kinds]
        full = next((name for name in names if name in self.table), names[0])
        if full not in self.table:
            there = [column for column in self.table if column.partition("/")[0] in kinds]
            rename = f"; rename its column {name!r} to {full!r}" if name in self.table else ""
            has = cut(", ".join(there), 400) or f"no {kind} columns"
            raise ValueError(f"no column {cut(repr(full))} in the testbed; it has {has}{rename}")
        return full

    @property
    def quarantined(self) -> dict[str, str]:
        """Why each run in quarantine is there, by run; its checkpoints are there with it."""
        rows = self.table[(self.table["quarantine"] != "") & (self.table["role"] != "checkpoint")]
        return dict(zip(rows["run"], rows["quarantine"], strict=True))

    def stderr_column(self, column: str) -> str:
        """`loss_stderr/c4_val` for `loss/c4_val`; it need not exist."""
        return column.replace("/", "_stderr/", 1)

    def select(self, expression: str) -> "np.ndarray":
        """Which rows a pandas query holds for, as Booleans: `role == 'rung' and token_multiplier <= 320`.

        Raises:
          ValueError: a malformed expression, or one that no row satisfies.
        """
        if "@" in _QUOTED.sub("", expression):
            raise ValueError(
                f"select {cut(repr(expression))}: variables (@) cannot be used; compare columns with values"
            )
        try:
            rows = typed.without_overflow(self.table).query(expression, engine="python").index
        except Exception as error:  # pandas raises whatever Python's parser and its operators do
            raise ValueError(
                f"select {cut(repr(expression))} is not a valid row selection ({cut(error)}); write, for instance, "
                f"\"role == 'rung' and token_multiplier <= 320\"; columns are {cut(', '.join(self.table), 400)}"
            ) from None
        if rows.empty:
            raise ValueError(f"select {cut(repr(expression))} holds for none of the {len(self.table)} runs")
        return self.table.index.isin(rows)


def _names(mappings: Any) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _measurements(kind: str, measured: Mapping[str, Measurement | None]) -> dict[str, float]:
    row = {}
    for name, measurement in measured.items():
        row[f"{kind}/{name}"] = measurement.value if measurement else math.nan
        row[f"{kind}_stderr/{name}"] = measurement.stderr if measurement else math.nan
    return row


def is_task(column: str) -> bool:
    """Whether a column holds the error of a single task."""
    return column.startswith("error/") and not is_average(column)


def is_average(column: str) -> bool:
    """Whether a column holds an error averaged over tasks, and not that of one."""
    return column.startswith("error/average")


def _average(measured: Sequence[Measurement | None]) -> Measurement | None:
    found = [m for m in measured if m]
    if len(found) < len(measured):
        return None
    stderr = math.sqrt(sum(m.stderr**2 for m in found)) / len(found)
    return Measurement(sum(m.value for m in found) / len(found), stderr)


def _checked(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with its columns typed, completed and in order; ValueError where a value cannot be."""
    table = table.rename(columns={short: name for short, name in _SYMBOLS.items() if name not in table})
    if missing := [name for name in ("run", "params", "tokens") if name not in table]:
        raise ValueError(
            f"missing column {', '.join(missing)}; columns are {cut(', '.join(map(str, table))) or '(none)'}"
        )
    if table.empty:
        raise ValueError("the table has no runs")
    table = table.reset_index(drop=True)
    defaults = {"role": "rung", "quarantine": ""}
    for name in TEXT_COLUMNS:
        if name in table or name in defaults:
            table[name] = table[name].fillna("").astype(str) if name in table else defaults[name]
    if (twice := table["run"][table["run"].duplicated()].unique()).size:
        raise ValueError(f"run named twice: {cut(', '.join(twice))}; a run has one row")
    if odd := sorted(set(table["role"]) - set(ROLES)):
        run = table["run"][table["role"] == odd[0]].iloc[0]
        raise ValueError(f"role {cut(repr(odd[0]))} of run {cut(repr(run))}: it is rung, target or checkpoint")

    settings = (*SIZE_COLUMNS, *SETTING_COLUMNS)
    numeric = [name for name in table if name in settings or name.startswith(PROPORTION) or _kind(name)]
    for name in table:
        if name in numeric:
            table[name] = typed.numbers(table, name)
        elif name not in TEXT_COLUMNS:
            table[name] = typed.guessed(table[name])
    for name in ("params", "tokens"):
        _refuse(table, name, ~_positive(table[name]), "must be positive and finite")
    if "token_multiplier" not in table:
        table["token_multiplier"] = table["tokens"] / table["params"]
    if "flops" not in table:
        table["flops"] = 6.0 * table["params"] * table["tokens"]
    for name in numeric:
        kind = _kind(name)
        if kind in LOSS_KINDS:
            _refuse(
                table,
                name,
                ~(_positive(table[name]) | table[name].isna()),
                "a loss must be positive and finite; it is minus a log likelihood. To one that is normalised, less a "
                "baseline's, add the baseline back: the law's irreducible loss takes up a constant",
            )
        elif kind:
            most, what = _FRACTIONS.get(kind, (_LARGEST, "a standard error is finite and not negative"))
            _refuse(table, name, ~(table[name].between(0, most) | table[name].isna()), what)
    first = [name for name in COLUMNS if name in table]
    return table[[*first, *(name for name in table if name not in (*first, "quarantine")), "quarantine"]]


def _kind(column: str) -> str:
    kind, slash, _ = column.partition("/")
    return kind if slash and kind.removesuffix("_stderr") in (*LOSS_KINDS, "error") else ""


def _positive(column: "pd.Series") -> "pd.Series":
    return (column > 0) & (column < math.inf)


def _refuse(table: "pd.DataFrame", name: str, bad: "pd.Series", why: str) -> None:
    if bad.any():
        row = bad.idxmax()
        raise ValueError(f"column {name}, run {cut(repr(table['run'][row]))}: {table[name][row]:g}: {why}")
