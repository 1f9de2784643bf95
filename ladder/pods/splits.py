"""Whether runs split over slices of TPUs, known before any is asked for; no device need be there."""

import dataclasses
from collections.abc import Iterator, Sequence

from jax.sharding import AbstractMesh

from ladder.config import Training
from ladder.pods.cloud import GENERATIONS, Slice
from ladder.spec import RunSpec
from ladder.training import mesh as meshes
from ladder.training.step import abstract_on_disk


def refuse_unsplit(training: Training, specs: Sequence[RunSpec], where: Slice, slices: int = 1) -> None:
    """Refuses runs that the machines asked for can never train.

    Args:
      training: how the runs are carried out; its mesh is laid over all devices.
      specs: the runs.
      where: one slice.
      slices: so many of them for each run.

    Raises:
      ValueError: naming the runs, why they do not split, and what lets all of them.
    """
    unsplit = _unsplit(training, specs, where, slices)
    if not unsplit:
        return
    why = next(iter(unsplit.values()))
    remedies = (*_smaller(training, specs, where, slices), *_meshes(training, specs, where, slices))
    raise ValueError(
        f"{len(unsplit)} of {len(specs)} runs can never run on {where}, {slices * where.chips} chips: {why}; take "
        f"{', or '.join(remedies) or 'another slice, or another training.mesh'}; they are {', '.join(unsplit)}"
    )


def why_not(training: Training, spec: RunSpec, where: Slice, slices: int = 1) -> str | None:
    """Why a run does not split over so many slices; None where it does."""
    m, devices = training.mesh, slices * where.devices
    data = m.data or max(1, devices // (m.fsdp * m.tensor))
    if data * m.fsdp * m.tensor != devices or data % slices:
        return f"{spec.run}: a mesh of {data} x {m.fsdp} x {m.tensor} is not one of {devices} devices"
    mesh, batch_size = AbstractMesh((data, m.fsdp, m.tensor), meshes.AXES), spec.hyperparameters.batch_size
    one_block = dataclasses.replace(spec, decoder=dataclasses.replace(spec.decoder, layers=1))  # all are alike
    try:
        parts = training.for_batch(batch_size // meshes.shares(mesh)).accumulation_steps
        meshes.refuse_ragged(batch_size, mesh, spec.run, parts)
        if training.attention == "splash":
            meshes.refuse_split_heads(spec.decoder.groups, mesh, spec.run)
        abstract_on_disk(one_block, mesh)
    except ValueError as error:
        return str(error)
    return None


def _smaller(training: Training, specs: Sequence[RunSpec], where: Slice, slices: int) -> Iterator[str]:
    known = (Slice(where.generation, shape) for shape in GENERATIONS[where.generation].shapes)
    smaller = sorted((s for s in known if s.chips < where.chips), key=lambda s: -s.chips)
    fitting = (s for s in smaller if not _unsplit(training, specs, s, slices))
    for found in fitting:
        yield f"a smaller slice, --topology {found}"
        return


def _meshes(training: Training, specs: Sequence[RunSpec], where: Slice, slices: int) -> Iterator[str]:
    for tensor in (2, 4, 8, 16):
        mesh = dataclasses.replace(training.mesh, data=None, tensor=tensor)
        if not _unsplit(dataclasses.replace(training, mesh=mesh), specs, where, slices):
            yield f"a mesh, --set training.mesh.tensor={tensor}"
            return


def _unsplit(training: Training, specs: Sequence[RunSpec], where: Slice, slices: int) -> dict[str, str]:
    """Why a run does not split, by the run's name."""
    alike = {(spec.decoder, spec.hyperparameters.batch_size): spec for spec in reversed(specs)}
    why = {key: why_not(training, spec, where, slices) for key, spec in alike.items()}
    told = {spec.run: why[spec.decoder, spec.hyperparameters.batch_size] for spec in specs}
    return {run: reason for run, reason in told.items() if reason}
