"""What in a table of runs looks as if it were in another unit than its column says, or another quantity."""

import math
import typing
from collections.abc import Iterator
from typing import Any

from fitting.testbeds.gates import GUESSING_NATS
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd

_PLAIN = 1000  # less is no count of parameters or tokens, more is no number of millions
_FEW, _MANY = 0.1, 20_000  # tokens a parameter; of published ladders the medians are 15 to 300
# Rank correlations beyond those of any right column of the published testbeds: of an error with the loss, of the loss
# with compute.
_AGREE, _RISES = 0.9, 0.5
_ENOUGH = 6  # runs to tell a trend by
_TREND = 0.1  # of an error, from run to run; single tasks near chance wander by less
# C over 6ND, where every run has the same: what is then taken for C.
_OTHER_FLOPS = {1 / 6: "ND", 1 / 3: "2ND, a forward pass", 1 / 2: "3ND, multiply-adds", 2: "12ND, counted twice"}


def suspicions(testbed: Testbed, column: str, error_column: str | None = None) -> list[str]:
    """What looks wrong, a sentence each, with the remedy; quarantined runs are not looked at.

    Args:
      testbed: the runs.
      column: the loss to be fitted.
      error_column: the error to be fitted, if one is.

    Raises:
      ValueError: what cannot be right: tokens that are steps, or losses of which each is worse than guessing.
    """
    _refuse_steps(testbed.table)
    _refuse_perplexities(testbed.table, column)
    table = testbed.table[testbed.table["quarantine"] == ""]
    if table.empty:
        return []
    sizes = _sizes(table)
    # Where sizes are in other units, nothing can be told by them.
    found = sizes or [*_flops(table), *_loss(table, column)]
    return [*found, *_trend(table, column, error_column)]


def _refuse_steps(table: "pd.DataFrame") -> None:
    if "steps" in table and (table["tokens"] == table["steps"]).all():
        raise ValueError("tokens are the steps in every run: a step takes batch × sequence length tokens")


def _refuse_perplexities(table: "pd.DataFrame", column: str) -> None:
    measured = table[column].dropna()
    if column.startswith("loss/") and len(measured) >= _ENOUGH and (measured > GUESSING_NATS).all():
        raise ValueError(
            f"{column} is {measured.min():.4g} or more in every run, and to guess one of 262,144 tokens costs "
            f"{GUESSING_NATS:.3g} nats: if these are perplexities, take their logarithm"
        )


def _sizes(table: "pd.DataFrame") -> list[str]:
    found = []
    for name in ("params", "tokens"):
        small = table[name] < _PLAIN
        if small.all():
            found.append(f"{name} is at most {table[name].max():g}: it is a plain count, not in millions or billions")
        elif small.any() and table[name].max() >= 1000 * _PLAIN:
            run, value = table.loc[small.idxmax(), ["run", name]]
            found.append(f"{name} of run {run!r} is {value:g}, of others more: write plain counts, not in millions")
    multiplier = (table["tokens"] / table["params"]).median()
    if multiplier < _FEW and not found:
        found.append(
            f"runs have {multiplier:.2g} tokens a parameter, and 20 are usual: are tokens steps or sequences, in "
            "millions, or is params in their place?"
        )
    if multiplier > _MANY and not found:
        found.append(
            f"runs have {multiplier:,.0f} tokens a parameter, and 20 are usual: are params in thousands or millions?"
        )
    if "params_non_embedding" in table and (more := table["params_non_embedding"] > table["params"]).any():
        found.append(f"run {table['run'][more.idxmax()]!r} has more parameters without its embeddings than with them")
    said = table["token_multiplier"] * table["params"] / table["tokens"]
    if (abs(said - 1) > 0.1).all():
        found.append(f"token_multiplier is {said.median():.3g} times tokens / params: leave that column out")
    return found


def _flops(table: "pd.DataFrame") -> Iterator[str]:
    times = table["flops"].astype(float) / (6.0 * table["params"].astype(float) * table["tokens"]).dropna()
    for factor, what in _OTHER_FLOPS.items():
        if (abs(times / factor - 1) < 0.02).all():
            yield f"flops is {factor:.3g} times 6 × params × tokens in every run: is it {what}? Training takes C = 6ND"
    if (times < 0.1).all() and not (abs(times * 6 - 1) < 0.02).all():
        yield f"flops is {times.median():.2g} times 6 × params × tokens: it is a plain count, not in exaFLOPs"
    if (times > 10).all():
        yield f"flops is {times.median():.2g} times 6 × params × tokens: are params or tokens in another unit?"


def _loss(table: "pd.DataFrame", column: str) -> Iterator[str]:
    kind, _, name = column.partition("/")
    rows = table[table["params"] >= 1e7].dropna(subset=[column])
    if rows.empty:
        return
    usual = _usual_nats(rows["params"], rows["tokens"])
    ratio, of_logarithm = rows[column] / usual, rows[column].map(math.log) / usual
    if kind == "bpb" and ratio.between(0.85, 1.6).all():
        yield f"{column} is what is usual for nats a token: they are columns named loss/{name}"
    elif kind == "loss" and ratio.between(1.33, 1.56).all():
        yield f"{column} is {ratio.median():.2f} times what is usual for text: are these bits, and not nats?"
    elif kind == "loss" and (ratio > 1.6).all() and of_logarithm.between(0.55, 1.6).all():
        yield f"{column} is {ratio.median():.2f} times what is usual for text: of perplexities take the logarithm"
    elif kind == "loss" and (ratio < 0.6).all():
        yield (
            f"{column} is low for nats a token, as a loss a byte or a character is: bits a byte are columns named "
            f"bpb/{name}"
        )


def _trend(table: "pd.DataFrame", column: str, error_column: str | None) -> Iterator[str]:
    measured = table.dropna(subset=[column])
    compute = measured["flops"].astype(float)
    if len(measured) >= _ENOUGH and _rank_correlation(measured[column], compute) > _RISES:
        yield f"{column} rises with compute: is it an accuracy, or a log likelihood? A loss falls"
    if error_column is None:
        return
    both = measured.dropna(subset=[error_column])
    error = both[error_column]
    if len(both) >= _ENOUGH and error.max() - error.min() > _TREND and _rank_correlation(error, both[column]) < -_AGREE:
        yield f"{error_column} falls where {column} rises: if it is an accuracy, the error is 1 less it"


def _rank_correlation(one: "pd.Series", other: "pd.Series") -> float:
    """Spearman's; NaN where either is constant."""
    return one.rank().corr(other.rank()) if one.nunique() > 1 and other.nunique() > 1 else math.nan


def _usual_nats(params: Any, tokens: Any) -> Any:
    """The law of Hoffmann et al. 2022 as Besiroglu et al. 2024 refitted it: web text in a vocabulary of 32,000."""
    return 1.817 + 482.0 * params**-0.3478 + 2085.4 * tokens**-0.3658
