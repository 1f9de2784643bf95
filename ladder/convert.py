"""Models of other programs into a folder that ours open, and ours into theirs."""

import hashlib
import os
import pathlib
from collections.abc import Callable

from etils import epath

from models import convert_open_lm, saved
from models.saved import SavedModel

NEOX, NEOX_SIZE = "EleutherAI/gpt-neox-20b", 50_277
OPEN_LM_SEQUENCE_LENGTH = 2048


def from_open_lm(
    checkpoint: str, settings: str | None, out: str, vocabulary: str | None, say: Callable[[str], None]
) -> SavedModel:
    """Writes a released open_lm checkpoint as a folder that our commands open.

    Args:
      checkpoint: epoch_<number>.pt, a local file.
      settings: its params.txt, or its model's JSON; one that lies where open_lm puts it is found.
      out: the folder, local or gs://.
      vocabulary: of the model, as `tasks.vocab.load` takes it; GPT-NeoX-20B's where its 50,277 ids fit.
      say: is told what was assumed.

    Raises:
      ValueError: naming what does not map onto our decoder, or does not fit.
    """
    path, folder = pathlib.Path(checkpoint), epath.Path(out).expanduser()
    saved.refuse_existing(folder)
    if not path.is_file():
        raise ValueError(f"no such file: {checkpoint}; a checkpoint at a distance must be copied here first")
    beside = path.absolute().parent.parent / "params.txt"
    if settings is None and beside.exists():
        settings = str(beside)
        say(f"settings: {settings}")
    told = convert_open_lm.read_settings(settings) if settings else {}
    weights = convert_open_lm.read_weights(path)
    config = convert_open_lm.config_of(weights, told)
    params = convert_open_lm.as_params(weights, config)
    if config.inverse_wavelengths is not None:
        say("the checkpoint's rotary wavelengths differ from the formula's, as bfloat16 training rounds them: kept")
    if vocabulary:
        _refuse_small(config.vocab_size, vocabulary)
    elif config.vocab_size >= NEOX_SIZE:
        vocabulary = NEOX
        say(f"vocabulary: {NEOX}, as all that open_lm released; name another with --vocabulary")
    else:
        say("the checkpoint does not tell its vocabulary; name it with --vocabulary to read and write text")
    model = SavedModel(
        config,
        vocabulary or "",
        told.get("seq_len") or OPEN_LM_SEQUENCE_LENGTH,
        {"program": "open_lm", "source": path.name, "sha256": _sha256(path), "run": str(told.get("name") or "")},
    )
    saved.save(model, params, folder)
    return model


def _refuse_small(vocab_size: int, vocabulary: str) -> None:
    # Fewer ids only leave rows unused: tables are padded for speed.
    from tasks import vocab

    size = vocab.size(vocabulary)
    if size > vocab_size:
        raise ValueError(f"vocabulary {vocabulary} has {size:,} ids and the model only {vocab_size:,}")


def _sha256(path: os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
