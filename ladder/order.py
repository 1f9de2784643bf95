"""The order in which records are read: pure functions from a position to a record, found at once whatever the position.

Positions count records from a run's first; all runs of one seed read position p alike, whatever their batches.
"""

import functools
from collections.abc import Sequence

import numpy as np

# In a mixture each block of so many positions holds every part as often, in an order of its own.
BLOCK_POSITIONS = 10_000
# No permutation is longer: of more records every n-th, from 0 to n - 1, are permuted, one such page after another.
PAGE_RECORDS = 2**20


class Mixing:
    """Position → part of the mixture, and which of the part's records in its own order.

    Args:
      rates: of the parts, each above 0; they need not add up to one, and are rounded to 1 in 10,000.
      seed: of the order.

    Raises:
      ValueError: a rate that is rounded to nothing.
    """

    def __init__(self, rates: Sequence[float], seed: int):
        share_P = np.asarray(rates, np.float64) / np.sum(rates) * BLOCK_POSITIONS
        self._slots_P = np.floor(share_P).astype(np.int64)
        largest_rest = np.argsort(self._slots_P - share_P, kind="stable")
        self._slots_P[largest_rest[: BLOCK_POSITIONS - self._slots_P.sum()]] += 1
        if not self._slots_P.all():
            raise ValueError(f"rate {rates[int(self._slots_P.argmin())]} is less than 1 in {BLOCK_POSITIONS:,} of all")
        self._seed = seed

    def __call__(self, position_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """part_B and index_B: the position's part, and how many positions before it were that part's."""
        block_B, slot_B = np.divmod(position_B, BLOCK_POSITIONS)
        part_B, index_B = np.empty_like(position_B), np.empty_like(position_B)
        for block in np.unique(block_B).tolist():
            here_B = block_B == block
            part_S, rank_S = _block(tuple(self._slots_P.tolist()), self._seed, block)
            part_B[here_B] = part_S[slot_B[here_B]]
            index_B[here_B] = block * self._slots_P[part_B[here_B]] + rank_S[slot_B[here_B]]
        return part_B, index_B

    def drawn(self, positions: int) -> np.ndarray:
        """drawn_P: how many of the first positions are each part's."""
        blocks, rest = divmod(positions, BLOCK_POSITIONS)
        part_S, _ = _block(tuple(self._slots_P.tolist()), self._seed, blocks)
        return blocks * self._slots_P + np.bincount(part_S[:rest], minlength=len(self._slots_P))


def record(index_B: np.ndarray, records: int, seed: int, part: int = 0) -> np.ndarray:
    """record_B: which record of a part is read at these places of its order, each pass over it a permutation.

    Args:
      index_B: how many of the part's records are read before.
      records: that the part has.
      seed: of the order.
      part: its number in the mixture.
    """
    pages = -(-records // PAGE_RECORDS)
    epoch_B, place_B = np.divmod(index_B, records)
    start_G = np.arange(pages) * (records // pages) + np.minimum(np.arange(pages), records % pages)
    page_B = np.searchsorted(start_G, place_B, side="right") - 1
    record_B = np.empty_like(index_B)
    for epoch, page in np.unique(np.stack([epoch_B, page_B]), axis=1).T.tolist():
        here_B = (epoch_B == epoch) & (page_B == page)
        size = records // pages + (page < records % pages)
        permutation_R = _permutation((seed, epoch, page, part), size)
        record_B[here_B] = page + pages * permutation_R[place_B[here_B] - start_G[page]]
    return record_B


@functools.lru_cache(maxsize=4)
def _block(slots_P: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each slot of a block: its part, and how many slots before it are that part's."""
    rng = np.random.default_rng((seed, block))
    part_S = rng.permutation(np.repeat(np.arange(len(slots_P)), slots_P))
    rank_S = np.empty_like(part_S)
    for part, slots in enumerate(slots_P):
        rank_S[part_S == part] = np.arange(slots)
    return part_S, rank_S


@functools.lru_cache(maxsize=32)  # one or two a part, 8 MB each
def _permutation(key: tuple[int, ...], size: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(size)
