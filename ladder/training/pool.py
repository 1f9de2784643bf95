"""The pool that runs read from, the same for all of them: a fair sample of a corpus, or of each part of a mixture.

mixture.json says of each part where its records are, at which rate they are read, and how many of the first are the
pool. A run that needs more of a part than that, as often as it may be repeated, has as many as it needs and no more; so
what a run reads is fixed by the config's pool and by the run, and records that a larger run adds change nothing of it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from etils import epath

from fitting.files import write
from ladder import storage
from ladder.spec import CORPUS_REMEDY, RunSpec
from ladder.training import order
from tasks import store

MIXTURE = "mixture.json"
# Of an origin: where the text lies, which nothing that is learned from it depends on.
PLACES = ("path", "data_dir", "roots", "validation")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a corpus: its share of what is read, where its records are, and how many of the first are its pool.

    `records` is a path, from the pool's folder on; `pool_records` is None where all of them are.
    """

    rate: float
    records: str
    pool_records: int | None = None


class Pool:
    """The pool in a folder.

    Raises:
      ValueError: records of a part that are not all there.
    """

    def __init__(self, folder: epath.Path):
        told = storage.read_json(folder / MIXTURE, CORPUS_REMEDY, "parts")
        self.parts = [Part(**part) for part in told["parts"]]
        self.epochs: int = told.get("epochs", 1)
        self.folders = [
            epath.Path(part.records) if "://" in part.records else folder / part.records for part in self.parts
        ]

    @functools.cached_property
    def records(self) -> list[store.Records]:
        """Of each part, those that any run reads."""
        return [store.Records(folder) for folder in self.folders]

    @property
    def rates(self) -> list[float]:
        """Of the parts."""
        return [part.rate for part in self.parts]

    def drawn(self, spec: RunSpec) -> list[int]:
        """How many records of each part a run reads, one that comes again counted again."""
        return order.Mixing(self.rates, spec.seed).drawn(spec.records).tolist()

    def sizes_for(self, spec: RunSpec) -> list[int]:
        """How many records of each part are a run's pool."""
        return self.sizes(spec.pool_records, spec.seed)

    def sizes(self, positions: int, seed: int) -> list[int]:
        """How many records of each part are the pool of a run that reads so many records in all."""
        needed = sizes(self.parts, self.epochs, positions, seed)
        return [
            len(records) if size is None else min(size, len(records))
            for size, records in zip(needed, self.records, strict=True)
        ]

    def described(self, spec: RunSpec) -> list[dict[str, Any]] | None:
        """What a run reads, part by part, as it determines the run's result; None where it is not known by content."""
        origins = [store.origin(folder) for folder in self.folders]
        if not all(store.FILES in origin for origin in origins):
            return None
        return [
            {"rate": rate, "records": size, "origin": _digest(origin)}
            for rate, size, origin in zip(self.rates, self.sizes_for(spec), origins, strict=True)
        ]


def sizes(parts: Sequence[Part], epochs: int, positions: int, seed: int) -> list[int | None]:
    """How many records of each part a run of so many in all has for its pool, if there are as many; None is all."""
    drawn = order.Mixing([part.rate for part in parts], seed).drawn(positions).tolist()
    return [
        None if part.pool_records is None else max(part.pool_records, -(-own // epochs))
        for part, own in zip(parts, drawn, strict=True)
    ]


def write_mixture(folder: epath.Path, parts: Sequence[Part], epochs: int = 1) -> None:
    """Writes mixture.json; a part may be read so often."""
    told = {"epochs": epochs, "parts": [dataclasses.asdict(part) for part in parts]}
    write(folder / MIXTURE, json.dumps(told, indent=2) + "\n")


def _digest(origin: dict[str, Any]) -> str:
    options = {key: value for key, value in origin["options"].items() if key not in PLACES}
    content = {key: value for key, value in origin.items() if key not in ("options", "vocabulary", "shards")}
    return hashlib.sha256(json.dumps(content | {"options": options}, sort_keys=True).encode()).hexdigest()
