"""Branches: the numbers that a run would come to alone, no step trained twice, whatever is killed or lost."""

import dataclasses
import json
import pathlib
import shutil
import types

import jax
import numpy as np
import pytest
from etils import epath

from ladder import plan as plans
from ladder.config import Training
from ladder.recipe import Cooldown, Hyperparameters
from ladder.spec import RunSpec, Workdir
from ladder.training.pool import Part, Pool, write_mixture
from ladder.training.train import Diverged, final_params, train
from models.config import DecoderConfig
from tasks import store


def _run(name, steps, cooldown_steps):
    h = Hyperparameters(
        batch_size=8,
        learning_rate=0.03,
        final_learning_rate=0.0003,
        warmup_steps=3,
        weight_decay=0.033,
        cooldown=Cooldown(cooldown_steps),
    )
    decoder = DecoderConfig(width=8, layers=1, heads=1, vocab_size=97, ffn_multiple=8)
    return RunSpec(name, "rung", "w8", decoder, 16, steps, h, seed=0)


# They leave it after 8 and 19 steps.
TRUNK, SHORT, LONG = plans.with_trunks([_run("trunk", 40, 8), _run("short", 14, 6), _run("long", 25, 6)])


def _train(spec, workdir, **training):
    train(types.SimpleNamespace(training=Training(**training)), spec, workdir, lambda event: None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, token_RxT):
    """A workdir in which all three were trained, the branches as runs of their own."""
    made = Workdir(epath.Path(tmp_path_factory.mktemp("alone")))
    store.write(made.train_records / "text", token_RxT)
    write_mixture(made.train_records, [Part(1.0, "text")])
    for spec in (TRUNK, SHORT.alone, LONG.alone):
        _train(spec, made, log_every_steps=1, checkpoint_every_steps=50)
    return made


@pytest.fixture
def grown(alone, workdir):
    """A workdir in which the trunk was trained."""
    shutil.copytree(alone.root / "runs" / "trunk", workdir.root / "runs" / "trunk")
    return workdir


def _same(spec, workdir, other):
    jax.tree.map(np.testing.assert_array_equal, final_params(spec, workdir), final_params(spec, other))


def _steps(workdir, spec):
    """The steps that a run has logged as its own."""
    rows = [json.loads(line) for line in workdir.metrics(spec.run).read_text().splitlines()]
    first = rows[0].get("first_step", 0)
    return range(first + 1, rows[-1]["step"] + 1), rows


def test_branches_end_bit_for_bit_as_runs_of_their_own_and_no_step_is_trained_twice(alone, grown, train_here):
    for spec in (SHORT, LONG):
        events = train_here(spec, grown, log_every_steps=1)
        assert [event.step for event in events] == list(range(spec.first_step + 1, spec.steps + 1))
        _same(spec, grown, alone)
        own, rows = _steps(grown, spec)
        assert list(own) == [event.step for event in events]
        straight = _steps(alone, spec)[1][spec.first_step :]
        assert [row["loss_nats"] for row in rows] == [row["loss_nats"] for row in straight]
    assert list(_steps(grown, TRUNK)[0]) == list(range(1, 41))


def test_a_trunk_and_branches_that_were_killed_end_bit_for_bit_as_those_that_were_not(alone, workdir, train_here):
    # A report comes before its step is saved: the trunk is killed on its way to a branch's checkpoint, and after it.
    for spec, stops in ((TRUNK, (8, 20)), (SHORT, (12,)), (LONG, (20,))):
        for step in stops:
            train_here(spec, workdir, log_every_steps=1, stop_at=step)
        train_here(spec, workdir)
        _same(spec, workdir, alone)
        assert all(0 < row["goodput"] <= 1 for row in _steps(workdir, spec)[1])


def test_a_run_that_was_begun_alone_goes_on_as_a_branch_and_a_branch_as_a_run_of_its_own(alone, grown, train_here):
    train_here(LONG.alone, grown, log_every_steps=1, stop_at=12)
    assert [event.step for event in train_here(LONG, grown)] == [15, 20, 25]
    train_here(SHORT, grown, log_every_steps=1, checkpoint_every_steps=1, stop_at=12)
    assert [event.step for event in train_here(SHORT.alone, grown, log_every_steps=1)] == [12, 13, 14]
    for spec, own in ((LONG, range(1, 26)), (SHORT, range(9, 15))):
        _same(spec, grown, alone)
        assert _steps(grown, spec)[0] == own


def test_a_trunk_keeps_the_checkpoints_that_branches_begin_with(workdir, train_here):
    train_here(TRUNK, workdir, log_every_steps=1, checkpoint_every_steps=4)
    assert workdir.checkpoint_steps("trunk") == [8, 19, 36, 40]


def test_a_branch_begins_while_its_trunk_goes_on_but_not_before_it_has_come_so_far(workdir, train_here):
    with pytest.raises(ValueError, match=r"^short begins after step 8 of trunk, which has not come so far: train that"):
        train_here(SHORT, workdir)
    train_here(TRUNK, workdir, log_every_steps=1, stop_at=12)
    assert workdir.awaited_trunk(SHORT) == workdir.awaited_trunk(TRUNK) == ""
    assert workdir.awaited_trunk(LONG) == "trunk"
    assert [event.step for event in train_here(SHORT, workdir, log_every_steps=1)] == list(range(9, 15))


@pytest.mark.parametrize(
    ("how", "begins"), [("deleted", "from step 8"), ("damaged", "from step 8"), ("all deleted", "by itself")]
)
def test_a_branch_whose_trunks_checkpoint_is_lost_trains_the_steps_itself_and_says_so(
    alone, grown, train_here, how, begins
):
    folder = pathlib.Path(grown.checkpoints("trunk"))
    if how == "damaged":
        for path in (folder / "19").rglob("d/*"):
            path.write_bytes(path.read_bytes()[:-20])
    else:
        for step in (19, *((8,) if how == "all deleted" else ())):
            shutil.rmtree(folder / str(step))
    with pytest.warns(UserWarning, match=f"trunk/checkpoints/19, from which long is to begin, .* begins {begins}"):
        train_here(LONG, grown)
    _same(LONG, grown, alone)
    assert _steps(grown, LONG)[0] == range(1 if how == "all deleted" else 9, 26)


def test_a_branch_of_a_trunk_that_diverges_before_it_diverges_at_the_same_step(workdir, train_here):
    wild = [dataclasses.replace(s, hyperparameters=s.hyperparameters.scaled(1e30)) for s in (TRUNK, LONG)]
    trunk, branch = plans.with_trunks(wild)
    steps = []
    for spec in (trunk, branch):
        with pytest.raises(Diverged) as diverged:
            train_here(spec, workdir)
        steps.append(str(diverged.value).partition(" ")[2])
        workdir.record(spec.run).write_text("{}")  # as whoever carries it out does
    assert steps[0] == steps[1]


def test_a_branch_reads_on_in_its_trunks_pool(workdir):
    write_mixture(workdir.train_records, [Part(1.0, "text", pool_records=130)])  # of 112 that one reads, and 320
    pool = Pool(workdir.train_records)
    assert pool.sizes_for(SHORT) == pool.sizes_for(TRUNK) == [300]
    assert pool.sizes_for(SHORT.alone) == [130]
