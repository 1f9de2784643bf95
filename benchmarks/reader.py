"""Reading training batches by index from disk on one core, against reading the same records from one mapped file.

Records are the paper's, 2049 tokens of GPT-NeoX, in a mixture of two parts and many shards, and are read in random
order, as in training: first from the disk (the pages are dropped from memory before), then from memory. The limit is
`mapped[index]` alone, on one file of as many records, mapped with the same advice to the system, in random order too.
Start and resume are measured on the shards of a trillion tokens, which are files with holes: to open them and to have a
batch, that of step 0 or of the last step.

    python benchmarks/reader.py [RECORDS]   # a minute; 100,000 records, 0.4 GB, written to the temporary folder

Prints one JSON line: `tokens_per_second` and `limit_tokens_per_second` from the disk, their `ratio`, both again from
memory (`warm_…`), `start_seconds` and `resume_seconds`.
"""

import json
import mmap
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from etils import epath

TOKENS, BATCH, STEPS, ROUNDS = 2049, 256, 20, 5
PARTS = (("web", 0.9), ("code", 0.1))
SHARDS = 64
TRILLION = 10**12


def main() -> None:
    """Measures in a temporary folder."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from ladder.training.data import Batches

    records = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        root = epath.Path(folder)
        say(f"writing {records:,} records")
        write(root / "mixture", records)
        flat = root / "flat.npy"
        np.save(flat, np.random.default_rng(0).integers(0, 50_277, (records, TOKENS)).astype(np.uint16))
        index_SxB = np.random.default_rng(1).integers(0, records, (STEPS, BATCH))
        row = {}
        for prefix, drop in (("", True), ("warm_", False)):
            speeds = {"ours": [], "limit": []}
            for _ in range(ROUNDS):
                for name, speed in speeds.items():
                    if drop:
                        forget(pathlib.Path(folder))
                    # Opened anew: the system keeps pages that are mapped.
                    mapped = mapped_alone(flat) if name == "limit" else None
                    batches = Batches(root / "mixture", BATCH, seed=0)
                    batches(0)
                    read = batches if mapped is None else lambda step, mapped=mapped: mapped[index_SxB[step - 1]]
                    speed.append(measure(read))
            row[f"{prefix}tokens_per_second"] = statistics.median(speeds["ours"])
            row[f"{prefix}limit_tokens_per_second"] = statistics.median(speeds["limit"])
            row[f"{prefix}ratio"] = row[f"{prefix}tokens_per_second"] / row[f"{prefix}limit_tokens_per_second"]
            say(f"{prefix or 'from the disk '}{speeds}")
        write_holes(root / "trillion")
        last = TRILLION // (TOKENS - 1) // BATCH - 1
        for name, step in (("start_seconds", 0), ("resume_seconds", last)):
            started = time.perf_counter()
            Batches(root / "trillion", BATCH, seed=step + 1)(step)
            row[name] = time.perf_counter() - started
    print(json.dumps(row))


def say(line: str) -> None:
    """Tells how far the benchmark is."""
    print(line, file=sys.stderr)


def measure(read: Callable[[int], np.ndarray]) -> float:
    """Tokens a second, each record's first not counted, of steps after the first."""
    started = time.perf_counter()
    for step in range(1, STEPS + 1):
        read(step)
    return STEPS * BATCH * (TOKENS - 1) / (time.perf_counter() - started)


def mapped_alone(path: epath.Path) -> np.ndarray:
    """A file's records, mapped."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, np.uint16, offset=128).reshape(-1, TOKENS)


def write(root: epath.Path, records: int) -> None:
    """Records of random tokens, a folder a part."""
    from ladder.training.pool import Part, write_mixture
    from tasks import store

    rng = np.random.default_rng(0)
    for part, rate in PARTS:
        paths = [store.shard(root / part, index, SHARDS) for index in range(SHARDS)]
        for path in paths:
            own = max(1, round(records * rate / SHARDS))
            with store.replaced(path) as file:
                store.write_header(file, own, TOKENS, np.uint16)
                file.write(rng.integers(0, 50_277, (own, TOKENS)).astype(np.uint16).tobytes())
        store.finish(root / part, paths)
    write_mixture(root, [Part(rate, part) for part, rate in PARTS])


def write_holes(root: epath.Path) -> None:
    """A trillion tokens that take no room: shards whose headers alone are written."""
    from ladder.training.pool import Part, write_mixture
    from tasks import store

    shards = 16 * SHARDS
    for part, rate in PARTS:
        paths = [store.shard(root / part, index, shards) for index in range(shards)]
        own = round(TRILLION / (TOKENS - 1) * rate / shards)
        for path in paths:
            with store.replaced(path) as file:
                store.write_header(file, own, TOKENS, np.uint16)
                file.truncate(store.HEADER_BYTES + own * TOKENS * 2)
        store.finish(root / part, paths)
    write_mixture(root, [Part(rate, part) for part, rate in PARTS])


def forget(folder: pathlib.Path) -> None:
    """Has the operating system drop the files' pages, so that the next read is from the disk."""
    for path in folder.rglob("*.npy"):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
