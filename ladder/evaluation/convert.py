"""Models of other programs into a folder that ours open, and ours into theirs."""

import hashlib
import os
import pathlib

from etils import epath

from ladder import storage
from ladder.evaluation import trained
from ladder.events import Say
from models import saved
from models.convert import hugging_face, open_lm
from models.saved import SavedModel

NEOX, NEOX_SIZE = "EleutherAI/gpt-neox-20b", 50_277
OPEN_LM_SEQUENCE_LENGTH = 2048


def from_open_lm(checkpoint: str, settings: str | None, out: str, vocabulary: str | None, say: Say) -> SavedModel:
    """Writes a released open_lm checkpoint as a folder that our commands open.

    Args:
      checkpoint: epoch_<number>.pt, a local file.
      settings: its params.txt, or its model's JSON; one that lies where open_lm puts it is found.
      out: the folder, local or gs://.
      vocabulary: of the model, as `tasks.text.vocab.load` takes it; GPT-NeoX-20B's where its 50,277 ids fit.
      say: is told what was assumed.

    Raises:
      ValueError: naming what does not map onto our decoder, or does not fit.
    """
    path, folder = pathlib.Path(checkpoint), storage.place(out)
    saved.refuse_existing(folder)
    if not path.is_file():
        raise ValueError(f"no such file: {checkpoint}; a checkpoint at a distance must be copied here first")
    beside = path.absolute().parent.parent / "params.txt"
    if settings is None and beside.exists():
        settings = str(beside)
        say(f"settings: {settings}")
    told = open_lm.read_settings(settings) if settings else {}
    weights = open_lm.read_weights(path)
    config = open_lm.config_of(weights, told)
    params = open_lm.as_params(weights, config)
    if config.inverse_wavelengths is not None:
        say("the checkpoint's rotary wavelengths differ from the formula's, as bfloat16 training rounds them: kept")
    if vocabulary:
        vocabulary = _fitting(vocabulary, config.vocab_size)
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


def to_hugging_face(checkpoint: str, out: str, vocabulary: str | None, say: Say) -> str:
    """Writes a trained model as transformers, vLLM and the evaluation harness open it, without code of ours.

    Args:
      checkpoint: what `ladder.evaluation.trained.load` takes.
      out: the folder, local or gs://.
      vocabulary: in place of the model's own.
      say: is told what was left out.

    Returns:
      The architecture's name; see `models.convert.hugging_face`.

    Raises:
      ValueError: if there is no such model, its vocabulary has no tokenizer.json or does not fit, or `out` is taken.
    """
    from tasks.text import vocab

    folder = storage.place(out)
    saved.refuse_existing(folder, hugging_face.CONFIG)
    model, params = trained.load(checkpoint)
    name = hugging_face.architecture(model.decoder)
    special_ids: dict[str, int | None] = {}
    if vocabulary := vocabulary or model.vocabulary:
        special_ids = vocab.write_for_transformers(_fitting(vocabulary, model.decoder.vocab_size), folder)
    else:
        say("the model does not tell its vocabulary, so no tokenizer is written; name it with --vocabulary")
    hugging_face.export(model, params, folder, special_ids)
    return name


def from_hugging_face(source: str, out: str, vocabulary: str | None, say: Say) -> SavedModel:
    """Writes a folder of transformers' `save_pretrained` as one that our commands open.

    Args:
      source: holds config.json and safetensors; local or gs://.
      out: the folder, local or gs://.
      vocabulary: of the model; the tokenizer.json of `source` if not given.
      say: is told what was assumed.

    Raises:
      ValueError: naming what does not map onto our decoder, or does not fit.
    """
    given, folder = storage.place(source), storage.place(out)
    saved.refuse_existing(folder)
    config, sequence_length, params = hugging_face.read(given)
    if vocabulary is None and (given / "tokenizer.json").exists():
        vocabulary = str(given / "tokenizer.json")
    if vocabulary:
        vocabulary = _fitting(vocabulary, config.vocab_size)
    else:
        say(f"{source} holds no tokenizer.json; name the vocabulary with --vocabulary to read and write text")
    model = SavedModel(config, vocabulary or "", sequence_length, {"program": "transformers", "source": given.name})
    saved.save(model, params, folder)
    return model


def _fitting(vocabulary: str, vocab_size: int) -> str:
    """The vocabulary, a folder's as its file; refused where it has ids that the embedding has no rows for."""
    from tasks.text import vocab

    storage.place(vocabulary)
    size = vocab.size(vocabulary)
    # Fewer ids only leave rows unused: tables are padded for speed.
    if size > vocab_size:
        raise ValueError(f"vocabulary {vocabulary} has {size:,} ids and the model only {vocab_size:,}")
    file = epath.Path(vocabulary) / "tokenizer.json"
    return str(file) if file.is_file() else vocabulary


def _sha256(path: os.PathLike) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
