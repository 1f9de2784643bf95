"""The verb `ladder precompile`: a run's train step, compiled for a TPU topology without a TPU."""

import dataclasses
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, arg

from ladder import plan as plans
from ladder.cli.arguments import ConfigPath, Json, Overrides, planned, print_json, to_person
from ladder.pods import precompiled
from ladder.pods.topology import Topology

Flag = FlagCreatePairsOff[bool]


def precompile(
    config: ConfigPath,
    *,
    topology: Annotated[str, arg(metavar="TPU", help="slice of TPUs, such as v5p:4x4x8")],
    run: Annotated[str | None, arg(metavar="NAME", help="one run, as `ladder plan` names it")] = None,
    all: Annotated[Flag, arg(help="every run, one after another; those of one size share a program")] = False,
    slices: Annotated[int, arg(help="so many slices, joined by the data-centre network")] = 1,
    batch: Annotated[int | None, arg(metavar="B", help="sequences a step, instead of the recipe's")] = None,
    fit: Annotated[Flag, arg(help="search mesh, remat and parts of the batch for the fastest that fits")] = False,
    json: Json = False,
    overrides: Overrides = (),
) -> None:
    """Compile a run's train step for TPUs, without one: does it fit, how long will it take, what will it cost."""
    from ladder.pods.fit import fit as fitted
    from ladder.pods.precompile import precompile as compiled

    if all == (run is not None):
        raise ValueError("name one run with --run, or take every run with --all")
    where = Topology.of(topology, slices)
    c, specs = planned(config, overrides)
    training = c.training.on(where.chips)
    reports = []
    for spec in specs if run is None else [plans.find(specs, run)]:
        if batch:
            spec = dataclasses.replace(
                spec,
                steps=max(1, round(spec.tokens / (batch * spec.sequence_length))),
                hyperparameters=dataclasses.replace(spec.hyperparameters, batch_size=batch),
            )
        try:
            report = fitted(training, spec, where, to_person.print) if fit else compiled(training, spec, where)
        except ValueError as e:
            if not all:
                raise
            to_person.print(str(e))
            continue
        reports.append(report)
        if not json:
            to_person.print("\n".join(precompiled.as_lines(report)))
        if not report["fits"]:
            to_person.print(report["advice"])
    if json:
        print_json(reports if all else reports[0])
    if not all and not reports[0]["fits"]:
        raise SystemExit(1)
