"""Writes files in the format of `torch.save`, without PyTorch."""

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
}


class Storage:
    """A whole storage: its elements and its key."""

    def __init__(self, flat: np.ndarray, key: str):
        self.flat, self.key = flat, key


class Tensor:
    """A view of a storage, offset and strides in elements."""

    def __init__(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]):
        self.parts = (storage, offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


class FakeTorch:
    """The names that a pickle of tensors refers to."""

    def __init__(self):
        self.torch, self.utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
        for name in STORAGES.values():
            setattr(self.torch, name, type(name, (), {"__module__": "torch"}))

        def _rebuild_tensor_v2(*args):
            raise NotImplementedError

        _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        self.utils._rebuild_tensor_v2 = _rebuild_tensor_v2
        self.modules = {"torch": self.torch, "torch._utils": self.utils}


def write(path: Path, value: Any) -> None:
    """Writes containers of numbers, numpy arrays (each with a storage of its own) and `Tensor`s."""
    fake, storages = FakeTorch(), {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            storages[obj.key] = obj.flat.tobytes()
            return "storage", getattr(fake.torch, STORAGES[obj.flat.dtype]), obj.key, "cpu", obj.flat.size

        def reducer_override(self, obj):
            if not isinstance(obj, np.ndarray):
                return NotImplemented
            strides = tuple(step // obj.itemsize for step in np.ascontiguousarray(obj).strides)
            storage = Storage(np.ascontiguousarray(obj).reshape(-1), f"{len(storages)}")
            return Tensor(storage, 0, obj.shape, strides).__reduce__()

    buffer = io.BytesIO()
    with mock.patch.dict(sys.modules, fake.modules):
        Pickler(buffer, protocol=2).dump(value)
    write_members(path, buffer.getvalue(), storages)


def write_members(
    path: Path, pickled: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    """Puts a pickle and storages into the archive; 0 stores them as they are."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
