"""Imports a made-up open_lm checkpoint of the paper's 411M shape, against PyTorch reading it and writing it again.

Prints one JSON line: seconds of `ladder convert open-lm` and of its peer, each a process of its own, and the peak of
resident memory as a share of the checkpoint's size. The operating system counts the mapped file as resident.

    python benchmarks/import_open_lm.py
"""

import importlib.util
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context

from models.config import PAPER

SIZE = "d=1024_l=24_h=8"
PEER = """
import sys, torch
held = torch.load(sys.argv[1], weights_only=True)
torch.save({name: tensor.T.contiguous() if tensor.ndim == 2 else tensor for name, tensor in held["state_dict"].items()},
           sys.argv[2])
"""


def main() -> None:
    """Makes the checkpoint, imports it by both, prints the measurements."""
    if not importlib.util.find_spec("torch"):
        sys.exit("the benchmark compares with PyTorch, which is not here: pip install '.[bench]'")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "epoch_1.pt"
        _in_own_process(_write_checkpoint, path)
        size = path.stat().st_size
        ladder = pathlib.Path(sys.executable).with_name("ladder")
        ours = _in_own_process(_run, [str(ladder), "convert", "open-lm", str(path), "--out", f"{folder}/out"])
        peer = _in_own_process(_run, [sys.executable, "-c", PEER, str(path), f"{folder}/peer.pt"])
    result = {
        "benchmark": "import_open_lm",
        "size": SIZE,
        "checkpoint_bytes": size,
        "seconds": ours[0],
        "peer_seconds": peer[0],
        "seconds_ratio": ours[0] / peer[0],
        "peak_memory_ratio": ours[1] / size,
        "peer_peak_memory_ratio": peer[1] / size,
    }
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in result.items()}))


def _in_own_process(job, *args):
    # The peak of memory that the system tells is of all children so far.
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(job, args)


def _run(command: list[str]) -> tuple[float, int]:
    start = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _write_checkpoint(path: pathlib.Path) -> None:
    import torch

    c = PAPER[SIZE]
    generator = torch.Generator().manual_seed(0)

    def kernel(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * c.width**-0.5

    inv_freq = 10_000.0 ** (-torch.arange(0, c.head_width, 2).float() / c.head_width)
    held = {
        "tok_embeddings.weight": kernel(c.vocab_size, c.width),
        "norm.weight": torch.ones(c.width),
        "output.weight": kernel(c.vocab_size, c.width),
    }
    for layer in range(c.layers):
        block = {
            "attention.in_proj.weight": kernel(3 * c.width, c.width),
            "attention.out_proj.weight": kernel(c.width, c.width),
            "attention.q_norm.weight": torch.ones(c.width),
            "attention.k_norm.weight": torch.ones(c.width),
            "attention.pos_embed.inv_freq": inv_freq,
            "attention_norm.weight": torch.ones(c.width),
            "ffn_norm.weight": torch.ones(c.width),
            "feed_forward.w12.weight": kernel(2 * c.ffn_width, c.width),
            "feed_forward.w3.weight": kernel(c.width, c.ffn_width),
        }
        held |= {f"layers.{layer}.{name}": tensor for name, tensor in block.items()}
    torch.save({"epoch": 1, "state_dict": {f"module.{name}": tensor for name, tensor in held.items()}}, path)


if __name__ == "__main__":
    main()
