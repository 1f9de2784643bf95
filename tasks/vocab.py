"""Vocabularies, as seqio knows them.

`bytes` is seqio's ByteVocabulary (ByT5, Xue et al. 2021): 0 pads, 1 ends a text, 2 is unknown, byte b is b + 3, which
makes 259 ids. `ascii` is 97 printable characters, tab and newline among them, after the same three, 100 ids in all; all
other characters are unknown. It leaves tiny models more of their parameters outside the embeddings. Any other name is
the path of a SentencePiece model, local or gs://.
"""

from __future__ import annotations

import typing

from etils import epath
from google.protobuf import message

if typing.TYPE_CHECKING:
    import seqio

BYTES = "bytes"
ASCII = "ascii"
ASCII_CODEPOINTS = (*map(ord, "\t\n"), *range(ord(" "), ord("~") + 1))
SPECIAL_IDS = 3  # padding, end of text, unknown


def size(name_or_path: str) -> int:
    """Gives V, the number of ids of the vocabulary of that name; see `load`."""
    # Known without TensorFlow, which takes seconds to import: `ladder plan` should answer at once.
    known = {BYTES: SPECIAL_IDS + 256, ASCII: SPECIAL_IDS + len(ASCII_CODEPOINTS)}
    return known.get(name_or_path) or load(name_or_path).vocab_size


def load(name_or_path: str) -> seqio.Vocabulary:
    """Gives the vocabulary of that name.

    Args:
      name_or_path: `bytes`, `ascii`, or the path of a SentencePiece model.

    Raises:
      ValueError: there is no such file, it is no SentencePiece model, or its vocabulary cannot end a text.
    """
    import seqio

    if name_or_path == BYTES:
        return seqio.ByteVocabulary()
    if name_or_path == ASCII:
        return seqio.PartialCodepointVocabulary(ASCII_CODEPOINTS)
    path = epath.Path(name_or_path)
    if not path.is_file():
        raise ValueError(
            f"vocabulary {name_or_path!r}: no such file; give {BYTES!r}, {ASCII!r} or the path of a SentencePiece model"
        )
    vocabulary = seqio.SentencePieceVocabulary(str(path))
    try:
        eos_id = vocabulary.eos_id
    except (RuntimeError, message.DecodeError) as error:
        raise ValueError(
            f"vocabulary {name_or_path!r}: not a SentencePiece model ({error}); give one or {BYTES!r}"
        ) from error
    if eos_id is None or eos_id < 0:
        raise ValueError(
            f"vocabulary {name_or_path!r} has no end-of-text id to put between documents; train it with --eos_id=1"
        )
    return vocabulary
