"""The columns of a table, typed: text as it was read becomes numbers where it is numbers."""

import math
import re
import typing
from typing import Any

from fitting.files import cut

if typing.TYPE_CHECKING:
    import pandas as pd


def numbers(table: "pd.DataFrame", name: str) -> "pd.Series":
    """A column as whole numbers where all are, else as floats read to the last bit; an empty cell is NaN.

    Raises:
      ValueError: a cell that is no number; the message names its run.
    """
    import pandas as pd

    column = table[name]
    if pd.api.types.is_numeric_dtype(column):
        # pandas' own numbers know a missing value that is no NaN.
        return column.astype(float) if pd.api.types.is_extension_array_dtype(column) else column
    for number in (int, float):
        try:
            found = pd.Series([math.nan if _is_empty(cell) else number(cell) for cell in column], index=column.index)
        except (TypeError, ValueError):
            continue
        return found.astype(float) if found.dtype == object else found  # whole numbers beyond 64 bits
    bad = next(i for i, cell in column.items() if not _is_number(cell))
    run, cell = cut(table["run"][bad]), cut(column[bad])
    raise ValueError(f"column {name}, run {run!r}: {cell!r} is not a number{_remedy(str(cell))}")


def guessed(column: "pd.Series") -> "pd.Series":
    """A column that no schema knows: numbers, or true and false, where all its cells are; else as it is."""
    import pandas as pd

    if column.dtype.kind in "biufM":
        return column
    told = column[~column.map(_is_empty)]
    if told.empty:
        return column
    if len(told) == len(column) and set(told.map(str)) <= {"True", "False"}:
        return told.map(str) == "True"
    try:
        return pd.to_numeric(column.where(~column.map(_is_empty), math.nan))
    except (TypeError, ValueError):
        return column


def without_overflow(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with whole numbers as floats: a product of two counts, such as 6ND, can pass what 64 bits hold."""
    return table.astype({name: float for name in table if table[name].dtype.kind in "iu"})


def _is_empty(cell: Any) -> bool:
    import pandas as pd

    return cell == "" if isinstance(cell, str) else pd.api.types.is_scalar(cell) and pd.isna(cell)


def _is_number(cell: Any) -> bool:
    try:
        float("nan" if _is_empty(cell) else cell)
        return True
    except (TypeError, ValueError):
        return False


def _remedy(cell: str) -> str:
    if re.fullmatch(r"[-+]?\d[\d.,\s'’_]*", cell):
        return ": write it without thousands separators and with a decimal point, such as 1000000 or 2.5"
    if re.fullmatch(r"[-+]?\d[\d.,]*\s*[kmbgt]\w*", cell, re.IGNORECASE):
        return ": write it out, such as 400e6"
    return ": write a fraction, such as 0.45" if cell.endswith("%") else ""
