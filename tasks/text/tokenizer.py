"""Hugging Face tokenizers: read from a file, a folder or the hub, trained on a corpus, written for other programs."""

import dataclasses
import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

import tokenizers
from etils import epath
from tokenizers import decoders, models, pre_tokenizers, trainers

from tasks.messages import cut, excerpt

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
END_OF_TEXT, PADDING = "<|endoftext|>", "<|padding|>"
# Where no tokenizer_config.json says which token ends a text: the names that the field gives it.
ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]")
UNUSUAL = ("qzxjvwk", "7", "ß", "漢", "𓀀", "🙂")  # words that a closed vocabulary does not have all of
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A tokenizer and the id of the token that ends a text."""

    inner: tokenizers.Tokenizer
    end_id: int

    @property
    def size(self) -> int:
        """V, added tokens included; ids may have gaps below it."""
        return max(self.inner.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added before or after.

        Raises:
          ValueError: the tokenizer has no ids for it; with the text's first characters.
        """
        try:
            return self.inner.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises the bare class
            raise ValueError(f"the tokenizer cannot encode a text that begins {excerpt(text)} ({cut(error)})") from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The same of many texts, on all cores."""
        try:
            return [encoded.ids for encoded in self.inner.encode_batch_fast(texts, add_special_tokens=False)]
        except Exception:  # as above; which text it was is not said
            return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without its special tokens."""
        return self.inner.decode(list(ids), skip_special_tokens=True)


def find(name: str) -> tuple[epath.Path, epath.Path] | None:
    """Gives tokenizer.json and tokenizer_config.json, which may not be there, or None where the name is of neither.

    Args:
      name: a .json file or a folder with a tokenizer.json, local or gs://, or a name of the hub, such as
        `EleutherAI/gpt-neox-20b`.

    Raises:
      ValueError: if the hub has no such tokenizer, or is out of reach.
    """
    path = epath.Path(name)
    if path.suffix == ".json" and path.is_file():
        return path, path.parent / CONFIG
    if (path / FILE).is_file():
        return path / FILE, path / CONFIG
    if path.exists() or not HUB_NAME.fullmatch(name) or path.suffix in (".json", ".model"):
        return None
    return _download(name)


def read(file: epath.Path, config: epath.Path) -> Tokenizer:
    """Reads a tokenizer.

    Raises:
      ValueError: if the file is none, or its vocabulary cannot end a text or encode one that it does not know.
    """
    try:
        inner = tokenizers.Tokenizer.from_str(file.read_text())
    except Exception as error:  # the library raises the bare class
        raise ValueError(f"vocabulary {str(file)!r}: not a tokenizer.json ({cut(error)})") from error
    # A file may ask for either; a text is never cut short nor filled up here.
    inner.no_truncation()
    inner.no_padding()
    # A text that holds the letters of a special token, such as <|endoftext|>, is text and ends nothing.
    inner.encode_special_tokens = True
    named = json.loads(config.read_text()).get("eos_token") if config.is_file() else None
    candidates = (named["content"] if isinstance(named, dict) else named,) if named else ENDS
    ids = [inner.token_to_id(candidate) for candidate in candidates]
    end_id = next((i for i in ids if i is not None), None)
    if end_id is None:
        raise ValueError(
            f"vocabulary {str(file)!r} has no end-of-text token to put between documents; "
            f"name it as eos_token in a {CONFIG} beside it, or call it {END_OF_TEXT}"
        )
    made = Tokenizer(inner, end_id)
    _refuse_closed(made, file)
    return made


def _refuse_closed(made: Tokenizer, file: epath.Path) -> None:
    remedy = "give it an unknown token that its vocabulary has, or train one that knows every byte (`ladder tokenizer`)"
    try:
        encoded = made.encode_batch(UNUSUAL)
    except ValueError as error:
        raise ValueError(f"vocabulary {str(file)!r} cannot hold every text: {error}; {remedy}") from None
    if dropped := [text for text, ids in zip(UNUSUAL, encoded, strict=True) if not ids]:
        warnings.warn(
            f"vocabulary {str(file)!r} leaves out what it does not know, such as {dropped[0]!r}; {remedy}", stacklevel=3
        )


def train(documents: Iterable[bytes], size: int, max_bytes: int = 30_000_000) -> str:
    """Trains byte-level byte-pair encoding, as GPT-NeoX's but without its normalisation: every text comes back exactly.

    The same documents give the same tokenizer.

    Args:
      documents: UTF-8 text.
      size: ids in all, end of text (0) and padding (1) among them.
      max_bytes: the first so many are trained on; a second of one core reads and trains on some 1.5 MB.

    Returns:
      tokenizer.json.

    Raises:
      ValueError: if there is no text, or not enough for so many ids, or fewer ids than the 256 bytes need.
    """
    smallest = 256 + 2
    if size < smallest:
        raise ValueError(f"a vocabulary of {size} ids cannot hold every byte; choose at least {smallest}")
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(_up_to(documents, max_bytes), trainer)
    if inner.get_vocab_size() < size:
        raise ValueError(
            f"the corpus gives {inner.get_vocab_size()} ids and not {size}; give more text or choose a smaller size"
        )
    return inner.to_str(pretty=True)


def of_bytes(special_ids: int) -> tokenizers.Tokenizer:
    """The tokenizer that does what seqio's ByteVocabulary does: byte b is b + `special_ids`."""
    # GPT-2's letters for bytes: printable ones stand for themselves, the others follow at 256.
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = (byte for byte in range(256) if byte not in shown)
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    inner = _without_merges({letters[byte]: byte + special_ids for byte in range(256)})
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def of_characters(codepoints: Iterable[int], special_ids: int) -> tokenizers.Tokenizer:
    """The tokenizer that does what seqio's PartialCodepointVocabulary does: one id each, all others unknown."""
    inner = _without_merges({chr(point): i + special_ids for i, point in enumerate(codepoints)})
    inner.decoder = decoders.Fuse()
    return inner


def _without_merges(letters: dict[str, int]) -> tokenizers.Tokenizer:
    special = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    inner = tokenizers.Tokenizer(models.BPE({**special, **letters}, [], unk_token="<unk>"))
    inner.add_special_tokens(list(special))
    return inner


def _up_to(documents: Iterable[bytes], max_bytes: int) -> Iterator[str]:
    lengths, documents = itertools.tee(documents)
    sums = itertools.accumulate(map(len, lengths))
    for document, total in zip(documents, sums, strict=True):
        yield document.decode()
        if total >= max_bytes:
            return


def _download(name: str) -> tuple[epath.Path, epath.Path]:
    import huggingface_hub
    from huggingface_hub import errors

    def fetch(file: str) -> epath.Path:
        try:  # what was fetched once needs no network
            return epath.Path(huggingface_hub.hf_hub_download(name, file, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            return epath.Path(huggingface_hub.hf_hub_download(name, file))

    try:
        file = fetch(FILE)
    except (OSError, errors.HfHubHTTPError) as error:
        raise ValueError(
            f"vocabulary {name!r} is no file here, and Hugging Face does not give its {FILE} "
            f"({str(error).strip().splitlines()[0]}); without a network, give the path of a tokenizer.json"
        ) from error
    try:
        return file, fetch(CONFIG)
    except (OSError, errors.HfHubHTTPError):
        return file, file.parent / CONFIG
