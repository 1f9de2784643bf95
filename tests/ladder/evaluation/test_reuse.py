"""Reuse: a run that another ladder has finished is taken bit for bit, whole or not at all, and never a run like it."""

import json
import pathlib
import shutil

import pytest
import yaml

from fitting.testbeds.testbed import RunRecord
from ladder import config_file
from ladder import plan as plans
from ladder.corpus.prepare import prepare
from ladder.engines.here import Here
from ladder.engines.jobs import train_and_evaluate
from ladder.engines.launch import launch
from ladder.evaluation import record as records
from ladder.evaluation.reuse import reuse
from ladder.spec import Workdir

RUNS = ("w4-m1", "w6-m1")


def _silent(event):
    del event


def _prepared(tree, workdir, *overrides):
    path = pathlib.Path(workdir.root.parent) / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    config = config_file.load(str(path), overrides)
    specs = plans.plan(config, 259)
    prepare(config, specs, workdir, _silent, _silent)
    return config, specs


def _carried_out(config, specs, workdir):
    """Trains and measures what is not finished, and gives the names of the runs that were trained."""
    trained = []
    report = lambda event: trained.append(event.run) if type(event).__name__ == "Trained" else None  # noqa: E731
    todo = [spec for spec in specs if not records.is_finished(config, spec, workdir)]
    launch(Here(train_and_evaluate, config, workdir, "local"), todo, workdir, report)
    return list(dict.fromkeys(trained))


@pytest.fixture(scope="module")
def two_runs(tiny_tree):
    """A ladder of two short runs."""
    return tiny_tree | {
        "rungs": [{"sizes": ["w4", "w6"], "token_multipliers": [1]}],
        "targets": [],
        "evaluation": {"sequences": 70, "tasks": ["recall"], "questions": 20},
        "training": {"checkpoint_every_steps": 100_000, "log_every_steps": 1000},
    }


@pytest.fixture(scope="module")
def finished(two_runs, tmp_path_factory):
    workdir = Workdir.at(str(tmp_path_factory.mktemp("finished") / "w"))
    assert _carried_out(*_prepared(two_runs, workdir), workdir) == list(RUNS)
    return workdir


@pytest.fixture
def first(finished, tmp_path):
    """A workdir whose two runs are finished, for a test to change."""
    shutil.copytree(finished.root, tmp_path / "first")
    return Workdir.at(str(tmp_path / "first"))


@pytest.fixture
def reused(two_runs, first, tmp_path):
    """Prepares a workdir and takes the first one's runs: (config, specs, workdir, what was said)."""

    def run(*overrides):
        workdir, said = Workdir.at(str(tmp_path / "second")), []
        config, specs = _prepared(two_runs, workdir, *overrides)
        reuse(config, specs, workdir, [first], said.append)
        return config, specs, workdir, said

    return run


def _files(workdir, run):
    root = pathlib.Path(workdir.root) / "runs" / run
    own = (path for path in root.rglob("*") if path.is_file() and path.name != "attempts.jsonl")
    return {str(path.relative_to(root)): path.read_bytes() for path in own}


def test_finished_runs_are_taken_bit_for_bit_and_only_others_are_trained(first, reused):
    config, specs, second, said = reused("rungs.0.token_multipliers=[1, 2]", "rungs.0.sizes=[w4, w6]")
    assert said == [f"{run}: taken from {first.root}, where it is {run}" for run in RUNS]
    for run in RUNS:
        assert _files(second, run) == _files(first, run)
    assert _carried_out(config, specs[:3], second) == ["w4-m2"]
    taken = [RunRecord.load(second.record(run)).identity for run in (*RUNS, "w4-m2")]
    assert len(set(taken)) == 3 and all(len(identity) == 64 for identity in taken)


def test_a_run_goes_under_this_ladders_name_and_is_measured_anew_on_other_data(first, reused):
    config, specs, second, said = reused(
        "sizes={s4: {width: 4, layers: 1, heads: 1}}", "rungs.0.sizes=[s4]", "evaluation.sequences=60"
    )
    assert said == [f"s4-m1: taken from {first.root}, where it is w4-m1"]
    assert _carried_out(config, specs, second) == []
    ours, theirs = RunRecord.load(second.record("s4-m1")), RunRecord.load(first.record("w4-m1"))
    assert (ours.run, ours.model) == ("s4-m1", "s4") and ours.identity == theirs.identity
    assert ours.errors == theirs.errors and ours.losses != theirs.losses
    assert ours.sources["held_out"] != theirs.sources["held_out"]


@pytest.mark.parametrize(
    "override", ["seed=1", "recipe.learning_rate_scale=2", "corpus.seed=1", "model.rope_theta=100"]
)
def test_a_run_that_is_another_is_not_taken(reused, override):
    _, _, second, said = reused(override)
    assert not said and not second.record("w4-m1").exists()


def test_a_kill_in_the_middle_leaves_nothing_in_part_and_the_next_command_takes_it_whole(first, reused, monkeypatch):
    copy, copied = shutil.copyfileobj, []

    def killed(there, here, length):
        if len(copied) == 7:
            raise KeyboardInterrupt
        copied.append(here.name)
        copy(there, here, length)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", killed)
        with pytest.raises(KeyboardInterrupt):
            reused()
    second = Workdir(first.root.parent / "second")
    assert not second.record("w4-m1").exists()
    assert not [path for path in second.checkpoints("w4-m1").iterdir() if path.name.isdigit()]
    config, specs, second, said = reused()
    assert len(said) == 2 and _carried_out(config, specs, second) == []
    for run in RUNS:
        assert _files(second, run) == _files(first, run)


def test_without_its_checkpoint_a_run_is_taken_where_nothing_is_left_to_measure(first, reused):
    for run in RUNS:
        shutil.rmtree(first.checkpoints(run))
    config, specs, second, said = reused()
    assert len(said) == 2 and not second.checkpoints("w4-m1").exists()
    assert _carried_out(config, specs, second) == []


def test_without_its_checkpoint_a_run_that_must_be_measured_is_trained_again(first, reused):
    for run in RUNS:
        shutil.rmtree(first.checkpoints(run))
    _, _, second, said = reused("evaluation.sequences=60")
    assert said[0] == f"w4-m1: w4-m1 of {first.root} has no checkpoint to measure; it is trained again"
    assert not second.record("w4-m1").exists() and not second.partial_record("w4-m1").exists()


def test_runs_that_are_not_known_by_content_are_told_and_not_taken(first, reused):
    for run in RUNS:
        record = json.loads(first.record(run).read_text())
        del record["identity"]
        first.record(run).write_text(json.dumps(record | {"schema_version": 1}))
    _, _, second, said = reused()
    assert said == [f"{first.root}: not known by content, so not reused: w4-m1, w6-m1"]
    assert not second.record("w4-m1").exists()


def test_a_folder_that_is_no_workdir_is_refused(first, reused):
    first.plan.unlink()
    with pytest.raises(ValueError, match=r"first is no workdir: it has no plan\.json, so no run of it can be reused"):
        reused()
