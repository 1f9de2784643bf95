"""Training a ladder's runs here against PyTorch: tokens/s, share of this machine's matmul peak, and the ratio.

Every run of a config is stepped with its own shape and batch by `ladder.training.step`'s own step, as the ladder trains
it: runs side by side, a process a core. PyTorch steps transformers' Llama of the same shape (untied, no QK-norm, AdamW,
clipping) in whichever way it likes best: a process a core, or one process with a thread a core. All take turns in one
run of this script, and each is judged by its best turn, because machines are noisy.

    python benchmarks/train_step.py [CONFIG]      # some 4 minutes for configs/demo.yaml; progress on stderr

Prints one JSON line: of every run, this machine's `tokens_per_second`, its `share_of_matmul_peak`, PyTorch's
`pytorch_tokens_per_second` and the `ratio`; and `ladder_ratio`, PyTorch's time for all tokens of all runs over ours.
"""

import contextlib
import importlib.util
import json
import multiprocessing
import os
import sys
import time

ROUNDS = 3
SECONDS = 1.0


def main() -> None:
    """Measures the config named on the command line."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        sys.exit("the benchmark compares with PyTorch, which is not here: pip install '.[bench]'")
    from ladder import config_file, plan
    from tasks.text import vocab

    c = config_file.load(sys.argv[1] if len(sys.argv) > 1 else "configs/demo.yaml")
    specs = plan.plan(c, vocab.size(c.corpus.vocabulary))
    cores = sorted(os.sched_getaffinity(0))
    each_its_own = [{core} for core in cores]
    ways = {
        "jax": Way(ours, each_its_own),
        "pytorch, a process a core": Way(pytorch, each_its_own),
        "pytorch, a thread a core": Way(pytorch, [set(cores)]),
    }
    peak_flops = sum(Way(matmul_peak, each_its_own).ask(None))
    rows = [measure(spec, c.training, ways, peak_flops) for spec in specs]
    ours_s, theirs_s = (sum(row["tokens"] / row[key] for row in rows) for key in SPEEDS)
    print(json.dumps({"runs": rows, "ladder_ratio": theirs_s / ours_s, "matmul_peak_flops": peak_flops}))


SPEEDS = ("tokens_per_second", "pytorch_tokens_per_second")


class Way:
    """Processes, each on cores of its own, that answer the same question at the same time."""

    def __init__(self, work, cores_of_each: list[set[int]]):
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        for cores in cores_of_each:
            here, there = context.Pipe()
            context.Process(target=answer, args=(work, cores, there), daemon=True).start()
            self._pipes.append(here)

    def ask(self, question) -> list[float]:
        """Every process's answer."""
        for pipe in self._pipes:
            pipe.send(question)
        return [pipe.recv() for pipe in self._pipes]


def answer(work, cores: set[int], pipe) -> None:
    """A process of a `Way`: `work` is given each question, and remembers what it built in the dict beside it."""
    os.sched_setaffinity(0, cores)
    os.environ["JAX_PLATFORMS"] = "cpu"
    built: dict = {}
    with contextlib.suppress(EOFError):  # the asker is gone
        while True:
            pipe.send(work(pipe.recv(), built, len(cores)))


def measure(spec, training, ways: dict[str, Way], peak_flops: float) -> dict:
    """One run's row: each way's best of `ROUNDS` turns, after one that only compiles."""
    from models import accounting

    best = dict.fromkeys(ways, 0.0)
    for turn in range(1 + ROUNDS):
        for name, way in ways.items():
            tokens_per_second = sum(way.ask((spec, training)))
            if turn:
                best[name] = max(best[name], tokens_per_second)
    ours_best = best.pop("jax")
    liked = max(best, key=best.get)
    flops_per_token = 3 * accounting.matmul_flops_per_token(spec.decoder, spec.sequence_length)
    print(f"{spec.run}: {ours_best:,.0f} tokens/s, {ours_best / best[liked]:.2f} x {liked}", file=sys.stderr)
    return {
        "run": spec.run,
        "params": spec.params,
        "tokens": spec.tokens,
        "tokens_per_second": ours_best,
        "share_of_matmul_peak": ours_best * flops_per_token / peak_flops,
        "pytorch_tokens_per_second": best[liked],
        "pytorch_way": liked,
        "ratio": ours_best / best[liked],
    }


def steps_per_second(step) -> float:
    """How often `step` runs in a second, its work done when it returns."""
    step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        step()
        count += 1
    return count / (time.perf_counter() - start)


def ours(question, built: dict, cores: int) -> float:
    """Tokens/s of the step that `ladder.training.train` takes, on one batch."""
    import jax

    from ladder.training import mesh as meshes
    from ladder.training.step import Program

    del cores
    spec, training = question
    if spec.run not in built:
        program = Program(training, spec, meshes.make())
        batch_BxT = jax.random.randint(jax.random.key(0), program.abstract_batch.shape, 0, spec.decoder.vocab_size)
        built.clear()
        built[spec.run] = [program.init(), program.step, batch_BxT]

    def one():
        state, step, batch_BxT = built[spec.run]
        built[spec.run][0], metrics = step(state, batch_BxT)
        metrics["loss_nats"].block_until_ready()

    return steps_per_second(one) * spec.hyperparameters.batch_size * spec.sequence_length


def pytorch(question, built: dict, cores: int) -> float:
    """Tokens/s of the same step on transformers' Llama of the same shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    spec, _ = question
    d, h = spec.decoder, spec.hyperparameters
    if spec.run not in built:
        torch.set_num_threads(cores)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=d.vocab_size,
                hidden_size=d.width,
                intermediate_size=d.ffn_width,
                num_hidden_layers=d.layers,
                num_attention_heads=d.heads,
                max_position_embeddings=spec.sequence_length,
                tie_word_embeddings=False,
                use_cache=False,
            )
        )
        adamw = torch.optim.AdamW(
            model.parameters(), h.learning_rate, (h.beta1, h.beta2), h.epsilon, h.weight_decay, fused=True
        )
        batch_BxT = torch.randint(d.vocab_size, (h.batch_size, spec.sequence_length + 1))
        built.clear()
        built[spec.run] = model, adamw, batch_BxT

    def one():
        model, adamw, batch_BxT = built[spec.run]
        logits_BxLxV = model(batch_BxT[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits_BxLxV.flatten(0, 1), batch_BxT[:, 1:].flatten())
        loss = loss + h.z_loss * logits_BxLxV.logsumexp(-1).square().mean()
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), h.clip_norm)
        adamw.step()

    return steps_per_second(one) * h.batch_size * spec.sequence_length


def matmul_peak(question, built: dict, cores: int) -> float:
    """FLOP/s of square float32 products, the best of a few sizes."""
    import jax
    import jax.numpy as jnp

    del question, built, cores
    product = jax.jit(jnp.matmul)
    best = 0.0
    for n in (256, 512, 1024):
        a_NxN = jnp.ones((n, n))
        best = max(best, steps_per_second(lambda a=a_NxN: product(a, a).block_until_ready()) * 2 * n**3)
    return best


if __name__ == "__main__":
    main()
