"""Files that trainers logged to → Testbed: a `checkpoint` row for every step measured, and a final row a run."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fitting.testbeds.logs import rows
from fitting.testbeds.logs.formats import READERS, Steps
from fitting.testbeds.logs.log import Log
from fitting.testbeds.testbed import Testbed


def read(
    kind: str,
    paths: Sequence[Any],
    log: Log | Mapping[str, Log],
    say: Callable[[str], None] = lambda line: None,
    *,
    run: str | None = None,
) -> Testbed:
    """Reads logs of a kind in `READERS` into a table, and says in a line a run what was done to make it.

    Rows are sorted by step. Where a step was logged more than once, as after a resume, the last value of each column
    counts. A step with a loss or an error is a checkpoint, `<run>@<step>` (by tokens, where the log has no steps). The
    final row is of the last step, with what was measured there, or within the last 1 % of the tokens. A run that
    logged a loss that is no finite number is in `quarantine`, its checkpoints without that number.

    Args:
      kind: `wandb`, `tensorboard` or `logs`.
      paths: files, or folders where the kind has them.
      log: of every run in `paths`, or of each by its name; those that name no files of their own are in `paths`.
      say: is told a line a run.
      run: the run that all of `paths` are parts of, later ones last.

    Raises:
      ValueError: files that are not what the kind says, a column that is not there, tokens that cannot be told or that
        fall, two runs of one name.
    """
    logs = [log] if isinstance(log, Log) else log.values()
    wanted = {*rows.STEP_NAMES, *rows.TOKEN_NAMES, *(column for each in logs for column in _sources(each))}
    shared = [_read(kind, path, wanted) for path in paths]
    found = {run: _own(run, shared)} if run else _by_name([steps for of_file in shared for steps in of_file])
    by_run = dict.fromkeys(found, log) if isinstance(log, Log) else log
    for name, each in by_run.items():
        if each.files:
            found[name] = _own(name, [_read(kind, path, wanted) for path in each.files])
        elif name not in found:
            raise ValueError(f"no run {name!r} in the files, and it names none; runs are {', '.join(found) or 'none'}")
    if others := [name for name in found if name not in by_run]:
        say(f"not asked for, so not in the table: {', '.join(others)}")
    return Testbed(_below([rows.of_run(name, _joined(found[name]), each, say) for name, each in by_run.items()]))


def _sources(log: Log) -> set[str]:
    return {name for column in log.columns.values() for name in (column, column.removeprefix("1-"))}


def _read(kind: str, path: Any, wanted: set[str]) -> list[Steps]:
    from etils import epath

    if kind not in READERS:
        raise ValueError(f"kind {kind!r} is unknown; kinds of logs are {', '.join(READERS)}")
    return READERS[kind](epath.Path(path).expanduser(), wanted)


def _by_name(found: Sequence[Steps]) -> dict[str, list[Steps]]:
    parts: dict[str, list[Steps]] = {}
    for steps in found:
        parts.setdefault(steps.run, []).append(steps)
        if steps.identity != parts[steps.run][0].identity:
            raise ValueError(
                f"two runs are named {steps.run!r}: {parts[steps.run][0].identity} and {steps.identity}; name runs by "
                "their files with --runs, or say with --run that these are parts of one"
            )
    return parts


def _own(run: str, found: Sequence[Sequence[Steps]]) -> list[Steps]:
    """What a run's own files hold of it: everything, but for a file of many runs."""
    parts: list[Steps] = []
    for of_file in found:
        own = of_file if len(of_file) == 1 else [steps for steps in of_file if steps.run == run]
        if not own:
            raise ValueError(f"no run {run!r} in a file of many; runs are {', '.join(s.run for s in of_file)}")
        parts += own
    return parts


def _joined(parts: Sequence[Steps]) -> Steps:
    """One table of a run's parts, later parts below."""
    if len(parts) == 1:
        return parts[0]
    return dataclasses.replace(
        parts[0],
        columns=tuple(dict.fromkeys(name for part in parts for name in part.columns)),
        table=_below([part.table for part in parts]),
        remarks=tuple(dict.fromkeys(remark for part in parts for remark in part.remarks)),
    )


def _below(tables: Sequence[Any]) -> Any:
    import pandas as pd

    return pd.concat(tables, ignore_index=True)
