"""What `ladder precompile` found, kept by what it depends on, and what whole runs cost by it. Needs no JAX."""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pydantic
from etils import epath

from ladder import storage
from ladder.config import Training
from ladder.pods.topology import CHIPS, GIB, Topology
from ladder.spec import RunSpec
from models.config import DecoderConfig

SECONDS_PER_HOUR = 3600
HOURS_PER_DAY = 24

# Whatever changes the compiled program, or what is read from it.
SOURCES = (
    *(f"ladder/pods/{name}.py" for name in ("hlo", "precompile", "topology")),
    *(f"ladder/training/{name}.py" for name in ("execution", "mesh", "step")),
    *(f"models/{name}.py" for name in ("config", "decoder", "execution", "layers", "loss", "splash")),
)


def file(training: Training, spec: RunSpec, topology: Topology) -> epath.Path:
    """Where what is found of a step for a topology lies; there is none where nothing was found yet."""
    return _folder(training, spec) / f"{str(topology.slice).replace(':', '-')}-{topology.slices}.json"


def read(path: epath.Path, spec: RunSpec) -> dict[str, Any]:
    """A report, with the days and the price of the whole run."""
    return _costed(json.loads(path.read_text()), spec)


def known(training: Training, spec: RunSpec) -> list[dict[str, Any]]:
    """What was found of a run whenever it was compiled as it would be now and fitted, cheapest first."""
    found = [read(path, spec) for path in _folder(training, spec).glob("*.json")]
    return sorted((report for report in found if report["fits"]), key=lambda report: report["dollars"])


def chip_hours(training: Training, specs: Sequence[RunSpec]) -> dict[str, dict[str, float]]:
    """Of each run whose step was compiled, by topology."""
    return {
        spec.run: {_where(report): report["chip_hours"] for report in reports}
        for spec in specs
        if (reports := known(training, spec))
    }


def as_lines(report: dict[str, Any]) -> list[str]:
    """A report for people: memory, time, communication, and what the whole run costs."""
    r, mesh = report, report["mesh"]
    parts = f" in {r['accumulation_steps']} parts" if r["accumulation_steps"] > 1 else ""
    limit = f"of {r['hbm_limit_bytes'] / GIB:.0f} GiB a chip"
    lines = [
        f"{r['run']} on {_where(r)} ({r['accelerator']}, {r['chips']} chips): mesh {mesh['data']} x {mesh['fsdp']} x "
        f"{mesh['tensor']}, batch {r['batch_size']}{parts}, remat {r['remat']}"
    ]
    if not r["fits"]:
        return [*lines, f"  does not fit: {r['hbm_bytes_per_chip'] / GIB:.1f} {limit}"]
    collectives = ", ".join(f"{k} {v['count']} times {v['bytes'] / GIB:.2f} GiB" for k, v in r["collectives"].items())
    return [
        *lines,
        f"  memory   {r['hbm_bytes_per_chip'] / GIB:.1f} {limit}; parameters {r['hbm_parameter_bytes'] / GIB:.1f}, "
        f"optimizer {r['hbm_optimizer_bytes'] / GIB:.1f}, temporaries {r['hbm_temporary_bytes'] / GIB:.1f}",
        f"  step     estimated {r['estimated_step_seconds']:.3f} s: XLA {r['estimated_xla_seconds']:.3f}, kernels "
        f"{r['estimated_kernel_seconds']:.3f}, communication {r['estimated_communication_seconds']:.3f}; "
        f"6N MFU {r['estimated_mfu']:.2f}, of XLA's part {r['estimated_xla_mfu']:.2f}",
        f"  network  {collectives or 'none'}",
        f"  run      {r['steps']:,} steps, {r['estimated_tokens_per_second']:,.0f} tokens/s, {r['days']:.2f} days, "
        f"{r['chip_hours']:,.0f} chip-hours, ${r['dollars']:,.0f} on demand",
    ]


def _where(report: dict[str, Any]) -> str:
    return report["topology"] + (f" x {report['slices']}" if report["slices"] > 1 else "")


def _costed(found: dict[str, Any], spec: RunSpec) -> dict[str, Any]:
    """With the whole run's days and price, which the runs of one size have each their own of."""
    report = {"run": spec.run, "steps": spec.own_steps, **found}
    if not found["fits"]:
        return report
    hours = spec.own_steps * found["estimated_step_seconds"] / SECONDS_PER_HOUR
    dollars = CHIPS[found["topology"].partition(":")[0]].dollars_per_hour
    costs = {"days": hours / HOURS_PER_DAY, "chip_hours": hours * found["chips"]}
    return report | costs | {"dollars": costs["chip_hours"] * dollars}


def _folder(training: Training, spec: RunSpec) -> epath.Path:
    """Folder of what was found of a step, carried out so, by this version of the code and the compiler."""
    names = ("scan_layers", "remat", "attention", "loss_chunk_tokens", "accumulation_steps", "sequences_at_once")
    how = {name: getattr(training, name) for name in names}
    how["mesh"] = {"fsdp": training.mesh.fsdp, "tensor": training.mesh.tensor}  # the rest follows from the topology
    shape = pydantic.TypeAdapter(DecoderConfig).dump_python(spec.decoder, mode="json")
    asked = [shape, spec.sequence_length, spec.hyperparameters.batch_size, how, _code_version()]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    return storage.cache() / "precompiled" / key


def _code_version() -> str:
    root = pathlib.Path(__file__).parents[2]
    digest = hashlib.sha256()
    for source in SOURCES:
        digest.update((root / source).read_bytes())
    for package in ("jax", "libtpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()
