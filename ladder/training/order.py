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
        slots_P = np.floor(share_P).astype(np.int64)
        largest_rest = np.argsort(slots_P - share_P, kind="stable")
        slots_P[largest_rest[: BLOCK_POSITIONS - slots_P.sum()]] += 1
        if not slots_P.all():
            raise ValueError(f"rate {rates[int(slots_P.argmin())]} is less than 1 in {BLOCK_POSITIONS:,} of all")
        self._slots, self._seed = tuple(slots_P.tolist()), seed

    def __call__(self, position_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """part_B and index_B: the position's part, and how many positions before it were that part's."""
        block_B, slot_B = np.divmod(position_B, BLOCK_POSITIONS)
        part_B, index_B = np.empty_like(position_B), np.empty_like(position_B)
        for block in set(block_B.tolist()):
            here_B = block_B == block
            part_S, index_S = _block(self._slots, self._seed, block)
            part_B[here_B], index_B[here_B] = part_S[slot_B[here_B]], index_S[slot_B[here_B]]
        return part_B, index_B

    def drawn(self, positions: int) -> np.ndarray:
        """drawn_P: how many of the first positions are each part's."""
        blocks, rest = divmod(positions, BLOCK_POSITIONS)
        part_S, _ = _block(self._slots, self._seed, blocks)
        return blocks * np.array(self._slots) + np.bincount(part_S[:rest], minlength=len(self._slots))


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
    start_G = _page_starts(records, pages)
    page_B = np.searchsorted(start_G, place_B, side="right") - 1
    record_B = np.empty_like(index_B)
    for epoch, page in set(zip(epoch_B.tolist(), page_B.tolist(), strict=True)):
        here_B = (epoch_B == epoch) & (page_B == page)
        size = records // pages + (page < records % pages)
        permutation_R = _permutation((seed, epoch, page, part), size)
        record_B[here_B] = page + pages * permutation_R[place_B[here_B] - start_G[page]]
    return record_B


@functools.lru_cache(maxsize=32)
def _page_starts(records: int, pages: int) -> np.ndarray:
    page_G = np.arange(pages)
    return page_G * (records // pages) + np.minimum(page_G, records % pages)


@functools.lru_cache(maxsize=4)
def _block(slots: tuple[int, ...], seed: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each slot of a block: its part, and how many positions before it are that part's."""
    rng = np.random.default_rng((seed, block))
    part_S = rng.permutation(np.repeat(np.arange(len(slots)), slots))
    index_S = np.empty_like(part_S)
    for part, own in enumerate(slots):
        index_S[part_S == part] = block * own + np.arange(own)
    return part_S, index_S


@functools.lru_cache(maxsize=32)  # one or two a part, 8 MB each
def _permutation(key: tuple[int, ...], size: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(size)
