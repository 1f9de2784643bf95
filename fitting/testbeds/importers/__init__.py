"""Published testbeds → Testbed: what others measured, read into the table that every law is fitted to.

Each importer is given a path and returns a table, typed, checked and passed through the quality gates.
"""

import importlib.resources
import re
from collections.abc import Callable, Mapping
from typing import Any

from fitting.testbeds.importers import gadre2024, gemstones, marin, olmo_ladder, points, porian, scalebench
from fitting.testbeds.testbed import Testbed

KINDS: Mapping[str, Callable[[Any], Testbed]] = {
    "gadre2024": gadre2024.gadre2024,
    "olmo-ladder": olmo_ladder.olmo_ladder,
    "chinchilla": points.chinchilla,
    "datablations": points.datablations,
    "gemstones": gemstones.gemstones,
    "porian": porian.porian,
    "farseer": scalebench.farseer,
    "steplaw": scalebench.steplaw,
    "marin-isoflops": marin.isoflops,
    "csv": Testbed.read,
}


def read(kind: str, path: Any) -> Testbed:
    """Reads a published testbed of a kind in `KINDS`; records that break a quality gate are in `quarantine`, with why.

    Raises:
      ValueError: an unknown kind, or files that are not what the kind says.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; kinds are {', '.join(KINDS)}")
    path = _existing(path)
    try:
        return KINDS[kind](path)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def shipped(name: str) -> Any:
    """The path of a small table that comes with the package, or None where there is none of that name."""
    path = importlib.resources.files("fitting.testbeds") / "data" / f"{name}.csv"
    return path if re.fullmatch(r"\w+", name) and path.is_file() else None


def _existing(path: Any) -> Any:
    from etils import epath

    path = epath.Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    return path
