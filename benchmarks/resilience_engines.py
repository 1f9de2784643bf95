"""A ladder whose workers, hosts and drivers are killed at random moments, by all engines in turn on one workdir.

    python benchmarks/resilience.py engines [KILLS] [SEED]           # 20 kills: some 20 minutes on two cores

Drivers come and go: `ladder run` on processes of this machine, `ladder run` on a Ray cluster of two fake slices of two
hosts each, `ladder work`. At random moments the process that holds a run's lease is killed (or, every fourth time, told
to leave), or the driver, or a host of a slice that is at work. Every run has two devices, whichever engine has it, so
that all of them compute the same. The same ladder, left alone, is what it is compared with.

Prints one JSON line: `kills` by kind; `attempts`, and what ended them; `steps_redone`, of `steps` in all;
`records_lost`, that were gone or other than when they were first seen; `records_written_again`, attempts that ended a
run which had ended; `identical`, whether parameters, optimiser state, losses, records, table and law are those of the
ladder left alone, to the last bit.
"""

import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "support"))
import processes
import ray_cluster

LONGEST_WAIT_SECONDS = 2.0
DEVICES = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}


def main(kills: int = 20, seed: int = 0) -> None:
    """Measures, and prints the line."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        config = _config(folder)
        if _driver("local", config, folder / "alone", said=sys.stderr).wait():
            sys.exit("the ladder that nobody killed did not come to its end")
        with ray_cluster.Slices(2) as cluster:
            ladder = Ladder(config, folder / "killed", cluster, random.Random(seed))
            for number in range(1, kills + 1):
                print(f"kill {number}: {ladder.kill()}", file=sys.stderr, flush=True)
            ladder.finish()
        result = ladder.result() | {"identical": _identical(folder / "killed", folder / "alone")}
        print(json.dumps(result | {"seed": seed, "seconds": round(time.monotonic() - started)}))


class Ladder:
    """A workdir, the driver that is at work on it, and what has been done to them."""

    def __init__(self, config: pathlib.Path, workdir: pathlib.Path, cluster: ray_cluster.Slices, dice: random.Random):
        self._config, self._workdir, self._cluster, self._dice = config, workdir, cluster, dice
        self._driver: subprocess.Popen | None = None
        self._engine = ""
        self._kills = collections.Counter()
        self._records: dict[str, bytes] = {}
        self.records_lost = 0

    def kill(self) -> str:
        """Kills something at a random moment; says what."""
        before, at_once = self._saved(), self._dice.random() < 0.2  # while it starts, restores or compiles
        while not (leases := self._at_work()) or not (at_once or self._saved() > before):
            time.sleep(0.1)
        time.sleep(self._dice.uniform(0, LONGEST_WAIT_SECONDS))
        self._look_at_records()
        kinds = ["worker", "driver"] + ["host"] * (self._engine == "ray")
        kind = self._dice.choice(kinds)
        if kind == "host":
            where = self._dice.randrange(2), self._dice.randrange(2)
            self._cluster.remove(*where)
            self._cluster.replace(*where)
        elif kind == "driver":
            self._driver.kill()
            self._driver.wait()
        else:
            sent = signal.SIGTERM if self._dice.random() < 0.25 else signal.SIGKILL
            kind = f"worker, {sent.name}"
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._dice.choice(leases), sent)
        self._kills[f"{kind} of {self._engine}"] += 1
        return f"{kind} of {self._engine}; {len(self._records)} runs are finished"

    def finish(self) -> None:
        """Lets it come to its end."""
        while not self._driver or self._driver.wait() or self._engine == "work":
            self._engine = "local"
            self._driver = _driver("local", self._config, self._workdir)
        self._look_at_records()

    def result(self) -> dict:
        """What came of it."""
        stories = [
            [json.loads(line) for line in path.read_text().splitlines()]
            for path in self._workdir.glob("runs/*/attempts.jsonl")
        ]
        plan = json.loads((self._workdir / "plan.json").read_text())["runs"]
        why = collections.Counter(attempt["why"] for story in stories for attempt in story)
        return {
            "kills": dict(self._kills),
            "attempts": dict(why),
            "steps": sum(run["steps"] for run in plan),
            "steps_redone": sum(attempt["steps_redone"] for story in stories for attempt in story),
            "records": len(self._records),
            "records_lost": self.records_lost,
            "records_written_again": sum(max(0, _finished(story) - 1) for story in stories),
        }

    def _at_work(self) -> list[int]:
        """The processes that hold a run; where nobody does and the driver has left, another is started."""
        if self._driver is None or self._driver.poll() is not None:
            if len(self._records) == 6:
                sys.exit("the ladder came to its end before all kills; ask for fewer")
            self._engine = self._dice.choice(["local", "work", "ray"])
            self._driver = _driver(self._engine, self._config, self._workdir, self._cluster.address)
        found = []
        for path in self._workdir.glob("runs/*/lease.json"):
            with contextlib.suppress(OSError, ValueError):
                pid = json.loads(path.read_text())["pid"]
                if pathlib.Path(f"/proc/{pid}").exists():
                    found.append(pid)
        return found

    def _saved(self) -> int:
        """Steps that need not be trained again, of all runs together."""
        return sum(
            max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=0)
            for folder in self._workdir.glob("runs/*/checkpoints")
        )

    def _look_at_records(self) -> None:
        now = {path.parent.name: path.read_bytes() for path in self._workdir.glob("runs/*/record.json")}
        self.records_lost += sum(now.get(run) != record for run, record in self._records.items())
        self._records = now


def _finished(story: list[dict]) -> int:
    return sum(attempt["why"] == "finished" for attempt in story)


def _driver(engine: str, config: pathlib.Path, workdir: pathlib.Path, address: str = "", said=subprocess.DEVNULL):
    verb = "work" if engine == "work" else "run"
    command = [*processes.LADDER, verb, str(config), "--workdir", str(workdir)]
    command += ["--engine", "ray", "--address", address] if engine == "ray" else []
    command += ["--set", f"training.cores_per_run={int(engine == 'local')}"]
    return subprocess.Popen(command, env=os.environ | DEVICES, stderr=said)


def _config(folder: pathlib.Path) -> pathlib.Path:
    """Runs of 230 to 860 steps on made-up text, whose batches of 64 split over the slices' chips."""
    (folder / "text").mkdir()
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(60)]
    for i in range(60):
        lines = [f"let {a} be the {b} of {a}; then {b} is {a}\n" for a, b in rng.choice(rng.choice(words, 4), (60, 2))]
        (folder / "text" / f"{i}.txt").write_text("".join(lines))
    tree = {
        "name": "tiny",
        "sizes": {f"w{width}": {"width": width, "layers": 1, "heads": 1} for width in (4, 6, 8, 10)},
        "model": {"sequence_length": 16, "ffn_multiple": 8},
        "rungs": [
            {"sizes": ["w4", "w6", "w8"], "token_multipliers": [100]},
            {"sizes": ["w4", "w6"], "token_multipliers": [200]},
        ],
        "targets": [{"sizes": ["w10"], "token_multipliers": [100]}],
        "recipe": {"name": "gadre2024"},
        "corpus": {"kind": "text", "options": {"path": str(folder / "text")}, "epochs": 16},
        "evaluation": {"sequences": 70},
        "training": {"checkpoint_every_steps": 25, "log_every_steps": 1},
        "fit": {"loss": "loss/held_out"},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def _identical(workdir: pathlib.Path, other: pathlib.Path) -> bool:
    os.environ["JAX_PLATFORMS"] = "cpu"
    import results

    try:
        results.same_results(workdir, other)
    except AssertionError as e:
        print(e, file=sys.stderr)
        return False
    return True
