"""Reads the checkpoint of the real open_lm that the parity fixtures hold, without PyTorch."""

import collections
import pickle
import zipfile
from pathlib import Path

import numpy as np

NUMBERS = {"FloatStorage": np.float32, "LongStorage": np.int64, "DoubleStorage": np.float64}


def read_weights(checkpoint: Path) -> dict[str, np.ndarray]:
    """open_lm's tensors by name, `module.` stripped."""
    with zipfile.ZipFile(checkpoint) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl") + "data/"

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, reference):
                _, storage, key, _, _ = reference
                return np.frombuffer(archive.read(folder + key), NUMBERS[storage])

            def find_class(self, module, name):
                if name in NUMBERS:
                    return name
                if name == "_rebuild_tensor_v2":
                    return lambda flat, offset, shape, *_: flat[offset : offset + int(np.prod(shape))].reshape(shape)
                if name == "OrderedDict":
                    return collections.OrderedDict
                raise pickle.UnpicklingError(f"{module}.{name} does not belong in a state dict")

        with archive.open(pickled) as file:
            state_dict = Unpickler(file).load()["state_dict"]
    return {name.removeprefix("module."): value for name, value in state_dict.items()}


def as_our_params(weights: dict[str, np.ndarray], layers: int) -> dict:
    """The same numbers as our decoder names and lays them out."""

    def gain(name):
        return {"gain": weights[name]}

    def block(layer):
        attention, ffn = f"layers.{layer}.attention", f"layers.{layer}.feed_forward"
        query, key, value = (kernel.T for kernel in np.split(weights[f"{attention}.in_proj.weight"], 3))
        gate, up = (kernel.T for kernel in np.split(weights[f"{ffn}.w12.weight"], 2))
        return {
            "attention_norm": gain(f"layers.{layer}.attention_norm.weight"),
            "attention": {
                "query": query,
                "key": key,
                "value": value,
                "query_norm": gain(f"{attention}.q_norm.weight"),
                "key_norm": gain(f"{attention}.k_norm.weight"),
                "out": weights[f"{attention}.out_proj.weight"].T,
            },
            "ffn_norm": gain(f"layers.{layer}.ffn_norm.weight"),
            "ffn": {"gate": gate, "up": up, "down": weights[f"{ffn}.w3.weight"].T},
        }

    return {
        "embedding": weights["tok_embeddings.weight"],
        **{f"block_{layer}": block(layer) for layer in range(layers)},
        "norm": gain("norm.weight"),
        "output": weights["output.weight"].T,
    }
