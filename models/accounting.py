"""The one source of parameter counts and training FLOPs."""

from models.config import DecoderConfig


def params(c: DecoderConfig) -> int:
    """N: the parameters that exist, embeddings and norm gains included."""
    return as_the_paper_counts(c) + (2 * c.layers * c.width if c.qk_norm else 0)


def params_non_embedding(c: DecoderConfig) -> int:
    """N without the input embedding and the output table (Kaplan et al. 2020)."""
    return params(c) - 2 * c.vocab_size * c.width


def as_the_paper_counts(c: DecoderConfig) -> int:
    """N as Gadre et al. 2024 report it, which leaves out the gains of the QK-norms."""
    block = 4 * c.width**2 + 3 * c.width * c.ffn_width + 2 * c.width
    return 2 * c.vocab_size * c.width + c.layers * block + c.width


def training_flops(params: float, tokens: float) -> float:
    """C = 6 N D (Kaplan et al. 2020, section 2.1)."""
    return 6 * params * tokens


def matmul_flops_per_token(c: DecoderConfig, length: int) -> int:
    """Forward matrix-product FLOPs a token, causal attention counted in full, the embedding look-up as none."""
    block = 2 * (4 * c.width**2 + 3 * c.width * c.ffn_width) + 4 * length * c.width
    return c.layers * block + 2 * c.width * c.vocab_size
