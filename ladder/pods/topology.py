"""TPU slices to compile for: what their chips have and cost, and their devices, described without one."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import typing
from collections.abc import Sequence

from ladder.pods.cloud import Slice

if typing.TYPE_CHECKING:
    import jax

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation of TPU.

    Sources: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e). Prices stand for on-demand list prices in the US, as
    others quoted them in 2025 and 2026; look yours up at cloud.google.com/tpu/pricing before you believe a bill.

    Attributes:
      hbm_gib: memory.
      peak_flops: a second, of bfloat16 products.
      clock_hz: of the cycles that the compiler counts.
      ici_bytes_per_second: out of a chip into its slice, over all links together.
      dollars_per_hour: one chip, on demand.
    """

    hbm_gib: int
    peak_flops: float
    clock_hz: float
    ici_bytes_per_second: float
    dollars_per_hour: float


CHIPS = {
    "v4": Chip(32, 275e12, 1.05e9, 300e9, 3.22),
    "v5e": Chip(16, 197e12, 1.5e9, 200e9, 1.20),
    "v5p": Chip(95, 459e12, 1.75e9, 600e9, 4.20),
    "v6e": Chip(32, 918e12, 1.75e9, 400e9, 2.70),
}
CHIPS_PER_HOST = 4
DCN_BYTES_PER_SECOND = 25e9  # out of a host into the data-centre network: two cards of 100 Gbit/s


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of one shape, such as 2 of v5e:16x16."""

    slice: Slice
    slices: int = 1

    @classmethod
    def of(cls, name: str, slices: int = 1) -> Topology:
        """The topology of a name such as `v5p:4x4x8`.

        Raises:
          ValueError: if there is none, listing those that exist.
        """
        found = Slice.of(name)
        if found.generation not in CHIPS:
            raise ValueError(f"topology {name!r}: nothing is known of its chips; take one of {', '.join(CHIPS)}")
        if slices < 1:
            raise ValueError(f"--slices {slices} must be at least 1")
        return cls(found, slices)

    def __str__(self) -> str:
        return str(self.slice) + (f" x {self.slices}" if self.slices > 1 else "")

    @property
    def chip(self) -> Chip:
        """Of which all its chips are."""
        return CHIPS[self.slice.generation]

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Chips along each axis of a slice."""
        return tuple(map(int, self.slice.shape.split("x")))

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * self.slice.chips

    @property
    def hosts(self) -> int:
        """Of all slices."""
        return max(1, self.chips // CHIPS_PER_HOST)

    def devices(self) -> Sequence[jax.Device]:
        """Its devices, to compile for; libtpu describes them, none need be there.

        Raises:
          ModuleNotFoundError: if libtpu is not installed.
        """
        if importlib.util.find_spec("libtpu") is None:
            raise ModuleNotFoundError("compiling for a TPU needs libtpu", name="libtpu")
        from jax.experimental import topologies

        # Nothing is asked of this machine, which may have no TPU, or be compiling something else at the same time.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        dimensions = (*self.dimensions, 1)[:3]
        options: dict[str, typing.Any] = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.slice.generation == "v4":
            options["chip_config_name"] = "megacore"  # or each chip shows as two
        # Tori close on themselves where they are whole cubes, or a whole pod of the flat ones.
        if len(self.dimensions) == 3 and all(n % 4 == 0 for n in dimensions):
            options["wrap"] = (True, True, True)
        elif self.slice.shape == "16x16":
            options["wrap"] = (True, True, False)
        return topologies.get_topology_desc(platform="tpu", topology_name=str(self.slice), **options).devices
