"""What code made a number: versions of the libraries, of this program, and its commit where it runs from a checkout."""

import contextlib
import functools
import importlib.metadata
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Mapping

LIBRARIES = ("jax", "jaxopt", "numpy", "pandas")


@functools.cache  # the code that runs is what it is, and a report fits many times
def versions() -> Mapping[str, str]:
    """By name: python, the libraries, `scaling-ladder`, and where it is a checkout its `commit`."""
    found = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it may run from a source never installed
        found["scaling-ladder"] = importlib.metadata.version("scaling-ladder")
    return found | ({"commit": head} if (head := commit(pathlib.Path(__file__).parents[2])) else {})


def commit(root: pathlib.Path) -> str:
    """The commit checked out at `root`, with "+" where files differ from it; empty where that is no checkout."""
    if not (root / ".git").exists() or not shutil.which("git"):
        return ""
    git = ["git", "-C", str(root)]
    asked = [["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]]
    answers = [subprocess.run([*git, *words], capture_output=True, text=True, check=False) for words in asked]
    if any(answer.returncode for answer in answers):
        return ""
    head, changes = (answer.stdout.strip() for answer in answers)
    return head + ("+" if changes else "")
