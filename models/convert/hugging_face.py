"""Our decoder in the architectures of Hugging Face's transformers, and theirs in ours.

A LayerNorm without bias is an RMSNorm of a vector whose mean is 0. So the means are taken out of what is normalised, by
centring the columns of all kernels that write to it: the exported model computes the same, to rounding, with RMSNorms
alone. That leaves three architectures, which transformers, vLLM and the evaluation harness open as they are:

  no QK-norm            Llama
  QK-norm head by head  Qwen3
  QK-norm over all      OLMoE with a single expert, whose router has nothing to choose
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath
from flax import traverse_util

from models.config import DecoderConfig, ffn_multiple
from models.saved import SavedModel, Shape, misfits, refuse_existing

Path = tuple[str, ...]  # of a parameter in our tree

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TABLE, FINAL_NORM, OUTPUT = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
DTYPES = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}
# Read as well: the same as Llama where no window slides.
MISTRAL = "MistralForCausalLM"
ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3", "OlmoeForCausalLM": "olmoe"}
# What each setting must be, where it is there, for our decoder to compute the same.
REQUIRED = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "clip_qkv": (None,),
    "sliding_window": (None,),
    "num_experts": (1,),
    "num_experts_per_tok": (1,),
    "partial_rotary_factor": (1, None),
}


def architecture(c: DecoderConfig) -> str:
    """The class of transformers that computes what this decoder does.

    Raises:
      ValueError: if none does.
    """
    if not c.qk_norm:
        return "LlamaForCausalLM"
    if c.qk_norm_per_head:
        return "Qwen3ForCausalLM"
    if c.heads * c.head_width != c.width:
        raise ValueError(
            f"no architecture of transformers normalises {c.heads} heads of width {c.head_width} together "
            f"in a model of width {c.width}; train with qk_norm_per_head"
        )
    return "OlmoeForCausalLM"


def export(model: SavedModel, params: Any, folder: epath.Path, special_ids: Mapping[str, int | None]) -> None:
    """Writes model.safetensors, and config.json last.

    Args:
      model: what the parameters are of.
      params: our decoder's.
      folder: local or gs://; there is no config.json in it yet.
      special_ids: `bos_token_id`, `eos_token_id` and `pad_token_id`.

    Raises:
      ValueError: if the folder holds a model.
    """
    import safetensors.numpy

    refuse_existing(folder, CONFIG)
    tensors = as_tensors(params, model.decoder)
    # safetensors takes an array's memory as it lies, in whatever order its axes are.
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(contiguous, metadata={"format": "pt"}))
    settings = as_settings(model, tensors[OUTPUT if OUTPUT in tensors else TABLE].dtype.name, OUTPUT not in tensors)
    (folder / CONFIG).write_text(json.dumps({**settings, **special_ids}, indent=2) + "\n")


def as_settings(model: SavedModel, dtype: str, tied: bool) -> dict[str, Any]:
    """config.json of the architecture that computes what the decoder does."""
    c, name = model.decoder, architecture(model.decoder)
    settings = {
        "architectures": [name],
        "model_type": ARCHITECTURES[name],
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "intermediate_size": c.ffn_width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.groups,
        "head_dim": c.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": model.sequence_length,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": _rope_scaling(model),
        "tie_word_embeddings": tied,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    if name == "OlmoeForCausalLM":
        settings |= {"num_experts": 1, "num_experts_per_tok": 1, "norm_topk_prob": False, "clip_qkv": None}
    elif name == "LlamaForCausalLM":
        settings |= {"mlp_bias": False}
    return settings


def as_tensors(params: Any, c: DecoderConfig) -> dict[str, np.ndarray]:
    """The parameters as the architecture names them and lays them out; float32 where means were taken out."""

    def centred(kernel: np.ndarray, heads: int = 1) -> np.ndarray:
        if c.norm != "layer":
            return kernel
        by_head = kernel.astype(np.float64).reshape(*kernel.shape[:-1], heads, -1)
        return (by_head - by_head.mean(-1, keepdims=True)).reshape(kernel.shape).astype(np.float32)

    flat, tensors = traverse_util.flatten_dict(params), {}
    for path, (name, _) in _layout(c).items():
        value = np.asarray(flat[path])
        if path[-1] in ("embedding", "out", "down"):
            value = centred(value)
        elif c.qk_norm and path[-1] in ("query", "key"):
            # They are normalised head by head, or all together.
            heads = c.heads if path[-1] == "query" else c.groups
            value = centred(value, heads if c.qk_norm_per_head else 1)
        tensors[name] = _turned(path, value)
    if c.tied_embeddings and c.norm == "layer":
        # What is read is centred and what is written is not, so they are no longer one.
        tensors[OUTPUT] = np.asarray(params["embedding"])
    if architecture(c) == "OlmoeForCausalLM":
        router = np.zeros((1, c.width), np.float32)
        tensors |= {f"model.layers.{layer}.mlp.gate.weight": router for layer in range(c.layers)}
    if c.norm == "layer":
        tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    return tensors


def read(folder: epath.Path) -> tuple[DecoderConfig, int, dict[str, Any]]:
    """Gives the decoder, its context in tokens and its parameters from a folder of config.json and safetensors.

    Raises:
      ValueError: naming the setting or the weights that do not map onto our decoder.
    """
    if not (folder / CONFIG).exists():
        raise ValueError(f"{folder} holds no {CONFIG}; give a folder as transformers' save_pretrained writes it")
    try:
        settings = json.loads((folder / CONFIG).read_text())
        config = config_of(settings)
    except (ValueError, KeyError, TypeError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{folder / CONFIG}: {missing}") from error
    return config, settings.get("max_position_embeddings", 2048), as_params(_read_tensors(folder), config)


def config_of(settings: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that computes what config.json says.

    Raises:
      ValueError: naming the setting that does not map onto our decoder.
    """
    name = (settings.get("architectures") or ["none"])[0]
    if name not in (*ARCHITECTURES, MISTRAL):
        raise ValueError(f"architecture {name} does not map onto our decoder; {', '.join(ARCHITECTURES)} do")
    if name == "Qwen3ForCausalLM" and not settings.get("use_sliding_window"):
        settings = {**settings, "sliding_window": None}
    for key, allowed in REQUIRED.items():
        if key in settings and settings[key] not in allowed:
            raise ValueError(f"{key}={settings[key]!r} does not map onto our decoder; it must be {allowed[0]!r}")
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    head_dim = settings.get("head_dim") or width // heads
    rope = settings.get("rope_parameters") or {
        "rope_theta": settings.get("rope_theta", 10_000.0),
        **(settings.get("rope_scaling") or {}),
    }
    groups = settings.get("num_key_value_heads") or heads
    return DecoderConfig(
        width=width,
        layers=settings["num_hidden_layers"],
        heads=heads,
        vocab_size=settings["vocab_size"],
        ffn_multiple=ffn_multiple(width, settings["intermediate_size"]),
        qk_norm=name in ("Qwen3ForCausalLM", "OlmoeForCausalLM"),
        qk_norm_per_head=name == "Qwen3ForCausalLM",
        norm="rms",
        norm_eps=settings.get("rms_norm_eps", 1e-5 if name == "OlmoeForCausalLM" else 1e-6),
        rope_theta=float(rope["rope_theta"]),
        head_dim=None if head_dim * heads == width else head_dim,
        key_heads=None if groups == heads else groups,
        tied_embeddings=bool(settings.get("tie_word_embeddings", False)),
        inverse_wavelengths=_inverse_wavelengths(rope, head_dim),
    )


def as_params(tensors: Mapping[str, np.ndarray], c: DecoderConfig) -> dict[str, Any]:
    """Their tensors as our decoder names them and lays them out.

    Raises:
      ValueError: naming tensors that are missing, not part of the model or of another shape.
    """
    layout = _layout(c)
    unused = {name for name in tensors if name.endswith((".rotary_emb.inv_freq", ".mlp.gate.weight"))}
    if c.tied_embeddings:
        unused.add(OUTPUT)
    given = {name: tensor.shape for name, tensor in tensors.items() if name not in unused}
    if problems := misfits(dict(layout.values()), given):
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(f"the weights do not fit: {'; '.join(sorted(problems)[:8])}{more}")
    return traverse_util.unflatten_dict({path: _turned(path, tensors[name]) for path, (name, _) in layout.items()})


def _layout(c: DecoderConfig) -> dict[Path, tuple[str, Shape]]:
    """Where each of our parameters lies in the architecture: its tensor's name and shape, which is output by input."""
    q_width, kv_width = c.heads * c.head_width, c.groups * c.head_width
    mlp = "mlp.experts.0" if architecture(c) == "OlmoeForCausalLM" else "mlp"
    block: dict[Path, tuple[str, Shape]] = {
        ("attention_norm", "gain"): ("input_layernorm", (c.width,)),
        ("attention", "query"): ("self_attn.q_proj", (q_width, c.width)),
        ("attention", "key"): ("self_attn.k_proj", (kv_width, c.width)),
        ("attention", "value"): ("self_attn.v_proj", (kv_width, c.width)),
        ("attention", "out"): ("self_attn.o_proj", (c.width, q_width)),
        ("ffn_norm", "gain"): ("post_attention_layernorm", (c.width,)),
        ("ffn", "gate"): (f"{mlp}.gate_proj", (c.ffn_width, c.width)),
        ("ffn", "up"): (f"{mlp}.up_proj", (c.ffn_width, c.width)),
        ("ffn", "down"): (f"{mlp}.down_proj", (c.width, c.ffn_width)),
    }
    if c.qk_norm:
        q_gain, k_gain = (c.head_width, c.head_width) if c.qk_norm_per_head else (q_width, kv_width)
        block["attention", "query_norm", "gain"] = "self_attn.q_norm", (q_gain,)
        block["attention", "key_norm", "gain"] = "self_attn.k_norm", (k_gain,)
    table: Shape = (c.vocab_size, c.width)
    layout: dict[Path, tuple[str, Shape]] = {
        ("embedding",): (TABLE, table),
        ("norm", "gain"): (FINAL_NORM, (c.width,)),
        **({} if c.tied_embeddings else {("output",): (OUTPUT, table)}),
    }
    return layout | {
        (f"block_{layer}", *path): (f"model.layers.{layer}.{name}.weight", shape)
        for layer in range(c.layers)
        for path, (name, shape) in block.items()
    }


def _turned(path: Path, array: np.ndarray) -> np.ndarray:
    """A kernel, which is input by output here, as it is there, or back; else the array as it is."""
    return array.T if array.ndim == 2 and path != ("embedding",) else array


def _read_tensors(folder: epath.Path) -> dict[str, np.ndarray]:
    import safetensors

    files = [WEIGHTS]
    if (folder / INDEX).exists():
        files = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
    tensors = {}
    for file in files:
        if not (folder / file).exists():
            raise ValueError(f"{folder} lacks {file}; weights must be safetensors")
        try:
            held = safetensors.deserialize((folder / file).read_bytes())
        except safetensors.SafetensorError as error:
            raise ValueError(f"{folder / file} is damaged: {error}") from error
        for name, tensor in held:
            if tensor["dtype"] not in DTYPES:
                raise ValueError(f"{folder / file}: {name} holds {tensor['dtype']}; it must be {' or '.join(DTYPES)}")
            tensors[name] = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return tensors


def _rope_scaling(model: SavedModel) -> dict[str, Any] | None:
    # transformers computes the wavelengths from theta; `longrope` divides each by a factor of its own.
    own = model.decoder.inverse_wavelengths
    if own is None:
        return None
    formula = _formula(model.decoder.rope_theta, model.decoder.head_width)
    factors = [plain / wave for plain, wave in zip(formula, own, strict=True)]
    return {
        "rope_type": "longrope",
        "short_factor": factors,
        "long_factor": factors,
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": model.sequence_length,
    }


def _inverse_wavelengths(rope: Mapping[str, Any], head_width: int) -> tuple[float, ...] | None:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    formula = _formula(rope["rope_theta"], head_width)
    if kind == "default":
        return None
    if kind == "linear":
        return tuple(wave / rope["factor"] for wave in formula)
    if kind == "longrope" and rope["short_factor"] == rope["long_factor"] and rope.get("attention_factor") == 1:
        return tuple(wave / factor for wave, factor in zip(formula, rope["short_factor"], strict=True))
    if kind == "llama3":
        return tuple(wave * _llama3_slowing(wave, rope) for wave in formula)
    raise ValueError(f"rotary scaling {kind!r} does not map onto our decoder; 'default', 'linear' and 'llama3' do")


def _llama3_slowing(wave: float, rope: Mapping[str, Any]) -> float:
    """1 for pairs that turn often within the original context, 1 / factor for those that turn seldom."""
    turns = wave * rope["original_max_position_embeddings"] / (2 * math.pi)
    seldom, often = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = min(max((turns - seldom) / (often - seldom), 0.0), 1.0)
    return kept + (1 - kept) / rope["factor"]


def _formula(theta: float, head_width: int) -> list[float]:
    return [theta ** (-i / head_width) for i in range(0, head_width, 2)]
