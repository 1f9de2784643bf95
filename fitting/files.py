"""Artifacts: frozen dataclasses as JSON files that are strict to read and never half-written."""

import dataclasses
import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

_NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]*\n\s*\]")  # no string has a bare newline, so this is never inside one


def write(path: Any, content: str | bytes) -> None:
    """Writes a file (local or `gs://`) whole or not at all: beside it first, then renamed."""
    from etils import epath  # gs:// is rare and the import is not free

    path = epath.Path(path)
    content = content if isinstance(content, bytes) else content.encode()
    if "://" in str(path):
        path.write_bytes(content)  # an object in a bucket is never there in part
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{os.getpid()}.tmp"
    beside.write_bytes(content)
    beside.replace(path)


def read_text(path: Any) -> str:
    """Reads a file, local or `gs://`. Raises ValueError where there is none."""
    from etils import epath

    path = epath.Path(path)
    try:
        return path.read_text()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ValueError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file") from None


def save(artifact: Any, path: Any) -> None:
    """Writes a dataclass as JSON: floats exactly, NaN as null, keys in the fields' order, a row of numbers a line.

    What was read back is written as the same bytes: a whole number is a float's where the field is a float.
    """
    as_read = _decode(type(artifact), _encode(artifact), type(artifact).__name__)
    text = json.dumps(_encode(as_read), indent=1, allow_nan=False)
    text = _NUMBERS.sub(lambda match: re.sub(r"\n\s*", " ", match[0]).replace("[ ", "[").replace(" ]", "]"), text)
    write(path, text + "\n")


def load(
    kind: type[T],
    path: Any,
    added: Mapping[int, Mapping[str, Any]] = types.MappingProxyType({}),
    *,
    remedy: str = "make it again",
) -> T:
    """Reads a dataclass that `save` wrote.

    Args:
      kind: the dataclass.
      path: local or `gs://`.
      added: of each earlier schema version that is read too, what its files lack.
      remedy: told where the file is damaged.

    Raises:
      ValueError: no such file, not JSON, another schema version, a key missing or unknown, a value of another type; the
        message gives the path and the place within it.
    """
    try:
        raw = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); {remedy}") from None
    if not isinstance(raw, dict):
        found = type(raw).__name__
        raise ValueError(f"{path}: expected a {kind.__name__}, a JSON object, but found {found}; {remedy}")
    version = next(f.default for f in dataclasses.fields(kind) if f.name == "schema_version")
    if raw.get("schema_version") in added:
        raw = {**added[raw["schema_version"]], **raw, "schema_version": version}
    if raw.get("schema_version") != version:
        raise ValueError(
            f"{path}: schema_version is {raw.get('schema_version')!r} but this program reads {kind.__name__} version "
            f"{version}; make the file again with this version"
        )
    try:
        return _decode(kind, raw, kind.__name__)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {remedy}") from None


def cut(value: Any, most: int = 80) -> str:
    """What a message quotes, no longer than `most` characters: no message holds a document."""
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def finite(value: Any) -> Any:
    """The same data, with null for what is not a finite number, as JSON has no other word."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _decode(arguments[0], value, where)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, _expect(dict, value, where), where)
    if origin is Mapping:
        items = _expect(dict, value, where).items()
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in items}
    if origin is tuple:
        items = _expect(list, value, where)
        kinds = [arguments[0]] * len(items) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(kinds):
            raise ValueError(f"{where}: expected {len(kinds)} values but found {len(items)}")
        return tuple(_decode(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, items, strict=True)))
    if kind is float:
        return math.nan if value is None else float(_expect((int, float), value, where))
    return _expect(kind, value, where)


def _decode_dataclass(kind: Any, value: dict, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{where}: missing key {', '.join(missing)}")
    if unknown := [key for key in value if key not in names]:
        raise ValueError(f"{where}: unknown key {cut(', '.join(unknown))}; the keys are {', '.join(names)}")
    return kind(**{name: _decode(hints[name], value[name], f"{where}.{name}") for name in names})


def _expect(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = {dict: "an object", list: "a list", str: "text", int: "a whole number", bool: "true or false"}
        raise ValueError(f"{where}: expected {names.get(kind, 'a number')} but found {cut(json.dumps(value))}")
    return value
