"""The text that every machine has: the standard library's files and those of the packages installed here.

Files are read in the order of a hash of their path below the root, so that a prefix is a fair sample and no run depends
on the order of a folder. A Python file is held out by the sha256 of its base name, so that vendored copies of
a file fall on one side.
"""

import ast
import functools
import hashlib
import inspect
import os
import pathlib
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tasks.text import files

MAX_FILE_BYTES = 200_000
GENERATED_MARK = b"generated"
GENERATED_WITHIN_BYTES = 500
DOCUMENTATION = (".rst", ".md", ".txt", "METADATA")
FOREIGN = (".h", ".hpp", ".hh", ".c", ".cc", ".cpp", ".cuh", ".cu")
SKIPPED_FOLDERS = ("site-packages", "dist-packages", "__pycache__")
MIN_PROSE_BYTES = 200
MIN_PROSE_LETTERS = 0.75
SHARD_BYTES = 2**23


def hash_fraction(key: bytes) -> float:
    """Gives a number in [0, 1) that depends on nothing but the key: the first 8 bytes of its sha256."""
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64


def installed_roots() -> tuple[pathlib.Path, ...]:
    """Gives the standard library's folder and the one that holds the installed packages."""
    packages = pathlib.Path(np.__file__).parents[1]
    return pathlib.Path(sysconfig.get_path("stdlib")), packages


class PythonSources:
    """Documents of the files below some roots, each an iterator over UTF-8 bytes, read only as far as it is asked.

    Attributes:
      roots: the folders read.
      held_out: share of the Python files' base names that is held out.

    Raises:
      ValueError: a root that is no folder, or roots without a Python file.
    """

    def __init__(self, roots: Sequence[os.PathLike | str] | None = None, held_out: float = 0.1):
        self.roots = tuple(map(pathlib.Path, installed_roots() if roots is None else roots))
        self.held_out = held_out
        for root in self.roots:
            if not root.is_dir():
                raise ValueError(
                    f"corpus 'python_sources': {root} is not a folder; name folders of Python files in roots"
                )
        if not any(path.suffix == ".py" for path in self._files):
            raise ValueError(f"corpus 'python_sources': no .py file below {', '.join(map(str, self.roots))}")

    def train(self, seed: int = 0) -> dict[str, Callable[[], Iterator[bytes]]]:
        """Gives the Python files that are not held out, none whose text is held out under another name.

        They come in shards of 8 MB, by name, in an order that depends on the seed.
        """
        order = list(self._trained_on)
        if seed:
            order.sort(key=lambda path: hashlib.sha256(f"{seed} {self._trained_on[path]}".encode()).digest())
        shards = files.parted(order, lambda path: path.stat().st_size, SHARD_BYTES)
        return {f"sample {i}": functools.partial(map, pathlib.Path.read_bytes, own) for i, own in enumerate(shards)}

    def content(self) -> dict[str, str]:
        """What is trained on, however often the machine's packages change: one digest of all files' own."""
        digest = hashlib.sha256("".join(self._trained_on.values()).encode()).hexdigest()
        return {"Python files": f"{len(self._trained_on)} files, sha256 {digest}"}

    def code(self) -> Iterator[bytes]:
        """Gives the held-out Python files."""
        return self._read(self._is_held_out)

    def prose(self) -> Iterator[bytes]:
        """Gives the docstrings of the held-out Python files and the packages' documentation, every paragraph once."""
        seen: set[bytes] = set()
        for path, text in self._texts(lambda path: path.name.endswith(DOCUMENTATION) or self._is_held_out(path)):
            document = docstrings(text) if path.suffix == ".py" else _body(path, text)
            prose = "\n\n".join(p for p in document.split("\n\n") if p.strip() and _is_new(p.strip().encode(), seen))
            if len(prose) >= MIN_PROSE_BYTES and _share_of_letters(prose) >= MIN_PROSE_LETTERS:
                yield prose.encode()

    def foreign(self) -> Iterator[bytes]:
        """Gives the C and C++ files, mostly headers, that packages ship."""
        return self._read(lambda path: path.suffix in FOREIGN)

    @functools.cached_property
    def _files(self) -> list[pathlib.Path]:
        found = []
        for root in self.roots:
            for folder, subfolders, names in os.walk(root):
                subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
                below = os.path.relpath(folder, root)
                for name in names:
                    if name.endswith((".py", *DOCUMENTATION, *FOREIGN)):
                        key = os.path.normpath(os.path.join(below, name))
                        found.append((hashlib.sha256(key.encode()).digest(), pathlib.Path(folder, name)))
        return [path for _, path in sorted(found)]

    @functools.cached_property
    def _trained_on(self) -> dict[pathlib.Path, str]:
        """The sha256 of each file to train on, in their order."""
        wanted = lambda path: path.suffix == ".py" and not self._is_held_out(path)  # noqa: E731
        first: dict[str, pathlib.Path] = {}
        for path, text in self._texts(wanted):
            digest = hashlib.sha256(text)
            if digest.digest() not in self._held_out_digests:
                first.setdefault(digest.hexdigest(), path)
        return {path: digest for digest, path in first.items()}

    @functools.cached_property
    def _held_out_digests(self) -> frozenset[bytes]:
        return frozenset(hashlib.sha256(text).digest() for text in self.code())

    def _is_held_out(self, path: pathlib.Path) -> bool:
        return path.suffix == ".py" and hash_fraction(path.name.encode()) < self.held_out

    def _read(self, wanted: Callable[[pathlib.Path], bool]) -> Iterator[bytes]:
        seen: set[bytes] = set()
        for _, text in self._texts(wanted):
            if _is_new(text, seen):
                yield text

    def _texts(self, wanted: Callable[[pathlib.Path], bool]) -> Iterator[tuple[pathlib.Path, bytes]]:
        for path in filter(wanted, self._files):
            if path.is_symlink() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            text = path.read_bytes()
            if text.strip() and _is_utf8(text) and GENERATED_MARK not in text[:GENERATED_WITHIN_BYTES].lower():
                yield path, text


def docstrings(source: bytes) -> str:
    """Gives a Python source's docstrings without indentation, blank lines between; nothing where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    return "\n\n".join(_docstrings_below(tree))


def _docstrings_below(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if text := ast.get_docstring(node):
            yield text
        for child in node.body:
            yield from _docstrings_below(child)


def _body(path: pathlib.Path, text: bytes) -> str:
    document = text.decode()
    # A METADATA file is a header, a blank line, then the package's own description.
    return document.partition("\n\n")[2] if path.name == "METADATA" else inspect.cleandoc(document)


def _is_new(text: bytes, seen: set[bytes]) -> bool:
    digest = hashlib.sha256(text).digest()
    is_new = digest not in seen
    seen.add(digest)
    return is_new


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in text


def _share_of_letters(text: str) -> float:
    return sum(c.isalpha() or c.isspace() for c in text) / len(text)
