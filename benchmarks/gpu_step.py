"""A training step on one NVIDIA GPU against PyTorch's: time, tokens/s, 6N-MFU, memory, compile time and the ratio.

Each size is stepped on sequences of 2048 in bfloat16 over float32 parameters by `ladder.training.step`'s own step, and
by the same decoder in PyTorch as its users run it: torch.compile, autocast, scaled_dot_product_attention, fused AdamW,
clipping. Neither recomputes anything. They take turns, a process each, so that neither holds the other's memory. A
first turn compiles; a second finds what the first has left in a folder of caches, and tells what that spares. Each is
judged by its best turn.

    python benchmarks/gpu_step.py [SIZE ...]      # some 7 minutes on an H100: 79M, 411M, 1.4B; progress on stderr
    python benchmarks/gpu_step.py --small         # a tiny shape, anywhere: both compute the same, and every path runs

No turn begins after 7 minutes. Prints one JSON line; `ratio` is PyTorch's time over ours. With `--small` it also says
how far the loss and the gradients of a first step lie `apart`, from the same parameters in float32, and exits 1 where
that is more than rounding. It exits 1, too, where a size could not be stepped; the line says why.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any, NamedTuple

SECONDS = 420
TURN_SECONDS = 240  # beyond which one hangs
ROUNDS = 2
STEPS = 20
WARM_UP = 3
SAME = 1e-4  # of the largest gradient


class Size(NamedTuple):
    """A decoder by open_lm's name, and how many sequences a step takes."""

    name: str
    batch: int


SIZES = {"79M": Size("d=512_l=8_h=4", 32), "411M": Size("d=1024_l=24_h=8", 16), "1.4B": Size("open_lm_1b", 8)}
SMALL = "small"


def main() -> None:
    """Measures the sizes named on the command line, all of them where none is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", nargs="*", default=list(SIZES), metavar="SIZE", help=", ".join(SIZES))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--turn", choices=TURNS, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if not importlib.util.find_spec("torch"):
        sys.exit("the benchmark compares with PyTorch, which is not here: pip install torch")
    sizes = [SMALL] if arguments.small else arguments.sizes
    if unknown := set(sizes) - {SMALL, *SIZES}:
        sys.exit(f"there is no size {', '.join(unknown)}; there are {', '.join(SIZES)}")
    if arguments.turn:
        print(json.dumps(TURNS[arguments.turn](sizes[0])))
        return
    apart = difference() if arguments.small else None
    rows = measure(sizes)
    print(json.dumps({"rows": rows, **({"apart": apart} if apart else {})}))
    if not all("ratio" in row for row in rows) or (apart and max(apart.values()) > SAME):
        sys.exit(1)


def measure(sizes: list[str]) -> list[dict[str, Any]]:
    """A row a size; the first turns of all come before the second of any."""
    began, found = time.monotonic(), {(size, side): [] for size in sizes for side in TURNS}
    with tempfile.TemporaryDirectory() as caches:
        for _ in range(ROUNDS):
            for (size, side), turns in found.items():
                if time.monotonic() - began < SECONDS:
                    turns.append(turn(size, side, caches))
                    print(f"{size} {side}: {turns[-1]}", file=sys.stderr, flush=True)
    return [row(size, {side: found[size, side] for side in TURNS}) for size in sizes]


def turn(size: str, side: str, caches: str) -> dict[str, Any]:
    """What a side says of a size, asked in a process of its own; its error where it has none to say."""
    asked = [sys.executable, __file__, "--turn", side, *(["--small"] if size == SMALL else [size])]
    settings = {
        "JAX_COMPILATION_CACHE_DIR": f"{caches}/jax",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/torch",
    }
    began = time.monotonic()
    try:
        done = subprocess.run(
            asked, env={**os.environ, **settings}, capture_output=True, text=True, check=True, timeout=TURN_SECONDS
        )
    except subprocess.SubprocessError as e:
        return {"error": (e.stderr or str(e))[-500:]}
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": round(time.monotonic() - began, 1)}


def row(size: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Each side's best turn, and PyTorch's time over ours."""
    told: dict[str, Any] = {"size": size}
    for side, turns in found.items():
        done = [t for t in turns if "ms" in t]
        told[side] = dict(min(done, key=lambda t: t["ms"])) if done else {"turns": turns}
        for name, t in zip(("compile_seconds", "cached_compile_seconds"), done, strict=False):
            told[side][name] = t["compile_seconds"]
    if all("ms" in told[side] for side in found):
        told["ratio"] = round(told["pytorch"]["ms"] / told["ours"]["ms"], 3)
    return told


def shape(size: str) -> tuple[Any, Any]:
    """The run that is stepped, and how."""
    import dataclasses

    from ladder.config import Mesh, Training
    from ladder.recipe import Hyperparameters
    from ladder.spec import RunSpec
    from models.config import PAPER, DecoderConfig

    small = size == SMALL
    asked = Size("", 4) if small else SIZES[size]
    c = DecoderConfig(width=32, layers=2, heads=2, vocab_size=256, ffn_multiple=8) if small else PAPER[asked.name]
    spec = RunSpec(
        run=size,
        role="rung",
        size=size,
        decoder=dataclasses.replace(c, dtype="bfloat16"),
        sequence_length=128 if small else 2048,
        steps=1000,
        hyperparameters=Hyperparameters(
            batch_size=asked.batch, learning_rate=3e-4, final_learning_rate=3e-5, warmup_steps=100, weight_decay=0.1
        ),
        seed=0,
    )
    # Unrolled: a scan writes all that its blocks keep into stacks, which takes a third more of the step, and twice the
    # memory.
    return spec, Training(mesh=Mesh(data=1), loss_chunk_tokens=64 if small else 512)


def timed(step, synchronise, spec, peak_flops: float | None, memory) -> dict[str, Any]:
    """The median of some steps, each waited for at its end; what came before them is the compiler's time."""
    from models import accounting

    began = time.perf_counter()
    for _ in range(WARM_UP):
        loss = step()
        synchronise(loss)
    compiled, each = time.perf_counter() - began, []
    for _ in range(WARM_UP if spec.run == SMALL else STEPS):
        start = time.perf_counter()
        synchronise(step())
        each.append(time.perf_counter() - start)
    seconds = statistics.median(each)
    tokens = spec.hyperparameters.batch_size * spec.sequence_length
    mfu = accounting.training_flops(spec.params, tokens) / seconds / peak_flops if peak_flops else None
    return {
        "ms": round(1e3 * seconds, 3),
        "tokens_per_second": round(tokens / seconds),
        "mfu": mfu and round(mfu, 4),
        "memory_gib": (held := memory()) and round(held / 2**30, 2),
        "compile_seconds": round(compiled - WARM_UP * seconds, 2),
    }


def ours(size: str) -> dict[str, Any]:
    """Our step."""
    import jax

    from ladder.training import mesh as meshes
    from ladder.training import watch
    from ladder.training.step import Program

    spec, training = shape(size)
    program = Program(training, spec, meshes.make(devices=jax.devices()[:1]))
    batch_BxT = jax.random.randint(jax.random.key(0), program.abstract_batch.shape, 0, spec.decoder.vocab_size)
    state, device = program.init(), jax.devices()[0]

    def one():
        nonlocal state
        state, metrics = program.step(state, batch_BxT)
        return metrics["loss_nats"]

    def memory() -> int | None:
        return (device.memory_stats() or {}).get("peak_bytes_in_use")

    peak = watch.PEAK_FLOPS_PER_SECOND.get(device.device_kind)
    told = timed(one, lambda loss: loss.block_until_ready(), spec, peak, memory)
    return told | {"attention": program.attention, "device": device.device_kind, "jax": jax.__version__}


def pytorch(size: str) -> dict[str, Any]:
    """PyTorch's."""
    import torch

    from ladder.training import watch

    spec, _ = shape(size)
    cuda = torch.cuda.is_available()
    torch.set_num_threads(1)  # of a CPU's, which step the small shape alone
    device = torch.device("cuda" if cuda else "cpu")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    step = torch_step(torch_decoder(spec.decoder).to(device), spec, device)
    batch_BxT = torch.randint(
        spec.decoder.vocab_size, (spec.hyperparameters.batch_size, spec.sequence_length + 1), device=device
    )
    kind = torch.cuda.get_device_name() if cuda else "cpu"

    def synchronise(loss) -> None:
        if cuda:
            torch.cuda.synchronize()

    def memory() -> int | None:
        return torch.cuda.max_memory_allocated() if cuda else None

    told = timed(lambda: step(batch_BxT), synchronise, spec, watch.PEAK_FLOPS_PER_SECOND.get(kind), memory)
    return told | {"device": kind, "torch": torch.__version__}


TURNS = {"ours": ours, "pytorch": pytorch}


def torch_decoder(c) -> Any:
    """The paper's decoder as a PyTorch module; `forward` gives logits_BxLxV."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain = nn.Parameter(torch.ones(c.width))

        def forward(self, x):
            return F.layer_norm(x, (c.width,), self.gain, eps=c.norm_eps)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.ffn_norm, self.query_norm, self.key_norm = (Norm() for _ in range(4))
            self.query, self.key, self.value, self.out = (nn.Linear(c.width, c.width, bias=False) for _ in range(4))
            self.gate, self.up = (nn.Linear(c.width, c.ffn_width, bias=False) for _ in range(2))
            self.down = nn.Linear(c.ffn_width, c.width, bias=False)

        def forward(self, x, cos_LxK, sin_LxK):
            def heads(y):
                return y.view(*x.shape[:2], c.heads, c.head_width).transpose(1, 2)

            def turned(y):
                left, right = y.chunk(2, dim=-1)
                return (y * cos_LxK + torch.cat([-right, left], dim=-1) * sin_LxK).type_as(v)

            normed = self.attention_norm(x)
            v = heads(self.value(normed))
            q = turned(heads(self.query_norm(self.query(normed))))
            k = turned(heads(self.key_norm(self.key(normed))))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
            normed = self.ffn_norm(x)
            return x + self.down(F.silu(self.gate(normed)) * self.up(normed))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(c.vocab_size, c.width)
            self.blocks = nn.ModuleList(Block() for _ in range(c.layers))
            self.norm = Norm()
            self.output = nn.Linear(c.width, c.vocab_size, bias=False)

        def forward(self, token_BxL):
            half = torch.arange(0, c.head_width, 2, device=token_BxL.device) / c.head_width
            position_L = torch.arange(token_BxL.shape[1], device=token_BxL.device)
            angle_LxK = (position_L[:, None] * c.rope_theta**-half).repeat(1, 2)
            x = self.embedding(token_BxL)
            for block in self.blocks:
                x = block(x, angle_LxK.cos(), angle_LxK.sin())
            return self.output(self.norm(x))

    return Decoder()


def torch_loss(model, batch_BxT, z_loss: float) -> Any:
    """Mean cross-entropy plus the weighted mean square of the log normaliser; and the first alone."""
    from torch.nn import functional as F

    logits_BxLxV = model(batch_BxT[:, :-1]).float()
    loss = F.cross_entropy(logits_BxLxV.flatten(0, 1), batch_BxT[:, 1:].flatten())
    return loss + z_loss * logits_BxLxV.logsumexp(-1).square().mean(), loss


def torch_step(model, spec, device) -> Any:
    """batch_BxT → loss, the parameters being those of the next step."""
    import torch

    h = spec.hyperparameters
    betas = h.beta1, h.beta2
    adamw = torch.optim.AdamW(model.parameters(), h.learning_rate, betas, h.epsilon, h.weight_decay, fused=True)
    # On a CPU the graph alone is made, which asks for no C++ compiler.
    loss_of = torch.compile(torch_loss, fullgraph=True, backend="inductor" if device.type == "cuda" else "eager")

    def step(batch_BxT):
        with torch.autocast(device.type, torch.bfloat16):
            loss, told = loss_of(model, batch_BxT, h.z_loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), h.clip_norm)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return told.detach()

    return step


def difference() -> dict[str, float]:
    """How far PyTorch's loss and gradients lie from ours, as a GPU makes them, from the same parameters in float32."""
    import dataclasses

    import jax
    import numpy as np
    import torch
    from flax import linen as nn

    from ladder.training.step import init_state, make_optimizer, train_step
    from models.decoder import Decoder
    from models.execution import Execution
    from models.lookup import look_up

    def attend(q_BxHxLxK, k_BxHxLxK, v_BxHxLxK):
        # cuDNN's own, where there is none: the same function, as XLA writes it.
        qkv = (x.swapaxes(1, 2) for x in (q_BxHxLxK, k_BxHxLxK, v_BxHxLxK))
        return jax.nn.dot_product_attention(*qkv, scale=1.0, is_causal=True).swapaxes(1, 2)

    spec, training = shape(SMALL)
    c = dataclasses.replace(spec.decoder, dtype="float32")
    h = dataclasses.replace(spec.hyperparameters, clip_norm=1e9)
    spec = dataclasses.replace(spec, decoder=c, hyperparameters=h)
    optimizer = make_optimizer(h, spec.steps)
    decoder = Decoder(c, Execution(attend=attend, look_up=look_up, platform="gpu"))
    state = nn.unbox(init_state(spec, optimizer))
    batch_BxT = np.random.default_rng(0).integers(0, c.vocab_size, (h.batch_size, spec.sequence_length + 1))
    after, metrics = train_step(
        decoder, optimizer, h.z_loss, state, batch_BxT.astype(np.int32), loss_chunk=training.loss_chunk_tokens
    )
    ours = named(after.opt_state[1][0].mu)  # of the first step: the gradients, but for a factor

    model = torch_decoder(c)
    given = named(state.params)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(given[name]))
    loss, told = torch_loss(model, torch.tensor(batch_BxT), h.z_loss)
    loss.backward()
    apart = {"loss": abs(float(metrics["loss_nats"]) - told.item())}
    for name, parameter in model.named_parameters():
        theirs = parameter.grad.numpy()
        apart[name] = float(np.abs(ours[name] / (1 - h.beta1) - theirs).max() / np.abs(theirs).max())
    worst = max(apart, key=apart.get)
    print(f"apart: loss {apart['loss']:.1e}, gradients at most {apart[worst]:.1e} ({worst})", file=sys.stderr)
    return {"loss": apart.pop("loss"), "gradients": max(apart.values())}


def named(params) -> dict[str, Any]:
    """Our parameters by the names, and in the layout, of `torch_decoder`'s."""
    import numpy as np

    def flat(tree, prefix: str) -> dict[str, Any]:
        if not isinstance(tree, dict):
            return {prefix: np.asarray(tree)}
        return {n: leaf for key, sub in tree.items() for n, leaf in flat(sub, f"{prefix}.{key}".strip(".")).items()}

    told = {}
    for path, leaf in flat(params, "").items():
        name = path.replace("block_", "blocks.").replace("attention.", "").replace("ffn.", "")
        if name.endswith("gain"):
            told[name] = leaf
        else:  # kernels multiply from the other side; the embedding is a table in both
            told[f"{name}.weight"] = leaf if name == "embedding" else leaf.T
    return told


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
    main()
