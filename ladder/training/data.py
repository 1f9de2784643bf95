"""(seed, step) → global batch, as a pure function over fixed-length token records."""

import collections
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from etils import epath
from jax.sharding import Sharding

from ladder import storage
from ladder.spec import CORPUS_REMEDY, Workdir
from ladder.training import order
from ladder.training.pool import Pool
from tasks.questions import validation

STEPS_AHEAD = 4


class Batches:
    """Batches by step. Runs on one pool read the same records in the same order, if their seeds are one.

    Args:
      folder: of the pool (`ladder.training.pool`).
      batch_size: records a batch.
      seed: of the order; each pass over the records has an order of its own.
      steps: that a pool is large enough for, those of the run or of its trunk; where it is None, the pool is no larger
        than the others'.
      ids: how many the model knows; records with others are refused when they are read, by a ValueError.
    """

    def __init__(
        self, folder: epath.Path, batch_size: int, seed: int, steps: int | None = None, ids: int | None = None
    ):
        pool = Pool(folder)
        self._records = pool.records
        self._sizes = pool.sizes(0 if steps is None else steps * batch_size, seed)
        self._mixing = order.Mixing(pool.rates, seed)
        self._folders, self._ids = pool.folders, ids
        self._batch_size = batch_size
        self._seed = seed

    def __call__(self, step: int, rows: slice = slice(None)) -> np.ndarray:
        """token_BxT, int32, of the step counted from 0; of these rows alone, nothing else is read."""
        position_B = np.arange(step * self._batch_size, (step + 1) * self._batch_size)[rows]
        part_B, index_B = self._mixing(position_B)
        token_BxT = np.empty((len(position_B), self._records[0].width), np.int32)
        for part in set(part_B.tolist()):
            here_B, records = part_B == part, self._records[part]
            read_BxT = records[order.record(index_B[here_B], self._sizes[part], self._seed, part)]
            if self._ids is not None and (largest := read_BxT.max()) >= self._ids:
                raise ValueError(
                    f"{self._folders[part]} holds the id {largest:,} and the model knows {self._ids:,}: these records "
                    "are another tokenizer's; train with that one, or name another cache"
                )
            token_BxT[here_B] = read_BxT
        return token_BxT

    def on_mesh(self, steps: Iterable[int], sharding: Sharding) -> Iterator[jax.Array]:
        """Batches of these steps, sharded; each host reads the rows of its own devices, some steps ahead of its use."""
        shape_BxT = (self._batch_size, self._records[0].width)

        def read(step: int) -> jax.Array:
            return jax.make_array_from_callback(shape_BxT, sharding, lambda i: self(step, i[0] if i else slice(None)))

        # A bucket takes longer over a read than a small run over a step.
        with ThreadPoolExecutor(STEPS_AHEAD) as pool:
            reading = collections.deque[Future[jax.Array]]()
            for step in steps:
                reading.append(pool.submit(read, step))
                if len(reading) > STEPS_AHEAD:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()


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
