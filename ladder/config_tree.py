"""A config's YAML as a tree of mappings: the file, what it is based on, overrides."""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from etils import epath

from fitting.files import cut
from ladder import storage


def read(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Gives a file's tree over that of its `base`, a file named from where it lies itself, with overrides.

    Args:
      path: the file, local or gs://, or the name of a config that ships, such as `demo` or `pods/v5p`.
      overrides: `path.to.key=value` each; the value is read as YAML.

    Raises:
      ValueError: naming the file or the override, and what is wrong with it.
    """
    file = _named(path)
    tree = _read(file)
    bases = [override for override in overrides if override.startswith("base=")]
    for override in bases:
        _set(tree, override)
    tree = _on_its_base(tree, file)
    for override in overrides:
        if override not in bases:
            _set(tree, override)
    return tree


def shipped() -> dict[str, epath.Path]:
    """The configs that ship, by name: those of a checkout, or of a wheel, which keeps them in the package."""
    here = epath.Path(__file__).parent
    (folder,) = [folder for folder in (here / "configs", here.parent / "configs") if (folder / "demo.yaml").exists()]
    files = [*folder.glob("*.yaml"), *folder.glob("*/*.yaml")]
    return {str(file.relative_to(folder)).removesuffix(".yaml"): file for file in sorted(files)}


def _named(path: str) -> epath.Path:
    file = storage.place(path)
    # A folder of that name, such as a workdir, is no config.
    return file if file.exists() and not file.is_dir() else shipped().get(path, file)


class _Loader(yaml.SafeLoader):
    """YAML whose numbers may be written 1e-3, as everybody does and only YAML 1.2 allows."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), "-+0123456789")


def _read(file: epath.Path) -> dict[str, Any]:
    if not file.exists() or file.is_dir():
        raise ValueError(f"no such config: {file}; those that ship are {', '.join(shipped())}")
    try:
        tree = yaml.load(storage.read_text(file), _Loader)
    except yaml.YAMLError as e:
        raise ValueError(f"{file} is not YAML: {cut(' '.join(str(e).split()), 300)}") from e
    if not isinstance(tree, dict):
        raise ValueError(f"{file} must hold a mapping of keys, as configs/demo.yaml does")
    return tree


def _on_its_base(tree: dict[str, Any], file: epath.Path, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tree over that of its `base`, a file named from where it lies itself, if it has one."""
    if "base" not in tree:
        return tree
    storage.place(str(tree["base"]))
    base = file.parent / str(tree["base"])
    if str(base) in below:
        raise ValueError(f"{file}: base: {tree['base']} is based on this file")
    own = {key: value for key, value in tree.items() if key != "base"}
    return _merged(_on_its_base(_read(base), base, (*below, str(base))), own)


def _merged(base: Any, own: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(own, dict):
        return own
    return base | {key: _merged(base[key], value) if key in base else value for key, value in own.items()}


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    *parents, leaf = path.split(".")
    if not equals or not all([*parents, leaf]):
        raise ValueError(f"--set {cut(override)}: write it as path.to.key=value")
    try:
        parsed = yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise ValueError(f"--set {cut(override)}: {cut(repr(value))} is not YAML; quote it") from None
    for key in parents:
        tree = _item(tree, key, override)
    if isinstance(tree, list):
        _item(tree, leaf, override)
        tree[int(leaf)] = parsed
    elif isinstance(tree, dict):
        tree[leaf] = parsed
    else:
        raise ValueError(f"--set {cut(override)}: there is nothing below {'.'.join(parents)}")


def _item(tree: Any, key: str, override: str) -> Any:
    if isinstance(tree, list):
        if not key.isdigit() or int(key) >= len(tree):
            raise ValueError(f"--set {cut(override)}: {key} must be one of 0 to {len(tree) - 1}")
        return tree[int(key)]
    if not isinstance(tree, dict):
        raise ValueError(f"--set {cut(override)}: there is nothing below {cut(key)}")
    return tree.setdefault(key, {})
