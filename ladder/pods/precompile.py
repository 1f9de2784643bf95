"""The real train step of a run, compiled for a TPU topology without a TPU: whether it fits, and what it will cost.

All times are estimates. The compiler counts the cycles of everything that it made itself; to these are added the
attention kernels, at half of the chip's peak, and communication, at the full rate of the links and hidden by nothing.
Nothing has calibrated them: they are good for comparing two programs.
"""

import dataclasses
import json
import math
import re
import time
from typing import Any

import jax

from fitting.files import write
from ladder.config import Training
from ladder.pods import hlo, precompiled
from ladder.pods.topology import DCN_BYTES_PER_SECOND, GIB, Topology
from ladder.spec import RunSpec
from ladder.training import mesh as meshes
from ladder.training.step import Program
from models import accounting

KERNEL_EFFICIENCY = 0.5
# Products of the kernels, each of S x d FLOPs a token: causal attention halves the 2 S d of a whole one.
KERNEL_PRODUCTS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
# An all-reduce passes everything on twice, to add up and to tell; the others pass on what they hold once.
PASSES = {"all-reduce": 2}


def precompile(training: Training, spec: RunSpec, topology: Topology) -> dict[str, Any]:
    """Compiles a run's step for a topology, or gives what was found when it last was.

    Args:
      training: how to carry it out.
      spec: the run.
      topology: of the slices; `training.mesh` is laid over all their chips.

    Returns:
      What `ladder precompile --json` prints; where the step does not fit, `fits` is false, there are no times, and
      `advice` says what would make it fit.

    Raises:
      ValueError: if the batch or the model does not split over the mesh.
      ModuleNotFoundError: if libtpu is not installed.
    """
    training = _over(training, topology)
    path = precompiled.file(training, spec, topology)
    if not path.exists():
        jax.config.update("jax_platforms", "cpu")
        mesh = meshes.of(training.mesh, topology.devices())
        training = training.for_batch(spec.hyperparameters.batch_size // meshes.shares(mesh))
        program = Program(training, spec, mesh)
        found = _described(training, spec, topology, program) | _compiled(training, spec, topology, program)
        write(path, json.dumps(found, indent=2) + "\n")
    return precompiled.read(path, spec)


def _over(training: Training, topology: Topology) -> Training:
    """With the mesh of all the topology's chips."""
    m = training.mesh
    data = topology.chips // (m.fsdp * m.tensor) if m.data is None else m.data
    return dataclasses.replace(training, mesh=dataclasses.replace(m, data=data, slices=topology.slices))


def _bytes_per_chip(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def _described(training: Training, spec: RunSpec, topology: Topology, program: Program) -> dict[str, Any]:
    return {
        "topology": str(topology.slice),
        "slices": topology.slices,
        "chips": topology.chips,
        "accelerator": topology.slice.accelerator_type,
        "batch_size": spec.hyperparameters.batch_size,
        "sequence_length": spec.sequence_length,
        "mesh": {"data": training.mesh.data, "fsdp": training.mesh.fsdp, "tensor": training.mesh.tensor},
        "remat": training.remat,
        "attention": program.attention,
        "loss_chunk_tokens": training.loss_chunk_tokens,
        "accumulation_steps": training.accumulation_steps,
        "hbm_limit_bytes": topology.chip.hbm_gib * GIB,
        "hbm_parameter_bytes": _bytes_per_chip(program.abstract.params),
        "hbm_optimizer_bytes": _bytes_per_chip(program.abstract.opt_state),
    }


def _compiled(training: Training, spec: RunSpec, topology: Topology, program: Program) -> dict[str, Any]:
    lowered = program.step.lower(program.abstract, program.abstract_batch)
    started = time.monotonic()
    try:
        compiled: Any = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        needed = hbm_overflow_bytes(str(e), _bytes_per_chip((program.abstract, program.abstract_batch)))
        if needed is None:
            raise
        advice = _advice(training, spec, topology, needed)
        return {"fits": False, "hbm_bytes_per_chip": needed, "advice": advice, **_nothing(time.monotonic() - started)}
    compile_seconds = time.monotonic() - started
    text, memory = compiled.as_text(), compiled.memory_analysis()
    xla = hlo.cycles(text) / topology.chip.clock_hz
    kernels = _kernel_seconds(text, training, spec, topology)
    collectives = hlo.collectives(text)
    communication = _communication_seconds(collectives, spec, topology)
    seconds = xla + kernels + communication
    tokens_per_step = spec.hyperparameters.batch_size * spec.sequence_length
    peak = accounting.training_flops(spec.params, tokens_per_step) / (topology.chips * topology.chip.peak_flops)
    return {
        "fits": True,  # or the compiler would have refused it
        "hbm_bytes_per_chip": memory.peak_memory_in_bytes,
        "hbm_cautious_bytes_per_chip": (
            memory.argument_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        ),
        "hbm_temporary_bytes": memory.temp_size_in_bytes,
        "compile_seconds": compile_seconds,
        "estimated_xla_seconds": xla,
        "estimated_kernel_seconds": kernels,
        "estimated_communication_seconds": communication,
        "estimated_step_seconds": seconds,
        "estimated_mfu": peak / seconds,
        "estimated_xla_mfu": peak / xla,
        "estimated_tokens_per_second": tokens_per_step / seconds,
        "collectives": collectives,
    }


def _nothing(compile_seconds: float) -> dict[str, Any]:
    estimates = ("xla_seconds", "step_seconds", "mfu")
    return {"compile_seconds": compile_seconds, **{f"estimated_{e}": None for e in estimates}, "collectives": {}}


def hbm_overflow_bytes(refusal: str, argument_bytes: int = 0) -> int | None:
    """What a program that XLA refused for want of memory needs of it; None if it was refused for another reason.

    Args:
      refusal: XLA's words, which tell all that is needed, or all but the arguments.
      argument_bytes: of those, a chip.
    """
    if found := re.search(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT]? hbm", refusal):
        argument_bytes = 0
    elif not (found := re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds available HBM", refusal)):
        return None
    return argument_bytes + int(float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1))


def _advice(training: Training, spec: RunSpec, topology: Topology, needed: int) -> str:
    rows = spec.hyperparameters.batch_size // (topology.chips // training.mesh.tensor)
    parts = training.accumulation_steps
    ways = []
    if training.remat != "full":
        ways.append("training.remat=full")
    if not training.loss_chunk_tokens:
        ways.append("training.loss_chunk_tokens=512")
    if rows > parts:
        enough = (
            n for n in range(parts + 1, rows) if rows % n == 0 and needed * parts <= n * topology.chip.hbm_gib * GIB
        )
        ways.append(f"training.accumulation_steps={next(enough, rows)}")
    if training.mesh.fsdp * training.mesh.tensor * topology.slices < topology.chips:
        ways.append(f"training.mesh.fsdp={topology.chips // topology.slices // training.mesh.tensor}")
    missing = f"{needed / GIB:.1f} GiB a chip, {needed / GIB - topology.chip.hbm_gib:.1f} more than"
    remedy = ", then ".join(ways) or "a smaller model"
    return f"{spec.run} needs {missing} {topology.slice.generation} has; set {remedy}, or take a larger topology"


def _kernel_seconds(text: str, training: Training, spec: RunSpec, topology: Topology) -> float:
    c, length = spec.decoder, spec.sequence_length
    devices = topology.chips / training.mesh.tensor
    tokens = spec.hyperparameters.batch_size * length / training.accumulation_steps / devices
    width = c.heads * c.head_width / training.mesh.tensor
    products = sum(hlo.kernel_calls(text, kernel) * n for kernel, n in KERNEL_PRODUCTS.items())
    return products * tokens * length * width / (KERNEL_EFFICIENCY * topology.chip.peak_flops)


def _communication_seconds(collectives: dict[str, dict[str, int]], spec: RunSpec, topology: Topology) -> float:
    inside = sum(PASSES.get(kind, 1) * found["bytes"] for kind, found in collectives.items())
    seconds = inside / topology.chip.ici_bytes_per_second
    if topology.slices > 1:
        # Each slice's bfloat16 gradients, added up over all slices, through the network cards of its hosts.
        hosts = topology.hosts // topology.slices
        seconds += PASSES["all-reduce"] * 2 * spec.params / (hosts * DCN_BYTES_PER_SECOND)
    return seconds
