"""The verb that tells how a ladder is carried out on Cloud TPU."""

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, arg

from ladder import config_file, storage
from ladder.cli.arguments import ConfigPath, Overrides, planned
from ladder.config import LadderConfig, Training
from ladder.engines import jobset
from ladder.engines import schedule as schedules
from ladder.pods import cloud
from ladder.spec import RunSpec


def launch(
    config: ConfigPath,
    *,
    workdir: Annotated[str, arg(metavar="DIR", help="gs://bucket/path of all results")],
    print: Annotated[
        FlagCreatePairsOff[bool], arg(help="print the commands, or the manifests, which run them")
    ] = False,
    engine: Annotated[
        Literal["vms", "jobset"],
        arg(help="a shell script of queued TPU VMs, or YAML of JobSets for Kubernetes, queued by Kueue"),
    ] = "vms",
    topology: Annotated[
        str | None,
        arg(metavar="TPU", help="slice of TPUs for every run, such as v5p:4x4x8; JobSets have the config's machines"),
    ] = None,
    slices: Annotated[int, arg(help="so many of them for a run, joined by the data-centre network")] = 1,
    spot: Annotated[FlagCreatePairsOff[bool], arg(help="cheaper machines that may be taken away")] = False,
    image: Annotated[str, arg(metavar="IMAGE", help="of JobSets: a container image that has `ladder`")] = "",
    queue: Annotated[
        str, arg(metavar="NAME", help="of JobSets: a Kueue LocalQueue of yours; one is printed if not given")
    ] = "",
    project: Annotated[str, arg(metavar="ID", help="of TPU VMs; gcloud's own where not given")] = "",
    zone: Annotated[str, arg(metavar="ZONE", help="of TPU VMs; gcloud's own where not given")] = "",
    overrides: Overrides = (),
) -> None:
    """Print what carries out a ladder on Cloud TPU: machines, every run on them, and the fit."""
    if not print:
        raise ValueError("launch starts nothing itself, because machines cost money; add --print and run what it says")
    # Each run has all devices of all its machines.
    c, specs = planned(config, (*overrides, "training.cores_per_run=0", f"training.mesh.slices={slices}"))
    storage.refuse_placeholders(config_file.as_tree(c))
    text = config_file.dump(c)
    if engine == "jobset":
        machines = {topology: slices} if topology else c.machines
        busy = machines if topology else _busy(c, specs)
        order = jobset.Order(c.name, text, c.training, workdir, machines, busy, image, queue, spot)
        manifests = jobset.text(order)
        if topology:
            _refuse_unsplit(c.training.on(slices * cloud.Slice.of(topology).devices), specs, topology, slices)
        sys.stdout.write(manifests)
    else:
        topology = topology or "v5e:4x4"
        vms = cloud.Order(text, workdir, cloud.Slice.of(topology), slices, spot, project, zone)
        script = cloud.script(vms, specs)
        _refuse_unsplit(c.training, specs, topology, slices)
        sys.stdout.write(script)


def _busy(c: LadderConfig, specs: Sequence[RunSpec]) -> dict[str, int]:
    """The slices that the schedule of a config's machines keeps busy at once."""
    if (schedule := schedules.plan(c, specs)) is None:
        raise ValueError("--engine jobset: on which slices? give a --topology, or name machines in the config")
    return jobset.slices_of(schedule)


def _refuse_unsplit(training: Training, specs: Sequence[RunSpec], topology: str, slices: int) -> None:
    from ladder.pods import splits

    splits.refuse_unsplit(training, specs, cloud.Slice.of(topology), slices)
