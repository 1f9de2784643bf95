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
        """The end of a text: tokenizers have an unknown token of their own, or know every text."""
        return self.tokenizer.end_id

    @property
    def _base_vocab_size(self) -> int:
        return self.tokenizer.size

    def _encode(self, s: str) -> Sequence[int]:
        return self.tokenizer.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.tokenizer.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        # What Python raises in TensorFlow's graph can hang it for ever, what TensorFlow raises does not.
        def encode(text: bytes | np.ndarray) -> tuple[np.ndarray, str]:
            # Eagerly, numpy_function gives an array of no dimensions in place of the bytes.
            text = text if isinstance(text, bytes) else text.item()
            try:
                return np.array(self._encode(text.decode()), np.int32), ""
            except ValueError as error:
                return np.zeros(0, np.int32), str(error)

        ids, refusal = tf.numpy_function(encode, [s], (tf.int32, tf.string))
        with tf.control_dependencies([tf.debugging.Assert(refusal == "", [refusal])]):
            ids = tf.identity(ids)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.numpy_function(lambda row: self._decode(row.tolist()).encode(), [ids], tf.string)
        text.set_shape([])
        return text
