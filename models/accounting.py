"""The one source of parameter counts and FLOPs."""

from models.config import DecoderConfig


def params(c: DecoderConfig) -> int:
    """N: the parameters that exist, embeddings and norm gains included."""
    gains = 0
    if c.qk_norm:
        gains = 2 * c.head_width if c.qk_norm_per_head else (c.heads + c.groups) * c.head_width
    return as_the_paper_counts(c) + c.layers * gains


def params_non_embedding(c: DecoderConfig) -> int:
    """N without the input embedding and the output table (Kaplan et al. 2020)."""
    return params(c) - _tables(c) * c.vocab_size * c.width


def as_the_paper_counts(c: DecoderConfig) -> int:
    """N as Gadre et al. 2024 report it, which leaves out the gains of the QK-norms."""
    block = _attention_kernels(c) + 3 * c.width * c.ffn_width + 2 * c.width
    return _tables(c) * c.vocab_size * c.width + c.layers * block + c.width


def training_flops(params: float, tokens: float) -> float:
    """C = 6 N D (Kaplan et al. 2020, section 2.1)."""
    return 6 * params * tokens


def matmul_flops_per_token(c: DecoderConfig, length: int) -> int:
    """Forward matrix-product FLOPs a token, causal attention counted in full, the embedding look-up as none."""
    block = 2 * (_attention_kernels(c) + 3 * c.width * c.ffn_width) + 4 * length * c.heads * c.head_width
    return c.layers * block + 2 * c.width * c.vocab_size


def _attention_kernels(c: DecoderConfig) -> int:
    # Queries and the output span all heads, keys and values their own.
    return 2 * c.width * (c.heads + c.groups) * c.head_width


def _tables(c: DecoderConfig) -> int:
    return 1 if c.tied_embeddings else 2
