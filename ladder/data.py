"""(seed, step) → global batch, as a pure function over fixed-length token records."""

import functools
import json

import numpy as np
from etils import epath

from ladder.spec import Workdir
from tasks import validation


class Batches:
    """Batches by step. Every run of a ladder reads the same records in the same order, if their seeds are one.

    Args:
      records: .npy file of token records [R, T], T = sequence length + 1.
      batch_size: records a batch.
      seed: of the order; each pass over the records has an order of its own.
    """

    def __init__(self, records: epath.Path, batch_size: int, seed: int):
        self._record_RxT = read(records)
        self._batch_size = batch_size
        self._seed = seed

    def __call__(self, step: int) -> np.ndarray:
        """token_BxT, int32, of the step counted from 0."""
        position_B = np.arange(step * self._batch_size, (step + 1) * self._batch_size)
        records = len(self._record_RxT)
        epoch_B, place_B = np.divmod(position_B, records)
        index_B = [_order(self._seed, epoch, records)[place] for epoch, place in zip(epoch_B, place_B, strict=True)]
        return self._record_RxT[index_B].astype(np.int32)


def read(records: epath.Path) -> np.ndarray:
    """record_RxT of a .npy file: mapped from a local disk, read whole from gs://."""
    if "://" in str(records):
        with records.open("rb") as file:
            return np.load(file)
    return np.load(records, mmap_mode="r")


def validation_set(workdir: Workdir, name: str) -> validation.ValidationSet:
    """A validation set of the workdir's corpus, or one of the config's own."""
    own = workdir.validation_set(name)
    if own.exists():
        return validation.load(own)
    record_RxT = read(workdir.validation_records(name))
    bytes_per_token = json.loads(workdir.corpus.read_text()).get("validation_bytes_per_token", {}).get(name, 0)
    tokens, length = record_RxT.size, record_RxT.shape[1] - 1
    return validation.ValidationSet(np.asarray(record_RxT).reshape(-1), length, round(tokens * bytes_per_token))


def validation_sets(workdir: Workdir) -> list[str]:
    """Names of the validation sets that the workdir's corpus holds."""
    return list(json.loads(workdir.corpus.read_text())["validation_tokens"])


@functools.lru_cache(maxsize=2)  # a batch may straddle two epochs
def _order(seed: int, epoch: int, records: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(records)
