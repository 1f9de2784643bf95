"""Branches: the numbers that a run would come to alone, no step trained twice, whatever is killed or lost."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from ladder import plan as plans
from ladder.recipe import Cooldown
from ladder.spec import Workdir
from ladder.training.train import final_params


@pytest.fixture
def grown(spec):
    """A trunk of 40 steps, and branches of 14 and 25 that leave it after 8 and 19."""

    def run(name, steps, cooldown, shape="1-sqrt"):
        h = dataclasses.replace(spec.hyperparameters, cooldown=Cooldown(cooldown, shape))
        return dataclasses.replace(spec, run=name, steps=steps, hyperparameters=h)

    trunk, short, long = plans.with_trunks([run("trunk", 40, 8), run("short", 14, 6), run("long", 25, 6, "linear")])
    assert trunk.branches == (8, 19) and (short.first_step, long.first_step) == (8, 19)
    return trunk, short, long


@pytest.fixture
def elsewhere(workdir):
    """An empty workdir with the same records."""
    other = Workdir(epath.Path(workdir.root.parent / "elsewhere"))
    shutil.copytree(workdir.train_records, other.train_records)
    return other


def _alone(spec):
    return dataclasses.replace(spec, trunk=None, branches=())


def _same(spec, workdir, other):
    jax.tree.map(np.testing.assert_array_equal, final_params(spec, workdir), final_params(spec, other))


def _steps(workdir, spec):
    """The steps that a run has logged as its own."""
    rows = [json.loads(line) for line in workdir.metrics(spec.run).read_text().splitlines()]
    first = rows[0].get("first_step", 0)
    return range(first + 1, rows[-1]["step"] + 1), rows


def test_branches_end_bit_for_bit_as_runs_of_their_own_and_no_step_is_trained_twice(
    grown, workdir, elsewhere, train_here
):
    trained = []
    for spec in grown:
        events = train_here(spec, workdir, log_every_steps=1)
        trained += [(spec.run, event.step) for event in events]
        assert len(events) == spec.own_steps
        train_here(_alone(spec), elsewhere, log_every_steps=1)
        _same(spec, workdir, elsewhere)
        own, rows = _steps(workdir, spec)
        assert list(own) == [event.step for event in events]
        _, straight = _steps(elsewhere, spec)
        assert [row["loss_nats"] for row in rows] == [row["loss_nats"] for row in straight[spec.first_step :]]
    assert len(trained) == len(set(trained)) == 40 + 6 + 6


@pytest.mark.parametrize("stops", [{"trunk": 8}, {"trunk": 20}, {"trunk": 19, "long": 20, "short": 12}], ids=str)
def test_a_trunk_and_branches_that_were_killed_end_bit_for_bit_as_those_that_were_not(
    grown, workdir, elsewhere, train_here, stops
):
    for spec in grown:
        if spec.run in stops:
            train_here(spec, workdir, log_every_steps=1, stop_at=stops[spec.run])
        train_here(spec, workdir)
        train_here(_alone(spec), elsewhere)
        _same(spec, workdir, elsewhere)


def test_a_trunk_keeps_the_checkpoints_that_branches_begin_with(grown, workdir, train_here):
    trunk = grown[0]
    train_here(trunk, workdir, log_every_steps=1, checkpoint_every_steps=2)
    assert workdir.checkpoint_steps(trunk.run) == [8, 19, 38, 40]


def test_a_branch_begins_while_its_trunk_goes_on_but_not_before_it_has_come_so_far(grown, workdir, train_here):
    trunk, short, long = grown
    with pytest.raises(ValueError, match=r"^short begins after step 8 of trunk, which has not come so far: train that"):
        train_here(short, workdir)
    train_here(trunk, workdir, log_every_steps=1, stop_at=12)
    assert workdir.awaited_trunk(short) == workdir.awaited_trunk(trunk) == ""
    assert workdir.awaited_trunk(long) == "trunk"
    assert [event.step for event in train_here(short, workdir, log_every_steps=1)] == list(range(9, 15))


@pytest.mark.parametrize(
    ("how", "begins"), [("deleted", "from step 8"), ("damaged", "from step 8"), ("all deleted", "by itself")]
)
def test_a_branch_whose_trunks_checkpoint_is_lost_trains_the_steps_itself_and_says_so(
    grown, workdir, elsewhere, train_here, how, begins
):
    trunk, _, long = grown
    train_here(trunk, workdir)
    folder = workdir.checkpoints(trunk.run)
    if how == "damaged":
        for path in pathlib.Path(folder / "19").rglob("d/*"):
            path.write_bytes(path.read_bytes()[:-20])
    else:
        for step in (19, *((8,) if how == "all deleted" else ())):
            (folder / str(step)).rmtree()
    with pytest.warns(UserWarning, match=f"trunk/checkpoints/19, from which long is to begin, .* begins {begins}"):
        train_here(long, workdir)
    train_here(_alone(long), elsewhere)
    _same(long, workdir, elsewhere)
    assert _steps(workdir, long)[0] == range(1 if how == "all deleted" else 9, 26)


def test_a_branch_reads_on_in_its_trunks_pool(grown, workdir):
    from ladder.training.pool import Part, Pool, write_mixture

    trunk, short, _ = grown
    write_mixture(workdir.train_records, [Part(1.0, "text", pool_records=130)])  # short alone reads 112, trunk 320
    pool = Pool(workdir.train_records)
    assert pool.sizes_for(short) == pool.sizes_for(trunk) == [300]
    assert pool.sizes_for(_alone(short)) == [130]
