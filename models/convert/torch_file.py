"""Reads what `torch.save` wrote, without PyTorch and without running what a file asks for.

The file is a zip archive of stored members: data.pkl, a pickle of the object with each tensor's storage by its key, and
data/<key>, its bytes. A pickle may call any function by its name, so all names but those of a state dict are refused.
"""

import io
import math
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

STORAGE_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
LOCAL_HEADER_BYTES, LOCAL_NAME_AND_EXTRA = 30, 26
MALFORMED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    UnicodeError,
    ValueError,
)


def load(path: str | os.PathLike) -> Any:
    """Gives the object that `torch.save` wrote, its tensors as read-only numpy arrays over the mapped file.

    Args:
      path: a local file. Storages, strides and offsets are honoured: tensors that shared memory do so again.

    Raises:
      ValueError: naming the file: not torch's zip format, damaged, of the other byte order, or holding anything but
        containers, numbers, text and dense tensors.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a zip archive, as torch.save writes since PyTorch 1.6; "
            "load it with PyTorch and save it again, or fetch it again if it was cut off"
        )
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Unpickler(_members(archive, mapped)).load()
    except MALFORMED as error:
        raise ValueError(f"{path}: {error}") from error


def _members(archive: zipfile.ZipFile, mapped: mmap.mmap) -> dict[str, memoryview]:
    """The bytes of each member by its name below the archive's one folder."""
    found = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise ValueError("holds no data.pkl, so torch.save did not write it")
    root = found[0].removesuffix("data.pkl")
    members = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"member {info.filename} is compressed, which torch.save does not do")
        # The name and the extra field may be longer here than the archive's directory says: torch aligns with them.
        lengths = struct.unpack_from("<HH", mapped, info.header_offset + LOCAL_NAME_AND_EXTRA)
        start = info.header_offset + LOCAL_HEADER_BYTES + sum(lengths)
        if start + info.file_size > len(mapped):
            raise ValueError(f"member {info.filename} is cut off")
        members[info.filename.removeprefix(root)] = memoryview(mapped)[start : start + info.file_size]
    if bytes(members.get("byteorder", b"little")) != b"little":
        raise ValueError("was written on a big-endian machine, whose byte order is not read here")
    return members


class _StorageType(str):
    """The name of a storage type; a pickle's state cannot change it."""

    __slots__ = ()


class _Dict(dict):
    """Stands for an OrderedDict; a state dict's own state is the versions of its modules, which is left out."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Function:
    """A function that a pickle may call and not change."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("sets the state of a function")


class _Unpickler(pickle.Unpickler):
    """Knows the few names that a state dict is made of."""

    def __init__(self, members: dict[str, memoryview]):
        super().__init__(io.BytesIO(members["data.pkl"]))
        self._members = members

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGE_DTYPES:
            return _StorageType(name)
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"asks for {module}.{name}, which does not belong in a state dict; nothing of it was run"
            )
        return _Function(ALLOWED[module, name])

    def persistent_load(self, reference: Any) -> np.ndarray:
        kind, name, key, _, elements = reference
        if kind != "storage" or not isinstance(name, _StorageType):
            raise pickle.UnpicklingError(f"refers to {reference!r}, which is no storage")
        dtype = np.dtype(STORAGE_DTYPES[name])
        data = self._members[f"data/{key}"]
        if len(data) != elements * dtype.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {len(data)} bytes, not {elements} elements of {dtype}")
        return np.frombuffer(data, dtype)


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: Sequence[int], stride: Sequence[int], *_requires_grad_and_hooks: Any
) -> np.ndarray:
    if not isinstance(storage, np.ndarray) or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError(f"no tensor has size {size}, stride {stride} and offset {offset}")
    # numpy would read past the end of the storage.
    end = offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and end > len(storage):
        raise pickle.UnpicklingError(f"a tensor needs {end} elements of a storage of {len(storage)}")
    in_bytes = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, in_bytes, writeable=False)


def _rebuild_parameter(tensor: np.ndarray, *_requires_grad_and_hooks: Any) -> np.ndarray:
    return tensor


class _NumpyDtype:
    """Stands for a numpy.dtype; of its state, only the byte order bears on a number."""

    def __init__(self, name: str, *_align_and_copy: Any):
        self.dtype = np.dtype(name)
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"holds a numpy object of type {name}")

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            raise pickle.UnpicklingError("holds a big-endian number")


def _numpy_scalar(dtype: _NumpyDtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype.dtype, 1)[0]


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"asks for the encoding {encoding}")
    return text.encode(encoding)


# The metrics beside a state dict may be numpy's numbers.
ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("numpy", "dtype"): _NumpyDtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("_codecs", "encode"): _encode,
}
