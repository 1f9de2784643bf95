"""The rows of downstream tasks: JSON Lines in llm-foundry's layout, or TensorFlow Datasets where it has the set.

A row holds text by the fields of its task's type (`tasks.questions.gauntlet.FIELDS`): `query`, its `choices` and which
of them is `gold`; a `context` and its `continuation`; or `context_options`, of which `gold` is the one that the
`continuation` follows. Where a task is categorised it holds its `category` too.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from tasks.messages import cut
from tasks.questions import tfds_rows
from tasks.questions.gauntlet import FIELDS, GAUNTLET, Definition
from tasks.text import json_lines

WHERE_TO_GET = "https://github.com/mosaicml/llm-foundry/tree/main/scripts/eval/local_data"
TFDS = "tfds"

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rows:
    """A task's rows in their file's order, on which the draws of shots depend.

    Attributes:
      rows: checked.
      source: where they were read.
      sha256: of the file, or of the rows as JSON Lines where they come from TensorFlow Datasets.
    """

    rows: tuple[Row, ...]
    source: str
    sha256: str


def find(task: Definition, sources: Sequence[str]) -> str:
    """Gives where a task's rows are: a path, or `tfds` or `tfds:DIR`.

    Args:
      task: whose rows are looked for.
      sources: looked in one after another; folders, local or gs://, that hold the task's file, and `tfds` or
        `tfds:DIR`, for TensorFlow Datasets prepared in its own folder or in DIR.

    Raises:
      ValueError: naming the task, the places, and where to get the file.
    """
    looked = []
    for source in sources:
        if source.partition(":")[0] == TFDS:
            if task.name in tfds_rows.READERS:
                return source
            continue
        for path in (epath.Path(source) / task.file, epath.Path(source) / "local_data" / task.file):
            if path.is_file():
                return str(path)
        looked.append(str(epath.Path(source) / task.file))
    remedy = [f"get it from {WHERE_TO_GET}"] if task in GAUNTLET.values() else []
    remedy += [f"add {TFDS!r} to the suite's sources"] if task.name in tfds_rows.READERS else []
    place = f"no file {' or '.join(looked)}" if looked else "TensorFlow Datasets does not have it"
    raise ValueError(f"task {task.name!r}: {place}; {', or '.join(remedy) or 'put it there'}")


def read(task: Definition, sources: Sequence[str]) -> Rows:
    """Gives a task's rows from the first source that has them; see `find`.

    Raises:
      ValueError: no source has them; a malformed line, naming the file, the line and the reason; fewer rows than shots.
    """
    source = find(task, sources)
    if source.partition(":")[0] == TFDS:
        try:
            rows = tuple(tfds_rows.READERS[task.name](source.partition(":")[2] or None))
        except ValueError as error:
            raise ValueError(f"task {task.name!r}: {error}") from None
        sha256 = hashlib.sha256("".join(json.dumps(row) + "\n" for row in rows).encode()).hexdigest()
    else:
        content = epath.Path(source).read_bytes()
        rows, sha256 = tuple(_rows(task, content, source)), hashlib.sha256(content).hexdigest()
    refuse_too_few(task, rows, source)
    return Rows(rows, source, sha256)


def parts(task: Definition, rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Gives the rows by category, sorted by its name; all under "" where the task is not categorised."""
    by_category: dict[str, list[Row]] = {}
    for row in rows:
        by_category.setdefault(row["category"] if task.categorised else "", []).append(row)
    return dict(sorted(by_category.items()))


def refuse_too_few(task: Definition, rows: Sequence[Row], source: str) -> None:
    """Raises a ValueError where a question would have fewer other rows to be its shots than the task asks for."""
    if not rows:
        raise ValueError(f"task {task.name!r}: {source} holds no rows")
    for category, part in parts(task, rows).items():
        if len(part) <= task.shots:
            of = f" of category {category!r}" if category else ""
            raise ValueError(
                f"task {task.name!r}: {source} holds {len(part)} rows{of}, too few for {task.shots} shots beside each "
                "question; ask for fewer shots or give more rows"
            )


def _rows(task: Definition, content: bytes, path: os.PathLike | str) -> Iterator[Row]:
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield _row(task, json_lines.read(line))
        except ValueError as error:
            raise ValueError(f"task {task.name!r}: {path}, line {number}: {error}") from None


def _row(task: Definition, raw: Any) -> Row:
    if not isinstance(raw, dict):
        raise ValueError(f"holds {type(raw).__name__}, not a JSON object")
    fields = (*FIELDS[task.type], *(["category"] if task.categorised else []))
    row = {name: _filled(task.template[name], raw) if name in task.template else _of(raw, name) for name in fields}
    for name, value in row.items():
        if name in ("choices", "context_options"):
            if not (isinstance(value, list) and len(value) > 1 and all(isinstance(item, str) for item in value)):
                raise ValueError(f"field {name!r} must hold two texts or more")
            for item in value:
                _refuse_no_text(name, item)
        elif name == "gold":
            choices = len(row["choices" if "choices" in row else "context_options"])
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < choices:
                raise ValueError(f"field 'gold' holds {cut(repr(value))}; it must be from 0 to {choices - 1}")
        else:
            _refuse_no_text(name, value)
            row[name] = value.strip()  # items of lists are taken as they are
    answers = row["choices"] if "choices" in row else [row["continuation"]]
    if not all(answers):
        raise ValueError("an answer is empty")
    return row


def _refuse_no_text(name: str, value: Any) -> None:
    try:
        json_lines.text(value)
    except ValueError as error:
        raise ValueError(f"field {name!r} {error}") from None


def _of(raw: Row, name: str) -> Any:
    if name not in raw:
        raise ValueError(f"has no field {name!r}; it has {cut(', '.join(raw))}")
    return raw[name]


def _filled(template: str | Sequence[str], raw: Row) -> Any:
    """The template with {columns} put in; a column alone is taken as it is, a list or a number too."""
    if not isinstance(template, str):
        return [str(_filled(item, raw)) for item in template]
    if alone := re.fullmatch(r"\{(\w+)\}", template):
        return _of(raw, alone[1])
    return re.sub(r"\{(\w+)\}", lambda column: str(_of(raw, column[1])), template)
