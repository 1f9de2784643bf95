"""Scoring arc_easy with ten shots on this machine, against the way of llm-foundry, in examples a second.

The model is the paper's smallest, 11 million parameters with random weights; the rival is the same model with the same
weights in PyTorch, which reads each choice of a question as a sequence of its own, padded to 2048 tokens, four to a
batch, and makes logits at every position (as llm-foundry's dataset, collation and metric do, in float32). Both take
turns. PyTorch answers the first few of our questions, for it takes seconds for each, and must answer them as we do.

    python benchmarks/evaluate.py ICL TOKENIZER [QUESTIONS [OF THEM BY PYTORCH]]   # minutes; progress on stderr

ICL is llm-foundry's local_data, TOKENIZER GPT-NeoX's tokenizer.json. Prints one JSON line: `examples_per_second` once
compiled, `first_examples_per_second` with compiling, `pytorch_examples_per_second`, the `ratio` of the first to the
last, the `accuracy` of all questions, and both accuracies of those that both answered.
"""

import importlib.util
import json
import sys
import time

SHAPE = {"width": 96, "layers": 8, "heads": 4, "vocab_size": 50432}
MAX_TOKENS = 2048
ROUNDS = 2


def main() -> None:
    """Measures on the data named on the command line."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("tokenizers")):
        sys.exit("the benchmark compares with PyTorch, which is not here: pip install '.[bench]'")
    if len(sys.argv) < 3:
        sys.exit(f"usage: python {sys.argv[0]} ICL TOKENIZER [QUESTIONS [OF THEM BY PYTORCH]]")
    count, few = (*map(int, sys.argv[3:]), *(512, 16)[len(sys.argv) - 3 :])
    questions = asked(sys.argv[1], sys.argv[2])[:count]
    params = weights()
    ours, theirs = Ours(params), Theirs(params)
    say(f"{len(questions)} questions, {few} of them by PyTorch")
    first_s, _ = timed(ours, questions)
    say(f"ours, compiling: {first_s:.1f} s")
    ours_s, theirs_s = [], []
    for _ in range(ROUNDS):
        seconds, our_answers = timed(ours, questions)
        ours_s.append(seconds)
        seconds, their_answers = timed(theirs, questions[:few])
        theirs_s.append(seconds)
        say(f"ours {ours_s[-1]:.2f} s, PyTorch {theirs_s[-1]:.2f} s")
    golds = [question.gold for question in questions]
    row = {
        "questions": len(questions),
        "examples_per_second": len(questions) / min(ours_s),
        "first_examples_per_second": len(questions) / first_s,
        "pytorch_examples_per_second": few / min(theirs_s),
        "ratio": len(questions) / min(ours_s) * min(theirs_s) / few,
        "accuracy": share(our_answers, golds),
        "accuracy_of_few": share(our_answers[:few], golds[:few]),
        "pytorch_accuracy_of_few": share(their_answers, golds[:few]),
        "same_answers": share(our_answers[:few], their_answers),
    }
    print(json.dumps(row))


def say(line: str) -> None:
    """Tells how far the benchmark is."""
    print(line, file=sys.stderr)


def share(these: list[int], those: list[int]) -> float:
    """How many of these equal those."""
    return sum(a == b for a, b in zip(these, those, strict=True)) / len(these)


def timed(way, questions) -> tuple[float, list[int]]:
    """Seconds that one pass over the questions takes, and its answers."""
    start = time.perf_counter()
    answers = way(questions)
    return time.perf_counter() - start, answers


def asked(icl: str, tokenizer: str) -> list:
    """All of arc_easy's questions, in token ids."""
    from tasks.questions import prompts, rows
    from tasks.questions.gauntlet import GAUNTLET
    from tasks.text import vocab

    task = GAUNTLET["arc_easy"]
    return list(prompts.ask(task, rows.read(task, [icl]).rows, vocab.load(tokenizer), MAX_TOKENS))


def weights() -> dict:
    """Of a model that was not trained: enough to compare answers."""
    import jax
    import jax.numpy as jnp
    from flax import linen as nn

    from models.config import DecoderConfig
    from models.decoder import Decoder

    init = jax.jit(Decoder(DecoderConfig(**SHAPE)).init)
    return nn.unbox(init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32)))["params"]


class Ours:
    """`ladder.evaluation.scorer` on this machine's devices."""

    def __init__(self, params: dict):
        from ladder.evaluation import scorer
        from ladder.training import mesh
        from models.config import DecoderConfig

        self._scorer = scorer.Scorer(DecoderConfig(**SHAPE), params, mesh.make())

    def __call__(self, questions) -> list[int]:
        """The choice that is the likeliest, of each question."""
        from tasks.questions import scoring

        scored = self._scorer(questions)
        return scoring.score(scored.rows, scored.loss_sum_N, scored.greedy_N).answer_Q.tolist()


class Theirs:
    """The same decoder in PyTorch, a padded sequence a choice."""

    def __init__(self, params: dict):
        import jax
        import torch

        self._params = jax.tree.map(lambda leaf: torch.tensor(jax.device_get(leaf)), params)

    def __call__(self, questions) -> list[int]:
        """The choice that is the likeliest, of each question."""
        import torch

        with torch.inference_mode():
            return [self._answer(question) for question in questions]

    def _answer(self, question) -> int:
        import torch
        from torch.nn.functional import cross_entropy

        token_CxL = torch.zeros((len(question.answers), MAX_TOKENS), dtype=torch.long)
        for choice, (context, answer) in enumerate(zip(question.contexts, question.answers, strict=True)):
            token_CxL[choice, : len(context)] = torch.tensor(context)
            token_CxL[choice, len(context) : len(context) + len(answer)] = torch.tensor(answer)
        logits_CxLxV = self._logits(token_CxL)
        losses = []
        for choice, (context, answer) in enumerate(zip(question.contexts, question.answers, strict=True)):
            span = slice(len(context) - 1, len(context) + len(answer) - 1)
            losses.append(cross_entropy(logits_CxLxV[choice, span], torch.tensor(answer, dtype=torch.long)))
        return int(torch.stack(losses).argmin())

    def _logits(self, token_BxL):
        import torch
        from torch.nn.functional import layer_norm, scaled_dot_product_attention, silu

        p, (batch, length), heads = self._params, token_BxL.shape, SHAPE["heads"]
        head_width = SHAPE["width"] // heads
        inverse_wavelength_k = 10_000.0 ** (-torch.arange(0, head_width, 2) / head_width)
        angle_LxK = (torch.arange(length)[:, None] * inverse_wavelength_k).repeat(1, 2)
        cos_LxK, sin_LxK = angle_LxK.cos(), angle_LxK.sin()

        def norm(x, gain):
            return layer_norm(x, x.shape[-1:], gain["gain"], eps=1e-5)

        def split(x):
            return x.view(batch, length, heads, head_width).transpose(1, 2)

        def rotate(x):
            left, right = x.chunk(2, dim=-1)
            return x * cos_LxK + torch.cat([-right, left], dim=-1) * sin_LxK

        x = p["embedding"][token_BxL]
        for depth in range(SHAPE["layers"]):
            block = p[f"block_{depth}"]
            attention, ffn = block["attention"], block["ffn"]
            h = norm(x, block["attention_norm"])
            q = rotate(split(norm(h @ attention["query"], attention["query_norm"])))
            k = rotate(split(norm(h @ attention["key"], attention["key_norm"])))
            mixed = scaled_dot_product_attention(q, k, split(h @ attention["value"]), is_causal=True)
            x = x + mixed.transpose(1, 2).reshape(x.shape) @ attention["out"]
            h = norm(x, block["ffn_norm"])
            x = x + (silu(h @ ffn["gate"]) * (h @ ffn["up"])) @ ffn["down"]
        return norm(x, p["norm"]) @ p["output"]


if __name__ == "__main__":
    main()
