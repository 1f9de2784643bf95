"""Documents as token ids, in Python's own threads.

Nothing here runs in TensorFlow's graph, where an exception of Python's can hang for ever: the iterator's end waits for
threads that wait for Python.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import seqio

from tasks.messages import excerpt
from tasks.text.ascii_vocabulary import AsciiVocabulary
from tasks.text.tokenizer_vocabulary import TokenizerVocabulary

BATCH_BYTES, BATCH_DOCUMENTS = 2**20, 256


def encoded(vocabulary: seqio.Vocabulary, documents: Iterable[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    """Gives each document and its ids, int32, nothing added, in their order; see `encode`."""
    for batch in _batches(documents):
        yield from zip(batch, encode(vocabulary, batch), strict=True)


def encode(vocabulary: seqio.Vocabulary, documents: Sequence[bytes]) -> list[np.ndarray]:
    """Gives the ids of each document, int32, nothing added.

    Raises:
      ValueError: a document that is not UTF-8 or that the vocabulary cannot encode, with its first characters.
    """
    texts = [_text(document) for document in documents]
    if isinstance(vocabulary, seqio.ByteVocabulary):
        shift = np.int32(vocabulary.encode("\0")[0])
        return [np.frombuffer(document, np.uint8) + shift for document in documents]
    if isinstance(vocabulary, AsciiVocabulary):
        return [vocabulary.ids(text) for text in texts]
    if isinstance(vocabulary, TokenizerVocabulary):
        return [np.array(ids, np.int32) for ids in vocabulary.tokenizer.encode_batch(texts)]
    return [np.array(vocabulary.encode(text), np.int32) for text in texts]


def _text(document: bytes) -> str:
    try:
        return document.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"a document is not UTF-8 at byte {error.start}; it begins {excerpt(document)}") from None


def _batches(documents: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch, size_bytes = [], 0
    for document in documents:
        batch.append(document)
        size_bytes += len(document)
        if size_bytes >= BATCH_BYTES or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
