"""Which slice each run is given, and when, so that the whole ladder ends soonest on the chips that there are.

A run is a moldable task: it may be carried out on any of several slices, before it starts. For each deadline that can
matter, every run is given the slice that takes the least of the chips' time and still ends by then (Turek, Wolf & Yu
1992), all are placed one after another where they can start first (Graham 1969), and the schedule that ends first is
kept. Placed widest first they leave no holes on a pod that is cut in two again and again, so that it ends within twice
what any schedule takes. From there one run after another is given a slice of the next size, as long as that helps; at
last the whole is held against one run after another. Branches, short as they are, are placed after all other runs.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ladder.pods.machines import Machines


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to carry a run out: on one slice, in so many hours."""

    slice: str
    chips: int
    hours: float

    @property
    def chip_hours(self) -> float:
        """Of the slice's chips together."""
        return self.chips * self.hours


@dataclasses.dataclass(frozen=True)
class After:
    """What a branch begins after: a share of another run of its phase, in time."""

    run: str
    share: float


@dataclasses.dataclass(frozen=True)
class Task:
    """A run, every way to carry it out, and what it must not begin before."""

    run: str
    ways: tuple[Way, ...]
    after: After | None = None

    @property
    def least_chip_hours(self) -> float:
        """Of the way that wastes least."""
        return min(way.chip_hours for way in self.ways)


@dataclasses.dataclass(frozen=True)
class Placed:
    """A run on the chips from `first_chip` on, from `start_hours` after the first run's start on."""

    run: str
    way: Way
    first_chip: int
    start_hours: float

    @property
    def end_hours(self) -> float:
        """When it ends."""
        return self.start_hours + self.way.hours


def pack(phases: Sequence[Sequence[Task]], machines: Machines) -> list[Placed]:
    """Places every run of every phase; a phase begins when the one before has ended, as targets follow rungs.

    Raises:
      ValueError: a run that has no way that the machines have.
    """
    placed: list[Placed] = []
    for tasks in phases:
        for task in tasks:
            if not any(way.slice in machines.places for way in task.ways):
                raise ValueError(f"{task.run} can be carried out on none of the machines: {', '.join(machines.places)}")
        placed += _phase(tasks, machines, start_hours=end_hours(placed))
    return placed


def one_after_another(phases: Sequence[Sequence[Task]], machines: Machines) -> list[Placed]:
    """Every run by itself, on the largest slice that it can use: what a ladder without a schedule does."""
    placed: list[Placed] = []
    for tasks in phases:
        placed += _in_turn(tasks, machines, end_hours(placed))
    return placed


def end_hours(placed: Sequence[Placed]) -> float:
    """When the last run ends."""
    return max((run.end_hours for run in placed), default=0.0)


def used(phases: Sequence[Sequence[Task]], placed: Sequence[Placed], machines: Machines) -> float:
    """The share of all chips' time, until the last run ends, that a ladder without any waste would need.

    A run needs the chip-hours of its best way. A slice larger than that is waste, as is a chip that waits.
    """
    needed = sum(task.least_chip_hours for tasks in phases for task in tasks)
    return needed / (machines.chips * end_hours(placed)) if placed else 1.0


def lower_bound_hours(phases: Sequence[Sequence[Task]], machines: Machines) -> float:
    """What no schedule can undercut: in each phase its longest run, and its least chip-hours, spread over all chips."""
    return sum(_lower_bound_hours(tasks, machines.chips) for tasks in phases if tasks)


def _lower_bound_hours(tasks: Sequence[Task], chips: int) -> float:
    """The least T by which every run can end, at so few chip-hours that all chips together have them by T."""
    return min(max(d, sum(way.chip_hours for way in _by(d, tasks)) / chips) for d in _deadlines(tasks))


def _deadlines(tasks: Sequence[Task]) -> list[float]:
    """Those that change which ways are open, from the first on by which every run can end."""
    first = max(min(way.hours for way in task.ways) for task in tasks)
    return sorted({way.hours for task in tasks for way in task.ways if way.hours >= first})


def _by(deadline: float, tasks: Sequence[Task]) -> list[Way]:
    """Of each run the way that ends by then at the least chip-hours."""
    open_ways = ([way for way in task.ways if way.hours <= deadline] for task in tasks)
    return [min(ways, key=lambda way: (way.chip_hours, way.chips)) for ways in open_ways]


MOST_LOOKS = 1000  # at schedules beside a good one
ORDERS: tuple[Callable[[Way], tuple[float, ...]], ...] = (
    lambda way: (-way.chips, -way.hours),
    lambda way: (-way.hours, -way.chips),
)


def _phase(tasks: Sequence[Task], machines: Machines, start_hours: float) -> list[Placed]:
    tasks = [dataclasses.replace(t, ways=tuple(w for w in t.ways if w.slice in machines.places)) for t in tasks]
    in_turn = _in_turn(tasks, machines, start_hours)
    best: list[Placed] = []
    for deadline in _deadlines(tasks) if tasks else ():
        if best and deadline >= end_hours(best) - start_hours:
            break  # longer runs would end later still
        best = min([*([best] if best else []), *_lists(tasks, _by(deadline, tasks), machines, start_hours)], key=_cost)
    looks = 0
    while looks < MOST_LOOKS:
        for other in _neighbours(tasks, best):
            looks += 1
            found = min(_lists(tasks, other, machines, start_hours), key=_cost)
            if end_hours(found) < end_hours(best) * (1 - 1e-9):
                best = found
                break
        else:
            break
    return min(in_turn, best, key=_cost)


def _neighbours(tasks: Sequence[Task], placed: Sequence[Placed]) -> Iterator[list[Way]]:
    """What comes of giving one run a slice of the next size, those that end last first."""
    given = {run.run: run.way for run in placed}
    for last in sorted(placed, key=lambda run: -run.end_hours):
        ways = next(task for task in tasks if task.run == last.run).ways
        at = ways.index(last.way)
        for way in (*ways[at + 1 : at + 2], *ways[max(0, at - 1) : at]):
            yield [way if task.run == last.run else given[task.run] for task in tasks]


def _in_turn(tasks: Sequence[Task], machines: Machines, start_hours: float) -> list[Placed]:
    placed: list[Placed] = []
    for task in sorted(tasks, key=_is_branch):
        way = max((way for way in task.ways if way.slice in machines.places), key=lambda way: way.chips)
        placed.append(Placed(task.run, way, machines.places[way.slice][0], start_hours))
        start_hours = placed[-1].end_hours
    return placed


def _is_branch(task: Task) -> bool:
    return task.after is not None


def _earliest(task: Task, placed: Sequence[Placed]) -> float:
    """When a task may begin at all; what it begins after is placed before it."""
    if (after := task.after) is None:
        return 0.0
    trunk = next(run for run in placed if run.run == after.run)
    return trunk.start_hours + after.share * trunk.way.hours


def _cost(placed: Sequence[Placed]) -> tuple[float, float]:
    return end_hours(placed), sum(run.way.chip_hours for run in placed)


def _lists(
    tasks: Sequence[Task], ways: Sequence[Way], machines: Machines, start_hours: float
) -> Iterator[list[Placed]]:
    """List schedules of runs whose ways are given, one in each of the `ORDERS`."""
    chips_of = {way.slice: np.asarray(machines.places[way.slice])[:, None] + np.arange(way.chips) for way in set(ways)}
    for order in ORDERS:
        free_at = np.full(machines.chips, start_hours)
        placed: list[Placed] = []
        pairs = sorted(zip(tasks, ways, strict=True), key=lambda pair: order(pair[1]))
        for is_branch in (False, True):
            group = [pair for pair in pairs if _is_branch(pair[0]) == is_branch]
            for task, way in sorted(group, key=lambda pair: _earliest(pair[0], placed)):
                free_at_PxC = free_at[chips_of[way.slice]]
                start_P = np.maximum(free_at_PxC.max(axis=1), _earliest(task, placed))
                # Of the places where it can start first, the one whose chips would have waited least.
                waited_P = np.where(start_P == start_P.min(), (start_P[:, None] - free_at_PxC).sum(axis=1), np.inf)
                place = int(waited_P.argmin())
                placed.append(Placed(task.run, way, machines.places[way.slice][place], float(start_P[place])))
                free_at[chips_of[way.slice][place]] = placed[-1].end_hours
        yield placed
