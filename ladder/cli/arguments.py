"""What several verbs share: arguments, where they print, and the plan of a config."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from etils import epath
from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from fitting.files import cut
from ladder import config_file, refusals, storage
from ladder import plan as plans
from ladder.config import LadderConfig
from ladder.engines.launch import RunFailed
from ladder.spec import RunSpec

LOG_COLUMNS = 120
to_person = Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else LOG_COLUMNS)

ConfigPath = Annotated[Positional[str], arg(metavar="CONFIG", help="YAML file, or the name of a shipped one: demo")]
Run = Annotated[str, arg(metavar="NAME", help="one run, as `ladder plan` names it")]
WorkdirPath = Annotated[str, arg(metavar="DIR", help="folder of all results, local or gs://bucket/path")]
Json = Annotated[FlagCreatePairsOff[bool], arg(help="print JSON on stdout")]
Overrides = Annotated[
    UseAppendAction[tuple[str, ...]],
    arg(name="set", metavar="KEY=VALUE", help="override a value of the config, such as seed=1"),
]


def print_json(value: Any) -> None:
    """Prints what a machine is to read, on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


def law_file(text: str) -> epath.Path:
    """A law.json, which its folder stands for."""
    place = storage.place(text)
    return place / "law.json" if place.is_dir() else place


def named_numbers(texts: Sequence[str], options: Sequence[str] = ()) -> dict[str, float]:
    """Each such as unique_tokens=100e9.

    Raises:
      ValueError: one is not that, is given twice, or has an option of its own.
    """
    numbers: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name in options:
            raise ValueError(f"--given {cut(text)}: say --{name} alone")
        if name in numbers:
            raise ValueError(f"--given {cut(text)}: {name} is given twice")
        try:
            numbers[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise ValueError(f"--given {cut(text)}: write NAME=VALUE, such as unique_tokens=100e9")
    return numbers


def warn_of_strays(asked: Mapping[str, float], ladder: Mapping[str, Sequence[float]]) -> None:
    """Warns where what is asked about lies absurdly far off a ladder: see `fitting.prediction.strays`."""
    from fitting.prediction import strays

    for said in strays(asked, ladder):
        to_person.print(f"warning: {said}")


def planned(config: str, overrides: tuple[str, ...]) -> tuple[LadderConfig, tuple[RunSpec, ...]]:
    """A config with its overrides, and the runs of its ladder."""
    c = config_file.load(config, overrides)
    return c, plans.plan(c, plans.vocab_size(c))


def told(error: Exception) -> str | None:
    """The one line of an exception that refuses what was asked; None for a fault of the program."""
    line = str(error) if isinstance(error, RunFailed) else refusals.told(error)
    return line and f"ladder: {line}"
