"""A run, or a whole ladder, that is killed again and again: what is lost, and whether the end is the same.

    python benchmarks/resilience.py [KILLS] [FAULT_RATE] [SEED]      # a run, 20 kills, 2 %: some 5 minutes
    python benchmarks/resilience.py engines [KILLS] [SEED]           # a ladder: see resilience_engines.py

The run keeps everything in a local stand-in for Google Cloud Storage (`tests/support/fake_gcs.py`), of whose requests
a share fails with 429, 500 or 503, comes late, or breaks off before or after it has been carried out. Its process is
killed at random moments, with SIGKILL or, every fourth time, with SIGTERM, and started again until it comes to its end.
The same run, on a disk and left alone, is what it is compared with.

Prints one JSON line: `steps_redone`, all that were trained again after kills; `checkpoints_completed`, and of them
`checkpoints_lost`, newest ones from which a start did not go on; `identical`, whether parameters, optimiser state and
losses at the end are, to the last bit, those of the run left alone.
"""

import json
import multiprocessing
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "support"))
import fake_gcs

STEPS = 300
BUCKET, FOLDER = "bucket", "ladder"


def main() -> None:
    """Measures, and prints the line."""
    if sys.argv[1:2] == ["engines"]:
        import resilience_engines

        return resilience_engines.main(*map(int, sys.argv[2:]))
    kills, fault_rate, seed = (cast(word) for cast, word in zip((int, float, int), _arguments(), strict=True))
    dice = random.Random(seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        with fake_gcs.serving(fault_rate, seed) as address:
            expected = _to_the_end(Start(f"{folder}/alone", {}, checkpoint_every_steps=STEPS))
            result = _killed(address, kills, dice, expected)
            print(json.dumps(result | {"seed": seed, "seconds": round(time.monotonic() - started)}))


def _arguments() -> list[str]:
    given = sys.argv[1:]
    return given + ["20", "0.02", "0"][len(given) :]


class Start:
    """A process that trains the run from where it is, and tells of every step."""

    def __init__(self, workdir: str, environment: dict[str, str], checkpoint_every_steps: int = 5):
        # Forked from a process that has imported all it needs: imports would be most of the time.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ladder.training.train"])
        self._pipe, there = context.Pipe(duplex=False)
        self.process = context.Process(target=train, args=(workdir, environment, checkpoint_every_steps, there))
        self.process.start()
        there.close()
        self.first: int | None = None
        self.last = 0
        self.end: dict | None = None

    def until(self, step: int) -> bool:
        """Follows it to a step; whether it is still at work then."""
        while self.last < step:
            try:
                told = self._pipe.recv()
            except EOFError:
                return False
            if isinstance(told, dict):
                self.end = told
            else:
                self.first, self.last = self.first or told, told
        return True

    def stop(self, sent: signal.Signals) -> None:
        """Sends it a signal and follows it to its end."""
        os.kill(self.process.pid, sent)
        self.until(sys.maxsize)
        self.process.join()


def train(workdir: str, environment: dict[str, str], checkpoint_every_steps: int, pipe) -> None:
    """What a process does: the records, where there are none yet, and the run; at the end, what came out."""
    os.environ |= environment
    import numpy as np
    import orbax.checkpoint as ocp

    from ladder.config import Training
    from ladder.events import Trained
    from ladder.spec import Workdir
    from ladder.training import pool
    from ladder.training.checkpoint import fingerprint
    from ladder.training.train import train as train_run
    from tasks import store

    w, spec = Workdir.at(workdir), _spec()
    if not (w.train_records / pool.MIXTURE).exists():
        start_R = np.random.default_rng(0).integers(0, 97, 300)
        store.write(w.train_records / "text", ((start_R[:, None] + 7 * np.arange(17)) % 97).astype(np.uint16))
        pool.write_mixture(w.train_records, [pool.Part(1.0, "text")])
    config = types.SimpleNamespace(training=Training(log_every_steps=1, checkpoint_every_steps=checkpoint_every_steps))
    train_run(config, spec, w, lambda event: pipe.send(event.step) if isinstance(event, Trained) else None)
    restored = ocp.StandardCheckpointer().restore(w.checkpoints(spec.run) / str(spec.steps) / "default")
    rows = [json.loads(line) for line in w.metrics(spec.run).read_text().splitlines()]
    pipe.send(
        {
            "state": fingerprint(restored["state"]).tolist(),
            "losses": [(row["step"], row["loss_nats"], row["grad_norm"]) for row in rows],
        }
    )


def _spec():
    from ladder.recipe import Hyperparameters
    from ladder.spec import RunSpec
    from models.config import DecoderConfig

    h = Hyperparameters(batch_size=8, learning_rate=0.03, final_learning_rate=3e-4, warmup_steps=30, weight_decay=0.033)
    decoder = DecoderConfig(width=16, layers=2, heads=2, vocab_size=97, ffn_multiple=8)
    return RunSpec("w16-m1", "rung", "w16", decoder, 16, STEPS, h, seed=0)


def _to_the_end(start: Start) -> dict:
    start.until(sys.maxsize)
    start.process.join()
    if start.process.exitcode or not start.end:
        sys.exit(f"a process that nobody killed left with {start.process.exitcode}")
    return start.end


def _killed(address: str, kills: int, dice: random.Random, expected: dict) -> dict:
    tally = Tally(address)
    for number in range(1, kills + 1):
        start = Start(f"gs://{BUCKET}/{FOLDER}", fake_gcs.environment(address))
        # Every fifth dies before its first step, or about then: while it restores, or compiles.
        if dice.random() < 0.8 and not (start.until(1) and start.until(start.last + dice.randrange(1, 25))):
            sys.exit(f"the run came to its end before kill {number}; ask for fewer, or give it more steps")
        time.sleep(dice.uniform(0, 0.5))
        start.stop(signal.SIGTERM if dice.random() < 0.25 else signal.SIGKILL)
        tally.add(start)
        print(f"kill {number}: trained steps {start.first} to {start.last}", file=sys.stderr)
    last = Start(f"gs://{BUCKET}/{FOLDER}", fake_gcs.environment(address))
    end = _to_the_end(last)
    tally.add(last)
    return {
        "kills": kills,
        "storage_faults": fake_gcs.faults(address),
        "steps": STEPS,
        "steps_redone": tally.redone,
        "checkpoints_completed": len(tally.completed),
        "checkpoints_lost": tally.lost,
        "identical": end == expected,
    }


class Tally:
    """What starts trained again, and whether each went on from the newest checkpoint that was complete before it."""

    def __init__(self, address: str):
        self._address = address
        self._reached = self._newest = self.redone = self.lost = 0
        self.completed: set[int] = set()

    def add(self, start: Start) -> None:
        """A start that has ended."""
        if start.first:
            self.redone += max(0, min(start.last, self._reached) - start.first + 1)
            self.lost += start.first - 1 < self._newest
            self._reached = max(self._reached, start.last)
        there = _committed(self._address)
        self._newest = max(there, default=0)
        self.completed |= there


def _committed(address: str) -> set[int]:
    """Steps whose checkpoints are complete, as the storage itself has them."""
    names = " ".join(fake_gcs.names(address, BUCKET))
    return {int(step) for step in re.findall(r"checkpoints/(\d+)/commit_success.txt", names)}


if __name__ == "__main__":
    main()
