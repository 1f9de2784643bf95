"""The verb that tells how a ladder is carried out on Cloud TPU."""

import sys
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, arg

from ladder import config as configs
from ladder import storage
from ladder.cli.arguments import ConfigPath, Overrides, planned
from ladder.pods import cloud


def launch(
    config: ConfigPath,
    *,
    workdir: Annotated[str, arg(metavar="DIR", help="gs://bucket/path of all results")],
    print: Annotated[
        FlagCreatePairsOff[bool], arg(help="print the commands as a shell script, which runs them")
    ] = False,
    topology: Annotated[str, arg(metavar="TPU", help="slice of TPUs for every run, such as v5p:4x4x8")] = "v5e:4x4",
    slices: Annotated[int, arg(help="so many of them for a run, joined by the data-centre network")] = 1,
    spot: Annotated[FlagCreatePairsOff[bool], arg(help="cheaper machines that may be taken away")] = False,
    gke: Annotated[FlagCreatePairsOff[bool], arg(help="by XPK on Google Kubernetes Engine, not on TPU VMs")] = False,
    cluster: Annotated[str, arg(metavar="NAME", help="of GKE")] = "ladder",
    project: Annotated[str, arg(metavar="ID", help="of Google Cloud; gcloud's own where not given")] = "",
    zone: Annotated[str, arg(metavar="ZONE", help="of Google Cloud; gcloud's own where not given")] = "",
    overrides: Overrides = (),
) -> None:
    """Print the commands that carry out a ladder on Cloud TPU: machines, every run on them, and the fit."""
    from ladder.pods import splits

    if not print:
        raise ValueError("launch starts nothing itself, because machines cost money; add --print and run what it says")
    # Each run has all devices of all its machines.
    c, specs = planned(config, (*overrides, "training.cores_per_run=0", f"training.mesh.slices={slices}"))
    storage.refuse_placeholders(configs.as_tree(c))
    where = cloud.Order(
        config=configs.dump(c),
        workdir=workdir,
        slice=cloud.Slice.of(topology),
        slices=slices,
        spot=spot,
        project=project,
        zone=zone,
        cluster=cluster if gke else "",
    )
    text = cloud.script(where, specs)
    splits.refuse_unsplit(c.training, specs, where.slice, slices)
    sys.stdout.write(text)
