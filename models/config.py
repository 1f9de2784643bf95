"""The shape of a decoder."""

import dataclasses
from typing import Literal

NormKind = Literal["layer", "rms"]


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """What fixes a decoder's parameters and its forward pass. The defaults are the paper's.

    Attributes:
      width: D, of the residual stream.
      layers: number of blocks.
      heads: H; must divide the width, unless `head_dim` is given.
      vocab_size: V, rows of the embedding and of the output table.
      ffn_multiple: the feed-forward width F is 8/3 D rounded up to a multiple of this.
      qk_norm: whether queries and keys are normalised, over the full width before the head split.
      norm_eps: added to the variance in every norm.
      rope_theta: base of the rotary wavelengths.
      dtype: of activations; parameters, norms' statistics and logits are float32.
      norm: `layer` subtracts the mean, `rms` does not (Zhang and Sennrich 2019); neither has a bias.
      qk_norm_per_head: normalises queries and keys head by head instead, all heads with one gain (as Qwen3 does).
      head_dim: K, which rotary embeddings need even; None is D / H.
      key_heads: G, heads of keys and values, each shared by H / G query heads (Ainslie et al. 2023); None is H.
      tied_embeddings: whether the output table is the embedding itself.
      inverse_wavelengths: of the K/2 rotary pairs, in radians a position, where a checkpoint's own differ from
        `rope_theta`'s; open_lm's were rounded to bfloat16 on the way.
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
    norm: NormKind = "layer"
    qk_norm_per_head: bool = False
    head_dim: int | None = None
    key_heads: int | None = None
    tied_embeddings: bool = False
    inverse_wavelengths: tuple[float, ...] | None = None

    def __post_init__(self):
        for name in ("width", "layers", "heads", "vocab_size", "ffn_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"model {name} is {getattr(self, name)}; it must be at least 1")
        if self.head_dim is not None:
            if self.head_dim < 2 or self.head_dim % 2:
                raise ValueError(f"model head_dim is {self.head_dim}; it must be even and at least 2")
        elif self.width % self.heads or self.head_width % 2:
            raise ValueError(
                f"model width {self.width} does not split into {self.heads} heads of even width; "
                f"choose a width that is a multiple of {2 * self.heads}"
            )
        if self.groups < 1 or self.heads % self.groups:
            raise ValueError(f"model heads {self.heads} do not split over {self.groups} key_heads; choose a divisor")
        if self.norm not in ("layer", "rms"):
            raise ValueError(f"model norm is {self.norm!r}; it must be 'layer' or 'rms'")
        if self.qk_norm_per_head and not self.qk_norm:
            raise ValueError("model qk_norm_per_head says how to normalise, and qk_norm not to; set qk_norm too")
        if self.inverse_wavelengths and len(self.inverse_wavelengths) != self.head_width // 2:
            raise ValueError(
                f"model inverse_wavelengths has {len(self.inverse_wavelengths)} entries; "
                f"heads of width {self.head_width} need {self.head_width // 2}"
            )

    @property
    def head_width(self) -> int:
        """K, which is D / H unless told otherwise."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def groups(self) -> int:
        """G, the heads of keys and values."""
        return self.heads if self.key_heads is None else self.key_heads

    @property
    def ffn_width(self) -> int:
        """F = 8/3 D, rounded up to a multiple of `ffn_multiple` (open_lm's SwiGLU)."""
        return -(-int(2 * 4 * self.width / 3) // self.ffn_multiple) * self.ffn_multiple


def ffn_multiple(width: int, ffn_width: int) -> int:
    """The multiple that 8/3 D, rounded up, makes `ffn_width` of; the paper's 256 where it does.

    Raises:
      ValueError: if the feed-forward width is less than 8/3 D, which no multiple gives.
    """
    for multiple in (256, ffn_width):
        if DecoderConfig(width, 1, 1, 1, ffn_multiple=multiple).ffn_width == ffn_width:
            return multiple
    raise ValueError(f"a feed-forward width of {ffn_width} is less than 8/3 of the model width {width}")


# The sizes of Gadre et al. 2024 by open_lm's names for them, with the vocabulary of GPT-NeoX-20B's tokenizer, padded.
PAPER = {
    "d=96_l=8_h=4": DecoderConfig(width=96, layers=8, heads=4, vocab_size=50432),
    "d=512_l=8_h=4": DecoderConfig(width=512, layers=8, heads=4, vocab_size=50432),
    "d=576_l=24_h=8": DecoderConfig(width=576, layers=24, heads=8, vocab_size=50432),
    "d=1024_l=24_h=8": DecoderConfig(width=1024, layers=24, heads=8, vocab_size=50432),
    "open_lm_1b": DecoderConfig(width=2048, layers=24, heads=16, vocab_size=50432),
    "open_lm_7b": DecoderConfig(width=4096, layers=32, heads=32, vocab_size=50432),
}
