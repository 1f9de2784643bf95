"""A table of a run's steps → its rows of a testbed: checkpoints in order, and where the run ended."""

import difflib
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fitting.testbeds.curves import sums_at
from fitting.testbeds.logs.formats import Steps
from fitting.testbeds.logs.log import Log, is_measured
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import numpy as np
    import pandas as pd

# What trainers and loggers call these, the surest first: W&B's `_step` counts calls of its own.
STEP_NAMES = (
    *("trainer/global_step", "train/global_step", "global_step", "step", "Step", "steps"),
    *("iteration", "iter", "_step"),
)
TOKEN_NAMES = (
    *("tokens", "Tokens", "total_tokens", "throughput/total_tokens", "train/tokens", "tokens_seen"),
    *("train/tokens_seen", "consumed_tokens", "num_input_tokens_seen", "train/num_input_tokens_seen"),
)
LATEST_SHARE = 0.99  # of a run's tokens: what was last measured later than this counts as measured at its end


def of_run(run: str, steps: Steps, log: Log, say: Callable[[str], None]) -> "pd.DataFrame":
    """The final row of a run and, below it, its checkpoints; says in a line what was done to make them.

    Raises:
      ValueError: a column that is not there, no count of tokens or one that falls, nothing measured.
    """
    import pandas as pd

    count, tokens = _counts(run, steps, log)
    told = list(steps.remarks)
    table = _merged(run, _named(run, steps, log, count, tokens), count, told)
    table = _counted(run, table, count, tokens, told)
    table, why = _finite(table)
    for column, window_tokens in log.smooth.items():
        table = table.assign(**{column: _trailing_mean(table["tokens"], table[column], window_tokens, told)})
    if count != tokens and "learning_rate" in table:
        table = _annealed(table, told)
    along = table[table[_measured(table)].notna().any(axis=1)]
    if not len(along):
        raise ValueError(f"{run}: nothing was logged in {', '.join(log.columns[name] for name in _measured(table))}")
    if len(table) > len(along):
        told.append(f"left out, without a loss or an error: {len(table) - len(along):,}")
    final = _final(table, told)
    counted = f"{count} × {log.tokens_per_step:,.0f}" if tokens is None else tokens
    say(
        "; ".join(
            [
                f"{run}: {len(along):,} checkpoints, {count} {_span(along['at'].iloc[[0, -1]])}, "
                f"{final['tokens'].iloc[0]:.4g} tokens ({counted})",
                *told,
            ]
        )
    )
    final = final.assign(run=run, role=log.role, quarantine=why, **_common(log))
    # The gates judge runs by their ends: a loss no better than guessing is what every run begins with.
    why = Testbed(final).table["quarantine"].iloc[0]
    names = [f"{run}@{at}" for at in along["at"]]
    along = along.assign(run=names, role="checkpoint", **_common(log))
    return pd.concat([final, along], ignore_index=True).drop(columns="at").assign(quarantine=why)


def _counts(run: str, steps: Steps, log: Log) -> tuple[str, str | None]:
    """The log's columns that tell rows apart and that count tokens.

    They are steps and tokens; both tokens where there are no steps; the latter is None where tokens are steps times
    `tokens_per_step`.
    """
    step, tokens = (
        log.columns.get(name) or next((usual for usual in names if usual in steps.table), None)
        for name, names in _COUNTS.items()
    )
    for column in filter(None, (step, tokens)):
        _refuse_absent(run, column, steps)
    if step and log.tokens_per_step:
        return step, None
    if tokens and not log.tokens_per_step:
        return step or tokens, tokens
    if step:
        raise ValueError(
            f"{run}: {step} counts steps, so say how many tokens one is (--tokens-per-step 4194304), or which column "
            f"counts tokens (--column tokens=NAME); columns are {_some(steps.columns)}"
        )
    what = "steps: say which is (--column step=NAME)"
    if not log.tokens_per_step:
        what = "steps or tokens: say which is (--column step=NAME, or tokens=NAME)"
    raise ValueError(f"{run}: no column of {what}; columns are {_some(steps.columns)}")


_COUNTS: Mapping[str, tuple[str, ...]] = {"step": STEP_NAMES, "tokens": TOKEN_NAMES}


def _named(run: str, steps: Steps, log: Log, count: str, tokens: str | None) -> "pd.DataFrame":
    """The columns that are mapped, by our names; `at`, the count that orders them, and `tokens`."""
    import pandas as pd

    columns = {"at": steps.table[count]}
    columns["tokens"] = columns["at"] * log.tokens_per_step if tokens is None else steps.table[tokens]
    for name, column in log.columns.items():
        if name in _COUNTS:
            continue
        accuracy = column.removeprefix("1-")
        is_accuracy = name.startswith("error/") and accuracy != column and column not in steps.columns
        _refuse_absent(run, accuracy if is_accuracy else column, steps)
        columns[name] = 1 - steps.table[accuracy] if is_accuracy else steps.table[column]
    return pd.DataFrame(columns, index=steps.table.index)


def _refuse_absent(run: str, column: str, steps: Steps) -> None:
    if column not in steps.columns:
        near = difflib.get_close_matches(column, steps.columns, n=5, cutoff=0.5)
        rest = f"near it are {', '.join(near)}" if near else f"columns are {_some(steps.columns)}"
        raise ValueError(f"{run}: no column {column!r} in its log; {rest}")


def _some(names: Sequence[str], most: int = 30) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _merged(run: str, table: "pd.DataFrame", count: str, told: list[str]) -> "pd.DataFrame":
    """A row a step, in order; of each column the last value that was logged at that step."""
    import numpy as np

    if lacking := int(table["at"].isna().sum()):
        told.append(f"left out, without {count}: {lacking:,}")
        table = table[table["at"].notna()]
    if not len(table):
        raise ValueError(f"{run}: no row has a number in {count}")
    if (odd := (table["at"] % 1 != 0) | (table["at"].abs() >= 2**63)).any():
        raise ValueError(f"{run}: {count} is {table['at'][odd].iloc[0]:g} in a row: no count")
    table = table.assign(at=table["at"].astype("int64"))
    logged = [table["at"][table[column].notna()] for column in _measured(table)]
    again = np.unique(np.concatenate([at[at.duplicated()] for at in logged]))
    if len(again):
        told.append(f"logged more than once, so that the last counts: {len(again):,} of {_span(again[[0, -1]])}")
    elif (table["at"].diff() < 0).any():
        told.append("rows are sorted, which they were not")
    return table.groupby("at", as_index=False).last()


def _counted(run: str, table: "pd.DataFrame", count: str, tokens: str | None, told: list[str]) -> "pd.DataFrame":
    """The rows from the first token on."""
    import numpy as np

    if tokens and tokens != count:
        if lacking := int(table["tokens"].isna().sum()):
            told.append(f"without {tokens}, so that the step before counts: {lacking:,}")
            table = table.assign(tokens=table["tokens"].ffill())
        _refuse_falling(run, table, tokens)
    if np.isinf(table["tokens"]).any():
        raise ValueError(f"{run}: {tokens} is no finite number in a row")
    if (none := ~(table["tokens"] > 0)).any():
        told.append(f"left out, before the first token: {none.sum():,}")
        table = table[~none]
    if not len(table):
        raise ValueError(f"{run}: no row is after the first token")
    if gap := _gap(table):
        told.append(gap)
    tokens_N = table["tokens"]
    return table.assign(tokens=tokens_N.astype("int64")) if (tokens_N % 1 == 0).all() else table


def _refuse_falling(run: str, table: "pd.DataFrame", tokens: str) -> None:
    tokens_N, at_N = table["tokens"].to_numpy(), table["at"].to_numpy()
    rest = "; count tokens by steps, with --tokens-per-step"
    if (falls := tokens_N[1:] < tokens_N[:-1]).any():
        i = int(falls.argmax())
        raise ValueError(
            f"{run}: {tokens} falls from {tokens_N[i]:,.0f} at step {at_N[i]:,} to {tokens_N[i + 1]:,.0f} at "
            f"{at_N[i + 1]:,}, as a count that began again after a resume or one of each step's tokens{rest}"
        )
    if len(tokens_N) > 1 and tokens_N[0] == tokens_N[-1]:
        raise ValueError(f"{run}: {tokens} is {tokens_N[0]:,.0f} at every step, so no count of all tokens so far{rest}")


def _gap(table: "pd.DataFrame") -> str:
    """The widest stretch without a row, where it is five times as wide as nearly all others."""
    import numpy as np

    width_N = np.diff(table["tokens"])
    if len(width_N) < 3 or width_N.max() <= 5 * np.quantile(width_N, 0.9, method="lower"):
        return ""
    widest = int(width_N.argmax())
    return f"nothing was logged from {_span(table['at'].iloc[[widest, widest + 1]])}"


def _finite(table: "pd.DataFrame") -> "tuple[pd.DataFrame, str]":
    """The rows without what is no finite number, and why the run must not be fitted, where it had such a loss."""
    import numpy as np

    why = []
    for column in _measured(table):
        if (wrong := np.isinf(table[column])).any():
            why.append(f"diverged: {column} is no finite number at {table['at'][wrong].iloc[0]:,}")
    return table.replace([np.inf, -np.inf], np.nan), "; ".join(why)


def _trailing_mean(tokens: "pd.Series", values: "pd.Series", window_tokens: float, told: list[str]) -> "np.ndarray":
    """Of every row that has a value, the mean of the values of the last so many tokens, its own included."""
    import numpy as np

    there = values.notna().to_numpy()
    tokens_N, sum_N = tokens.to_numpy(float)[there], np.concatenate([[0.0], np.cumsum(values.to_numpy()[there])])
    first_N, end_N = np.searchsorted(tokens_N, tokens_N - window_tokens, side="right"), np.arange(len(tokens_N)) + 1
    mean_N = np.full(len(values), math.nan)
    mean_N[there] = (sum_N[end_N] - sum_N[first_N]) / (end_N - first_N)
    if there.any():
        rows = np.median(end_N - first_N)
        told.append(
            f"{values.name} is the mean over the last {window_tokens:.4g} tokens, {rows:,.0f} rows in the median"
        )
    return mean_N


def _annealed(table: "pd.DataFrame", told: list[str]) -> "pd.DataFrame":
    """The rows with `lr_area` and `lr_annealing`, the sums of the learning rates of the steps by then."""
    at_N, logged = table["at"].to_numpy(), table["learning_rate"].notna().to_numpy()
    if not logged.any() or at_N[0] < 1:
        return table
    told.append("the learning rate is taken for a line between logged steps, to sum it in lr_area and lr_annealing")
    area_N, annealing_N = sums_at(at_N, at_N[logged], table["learning_rate"].to_numpy()[logged])
    table = table.assign(lr_area=area_N, lr_annealing=annealing_N)
    return table.assign(lr_area=table["lr_area"].where(table["lr_area"] > 0))  # before the first, none has been


def _final(table: "pd.DataFrame", told: list[str]) -> "pd.DataFrame":
    """The last row, each measurement in it the last one, where that is of the end of the run."""
    final = table.iloc[[-1]].copy()
    for column in _measured(table):
        at = table[column].last_valid_index()
        if at is None or at == table.index[-1]:
            continue
        share = table["tokens"][at] / table["tokens"].iloc[-1]
        if share >= LATEST_SHARE:
            final[column] = table[column][at]
        else:
            told.append(f"{column} ends at {table['at'][at]:,}, {share:.1%} of the tokens, so the final row has none")
    return final


def _common(log: Log) -> dict[str, Any]:
    """What is the same in every row of a run."""
    common = log.model_dump(include={"corpus", "model", "params", "params_non_embedding"}, exclude_none=True)
    if log.smooth:
        common["smoothed"] = ", ".join(f"{column} over {window:.4g} tokens" for column, window in log.smooth.items())
    common |= log.settings
    return {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in common.items()}


def _measured(table: "pd.DataFrame") -> list[str]:
    return list(filter(is_measured, table))


def _span(ends: Any) -> str:
    first, last = ends
    return f"{first:,} to {last:,}"
