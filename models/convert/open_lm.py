"""open_lm's checkpoints as our decoder's parameters (github.com/mlfoundations/open_lm, `model.py`)."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import yaml

from models.config import DecoderConfig, NormKind, ffn_multiple
from models.convert import torch_file
from models.saved import Shape, misfits

# What PyTorch's wrappers put into the names: data parallel, compiled, sharded, recomputing.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
INVERSE_WAVELENGTH = "attention.pos_embed.inv_freq"
NORMS: dict[str, NormKind] = {"gain_only_lp_layer_norm": "layer", "gain_only_layer_norm": "layer", "rms_norm": "rms"}
# Of params.txt: settings that change the forward pass without a trace in the names and shapes of the weights.
MAPPED = {
    "model_norm": set(NORMS),
    "positional_embedding_type": {"rotary"},
    "ffn_type": {"swiglu", "swiglu_torch"},
    "attn_name": {"auto", "xformers_attn", "torch_attn", "xformers_attn_variable_length"},
}


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """Gives open_lm's settings from params.txt, a line `key: value` each, or from a model's JSON.

    Keys are lower-cased, leading dashes dropped and inner ones written as `_`; values are read as YAML, `None` as None.
    """
    text = pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
    if text.lstrip().startswith("{"):
        try:
            return {_key(key): value for key, value in json.loads(text).items()}
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    settings = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            settings[_key(key)] = _scalar(value.strip())
    return settings


def read_weights(checkpoint: str | os.PathLike) -> dict[str, np.ndarray]:
    """Gives open_lm's tensors by its own names, as read-only views of the file, without the wrappers' prefixes.

    Args:
      checkpoint: a local file of either layout: all of a training state, or the bare state dict.

    Raises:
      ValueError: if it is no such file, or holds no state dict.
    """
    held = torch_file.load(checkpoint)
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    if not isinstance(held, dict) or not held or not all(isinstance(value, np.ndarray) for value in held.values()):
        keys = ", ".join(map(str, list(held)[:8])) if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{checkpoint} holds no model ({keys}); give open_lm's epoch_<number>.pt")
    weights = {}
    for name, value in held.items():
        bare = ".".join(part for part in str(name).split(".") if part not in WRAPPERS)
        if bare in weights:
            raise ValueError(f"{checkpoint} holds {bare} twice, the second time as {name}")
        weights[bare] = value
    return weights


def config_of(weights: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> DecoderConfig:
    """Gives the decoder that a checkpoint is of: its shape from the weights, the rest from open_lm's settings.

    The rotary wavelengths are the checkpoint's own; `inverse_wavelengths` is set where they are not `rope_theta`'s.

    Args:
      weights: from `read_weights`.
      settings: from `read_settings`; keys may be missing and unknown ones are ignored.

    Raises:
      ValueError: if the settings name something that the decoder has not, or heads cannot be told.
    """
    for key, mapped in MAPPED.items():
        value = settings.get(key)
        if value is not None and str(value) not in mapped:
            raise ValueError(
                f"open_lm's {key}={value} does not map onto our decoder; it must be {' or '.join(sorted(mapped))}"
            )
    if settings.get("attn_activation") is not None:
        raise ValueError(f"open_lm's attn_activation={settings['attn_activation']} does not map onto our decoder")
    vocab_size, width = _shape_of_matrix(weights, "tok_embeddings.weight")
    _, ffn_width = _shape_of_matrix(weights, "layers.0.feed_forward.w3.weight")
    own = weights.get(f"layers.0.{INVERSE_WAVELENGTH}")
    heads = width // (2 * len(own)) if own is not None and len(own) else _first(settings, "n_heads", "num_heads")
    if heads is None:
        raise ValueError(
            f"the checkpoint has no layers.0.{INVERSE_WAVELENGTH} to tell the heads by; "
            "give the model's JSON, which has n_heads, with --params"
        )
    config = DecoderConfig(
        width=width,
        layers=len({name.split(".")[1] for name in weights if name.startswith("layers.")}),
        heads=heads,
        vocab_size=vocab_size,
        ffn_multiple=ffn_multiple(width, ffn_width),
        qk_norm="layers.0.attention.q_norm.weight" in weights,
        norm=NORMS[settings.get("model_norm") or "gain_only_lp_layer_norm"],
        norm_eps=float(_first(settings, "norm_eps") or 1e-5),
        tied_embeddings=_are_one(weights["tok_embeddings.weight"], weights.get("output.weight")),
        inverse_wavelengths=_own_wavelengths(weights),
    )
    if config.qk_norm is False and settings.get("qk_norm"):
        raise ValueError("open_lm's settings say qk_norm and the checkpoint has no layers.0.attention.q_norm.weight")
    return config


def as_params(weights: Mapping[str, np.ndarray], c: DecoderConfig) -> dict[str, Any]:
    """The same numbers as our decoder names them and lays them out; views wherever the type may stay.

    Raises:
      ValueError: naming weights that are missing, not part of the model or of another shape.
    """
    expected = _expected_shapes(c)
    optional = {f"layers.{layer}.{INVERSE_WAVELENGTH}" for layer in range(c.layers)}
    problems = [
        *misfits(expected, {name: array.shape for name, array in weights.items() if name not in optional}),
        *(f"{n} holds {weights[n].dtype}, no weights" for n in expected if n in weights and not _floats(weights[n])),
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"the checkpoint does not fit: {'; '.join(problems[:8])}{more}")
    # JAX computes in float32 unless told otherwise.
    weights = {n: w.astype(np.float32) if w.dtype == np.float64 else w for n, w in weights.items() if n in expected}

    def gain(name: str) -> dict[str, np.ndarray]:
        return {"gain": weights[f"{name}.weight"]}

    def block(layer: int) -> dict[str, Any]:
        attention, ffn = f"layers.{layer}.attention", f"layers.{layer}.feed_forward"
        query, key, value = (kernel.T for kernel in np.split(weights[f"{attention}.in_proj.weight"], 3))
        gate, up = (kernel.T for kernel in np.split(weights[f"{ffn}.w12.weight"], 2))
        out, norms = weights[f"{attention}.out_proj.weight"].T, {}
        if c.qk_norm:
            norms = {"query_norm": gain(f"{attention}.q_norm"), "key_norm": gain(f"{attention}.k_norm")}
        return {
            "attention_norm": gain(f"layers.{layer}.attention_norm"),
            "attention": {"query": query, "key": key, "value": value, "out": out, **norms},
            "ffn_norm": gain(f"layers.{layer}.ffn_norm"),
            "ffn": {"gate": gate, "up": up, "down": weights[f"{ffn}.w3.weight"].T},
        }

    return {
        "embedding": weights["tok_embeddings.weight"],
        **{f"block_{layer}": block(layer) for layer in range(c.layers)},
        "norm": gain("norm"),
        **({} if c.tied_embeddings else {"output": weights["output.weight"].T}),
    }


def _expected_shapes(c: DecoderConfig) -> dict[str, Shape]:
    table = (c.vocab_size, c.width)
    shapes: dict[str, Shape] = {"tok_embeddings.weight": table, "output.weight": table}
    for layer in range(c.layers):
        block = {
            "attention_norm": (c.width,),
            "attention.in_proj": (3 * c.width, c.width),
            "attention.out_proj": (c.width, c.width),
            "ffn_norm": (c.width,),
            "feed_forward.w12": (2 * c.ffn_width, c.width),
            "feed_forward.w3": (c.width, c.ffn_width),
        }
        if c.qk_norm:
            block |= {"attention.q_norm": (c.width,), "attention.k_norm": (c.width,)}
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return {**shapes, "norm.weight": (c.width,)}


def _own_wavelengths(weights: Mapping[str, np.ndarray]) -> tuple[float, ...] | None:
    """The checkpoint's rotary buffer, where it is not 10000^(-2i/K) to float32's last digits."""
    own = [value for name, value in weights.items() if name.endswith(INVERSE_WAVELENGTH)]
    if not own:
        return None
    if any(value.shape != own[0].shape or not np.array_equal(value, own[0]) for value in own):
        raise ValueError("the layers' rotary wavelengths differ from one another, which does not map onto our decoder")
    inverse_wavelength_k = own[0].astype(np.float64)
    formula_k = 10_000.0 ** (-np.arange(len(own[0])) / len(own[0]))
    return None if np.allclose(inverse_wavelength_k, formula_k, rtol=1e-6, atol=0) else tuple(inverse_wavelength_k)


def _shape_of_matrix(weights: Mapping[str, np.ndarray], name: str) -> Shape:
    if name not in weights:
        raise ValueError(f"the checkpoint does not fit: {name} is missing")
    if weights[name].ndim != 2:
        raise ValueError(f"the checkpoint does not fit: {name} has shape {weights[name].shape}")
    return weights[name].shape


def _are_one(a: np.ndarray, b: np.ndarray | None) -> bool:
    return b is not None and a.__array_interface__["data"] == b.__array_interface__["data"] and a.shape == b.shape


def _floats(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _first(settings: Mapping[str, Any], *keys: str) -> Any:
    return next((settings[key] for key in keys if settings.get(key) is not None), None)


def _key(key: str) -> str:
    return str(key).strip().lstrip("-").replace("-", "_").lower()


def _scalar(value: str) -> Any:
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return None if parsed == "None" else value if isinstance(parsed, dict) else parsed
