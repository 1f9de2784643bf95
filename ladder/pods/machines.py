"""The TPUs that a ladder may use: how many chips, and where on them slices of which shape may lie. Needs no JAX."""

import dataclasses
import itertools
from collections.abc import Mapping

from ladder.pods.cloud import GENERATIONS, Slice


@dataclasses.dataclass(frozen=True)
class Machines:
    """Chips, counted from 0, and of each kind of slice the first chips of the places where one may lie.

    A pod to share is cut in two again and again, as a torus is, so that its slices lie side by side or one in another.

    Attributes:
      chips: how many there are.
      places: by slice, such as `v5p:2x2x4`, in the order of its chips.
    """

    chips: int
    places: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, asked: Mapping[str, int]) -> "Machines":
        """What a config's `machines` says: `{v5p: 64}`, a pod of so many chips, or `{v5p:2x2x1: 8}`, so many slices.

        Raises:
          ValueError: a slice or a generation that there is not, or fewer than one of it.
        """
        first = 0
        places: dict[str, tuple[int, ...]] = {}
        for name, count in asked.items():
            if count < 1:
                raise ValueError(f"machines.{name}: {count} must be at least 1")
            generation, _, shape = name.partition(":")
            for where in [_slice(name)] if shape else _cuts(generation, count):
                of_all = where.chips * count if shape else count
                starts = range(first, first + of_all - where.chips + 1, where.chips)
                places[str(where)] = (*places.get(str(where), ()), *starts)
            first += of_all
        return cls(first, dict(sorted(places.items(), key=lambda item: (Slice.of(item[0]).chips, item[0]))))

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Every kind, the smallest first."""
        return tuple(map(Slice.of, self.places))


def _slice(name: str) -> Slice:
    try:
        return Slice.of(name)
    except ValueError as e:
        raise ValueError(f"machines: {e}") from None


def _cuts(generation: str, chips: int) -> list[Slice]:
    """The slices that a pod can be cut into."""
    if generation not in GENERATIONS:
        raise ValueError(f"machines: no TPU {generation!r}; there are {', '.join(GENERATIONS)}")
    every = [Slice(generation, shape) for shape in GENERATIONS[generation].shapes]
    halves = [every[0]] + [b for a, b in itertools.pairwise(every) if b.chips % a.chips == 0]
    cuts = [where for where in halves if where.chips <= chips]
    if not cuts:
        raise ValueError(f"machines.{generation}: {chips} chips are fewer than {every[0]} has, {every[0].chips}")
    return cuts
