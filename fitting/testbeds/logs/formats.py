"""What trainers log to → tables of steps: CSV and JSON lines, W&B's exports and own files, TensorBoard's event files.

A reader is given a path and the names of the columns that are asked for, and returns what was logged of each run there.
"""

import array
import collections
import dataclasses
import io
import json
import math
import struct
import typing
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

if typing.TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class Steps:
    """What was logged of one run, or of a part of one, in the order of the file.

    Attributes:
      run: its name: what the log calls it, otherwise the file's or the folder's.
      identity: equal for parts of one run, as its log or its file tells them.
      columns: names of all that was logged.
      table: those that were asked for, as floats: NaN where nothing was logged, infinite where what was logged is no
        finite number.
      remarks: what is to be told of the file.
    """

    run: str
    identity: str
    columns: tuple[str, ...]
    table: "pd.DataFrame"
    remarks: tuple[str, ...] = ()


def plain(path: Any, wanted: Collection[str]) -> list[Steps]:
    """A CSV with a header or JSON lines; rows are of the run that their column `run` names, where there is one.

    Raises:
      ValueError: no such table, an empty one, or a cell asked for that is not a number.
    """
    text = _text(path)
    return _json_lines(path, text, wanted) if text.lstrip().startswith("{") else _csv(path, text, wanted)


def wandb(path: Any, wanted: Collection[str]) -> list[Steps]:
    """A chart or a history that W&B exported, as CSV or JSON lines, or the `.wandb` file of a run, or its folder.

    A chart has a column `<run> - <metric>` for every run, with its `__MIN` and `__MAX`.

    Raises:
      ValueError: none of these, an empty one, or a cell asked for that is not a number.
    """
    if path.is_dir():
        if not (paths := sorted(path.glob("*.wandb"))):
            raise ValueError(f"{path}: no .wandb file in this folder; give a run's folder or an exported CSV")
        return [steps for each in paths for steps in wandb(each, wanted)]
    content = _bytes(path)
    if content.startswith(_WANDB):
        return [_offline(path, content, wanted)]
    text = _text(path)
    header = [] if text.lstrip().startswith("{") else list(_frame(path, text, nrows=0))
    if len(header) > 1 and all(" - " in name for name in header[1:]):
        return _chart(path, text, header, wanted)
    return plain(path, wanted)


def tensorboard(path: Any, wanted: Collection[str]) -> list[Steps]:
    """Scalars of an event file or, as TensorBoard has it, of a folder whose every folder of event files is a run.

    Raises:
      ValueError: no event files, no scalars in them, or a broken one.
    """
    path = path.absolute()
    top = path if path.is_dir() else path.parent
    folders = collections.defaultdict(list)
    for file in _event_files(path) if path.is_dir() else [path]:
        folders[file.parent].append(file)
    if not folders:
        raise ValueError(f"{path}: no event files in this folder")
    runs = [
        _events(files, folder.name if folder == top else str(folder.relative_to(top)), wanted)
        for folder, files in folders.items()
    ]
    if all(run.columns == ("step",) for run in runs):
        raise ValueError(f"{path}: event files without a scalar")
    return [run for run in runs if run.columns != ("step",)]


READERS: Mapping[str, Callable[[Any, Collection[str]], list[Steps]]] = {
    "wandb": wandb,
    "tensorboard": tensorboard,
    "logs": plain,
}
_WANDB = b":W&B"
_WANDB_HEADER, _WANDB_BLOCK = 7, 32768
_WANDB_CHUNKS = (1, 2, 3, 4)  # a whole record; the first, one in the middle, the last of many


class _Columns:
    """Columns as they grow: the names of all, and of those asked for what was logged, row by row."""

    def __init__(self, wanted: Collection[str]):
        self._cells = {name: (array.array("q"), array.array("d")) for name in wanted}
        self.names: dict[str, None] = {}
        self.rows = 0

    def add(self, name: str, value: float) -> None:
        """A cell of the row that is the last so far, of a column asked for."""
        rows, values = self._cells[name]
        rows.append(self.rows - 1)
        values.append(value if math.isfinite(value) else math.inf)

    def table(self) -> "pd.DataFrame":
        import numpy as np
        import pandas as pd

        columns = {}
        for name in filter(self._cells.__contains__, self.names):
            rows, values = self._cells[name]
            columns[name] = np.full(self.rows, math.nan)
            columns[name][np.asarray(rows)] = np.asarray(values)
        return pd.DataFrame(columns, index=range(self.rows))


def _csv(path: Any, text: str, wanted: Collection[str]) -> list[Steps]:
    cells = _frame(path, text)
    numbers = _numbers(path, cells[[name for name in cells if name in wanted]])
    return _by_run(path, list(cells), numbers, cells["run"].fillna("") if "run" in cells else None)


def _json_lines(path: Any, text: str, wanted: Collection[str]) -> list[Steps]:
    import pandas as pd

    lines = [line for line in text.split("\n") if line.strip()]
    cells, runs = _Columns(wanted), []
    remarks: tuple[str, ...] = ()
    for i, line in enumerate(lines):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if i == len(lines) - 1 and not text.endswith("\n"):
                remarks = (f"the last line of {path} is cut off",)
                break
            raise ValueError(f"{path}: {line[:40]!r} is no row of JSON lines ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: {line[:40]!r} is no row of JSON lines: an object of names and values")
        cells.names.update(dict.fromkeys(row))
        cells.rows += 1
        runs.append("" if row.get("run") is None else str(row["run"]))
        for name in row.keys() & wanted:
            if row[name] is not None:
                cells.add(name, _number(path, name, row[name]))
    return _by_run(path, list(cells.names), cells.table(), pd.Series(runs) if "run" in cells.names else None, remarks)


def _by_run(
    path: Any, names: list[str], table: "pd.DataFrame", run_N: "pd.Series | None", remarks: tuple[str, ...] = ()
) -> list[Steps]:
    if not len(table):
        raise ValueError(f"{path}: no rows; columns are {', '.join(names)}")
    columns = tuple(names)
    if run_N is None:
        return [Steps(path.stem, str(path.absolute()), columns, table, remarks)]
    if (run_N == "").any():
        raise ValueError(f"{path}: its column run is empty in a row; every row is of a run, or rename that column")
    return [Steps(run, run, columns, rows, remarks) for run, rows in table.groupby(run_N, sort=False)]


def _chart(path: Any, text: str, header: list[str], wanted: Collection[str]) -> list[Steps]:
    x, *others = header
    runs: dict[str, dict[str, str]] = collections.defaultdict(dict)
    for name in others:
        if fits := [metric for metric in wanted if name.endswith(f" - {metric}")]:
            metric = max(fits, key=len)
            runs[name.removesuffix(f" - {metric}")][name] = metric
    table = _numbers(path, _frame(path, text)[[x, *(name for named in runs.values() for name in named)]])
    found = []
    for run, named in runs.items():
        own = table[[x, *named]].rename(columns=named)
        logged = tuple(name.removeprefix(f"{run} - ") for name in others if name.startswith(f"{run} - "))
        found.append(Steps(run, run, (x, *logged), own[own.drop(columns=x).notna().any(axis=1)]))
    metrics = dict.fromkeys(name.rpartition(" - ")[2] for name in others)
    return found or [Steps(path.stem, str(path.absolute()), (x, *metrics), table)]


def _offline(path: Any, content: bytes, wanted: Collection[str]) -> Steps:
    try:
        from wandb.proto import wandb_internal_pb2
    except ModuleNotFoundError as error:
        raise _missing(path, error) from None
    run, identity, cells = path.stem, str(path.absolute()), _Columns(wanted)
    remarks: list[str] = []
    for record in _parsed(path, _wandb_records(path, content, remarks), wandb_internal_pb2.Record):
        if record.HasField("run"):
            run, identity = record.run.display_name or record.run.run_id, record.run.run_id
        if record.HasField("history"):
            cells.rows += 1
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                cells.names[name] = None
                if name in wanted and isinstance(value := json.loads(item.value_json), int | float | str):
                    cells.add(name, _number(path, name, value))
    if not cells.rows:
        raise ValueError(f"{path}: nothing was logged in this run")
    return Steps(run, identity, tuple(cells.names), cells.table(), tuple(remarks))


def _event_files(folder: Any) -> Iterator[Any]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _event_files(path)
        elif "tfevents" in path.name:
            yield path


def _events(paths: list[Any], run: str, wanted: Collection[str]) -> Steps:
    try:
        from tensorboard.compat.proto import event_pb2
    except ModuleNotFoundError as error:
        raise _missing(paths[0], error) from None
    cells = _Columns({"step", *wanted})
    remarks: list[str] = []
    cells.names["step"] = None
    for path in paths:
        events = _parsed(path, _tensorflow_records(path, _bytes(path), remarks), event_pb2.Event)
        first = next(events, None)
        if first is None or not first.file_version.startswith("brain.Event:"):
            raise ValueError(f"{path}: no TensorBoard event file")
        step, here = None, set[str]()
        for event in events:
            for value in event.summary.value:
                scalar = _scalar(value)
                if scalar is None:
                    continue
                cells.names[value.tag] = None
                if value.tag not in wanted:
                    continue
                if event.step != step or value.tag in here:
                    step, here = event.step, set()
                    cells.rows += 1
                    cells.add("step", step)
                here.add(value.tag)
                cells.add(value.tag, scalar)
    return Steps(run, str(paths[0].parent), tuple(cells.names), cells.table(), tuple(remarks))


def _scalar(value: Any) -> float | None:
    """A summary's one number, whether the old writers wrote it or those of TensorFlow 2; None if it is no scalar."""
    if value.HasField("simple_value"):
        return value.simple_value
    if not value.HasField("tensor") or value.tensor.tensor_shape.dim or value.tensor.string_val:
        return None
    from tensorboard.util import tensor_util

    return float(tensor_util.make_ndarray(value.tensor))


def _parsed(path: Any, records: Iterator[bytes], kind: Any) -> Iterator[Any]:
    from google.protobuf.message import DecodeError

    for i, record in enumerate(records):
        try:
            yield kind.FromString(record)
        except DecodeError:
            raise ValueError(f"{path}: its record {i + 1} is broken, or it is another kind of file") from None


def _tensorflow_records(path: Any, content: bytes, remarks: list[str]) -> Iterator[bytes]:
    """TFRecord: length, 8 bytes; its checksum, 4; the record; its checksum, 4. TensorBoard's own reader would load
    TensorFlow where it is installed, and takes three times as long where it is not."""
    at = 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at) if at + 12 <= len(content) else (len(content),)
        if at + 16 + length > len(content) or not length:  # zeros are what is still to be written
            remarks.append(f"the last record of {path} is cut off")
            return
        yield content[at + 12 : at + 12 + length]
        at += 16 + length


def _wandb_records(path: Any, content: bytes, remarks: list[str]) -> Iterator[bytes]:
    """LevelDB's log: blocks of 32 KiB, in which a record is one chunk or many. A chunk: checksum, 4 bytes; length, 2;
    kind, 1; content. W&B has no public reader of it."""
    at, record = _WANDB_HEADER, b""
    while at < len(content):
        left = _WANDB_BLOCK - at % _WANDB_BLOCK
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4) if at + 7 <= len(content) else (len(content), 0)
        if at + 7 + length > len(content) or kind not in _WANDB_CHUNKS:  # zeros are what is still to be written
            remarks.append(f"the last record of {path} is cut off")
            return
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (_WANDB_CHUNKS[0], _WANDB_CHUNKS[-1]):
            yield record
            record = b""


def _frame(path: Any, text: str, **options: Any) -> "pd.DataFrame":
    """A CSV whose empty cells are missing, and nothing else: NaN is a word there, not the lack of one."""
    import pandas as pd

    options |= {"keep_default_na": False, "na_values": [""], "skipinitialspace": True, "index_col": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header, which would be cut
            return pd.read_csv(io.StringIO(text), dtype={"run": str}, **options)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path}: not a table of comma-separated values: {str(error).strip()}") from None


def _numbers(path: Any, cells: "pd.DataFrame") -> "pd.DataFrame":
    import numpy as np
    import pandas as pd

    columns = {}
    for name, column in cells.items():
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        words = column[numbers.isna() & column.notna()].astype(str).str.strip().str.lower()
        if (odd := ~words.isin(("nan", "+nan", "-nan"))).any():
            raise ValueError(f"{path}: column {name}: {column[odd.idxmax()]!r} is not a number")
        numbers[words.index] = math.inf
        columns[name] = numbers.mask(np.isinf(numbers), math.inf)
    return pd.DataFrame(columns, index=cells.index)


def _number(path: Any, name: str, cell: Any) -> float:
    try:
        number = float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: column {name}: {cell!r} is not a number") from None
    return number if math.isfinite(number) else math.inf


def _bytes(path: Any) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; give the files in it") from None
    if not content.strip():
        raise ValueError(f"{path}: an empty file")
    return content


def _text(path: Any) -> str:
    content = _bytes(path)
    if content.startswith(_WANDB):
        raise ValueError(f"{path}: a file of W&B's own, which is of kind wandb")
    if b"brain.Event:" in content[:64]:
        raise ValueError(f"{path}: a TensorBoard event file, which is of kind tensorboard")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None
    if text.lstrip().startswith("["):
        raise ValueError(f"{path}: a JSON array; write one row a line, such as by jq -c '.[]'")
    return text


def _missing(path: Any, error: ModuleNotFoundError) -> ValueError:
    return ValueError(f"{path}: {error.name} is not installed: pip install 'scaling-ladder[watch]'")
