"""(seed, step) → global batch, as a pure function over fixed-length token records."""

import collections
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from etils import epath
from jax.sharding import Sharding

from ladder import storage
from ladder.spec import CORPUS_REMEDY, Workdir, write
from ladder.training import order
from tasks.questions import validation
from tasks.store import Records

MIXTURE = "mixture.json"
STEPS_AHEAD = 4


class Batches:
    """Batches by step. Every run of a ladder reads the same records in the same order, if their seeds are one.

    Args:
      folder: of mixture.json (`write_mixture`).
      batch_size: records a batch.
      seed: of the order; each pass over the records has an order of its own.
    """

    def __init__(self, folder: epath.Path, batch_size: int, seed: int):
        parts = storage.read_json(folder / MIXTURE, CORPUS_REMEDY, "parts")["parts"]
        self._records = [Records(_at(folder, part["records"])) for part in parts]
        self._mixing = order.Mixing([part["rate"] for part in parts], seed)
        self._batch_size = batch_size
        self._seed = seed

    def __call__(self, step: int, rows: slice = slice(None)) -> np.ndarray:
        """token_BxT, int32, of the step counted from 0; of these rows alone, nothing else is read."""
        position_B = np.arange(step * self._batch_size, (step + 1) * self._batch_size)[rows]
        part_B, index_B = self._mixing(position_B)
        token_BxT = np.empty((len(position_B), self._records[0].width), np.int32)
        for part in set(part_B.tolist()):
            here_B, records = part_B == part, self._records[part]
            token_BxT[here_B] = records[order.record(index_B[here_B], len(records), self._seed, part)]
        return token_BxT

    def on_mesh(self, steps: Iterable[int], sharding: Sharding) -> Iterator[jax.Array]:
        """Batches of these steps, sharded; each host reads the rows of its own devices, some steps ahead of its use."""
        shape_BxT = (self._batch_size, self._records[0].width)

        def read(step: int) -> jax.Array:
            return jax.make_array_from_callback(shape_BxT, sharding, lambda index: self(step, index[0]))

        # A bucket takes longer over a read than a small run over a step.
        with ThreadPoolExecutor(STEPS_AHEAD) as pool:
            reading = collections.deque()
            for step in steps:
                reading.append(pool.submit(read, step))
                if len(reading) > STEPS_AHEAD:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()


def write_mixture(folder: epath.Path, parts: Sequence[tuple[float, str]]) -> None:
    """Writes mixture.json: of each part its rate and where its records are, from the folder on or at a path."""
    told = [{"rate": rate, "records": records} for rate, records in parts]
    write(folder / MIXTURE, json.dumps({"parts": told}, indent=2) + "\n")


def _at(folder: epath.Path, records: str) -> epath.Path:
    return epath.Path(records) if "://" in records else folder / records


def validation_set(workdir: Workdir, name: str) -> validation.ValidationSet:
    """A validation set of the workdir's corpus, or one of the config's own."""
    own = workdir.validation_set(name)
    if own.exists():
        return validation.load(own)
    with workdir.validation_records(name).open("rb") as file:
        record_RxT = np.load(file)
    summary = storage.read_json(workdir.corpus, CORPUS_REMEDY)
    bytes_per_token = summary.get("validation_bytes_per_token", {}).get(name, 0)
    tokens, length = record_RxT.size, record_RxT.shape[1] - 1
    return validation.ValidationSet(record_RxT.reshape(-1), length, round(tokens * bytes_per_token))


def validation_sets(workdir: Workdir) -> list[str]:
    """Names of the validation sets that the workdir's corpus holds."""
    return list(storage.read_json(workdir.corpus, CORPUS_REMEDY, "validation_tokens")["validation_tokens"])
