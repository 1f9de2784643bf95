"""Vocabularies, as seqio knows them.

`bytes` is seqio's ByteVocabulary (ByT5, Xue et al. 2021): 0 pads, 1 ends a text, 2 is unknown, byte b is b + 3, which
makes 259 ids. `ascii` is 97 printable characters, tab and newline among them, after the same three, 100 ids in all; all
other characters are unknown. It leaves tiny models more of their parameters outside the embeddings. Any other name is
that of a Hugging Face tokenizer (a tokenizer.json, a folder that holds one, or a name of the hub, such as the paper's
`EleutherAI/gpt-neox-20b`) or of a SentencePiece model; paths are local or gs://.
"""

from __future__ import annotations

import hashlib
import json
import typing

from etils import epath
from google.protobuf import message

from tasks.text import tokenizer

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
    if name_or_path in known:
        return known[name_or_path]
    found = tokenizer.find(name_or_path)
    return tokenizer.read(*found).size if found else load(name_or_path).vocab_size


def sha256(name_or_path: str) -> str:
    """Gives the sha256 of what a vocabulary makes of text: of its file, and of the id that it ends a text with."""
    if name_or_path in (BYTES, ASCII):
        content = name_or_path.encode()
    elif found := tokenizer.find(name_or_path):
        content = found[0].read_bytes() + f" ends with {tokenizer.read(*found).end_id}".encode()
    else:
        load(name_or_path)  # refuses what is none
        content = epath.Path(name_or_path).read_bytes()
    return hashlib.sha256(content).hexdigest()


def load(name_or_path: str) -> seqio.Vocabulary:
    """Gives the vocabulary of that name.

    Args:
      name_or_path: `bytes`, `ascii`, a tokenizer.json or its folder, a name of Hugging Face's hub, or the path of a
        SentencePiece model.

    Raises:
      ValueError: there is no such vocabulary, it is of no known format, or it cannot end a text.
    """
    import seqio

    if name_or_path == BYTES:
        return seqio.ByteVocabulary()
    if name_or_path == ASCII:
        from tasks.text.ascii_vocabulary import AsciiVocabulary

        return AsciiVocabulary(ASCII_CODEPOINTS)
    if found := tokenizer.find(name_or_path):
        from tasks.text.tokenizer_vocabulary import TokenizerVocabulary

        return TokenizerVocabulary(tokenizer.read(*found))
    path = epath.Path(name_or_path)
    if not path.is_file():
        raise ValueError(
            f"vocabulary {name_or_path!r}: no such file; "
            f"give {BYTES!r}, {ASCII!r}, a tokenizer.json, a SentencePiece model or a Hugging Face name"
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


def write_for_transformers(name_or_path: str, folder: epath.Path) -> dict[str, int | None]:
    """Writes the vocabulary as transformers reads it: tokenizer.json and tokenizer_config.json.

    Returns:
      `bos_token_id`, `eos_token_id` and `pad_token_id`, for the model's own config.json.

    Raises:
      ValueError: as `load`, or if it is a SentencePiece model, which has no tokenizer.json.
    """
    end_id, pad_id = 1, 0
    if name_or_path == BYTES:
        inner = tokenizer.of_bytes(SPECIAL_IDS)
    elif name_or_path == ASCII:
        inner = tokenizer.of_characters(ASCII_CODEPOINTS, SPECIAL_IDS)
    elif found := tokenizer.find(name_or_path):
        read = tokenizer.read(*found)
        inner, end_id, pad_id = read.inner, read.end_id, read.end_id
    else:
        raise ValueError(
            f"vocabulary {name_or_path!r} is no tokenizer.json, which transformers needs; convert it with transformers "
            "and name the result with --vocabulary"
        )
    end, pad = inner.id_to_token(end_id), inner.id_to_token(pad_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / tokenizer.FILE).write_text(inner.to_str(pretty=True))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
    }
    (folder / tokenizer.CONFIG).write_text(json.dumps(settings, indent=2) + "\n")
    return {"bos_token_id": None, "eos_token_id": end_id, "pad_token_id": pad_id}
