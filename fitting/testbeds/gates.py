"""The quality gates: what in the record of a run says that it must not be fitted.

A gate judges the runs whose columns it needs: a batch of one sequence, a warm-up longer than the run, tokens seen that
are not those the run is said to have had, a loss no better than guessing.
"""

import math
import typing
from collections.abc import Mapping

if typing.TYPE_CHECKING:
    import pandas as pd

GUESSING_NATS = math.log(2**18)  # of the largest vocabularies in use: 262,144 tokens, all equally likely
_COLUMNS = ("role", "quarantine", "batch_size", "warmup_steps", "steps", "tokens_seen", "tokens")


def judged(table: "pd.DataFrame") -> list[str]:
    """The column `quarantine` of a table, with the reasons of the gates that a run breaks added where they are new."""
    runs = table.reindex(columns=list(_COLUMNS)).assign(worst_nats=table.filter(regex="^loss/").max(axis=1))
    return [_verdict(run) for run in runs.to_dict("records")]


def _verdict(run: Mapping[str, typing.Any]) -> str:
    before = run["quarantine"]
    if run["role"] == "checkpoint":  # a run is judged by its end: every one begins as good as guessing
        return before
    return "; ".join(filter(None, [before, *(reason for gate in _GATES if (reason := gate(run)) not in before)]))


def _batch_of_one(run: Mapping[str, float]) -> str:
    return "batch of 1 sequence" if run["batch_size"] == 1 else ""


def _warmup_outlasts_run(run: Mapping[str, float]) -> str:
    warmup, steps = run["warmup_steps"], run["steps"]
    return f"warm-up of {warmup:,.0f} steps in a run of {steps:,.0f}" if warmup > steps else ""


def _other_tokens(run: Mapping[str, float]) -> str:
    seen, tokens = run["tokens_seen"], run["tokens"]
    return f"tokens do not match: {tokens:.4g} said, {seen:.4g} trained" if abs(seen / tokens - 1) > 0.01 else ""


def _diverged(run: Mapping[str, float]) -> str:
    worst = run["worst_nats"]
    return f"diverged: a loss of {worst:.4g} nats a token" if worst > GUESSING_NATS else ""


_GATES = (_batch_of_one, _warmup_outlasts_run, _other_tokens, _diverged)
