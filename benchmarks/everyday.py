"""How long the commands of every day take: `ladder --help`, `fit`, `predict` and `report`, each alone in a process.

    python benchmarks/everyday.py   # half a minute; progress on stderr

Prints one JSON line: for each command, with an empty cache of compiled programs (`cold`) and again (`warm`), the wall
seconds, the CPU seconds, the programs that XLA compiled and those that it took from the cache; and `ratio`, its CPU
seconds over those of `python -c "import jax, pandas"`, measured just before it on the same machine, busy as that may
be. The law is the paper's, of the five runs of Gadre et al. 2024 that are built in and their error.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]
FIVE = "corpus == 'rpj' and role == 'rung' and params < 1e9"
COMMANDS = {
    "help": ("--help",),
    "fit": ("fit", "gadre2024", "--loss", "c4_val", "--error", "average_17", "--select", FIVE, "--out", "{}"),
    "fit_paper": (
        *("fit", "gadre2024", "--loss", "c4_val", "--error", "average_17", "--select", FIVE, "--out", "{}/paper"),
        *("--method", "paper"),
    ),
    "predict": ("predict", "{}/law.json", "--params", "1.4e9", "--tokens", "900e9"),
    "report": ("report", "{}"),
}
LADDER = (sys.executable, "-c", "from ladder.cli.main import main; main()")
REFERENCE = (sys.executable, "-c", "import jax, pandas")


def main() -> None:
    """Runs every command with a cache of its own, empty and then full, and prints what they took."""
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in COMMANDS.items():
            for state in ("cold", "warm"):
                _, reference_s, _ = run(REFERENCE, folder)
                wall_s, cpu_s, log = run((*LADDER, *(word.format(folder) for word in words)), f"{folder}/cache/{name}")
                found[name][state] = {
                    "wall_s": round(wall_s, 2),
                    "cpu_s": round(cpu_s, 2),
                    "ratio": round(cpu_s / reference_s, 2),
                    "compiled": log.count("Finished XLA compilation") - log.count("compilation cache hit"),
                    "from_cache": log.count("compilation cache hit"),
                }
                print(f"{name}, {state}: {found[name][state]}", file=sys.stderr, flush=True)
    print(json.dumps(found))


def run(command: Sequence[str], cache: str) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds and what a command said, JAX's account of what it compiled included."""
    environment = os.environ | {"LADDER_CACHE": cache, "PYTHONPATH": str(ROOT), "JAX_LOG_COMPILES": "1"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr


if __name__ == "__main__":
    main()
