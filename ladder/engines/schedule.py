"""schedule.json: the slice that each run of a ladder is given, for how long, at what price, and when. Needs no device.

A step's time is what `ladder precompile` found, where it has, and an estimate where it has not. The rungs come first,
as what their law says of the targets is frozen before one is trained; a branch begins when its trunk has come to where
it leaves it. The schedule is a plan: who carries a run out, and when, is said by its lease.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from fitting import files
from ladder.config import LadderConfig, Training
from ladder.pods import packing, precompiled
from ladder.pods.cloud import Slice
from ladder.pods.estimate import Estimate, estimate
from ladder.pods.machines import Machines
from ladder.pods.packing import After, Placed, Task, Way
from ladder.pods.topology import CHIPS, Topology
from ladder.spec import RunSpec, Workdir

SECONDS_PER_HOUR = 3600
# Of every run, on however many chips: starting, compiling, saving, measuring. A guess, which nothing has calibrated.
BESIDES_SECONDS = 300


@dataclasses.dataclass(frozen=True)
class Given:
    """What one run is given: a slice from one of its chips on, so many hours, and what they cost on demand.

    `compiled` says whether the hours come from the compiled step, or from an estimate.
    """

    run: str
    slice: str
    chips: int
    first_chip: int
    start_hours: float
    hours: float
    dollars: float
    compiled: bool

    @property
    def end_hours(self) -> float:
        """When it ends, counted from the ladder's start."""
        return self.start_hours + self.hours


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What every run is given, and what it comes to.

    Attributes:
      machines: as the config says them.
      chips: of all machines.
      hours: until the last run ends.
      dollars: of all slices while they are held.
      used: share of all chips' time that a ladder without any waste would need (`ladder.pods.packing.used`).
      least_hours: what no schedule can undercut.
      in_turn_hours, in_turn_used: the same of one run after another, each on the largest slice that it can use.
      runs: in the order in which they start.
    """

    machines: Mapping[str, int]
    chips: int
    hours: float
    dollars: float
    used: float
    least_hours: float
    in_turn_hours: float
    in_turn_used: float
    runs: tuple[Given, ...]
    schema_version: int = 1

    def of(self, run: str) -> Given | None:
        """What a run is given; None where it was not scheduled."""
        return next((given for given in self.runs if given.run == run), None)

    @property
    def slices(self) -> dict[str, Slice]:
        """What each run is given, by run."""
        return {given.run: Slice.of(given.slice) for given in self.runs}


def meant_for(schedule: Schedule | None, specs: Sequence[RunSpec], devices: int) -> list[RunSpec]:
    """The runs that are given a slice of so many devices, for a worker on one; all runs where nothing is scheduled."""
    if schedule is None:
        return list(specs)
    slices = schedule.slices
    return [spec for spec in specs if spec.run not in slices or slices[spec.run].devices == devices]


def as_table(schedule: Schedule) -> dict[str, Any]:
    """JSON-ready: `runs`, what each is given, and `totals`, all the rest."""
    told = dataclasses.asdict(schedule)
    runs = {given.pop("run"): given for given in told.pop("runs")}
    return {"runs": runs, "totals": told}


def draw(schedule: Schedule | None, specs: Sequence[RunSpec], path: epath.Path) -> None:
    """Writes a picture of the schedule, an SVG: chips against hours. Raises ValueError where there is none."""
    if schedule is None:
        raise ValueError("there is no schedule to draw: name machines in the config, or --set machines.v5p=64")
    from fitting.reports import drawing, timelines

    figure = timelines.on_chips(bars(schedule, specs), schedule.chips)
    files.write(path, drawing.on_paper(drawing.svg(figure, "schedule")))


def bars(schedule: Schedule, specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """What `fitting.reports.timelines.on_chips` draws: a bar for each run that is scheduled."""
    multipliers = {spec.run: spec.token_multiplier for spec in specs}
    return [
        {"token_multiplier": multipliers[given.run], **dataclasses.asdict(given)}
        for given in schedule.runs
        if given.run in multipliers
    ]


def keep(schedule: Schedule | None, workdir: Workdir) -> None:
    """Writes schedule.json of a workdir, or removes that of a config which had machines."""
    if schedule is None:
        workdir.schedule.unlink(missing_ok=True)
    else:
        files.save(schedule, workdir.schedule)


def load(path: epath.Path) -> Schedule:
    """Reads schedule.json. Raises ValueError where it is not what `save` writes."""
    return files.load(Schedule, path, remedy="remove it, and `ladder run` writes it again")


def plan(config: LadderConfig, specs: Sequence[RunSpec]) -> Schedule | None:
    """The schedule of a ladder on its config's `machines`; None where it names none.

    Raises:
      ValueError: machines that there are not, or a run that none of them can carry out.
    """
    if not config.machines:
        return None
    if config.training.mesh.slices > 1:
        raise ValueError("machines: each run is given one slice; leave out training.mesh.slices, or machines")
    machines = Machines.of(config.machines)
    steps: dict[Any, dict[Slice, _Step | str]] = {}
    for spec in specs:
        if (key := _kind(spec)) not in steps:
            steps[key] = {where: _step(config.training, spec, where) for where in machines.slices}
    phases = [[_task(spec, steps[_kind(spec)]) for spec in specs if spec.role == role] for role in ("rung", "target")]
    placed, in_turn = packing.pack(phases, machines), packing.one_after_another(phases, machines)
    by_run = {spec.run: steps[_kind(spec)] for spec in specs}
    runs = [_given(run, by_run[run.run]) for run in sorted(placed, key=lambda run: (run.start_hours, run.first_chip))]
    return Schedule(
        machines=dict(config.machines),
        chips=machines.chips,
        hours=packing.end_hours(placed),
        dollars=sum(run.dollars for run in runs),
        used=packing.used(phases, placed, machines),
        least_hours=packing.lower_bound_hours(phases, machines),
        in_turn_hours=packing.end_hours(in_turn),
        in_turn_used=packing.used(phases, in_turn, machines),
        runs=tuple(runs),
    )


def least(config: LadderConfig, spec: RunSpec) -> tuple[float, float]:
    """The least chip-hours and the least dollars that a run takes on the config's machines, by an estimate.

    Infinite where it fits none of them. Whether it splits over them is not asked: that takes a fifth of a second a run.

    Raises:
      ValueError: machines that there are not, or none.
    """
    if not config.machines:
        raise ValueError("name machines in the config to count in chip-hours or dollars, or --set machines.v5p=64")
    found = [(math.inf, math.inf)]
    for where in Machines.of(config.machines).slices:
        said = estimate(config.training.on(where.devices), spec, where)
        if said.fits:
            chip_hours = where.chips * (spec.steps * said.step_seconds + BESIDES_SECONDS) / SECONDS_PER_HOUR
            found.append((chip_hours, chip_hours * CHIPS[where.generation].dollars_per_hour))
    chip_hours_W, dollars_W = zip(*found, strict=True)
    return min(chip_hours_W), min(dollars_W)


@dataclasses.dataclass(frozen=True)
class _Step:
    seconds: float
    compiled: bool


def _kind(spec: RunSpec) -> Any:
    """What the step of a run depends on."""
    return spec.decoder, spec.hyperparameters.batch_size, spec.sequence_length


def _step(training: Training, spec: RunSpec, where: Slice) -> _Step | str:
    """A step on a slice, or why it cannot be."""
    from ladder.pods import splits

    training = training.on(where.devices)
    if why := splits.why_not(training, spec, where):
        return why
    if where.generation in CHIPS and (path := precompiled.file(training, spec, Topology(where))).exists():
        found = precompiled.read(path, spec)
        return _Step(found["estimated_step_seconds"], True) if found["fits"] else f"it does not fit {where}"
    said: Estimate = estimate(training, spec, where)
    return _Step(said.step_seconds, False) if said.fits else f"it does not fit {where}, by an estimate"


def _task(spec: RunSpec, steps: Mapping[Slice, _Step | str]) -> Task:
    ways = tuple(
        Way(str(where), where.chips, (spec.own_steps * step.seconds + BESIDES_SECONDS) / SECONDS_PER_HOUR)
        for where, step in steps.items()
        if isinstance(step, _Step)
    )
    if not ways:
        why = "; ".join(f"{where}: {step}" for where, step in steps.items())
        raise ValueError(f"machines: {spec.run} can be carried out on none of them: {files.cut(why, 400)}")
    return Task(spec.run, ways, After(spec.trunk.run, spec.trunk.step / spec.trunk.steps) if spec.trunk else None)


def _given(placed: Placed, steps: Mapping[Slice, _Step | str]) -> Given:
    where = Slice.of(placed.way.slice)
    step = steps[where]
    return Given(
        run=placed.run,
        slice=placed.way.slice,
        chips=placed.way.chips,
        first_chip=placed.first_chip,
        start_hours=placed.start_hours,
        hours=placed.way.hours,
        dollars=placed.way.chip_hours * CHIPS[where.generation].dollars_per_hour,
        compiled=isinstance(step, _Step) and step.compiled,
    )
