"""A trunk and its branch carried out whole: what their records, the table and a plan say, and who waits for whom."""

import contextlib
import shutil
import threading
import time
import warnings

import pytest

from fitting.testbeds.testbed import RunRecord, Testbed
from ladder.cli import runs
from ladder.corpus.prepare import prepare
from ladder.engines import attempts, lease
from ladder.engines.here import Here
from ladder.engines.jobs import train_and_evaluate
from ladder.engines.launch import launch
from ladder.evaluation import collect
from ladder.evaluation import record as records
from ladder.evaluation.reuse import reuse
from ladder.spec import Workdir


def _silent(event):
    del event


@pytest.fixture
def tree(tree):
    """One tiny size at M = 10 and 20 with one schedule: a branch and its trunk."""
    return tree | {
        "rungs": [{"sizes": ["w4"], "token_multipliers": [10, 20]}],
        "targets": [],
        "recipe": {"name": "tiny", "schedule": "wsd"},
        "evaluation": {"sequences": 70, "tasks": [], "questions": 20},
        "training": {"checkpoint_every_steps": 500, "log_every_steps": 100},
        "fit": {"loss": "loss/held_out"},
    }


def _carried_out(config, specs, workdir):
    todo = [spec for spec in specs if not records.is_finished(config, spec, workdir)]
    with Here(train_and_evaluate, config, workdir, "local") as engine:
        launch(engine, todo, workdir, _silent, awaits=workdir.awaited_trunk).refuse_failures()


def _trained(workdir, spec):
    return [(a.first_step, a.last_step) for a in attempts.load(workdir.attempts(spec.run)) if a.last_step]


def test_records_and_the_table_say_of_which_trunk_a_run_is_what_was_spent_and_6nd_and_both_are_reused(ladder, tmp_path):
    config, specs = ladder()
    branch, trunk = specs
    first = Workdir.at(str(tmp_path / "first"))
    prepare(config, specs, first, _silent, _silent)
    _carried_out(config, specs, first)
    # Every step once: the trunk's, then the branch's own.
    assert _trained(first, trunk) == [(1, trunk.steps)]
    assert _trained(first, branch) == [(branch.first_step + 1, branch.steps)]
    own, whole = (RunRecord.load(first.record(spec.run)) for spec in specs)
    assert (own.trunk, own.flops, own.spent_flops) == (trunk.run, branch.flops, pytest.approx(branch.own_flops))
    assert (whole.trunk, whole.flops, whole.spent_flops) == ("", trunk.flops, trunk.flops)
    assert own.identity == records.identity(branch.alone, first)
    collect.collect([first], first.testbed, _silent, curves=True)
    table = Testbed.read_csv(first.testbed).table.set_index("run")
    assert table["spent_flops"][branch.run] == pytest.approx(branch.own_flops)
    assert table["flops"][branch.run] == pytest.approx(branch.flops)
    rates = table[table["role"] == "checkpoint"]["learning_rate"]
    assert rates[f"{trunk.run}@500"] == pytest.approx(trunk.hyperparameters.learning_rate)
    assert rates[f"{branch.run}@{branch.steps}"] < 0.05 * trunk.hyperparameters.learning_rate

    # Of a trunk comes along what branches begin with.
    shutil.rmtree(first.record(branch.run).parent)
    second = Workdir.at(str(tmp_path / "second"))
    prepare(config, specs, second, _silent, _silent)
    reuse(config, specs, second, [first], _silent)
    assert second.checkpoint_steps(trunk.run) == [branch.first_step, trunk.steps]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*is not to be had")
        _carried_out(config, specs, second)
    assert _trained(second, branch) == [(branch.first_step + 1, branch.steps)] and not _trained(second, trunk)
    assert RunRecord.load(second.record(branch.run)) == own


def test_a_branch_alone_is_refused_with_what_to_train_first(write_config, tree, ladder_, tmp_path):
    with pytest.raises(
        SystemExit, match=r"ladder: w4-m10 begins after step [\d,]+ of w4-m20, .*ladder train --run w4-"
    ):
        ladder_("train", write_config(tree), "--run", "w4-m10", "--workdir", str(tmp_path / "w"))


def test_a_plan_shows_where_branches_begin_and_what_they_save(write_config, tree, ladder_, capsys):
    ladder_("plan", write_config(tree))
    told = capsys.readouterr().err
    assert "shared" in told and "w4-m20 is a trunk, of which others share steps: the rungs cost" in told


def _note(config, spec, workdir, report):
    (workdir.root / f"{spec.run}.done").touch()


@contextlib.contextmanager
def _elsewhere(workdir, trunk, branch):
    """Another process has the trunk, comes to where the branch leaves it, and goes on until that is done."""

    def carry_out():
        with lease.claim(workdir.lease(trunk.run), "work"):
            begun.set()
            time.sleep(0.5)
            (workdir.checkpoints(trunk.run) / str(branch.first_step)).mkdir(parents=True)
            while not (workdir.root / f"{branch.run}.done").exists() and not given_up.is_set():
                time.sleep(0.05)
            _note(None, trunk, workdir, None)

    begun, given_up = threading.Event(), threading.Event()
    other = threading.Thread(target=carry_out)
    other.start()
    begun.wait()
    try:
        yield
    finally:
        given_up.set()
        other.join()


@pytest.mark.parametrize("until", [None, []], ids=["ladder run", "ladder work"])
def test_a_branch_is_waited_for_while_another_process_has_its_trunk(ladder, tmp_path, monkeypatch, until):
    config, (branch, trunk) = ladder()
    workdir = Workdir.at(str(tmp_path / "w"))
    monkeypatch.setattr(runs, "_finished", lambda c, w, s: "" if (w.root / f"{s.run}.done").exists() else None)
    monkeypatch.setattr("ladder.engines.launch.LOOK_SECONDS", 0.1)
    with _elsewhere(workdir, trunk, branch), Here(_note, config, workdir, "work") as engine:
        runs._launch(engine, config, (branch, trunk), [trunk, branch], workdir, 0, until=until)
        assert (workdir.root / f"{branch.run}.done").exists()


def test_a_worker_does_not_wait_for_a_trunk_that_nobody_has(ladder, tmp_path):
    config, specs = ladder()
    branch = specs[0]
    workdir = Workdir.at(str(tmp_path / "w"))
    with Here(_note, config, workdir, "work") as engine:
        runs._launch(engine, config, specs, [branch], workdir, 0, until=[])
    assert not (workdir.root / f"{branch.run}.done").exists()
