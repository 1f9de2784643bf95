"""A made-up checkpoint of open_lm."""

import numpy as np

WIDTH, LAYERS, HEADS, VOCAB, FFN = 12, 2, 3, 11, 256


def weights_of(width=WIDTH, layers=LAYERS, heads=HEADS, vocab=VOCAB, ffn=FFN, qk_norm=True, seed=0):
    """A made-up checkpoint as open_lm names and lays it out."""
    rng = np.random.default_rng(seed)

    def kernel(*shape):
        return rng.normal(0, width**-0.5, shape).astype(np.float32)

    def gain():
        return rng.normal(1, 0.2, width).astype(np.float32)

    weights = {"tok_embeddings.weight": kernel(vocab, width)}
    for layer in range(layers):
        name = f"layers.{layer}."
        weights[f"{name}attention.in_proj.weight"] = kernel(3 * width, width)
        weights[f"{name}attention.out_proj.weight"] = kernel(width, width)
        if qk_norm:
            weights[f"{name}attention.q_norm.weight"] = gain()
            weights[f"{name}attention.k_norm.weight"] = gain()
        inv_freq = 10_000.0 ** (-np.arange(0, width // heads, 2) / (width // heads))
        weights[f"{name}attention.pos_embed.inv_freq"] = inv_freq.astype(np.float32)
        weights[f"{name}feed_forward.w12.weight"] = kernel(2 * ffn, width)
        weights[f"{name}feed_forward.w3.weight"] = kernel(width, ffn)
        weights[f"{name}attention_norm.weight"] = gain()
        weights[f"{name}ffn_norm.weight"] = gain()
    return {**weights, "norm.weight": gain(), "output.weight": kernel(vocab, width)}
