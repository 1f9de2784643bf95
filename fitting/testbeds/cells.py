"""A file of a table → its cells: as text of comma-separated values, typed of Parquet."""

import csv
import io
import re
import typing
from typing import Any

from fitting import files
from fitting.files import cut

if typing.TYPE_CHECKING:
    import pandas as pd

_REMARKS = re.compile(r"\A(#[^\n]*\n)+")


def read(path: Any) -> "pd.DataFrame":
    """Every cell as text without blanks around it; rows that are blank and columns without a name are left out.

    Lines before the header that begin with # are remarks.

    Raises:
      ValueError: no such file, not a table, a column named twice, a row of more cells than the header, a header that is
        there twice; naming the file and the line.
    """
    import pandas as pd

    text = files.read_text(path).removeprefix("\ufeff")
    remarks = _REMARKS.match(text)
    skipped = remarks[0].count("\n") if remarks else 0
    lines = csv.reader(io.StringIO(text[remarks.end() :] if remarks else text), skipinitialspace=True, strict=True)
    try:
        rows = [(skipped + lines.line_num, [cell.strip() for cell in row]) for row in lines if any(map(str.strip, row))]
    except csv.Error as error:
        where = f"{path}: line {skipped + lines.line_num}"
        raise ValueError(f"{where}: not a table of comma-separated values: {error}") from None
    if not rows:
        raise ValueError(f"{path}: not a table of comma-separated values: there is nothing in it")
    (_, header), *rows = rows
    if len(header) == 1 and (other := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise ValueError(f"{path}: its columns are separated by {other!r}: write commas, and numbers with a point")
    if twice := [name for i, name in enumerate(header) if name and name in header[:i]]:
        raise ValueError(f"{path}: column {cut(twice[0])} is there twice; keep one of them")
    for line, row in rows:
        if row == header:
            raise ValueError(f"{path}: line {line} is the header again; remove it")
        if any(row[len(header) :]):
            raise ValueError(
                f"{path}: line {line} has {len(row)} cells and the header {len(header)}: write numbers without commas, "
                "such as 1000000 or 2.5"
            )
    cells = [(row + [""] * len(header))[: len(header)] for _, row in rows]
    return pd.DataFrame(cells, columns=header, dtype=str)[[name for name in header if name]]


def read_parquet(path: Any) -> "pd.DataFrame":
    """Every column as the file types it.

    Raises:
      ValueError: no such file, not Parquet, no pyarrow to read it.
    """
    import pandas as pd
    from etils import epath

    path = epath.Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise ValueError(f"{path}: reading Parquet needs pip install pyarrow; or write it as CSV") from None
    try:
        return pd.read_parquet(io.BytesIO(path.read_bytes()), engine="pyarrow")
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file: {cut(error)}") from None
