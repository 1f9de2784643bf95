"""A trained model as a folder, local or gs://: model.json says what it is, params/ holds its parameters.

model.json is written last and whole, so a folder that has one is whole.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pydantic
from etils import epath

from models.config import DecoderConfig

SCHEMA_VERSION = 1
FILE, PARAMS = "model.json", "params"

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """What a folder of parameters is.

    Attributes:
      decoder: its shape.
      vocabulary: as `tasks.text.vocab.load` takes it; empty where it is not known.
      sequence_length: tokens of the longest context it was trained on.
      provenance: where it comes from, such as the source file and its sha256.
    """

    decoder: DecoderConfig
    vocabulary: str
    sequence_length: int
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def save(model: SavedModel, params: Any, folder: epath.Path) -> None:
    """Writes the folder. A vocabulary that is a file is copied into it.

    Args:
      model: what the parameters are of.
      params: the decoder's, as numpy or JAX arrays of any floating type; numpy's may be views of a mapped file.
      folder: does not hold a model yet.

    Raises:
      ValueError: if it does, or the parameters are not that decoder's.
    """
    refuse_existing(folder)
    refuse_mismatch(params, model.decoder)
    folder.mkdir(parents=True, exist_ok=True)
    _checkpointer().save(_params(folder), params, force=True)
    file = epath.Path(model.vocabulary)
    is_path = file.suffix or file.name != model.vocabulary  # `bytes` is a vocabulary, whatever lies in this folder
    if is_path and file.is_file():
        # A tokenizer's settings, which lie beside it, name the token that ends a text.
        for part in (file, *(f for f in [file.parent / "tokenizer_config.json"] if f.is_file())):
            part.copy(folder / part.name, overwrite=True)
        model = dataclasses.replace(model, vocabulary=file.name)
    content = pydantic.TypeAdapter(SavedModel).dump_json(model, indent=2) + b"\n"
    if _is_remote(folder):
        (folder / FILE).write_bytes(content)  # an object in a bucket is never there in part
        return
    beside = folder / f".{FILE}.{os.getpid()}.tmp"
    beside.write_bytes(content)
    beside.replace(folder / FILE)


def describe(folder: epath.Path) -> SavedModel:
    """Reads model.json; a vocabulary that is a file of the folder becomes its whole path.

    Raises:
      ValueError: if the folder holds no model, or one that this version does not know.
    """
    file = folder / FILE
    if not file.exists():
        raise ValueError(f"{folder} holds no {FILE}; make it with `ladder convert`")
    try:
        tree = json.loads(file.read_text())
        model = pydantic.TypeAdapter(SavedModel).validate_python(tree)
    except ValueError as error:
        raise ValueError(f"{file}: {'; '.join(str(error).splitlines())}") from error
    unknown = tree["decoder"].keys() - {field.name for field in dataclasses.fields(DecoderConfig)}
    if model.schema_version != SCHEMA_VERSION or unknown:
        raise ValueError(
            f"{file} was written by another version of this program "
            f"(schema {model.schema_version}, unknown options: {', '.join(sorted(unknown)) or 'none'})"
        )
    if model.vocabulary and (folder / model.vocabulary).is_file():
        model = dataclasses.replace(model, vocabulary=str(folder / model.vocabulary))
    return model


def load(folder: epath.Path) -> tuple[SavedModel, Any]:
    """Reads model and parameters, these on the first device in the type they were saved in.

    Raises:
      ValueError: if there is no model, or its parameters are not those of its decoder.
    """
    model = describe(folder)
    checkpointer, path = _checkpointer(), _params(folder)
    saved = checkpointer.metadata(path).item_metadata.tree
    refuse_mismatch(saved, model.decoder)
    import orbax.checkpoint as ocp

    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    args = jax.tree.map(lambda leaf: ocp.ArrayRestoreArgs(sharding=one, dtype=leaf.dtype), saved)
    return model, checkpointer.restore(path, item=saved, restore_args=args)


def abstract_params(c: DecoderConfig) -> Any:
    """Shapes and types of a decoder's parameters, without making any."""
    from flax import linen as nn

    from models.decoder import Decoder

    token_1x1 = np.zeros((1, 1), np.int32)
    return nn.unbox(jax.eval_shape(Decoder(c).init, jax.random.key(0), token_1x1))["params"]


def refuse_existing(folder: epath.Path, file: str = FILE) -> None:
    """Raises a ValueError where a folder holds a model already, by the file that is written last."""
    if (folder / file).exists():
        raise ValueError(f"{folder} holds a model already; remove it or choose another folder")


def refuse_mismatch(params: Any, c: DecoderConfig) -> None:
    """Raises a ValueError that names parameters missing, unknown or of another shape than the decoder's."""
    if problems := misfits(_shapes(abstract_params(c)), _shapes(params)):
        shown = "; ".join(sorted(problems)[:8])
        raise ValueError(f"parameters do not fit the decoder: {shown}{' and more' if len(problems) > 8 else ''}")


def misfits(expected: Mapping[str, Shape], given: Mapping[str, Shape]) -> list[str]:
    """What of given arrays is missing, unknown or of another shape than expected, in words, one each."""
    return [
        *(f"{name} is missing" for name in expected if name not in given),
        *(f"{name} is unknown" for name in given if name not in expected),
        *(
            f"{name} has shape {given[name]} instead of {shape}"
            for name, shape in expected.items()
            if given.get(name, shape) != shape
        ),
    ]


def _shapes(params: Any) -> dict[str, Shape]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {"/".join(str(key.key) for key in path): tuple(leaf.shape) for path, leaf in leaves}


def _params(folder: epath.Path) -> epath.Path:
    # orbax wants a whole path, and a bucket's is one already.
    return (folder if _is_remote(folder) else folder.absolute()) / PARAMS


def _is_remote(path: epath.Path) -> bool:
    return "://" in str(path)


def _checkpointer():
    import orbax.checkpoint as ocp

    # Written straight from where they lie: a copy of each, or a store that gathers all writes first, would need the
    # memory of a model once more.
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    return ocp.Checkpointer(
        ocp.PyTreeCheckpointHandler(use_ocdbt=False, save_concurrent_gb=1, type_handler_registry=registry)
    )
