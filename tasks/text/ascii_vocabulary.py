"""A vocabulary of characters, as seqio knows vocabularies, that encodes a text at once."""

from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf


class AsciiVocabulary(seqio.PartialCodepointVocabulary):
    """Some of ASCII's characters, an id each; all others, seqio's marks among them, are unknown."""

    def __init__(self, codepoints: Sequence[int]):
        super().__init__(codepoints)
        self._id_of_point = np.full(129, self.UNK_ID, np.int32)  # the last for all that is not ASCII
        self._id_of_point[list(codepoints)] = super()._encode("".join(map(chr, codepoints)))

    def ids(self, text: str) -> np.ndarray:
        """The ids of a text, int32, nothing added before or after."""
        point_T = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return self._id_of_point[np.minimum(point_T, 128)]

    def _encode(self, s: str) -> list[int]:
        return self.ids(s).tolist()

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        return tf.maximum(super()._encode_tf(s), self.UNK_ID)
