"""What importers share: files of others, read with errors that name the file and the place in it."""

import dataclasses
import json
import math
import typing
from typing import Any

from fitting import files
from fitting.files import cut
from fitting.testbeds import cells

if typing.TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Record:
    """A JSON file, asked for by the way to a value; a ValueError names the file and the key that it lacks."""

    path: Any
    tree: Any

    @classmethod
    def read(cls, path: Any) -> "Record":
        """A file of JSON."""
        return cls(path, read_json(path))

    def __getitem__(self, way: Any) -> Any:
        way, value = way if isinstance(way, tuple) else (way,), self.tree
        for i, key in enumerate(way):
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"{self.path}: no key {'.'.join(map(str, way[: i + 1]))}") from None
        return value

    def number(self, *way: Any) -> float:
        """A number."""
        value = self[way]
        if isinstance(value, bool) or not isinstance(value, int | float):
            where = ".".join(map(str, way))
            raise ValueError(f"{self.path}: {where}: expected a number but found {cut(json.dumps(value))}")
        return value

    def several(self, *way: Any, kind: type) -> Any:
        """A list or an object."""
        if not isinstance(value := self[way], kind):
            what = "a list" if kind is list else "an object"
            where = ".".join(map(str, way))
            raise ValueError(f"{self.path}: {where}: expected {what} but found {cut(json.dumps(value))}")
        return value

    def maybe(self, *way_and_default: Any) -> Any:
        """The last is the default, and says by its type what is asked for."""
        *way, default = way_and_default
        try:
            return self.number(*way) if isinstance(default, float) else self[tuple(way)]
        except ValueError:
            return default


def read_json(path: Any) -> Any:
    """What a file of JSON holds."""
    try:
        return json.loads(files.read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def read_csv(path: Any, *required: str) -> "pd.DataFrame":
    """A table with these columns, each as numbers where all its cells are."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the CSV file of runs in it")
    table = cells.read(path)
    if table.empty:
        raise ValueError(f"{path}: no rows")
    if missing := [name for name in required if name not in table]:
        raise ValueError(f"{path}: missing column {', '.join(missing)}; columns are {cut(', '.join(table))}")
    return table.apply(_typed)


def refuse_words(path: Any, table: "pd.DataFrame", *columns: str) -> None:
    """Raises a ValueError where a column holds what is no number."""
    import pandas as pd

    for column in columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            bad = table[column][pd.to_numeric(table[column], errors="coerce").isna() & (table[column] != "")].iloc[0]
            raise ValueError(f"{path}: column {column}: {cut(bad)!r} is not a number")


def _typed(column: "pd.Series") -> "pd.Series":
    """A column as numbers where all its cells are, an empty one as NaN; else as it is."""
    import pandas as pd

    try:
        return pd.to_numeric(column.replace("", math.nan))
    except ValueError:
        return column
