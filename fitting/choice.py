"""Which rows of a testbed a law is fitted to, and why the others are not."""

import math
import typing
from collections.abc import Sequence

from fitting.files import cut
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SIZE_COLUMNS = ("params", "tokens", "unique_tokens", "width", "depth", "weight_bits")


def counted(testbed: Testbed, params_column: str) -> Testbed:
    """The testbed with N taken from another column, such as `params_non_embedding`."""
    if params_column == "params":
        return testbed
    if params_column not in testbed.table or testbed.table[params_column].isna().any():
        raise ValueError(f"no column {params_column!r} with a count for every run, to take N from")
    return Testbed(testbed.table.assign(params=testbed.table[params_column]))


def chosen(testbed: Testbed, select: str, columns: Sequence[str]) -> tuple["pd.DataFrame", dict[str, str]]:
    """The rows to fit, and for every other rung the reason why not.

    A selection that names `quarantine` decides on quarantined rows itself, and one that names `corpus` may mix corpora.
    """
    table = testbed.table
    selected = testbed.select(select)
    if (targets := table["run"][selected & (table["role"] == "target")]).size:
        raise ValueError(
            f"select {cut(repr(select))} takes in the target {cut(', '.join(targets), 200)}, which is there to be "
            "predicted; add \"and role == 'rung'\""
        )
    reasons = {}
    for row, chosen in zip(table.to_dict("records"), selected, strict=True):
        missing = [column for column in columns if math.isnan(row[column])]
        if row["quarantine"] and "quarantine" not in select:
            reasons[row["run"]] = f"quarantined: {row['quarantine']}"
        elif row["role"] in ("target", "checkpoint") and not chosen:
            continue
        elif not chosen:
            reasons[row["run"]] = f"not selected by {select}"
        elif missing:
            reasons[row["run"]] = f"no {' and no '.join(missing)}"
    rows = table[selected & ~table["run"].isin(list(reasons))]
    corpora = sorted(set(rows["corpus"])) if "corpus" in rows else []
    if len(corpora) > 1 and "corpus" not in select:
        named = cut(", ".join(corpora))
        raise ValueError(
            f"select {cut(repr(select))} mixes runs on {len(corpora)} corpora ({named}), and a law is of one; "
            f"add \"and corpus == '{corpora[0]}'\""
        )
    _refuse_twins(rows, table[table["role"] == "target"], columns)
    return rows, reasons


def sizes(rows: "pd.DataFrame") -> "np.ndarray":
    """Numbers that are equal for runs of one size, which differ in nothing but their seed, [N]."""
    kinds = [name for name in ("corpus", *SIZE_COLUMNS) if name in rows]
    return rows.groupby(kinds, dropna=False).ngroup().to_numpy()


def _refuse_twins(rows: "pd.DataFrame", targets: "pd.DataFrame", columns: Sequence[str]) -> None:
    """No run may be there twice, nor a target be among the runs under another name: same size, same measurements."""
    import pandas as pd

    kinds = [name for name in ("corpus", *SIZE_COLUMNS, *columns) if name in rows]
    both = pd.concat([rows, targets])
    twins = both[both[kinds].notna().all(axis=1) & both.duplicated(kinds, keep=False)]
    for _, same in twins.groupby(kinds):
        names = " and ".join(map(repr, same["run"]))
        if (same["role"] == "target").any() and (same["role"] != "target").any():
            raise ValueError(f"{names} are one run, of one size and with one {columns[-1]}: a target would be fitted")
        if (same["role"] != "target").all():
            raise ValueError(f"{names} are the same run twice: of one size and with one {columns[-1]}; drop one")
