"""The fastest way to carry out a run on a TPU topology that fits, found by compiling without a TPU."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from ladder.config import Mesh, Remat, Training
from ladder.events import Say
from ladder.pods.precompile import precompile
from ladder.pods.topology import GIB, Topology
from ladder.spec import RunSpec

LOSS_CHUNK_TOKENS = 512
# Least computed twice first.
POLICIES: tuple[Remat, ...] = ("none", "mixed+attended", "attended", "full")


def fit(training: Training, spec: RunSpec, topology: Topology, tell: Say) -> dict[str, Any]:
    """What `precompile` says of the fastest, by its estimate, of a few ways that fit.

    They are, of each policy of rematerialisation, the first that fits: in as few parts of the batch as can be, and
    with the parameters split as `training` has it or, failing that, over a whole slice.

    Args:
      training: what is not searched: everything but remat, mesh and parts of the batch.
      spec: the run.
      topology: of the slices.
      tell: called with a line on each that is tried.

    Raises:
      ValueError: if none fits, or the batch does not split over the chips.
    """
    if spec.hyperparameters.batch_size % topology.chips:
        raise ValueError(
            f"{spec.run}: a batch of {spec.hyperparameters.batch_size} sequences does not split over {topology.chips} "
            f"chips; take a smaller topology than {topology}, or a --batch that does"
        )
    fitting, closest = [], None
    for remat in POLICIES:
        for candidate in _candidates(training, remat, spec, topology):
            report = _tried(candidate, spec, topology, tell)
            if report is None:
                continue
            if report["fits"]:
                fitting.append(report)
                break
            closest = min(closest or report, report, key=lambda r: r["hbm_bytes_per_chip"])
    if not fitting:
        by = f"; the closest needs {closest['hbm_bytes_per_chip'] / GIB:.1f} GiB a chip" if closest else ""
        raise ValueError(f"{spec.run} does not fit {topology} in any way{by}; take a larger topology")
    return min(fitting, key=lambda report: report["estimated_step_seconds"])


def _candidates(training: Training, remat: Remat, spec: RunSpec, topology: Topology) -> Iterator[Training]:
    rows = spec.hyperparameters.batch_size // topology.chips
    chips = topology.chips // topology.slices
    chunk = training.loss_chunk_tokens or (0 if spec.sequence_length % LOSS_CHUNK_TOKENS else LOSS_CHUNK_TOKENS)
    for parts in (n for n in range(1, rows + 1) if rows % n == 0):
        for fsdp in dict.fromkeys((min(training.mesh.fsdp, chips), chips)):
            yield dataclasses.replace(
                training,
                mesh=Mesh(data=topology.chips // fsdp, fsdp=fsdp, tensor=1, slices=topology.slices),
                remat=remat,
                loss_chunk_tokens=chunk,
                accumulation_steps=parts,
                sequences_at_once=0,
            )


def _tried(candidate: Training, spec: RunSpec, topology: Topology, tell: Say) -> dict | None:
    m = candidate.mesh
    how = f"remat {candidate.remat}, {candidate.accumulation_steps} parts, mesh {m.data} x {m.fsdp} x {m.tensor}"
    try:
        report = precompile(candidate, spec, topology)
    except ValueError as e:
        tell(f"{how}: {e}")
        return None
    memory = f"{report['hbm_bytes_per_chip'] / GIB:.1f} of {report['hbm_limit_bytes'] / GIB:.0f} GiB"
    tell(f"{how}: {memory}" + (f", {report['estimated_step_seconds']:.3f} s" if report["fits"] else ""))
    return report
