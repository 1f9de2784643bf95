"""Whole training curves as rows of the annealing law: what a schedule has summed up by each of its steps."""

import typing

import numpy as np

from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd


_STEP = r"@\d+$"  # of a row that is a step of a run


def annealing_sums(learning_rate_S: np.ndarray, *, decay: float = 0.999) -> tuple[np.ndarray, np.ndarray]:
    """The forward area S1 and the annealing area S2 of a schedule after each step (Tissue et al. 2024).

    S1 is the sum of the learning rates so far. S2 sums, over the steps so far, a momentum of the rate's fall:
    m_i = decay m_{i-1} + (lr_{i-1} - lr_i). They are the columns `lr_area` and `lr_annealing` of the law `annealing`.

    Args:
      learning_rate_S: of each step, in the order of training.
      decay: how much of the momentum a step keeps, 0.99 to 0.9999.

    Returns:
      S1_S and S2_S.

    Raises:
      ValueError: a schedule that is no vector of learning rates, or a decay outside 0 to 1.
    """
    learning_rate_S = np.asarray(learning_rate_S, float)
    if learning_rate_S.ndim != 1 or not (learning_rate_S >= 0).all() or not learning_rate_S.any():
        raise ValueError("a schedule is a vector of learning rates, one a step, none negative and not all zero")
    if not 0 <= decay < 1:
        raise ValueError(f"decay is {decay}: a step keeps a share of the momentum, 0 or more and less than 1")
    momentum, annealing_S = 0.0, np.empty_like(learning_rate_S)
    for step, fall in enumerate(-np.diff(learning_rate_S, prepend=learning_rate_S[0])):
        momentum = decay * momentum + fall
        annealing_S[step] = momentum
    return np.cumsum(learning_rate_S), np.cumsum(annealing_S)


def sums_at(
    step_N: np.ndarray, step_K: np.ndarray, learning_rate_K: np.ndarray, *, decay: float = 0.999
) -> tuple[np.ndarray, np.ndarray]:
    """S1_N and S2_N after steps, in order and counted from 1, of a schedule that is known at others.

    Between two of those the rate is taken to lie on their line, before the first to be as there.
    """
    rate_S = np.interp(np.arange(1, step_N[-1] + 1), step_K, learning_rate_K)
    area_S, annealing_S = annealing_sums(rate_S, decay=decay)
    return area_S[step_N - 1], annealing_S[step_N - 1]


def annealed(testbed: Testbed, *, decay: float = 0.999) -> Testbed:
    """The table with the columns that the law `annealing` is of, `lr_area` and `lr_annealing`, at every run's steps.

    >>> import fitting, pandas as pd
    >>> steps = {"run": ["a@10", "a@20"], "params": 1e6, "tokens": [1e5, 2e5], "learning_rate": [0.02, 0.01]}
    >>> curves = fitting.annealed(fitting.Testbed(pd.DataFrame(steps)))
    >>> curves.table["lr_area"].round(3).tolist()
    [0.2, 0.345]

    Tables of `ladder import` and `ladder collect --curves` have them with the paper's decay; here it is a choice.
    The rate between rows is as in `sums_at`.

    Args:
      testbed: rows of steps are named `<run>@<step>` and have a `learning_rate`.
      decay: as of `annealing_sums`.

    Raises:
      ValueError: no row of a step has a learning rate.
    """
    table = testbed.table.assign(lr_area=np.nan, lr_annealing=np.nan)
    known = table[table["learning_rate"].notna()] if "learning_rate" in table else table.iloc[:0]
    runs = steps_by_run(known)
    if not runs:
        raise ValueError("no row <run>@<step> has a learning_rate: the annealing law is of the rate at every step")
    for rows in runs.values():
        step_R = rows["run"].str.rpartition("@")[2].astype(int).to_numpy()
        sums = sums_at(step_R, step_R, rows["learning_rate"].to_numpy(), decay=decay)
        table.loc[rows.index, ["lr_area", "lr_annealing"]] = np.stack(sums, -1)
    return Testbed(table)


def run_of(row: typing.Any) -> str:
    """The run whose step a row `<run>@<step>` is; a row of another name is a run itself."""
    run, _, step = row.run.rpartition("@")
    return run if step.isdigit() else row.run


def steps_by_run(table: "pd.DataFrame") -> dict[str, "pd.DataFrame"]:
    """The rows of a table that are steps, `<run>@<step>`, by run and in order."""
    steps = table[table["run"].str.contains(_STEP)].sort_values("tokens")
    return {str(run): rows for run, rows in steps.groupby(steps["run"].str.replace(_STEP, "", regex=True), sort=False)}
