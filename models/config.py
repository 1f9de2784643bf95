"""The shape of a decoder."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """What fixes a decoder's parameters and its forward pass.

    Attributes:
      width: D, of the residual stream.
      layers: number of blocks.
      heads: H; must divide the width, and leave an even head width K for rotary embeddings.
      vocab_size: V, rows of the embedding and of the output table.
      ffn_multiple: the feed-forward width F is 8/3 D rounded up to a multiple of this. The paper's is 256.
      qk_norm: whether queries and keys are normalised over the full width, before the head split.
      norm_eps: added to the variance in every norm.
      rope_theta: base of the rotary wavelengths.
      dtype: of activations; parameters, norms' statistics and logits are float32.
    """

    width: int
    layers: int
    heads: int
    vocab_size: int
    ffn_multiple: int = 256
    qk_norm: bool = True
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    dtype: str = "float32"

    def __post_init__(self):
        for name in ("width", "layers", "heads", "vocab_size", "ffn_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name} is {getattr(self, name)}; it must be at least 1")
        if self.width % self.heads or self.head_width % 2:
            raise ValueError(
                f"model width {self.width} does not split into {self.heads} heads of even width; "
                f"choose a width that is a multiple of {2 * self.heads}"
            )

    @property
    def head_width(self) -> int:
        """K = D / H."""
        return self.width // self.heads

    @property
    def ffn_width(self) -> int:
        """F = 8/3 D, rounded up to a multiple of `ffn_multiple` (open_lm's SwiGLU)."""
        return -(-int(2 * 4 * self.width / 3) // self.ffn_multiple) * self.ffn_multiple
