"""Runs packed on chips: no chip twice, no run left out, near what no schedule can undercut; worked examples by hand."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.pods.cloud import Slice
from ladder.pods.machines import Machines
from ladder.pods.packing import (
    After,
    Task,
    Way,
    end_hours,
    lower_bound_hours,
    one_after_another,
    pack,
    used,
)


@st.composite
def ladders(draw, machines, branches=False):
    """Two phases of runs, which take longer on fewer chips and waste more on many; some branch off others."""
    slices = machines.slices
    phases = []
    for phase in range(2):
        tasks = []
        for number in range(draw(st.integers(0, 12))):
            work, waste = draw(st.floats(0.01, 1e3)), draw(st.floats(0, 0.5))
            can = draw(st.sets(st.sampled_from(slices), min_size=1))
            ways = [Way(str(s), s.chips, work * (1 + waste * i) / s.chips) for i, s in enumerate(slices) if s in can]
            trunks = [task.run for task in tasks if not task.after] if branches else []
            trunk = draw(st.sampled_from([None, *trunks]))
            after = After(trunk, draw(st.floats(0, 1))) if trunk else None
            tasks.append(Task(f"{phase}-{number}", tuple(ways), after))
        tasks = draw(st.permutations(tasks))
        phases.append(tasks)
    return phases


PODS = [{"v5p": 64}, {"v4": 16}, {"v5e": 256}, {"v6e": 1}]
MIXED = [{"v5p": 96}, {"v5p:2x2x1": 8, "v5p:2x2x4": 4}, {"v5e:4x4": 1, "v5p": 8}, {"v5p": 8, "v5p:2x2x2": 3}]


@settings(max_examples=30)
@given(st.sampled_from(PODS + MIXED), st.data())
def test_no_chip_is_given_twice_and_every_run_once_on_a_slice_that_is_there_after_the_phase_before(asked, data):
    machines = Machines.of(asked)
    phases = data.draw(ladders(machines, branches=True))
    placed = pack(phases, machines)
    by_run = {run.run: run for run in placed}
    for task in itertools.chain(*phases):
        if task.after:
            trunk = by_run[task.after.run]
            assert by_run[task.run].start_hours >= trunk.start_hours + task.after.share * trunk.way.hours - 1e-9
    assert sorted(run.run for run in placed) == sorted(task.run for tasks in phases for task in tasks)
    ways = {task.run: task.ways for tasks in phases for task in tasks}
    for run in placed:
        assert run.way in ways[run.run] and run.first_chip in machines.places[run.way.slice]
        assert 0 <= run.first_chip <= machines.chips - run.way.chips
    for one, other in itertools.combinations(placed, 2):
        beside = (
            one.first_chip + one.way.chips <= other.first_chip or other.first_chip + other.way.chips <= one.first_chip
        )
        assert beside or one.end_hours <= other.start_hours or other.end_hours <= one.start_hours
    rungs, targets = ([run for run in placed if run.run[0] == phase] for phase in "01")
    assert all(target.start_hours >= end_hours(rungs) for target in targets)
    assert used(phases, placed, machines) <= 1 + 1e-9


@settings(max_examples=30)
@given(st.sampled_from(PODS), st.data())
def test_on_a_pod_it_ends_within_twice_what_no_schedule_can_undercut(asked, data):
    machines = Machines.of(asked)
    phases = data.draw(ladders(machines))
    least = lower_bound_hours(phases, machines)
    assert least * (1 - 1e-9) <= end_hours(pack(phases, machines)) <= 2 * least * (1 + 1e-9)


@settings(max_examples=20)
@given(st.data())
def test_it_is_never_slower_than_one_run_after_another(data):
    machines = Machines.of({"v5p": 32})
    phases = data.draw(ladders(machines, branches=True))
    assert end_hours(pack(phases, machines)) <= end_hours(one_after_another(phases, machines)) * (1 + 1e-9)


def _ways(*hours: float) -> tuple[Way, ...]:
    shapes = ("v5p:2x2x1", "v5p:2x2x2", "v5p:2x2x4")
    return tuple(Way(shape, Slice.of(shape).chips, h) for shape, h in zip(shapes, hours, strict=True))


def test_small_runs_share_the_pod_and_a_long_one_has_as_many_chips_as_let_it_end_with_them():
    """On 16 chips: four runs of 1 h on 4 chips side by side; then one that splits without waste has all 16 for 1 h."""
    small = [Task(f"s{i}", _ways(1.0, 0.9, 0.8)) for i in range(4)]
    placed = pack([small, [Task("t", _ways(4.0, 2.0, 1.0))]], Machines.of({"v5p": 16}))
    assert [(run.way.chips, run.start_hours) for run in placed] == [(4, 0.0)] * 4 + [(16, 1.0)]
    assert sorted(run.first_chip for run in placed[:4]) == [0, 4, 8, 12]
    long = pack([[*small, Task("long", _ways(4.0, 2.2, 1.2))]], Machines.of({"v5p": 16}))
    assert end_hours(long) == pytest.approx(2.2) and end_hours(long) < 4  # beside two runs, then two more


def test_branches_begin_when_their_trunk_has_come_to_them_beside_it():
    """On two slices: a trunk of 8 h on one; branches of 1 h that leave it after 2 h and 6 h on the other."""
    trunk = Task("trunk", (Way("v5p:2x2x1", 4, 8.0),))
    branches = [Task(f"b{share}", (Way("v5p:2x2x1", 4, 1.0),), After("trunk", share)) for share in (0.75, 0.25)]
    placed = {run.run: run for run in pack([[*branches, trunk]], Machines.of({"v5p:2x2x1": 2}))}
    assert {run: one.start_hours for run, one in placed.items()} == {"trunk": 0.0, "b0.25": 2.0, "b0.75": 6.0}
    assert placed["b0.25"].first_chip == placed["b0.75"].first_chip != placed["trunk"].first_chip


def test_what_is_used_counts_what_a_ladder_without_waste_would_need():
    machines, tasks = Machines.of({"v5p": 16}), [Task("a", _ways(1.0, 0.9, 0.8)), Task("b", _ways(1.0, 0.9, 0.8))]
    assert used([tasks], one_after_another([tasks], machines), machines) == pytest.approx(8 / (16 * 1.6))
    assert used([tasks], pack([tasks], machines), machines) == pytest.approx(8 / (16 * 0.9))
    assert used([], [], machines) == 1.0


def test_a_pod_is_cut_in_two_again_and_again_and_slices_lie_one_after_another():
    assert Machines.of({"v5p": 16}).places == {
        "v5p:2x2x1": (0, 4, 8, 12),
        "v5p:2x2x2": (0, 8),
        "v5p:2x2x4": (0,),
    }
    assert Machines.of({"v5p:2x2x2": 2, "v5p:2x2x1": 3}) == Machines(
        28, {"v5p:2x2x1": (16, 20, 24), "v5p:2x2x2": (0, 8)}
    )


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"v9": 4}, "machines: no TPU 'v9'; there are v4, "),
        ({"v5p:2x2": 4}, "machines: topology 'v5p:2x2' is not to be had; there are v5p:2x2x1"),
        ({"v5p:2x2x1": 0}, "machines.v5p:2x2x1: 0 must be at least 1"),
        ({"v5p": 3}, "machines.v5p: 3 chips are fewer than v5p:2x2x1 has, 4"),
    ],
    ids=str,
)
def test_machines_that_there_are_not_are_refused(asked, why):
    with pytest.raises(ValueError, match=why):
        Machines.of(asked)


def test_a_run_that_no_machine_can_carry_out_is_refused():
    with pytest.raises(ValueError, match="a can be carried out on none of the machines: v5e:1x1"):
        pack([[Task("a", _ways(1.0, 1.0, 1.0))]], Machines.of({"v5e:1x1": 2}))
