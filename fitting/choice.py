"""Which rows of a testbed a law is fitted to and why the others are not, and whether they can tell it."""

import math
import typing
from collections.abc import Mapping, Sequence

import numpy as np

from fitting.files import cut
from fitting.laws.law import Law
from fitting.laws.mixtures import PROPORTION
from fitting.testbeds.testbed import SETTING_COLUMNS, Testbed
from fitting.uncertainty import place

if typing.TYPE_CHECKING:
    import pandas as pd

_SEEDS = 0.01  # by how much of the loss seeds of one size scatter, at most
# Runs that differ in these are of one size all the same: a sweep, or steps of one run.
_NO_SIZES = ("learning_rate", "batch_size", "lr_area", "lr_annealing", "warmup_steps", "steps", "tokens_seen")
SIZE_COLUMNS = ("params", "tokens", *(name for name in SETTING_COLUMNS if name not in _NO_SIZES))


def counted(testbed: Testbed, params_column: str) -> Testbed:
    """The testbed with N taken from another column, such as `params_non_embedding`."""
    if params_column == "params":
        return testbed
    if params_column not in testbed.table or testbed.table[params_column].isna().any():
        raise ValueError(f"no column {params_column!r} with a count for every run, to take N from")
    return Testbed(testbed.table.assign(params=testbed.table[params_column]))


def chosen(
    testbed: Testbed, select: str, columns: Sequence[str], best_of_size: bool = False
) -> tuple["pd.DataFrame", dict[str, str]]:
    """The rows to fit, and for every other rung the reason why not.

    A selection that names `quarantine` decides on quarantined rows itself, and one that names `corpus` may mix corpora.

    Args:
      testbed: the runs.
      select: which to fit.
      columns: what a run must have, the loss first.
      best_of_size: whether of runs of one size that of the lowest loss stands for all.
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
    if best_of_size:
        worse = beaten(rows, columns[0])
        rows = rows[~rows["run"].isin(worse)]
        reasons |= {run: f"not the best of its size, which is {best}" for run, best in worse.items()}
    _refuse_twins(rows, table[table["role"] == "target"], columns)
    return rows, reasons


def refuse_inputs(law: Law, rows: "pd.DataFrame") -> None:
    """Every row must have all that a law is of, and as it may be."""
    for name in law.inputs:
        values = rows[name].to_numpy(float)
        if np.isnan(values).any():
            raise ValueError(f"law {law.name} is of {name}, which {rows['run'][np.isnan(values)].iloc[0]} lacks")
        bad, must = law.refuse(name, values)
        if bad.any():
            run = rows["run"][bad].iloc[0]
            raise ValueError(f"law {law.name}: {name} of run {run!r} is {values[bad][0]:g}: it must be {must}")
    if (off_N := law.off_one(rows)).any():
        run, off = rows["run"][off_N != 0].iloc[0], off_N[off_N != 0][0]
        raise ValueError(f"law {law.name}: proportions of run {run!r} sum to {1 + off:.4g}: they must sum to one")


def refuse_too_few(law: Law, column: str, x: Sequence[np.ndarray], y_N: np.ndarray, *, believed: int = 0) -> None:
    """The runs must be as many as the parameters, less those that are `believed`, and able to tell them apart."""
    count = len(law.parameters) - believed
    if len(y_N) + len(law.ideal) < count:
        raise ValueError(
            f"{column}: {len(y_N)} runs cannot fit the {len(law.parameters)} parameters "
            f"({', '.join(law.parameters)}) of {law.name}; select at least {count}"
        )
    if not y_N.any():
        raise ValueError(f"{column} is 0 for all {len(y_N)} runs: there is nothing to fit")
    middle = law.scaled([shape.median for shape in law.shapes.values()], y_N.min(), *(v[y_N.argmin()] for v in x))
    columns = [np.broadcast_to(term, y_N.shape) for term in law.evaluate_terms(middle, *x)]
    columns_NxJ = np.stack([term / (np.abs(term).max() or 1.0) for term in columns], -1)
    distinct = len(np.unique(np.stack(x), axis=1).T) + len(law.ideal)
    if distinct < count or np.linalg.cond(columns_NxJ[:, : len(law.linear)] if law.linear else np.eye(1)) > 1e8:
        raise ValueError(
            f"{column}: the runs cannot tell the parameters of {law.name} apart: {distinct} of {len(y_N)} differ in "
            f"{' or '.join(law.inputs)}, or all of these vary alike; add runs of other sizes and token multipliers"
            + _along_a_ray(dict(zip(law.inputs, x, strict=True)))
        )


def _along_a_ray(columns: Mapping[str, np.ndarray]) -> str:
    """Which one number all runs share, and the law along it; nothing where they share none."""
    if not {"params", "tokens"} <= columns.keys():
        return ""
    params_N, tokens_N = columns["params"], columns["tokens"]
    rays = {"D/N": (tokens_N / params_N, "compute"), "D": (tokens_N, "params_only"), "N": (params_N, "tokens_only")}
    shared = {name: (v_N.mean(), law) for name, (v_N, law) in rays.items() if v_N.max() < 1.02 * v_N.min()}
    if len(shared) != 1:  # runs of one size share all three
        return ""
    ((name, (value, law)),) = shared.items()
    return f": all runs have {name} = {value:.3g}, along which --law {law} can be fitted"


def sizes(rows: "pd.DataFrame", inputs: Sequence[str] = ()) -> np.ndarray:
    """Numbers that are equal for runs of one size, which differ in nothing but their seed, [N]."""
    proportions = (name for name in rows if name.startswith(PROPORTION))
    kinds = [name for name in dict.fromkeys(("corpus", *SIZE_COLUMNS, *inputs, *proportions)) if name in rows]
    return rows.groupby(kinds, dropna=False).ngroup().to_numpy()


def places(rows: "pd.DataFrame", law: Law) -> np.ndarray:
    """Where runs lie, [N, F]: how near one another they are (`fitting.uncertainty.place`).

    A law of what is no size is of a curve's steps, each of which is far from all others: what such a law misses is
    fitted as noise, or the slope between neighbours would be all that counts.
    """
    return 1e3 * sizes(rows, law.inputs)[:, None] if law.signed else place(law, rows)


def beaten(rows: "pd.DataFrame", column: str) -> dict[str, str]:
    """Runs of a size that another has a lower loss of, and which; sizes within a hundredth are one.

    A sweep's runs read whole batches, and so hardly ever the very same number of tokens.
    """
    measured = rows.dropna(subset=[column])
    best = measured.groupby(nearly(measured))[column].idxmin()
    winner = measured["run"].loc[best].set_axis(best.index).reindex(nearly(measured)).to_numpy()
    return {run: by for run, by in zip(measured["run"], winner, strict=True) if run != by}


def scattered(rows: "pd.DataFrame", column: str, inputs: Sequence[str]) -> str:
    """What is to be said where runs of one size scatter by more than seeds do; nothing where they do not.

    Args:
      rows: the runs.
      column: their loss.
      inputs: what the law is of: runs that differ in it are not of one size.
    """
    size_N = nearly(rows, inputs)
    size = rows.groupby(size_N)[column]
    ratio = rows[column] / size.transform("mean") - 1
    freedom = len(rows) - size.ngroups
    if not freedom or float((ratio**2).sum()) / _SEEDS**2 <= _chi_square_999(freedom):
        return ""
    spread = size.max() / size.min() - 1
    widest = rows[size_N == spread.idxmax()].sort_values(column)["run"]
    low, high = cut(repr(widest.iloc[0])), cut(repr(widest.iloc[-1]))
    scatter = math.sqrt((ratio**2).sum() / freedom)
    return (
        f"{column}: runs of one size scatter by {scatter:.1%}, such as {low} and {high} by {spread.max():.1%}, and "
        "seeds by 1 % at most: if they are a sweep, take the best of each size, --best-of-size; if not, say in select "
        "which to fit"
    )


def _chi_square_999(freedom: int) -> float:
    """What a chi-square exceeds once in a thousand times (Wilson & Hilferty 1931)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def nearly(rows: "pd.DataFrame", inputs: Sequence[str] = ()) -> np.ndarray:
    """As `sizes`, but with parameters and tokens within a hundredth of the next taken for the same, [N]."""
    rounded = {}
    for name in ("params", "tokens"):
        log_sorted = np.log(np.sort(rows[name].to_numpy(float)))
        steps = np.concatenate([[0], np.cumsum(np.diff(log_sorted) > 0.01)])
        rounded[name] = steps[np.searchsorted(log_sorted, np.log(rows[name].to_numpy(float)))]
    return sizes(rows.assign(**rounded), inputs)


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
