"""A Hugging Face tokenizer as seqio knows vocabularies."""

from collections.abc import Iterable, Sequence

import numpy as np
import seqio
import tensorflow as tf

from tasks.text.tokenizer import Tokenizer


class TokenizerVocabulary(seqio.Vocabulary):
    """Ids are the tokenizer's own; ids past them, as padded tables have, read as the end of a text."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    @property
    def bos_id(self) -> int | None:
        """None: nothing is put before a text."""
        return None

    @property
    def eos_id(self) -> int:
        """Ends a text."""
        return self.tokenizer.end_id

    @property
    def unk_id(self) -> int:
        """The end of a text: byte-level tokenizers know every text."""
        return self.tokenizer.end_id

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.size

    def _encode(self, s: str) -> Sequence[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes | np.ndarray) -> np.ndarray:
            # Eagerly, numpy_function gives an array of no dimensions in place of the bytes.
            text = text if isinstance(text, bytes) else text.item()
            return np.asarray(self._encode(text.decode()), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.numpy_function(lambda row: self._decode(row.tolist()).encode(), [ids], tf.string)
        text.set_shape([])
        return text
