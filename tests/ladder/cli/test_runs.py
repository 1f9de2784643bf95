"""Runs from the command line: workers that share them, what is refused, and what is not imported."""

import os
import socket
import subprocess
import sys

import pytest
from etils import epath

import processes
from ladder.engines import attempts, lease
from ladder.spec import Workdir
from results import same_results


@pytest.fixture
def short(tree, write_config):
    """The config of a ladder of two short runs."""
    return write_config(tree | {"rungs": [{"sizes": ["w4", "w6"], "token_multipliers": [1]}], "targets": []})


def _refused(ladder_, *arguments):
    with pytest.raises(SystemExit) as left:
        ladder_(*arguments)
    return str(left.value.code)


@pytest.mark.slow
def test_two_workers_share_a_ladder_and_the_last_one_fits(tree, write_config, tmp_path):
    w = tmp_path / "w"
    rungs = [
        {"sizes": ["w4", "w6", "w8", "w10"], "token_multipliers": [1]},
        {"sizes": ["w4"], "token_multipliers": [2]},
    ]
    config = write_config(tree | {"rungs": rungs, "targets": []})
    command = [*processes.LADDER, "work", config, "--workdir", str(w)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    stories = [attempts.load(epath.Path(path)) for path in w.glob("runs/*/attempts.jsonl")]
    assert [[(attempt.engine, attempt.why) for attempt in story] for story in stories] == [[("work", "finished")]] * 5
    assert (w / "fits/default/law.json").exists()
    assert not list(w.rglob("lease.json"))


def test_a_run_that_another_holds_is_refused_by_name_left_by_a_worker_and_keeps_the_config_as_it_is(
    short, tmp_path, ladder_, capsys, monkeypatch
):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    w = str(tmp_path / "w")
    ladder_("train", short, "--workdir", w, "--run", "w4-m1")
    path = Workdir(epath.Path(w)).lease("w6-m1")
    with lease.claim(path, "local"):
        by = f"w6-m1 is held by {socket.gethostname()}, process {os.getpid()}, since"
        assert by in _refused(ladder_, "train", short, "--workdir", w, "--run", "w6-m1")
        told = _refused(ladder_, "run", short, "--workdir", w, "--set", "evaluation.questions=41")
        assert "is being carried out by another config: evaluation.questions is 40 there and 41 here; wait" in told
        assert by in told
        capsys.readouterr()
        ladder_("work", short, "--workdir", w, "--set", "training.log_every_steps=10")
        assert "w4-m1  done" in capsys.readouterr().err
    assert not (path.parent / "record.json").exists()
    assert not (tmp_path / "w" / "testbed.csv").exists()


def test_an_engine_that_is_not_installed_is_named_with_its_extra(short, tmp_path, ladder_, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ladder.engines.ray", raising=False)
    told = _refused(ladder_, "run", short, "--workdir", str(tmp_path / "w"), "--engine", "ray")
    assert told == "ladder: ray is not installed; the engine ray needs pip install 'scaling-ladder[ray]'"
    assert "--address is a Ray cluster's; add --engine ray" in _refused(
        ladder_, "run", short, "--workdir", str(tmp_path / "w"), "--address", "there:6379"
    )


def test_a_worker_whose_devices_suit_no_run_says_why(short, tmp_path, ladder_):
    told = _refused(ladder_, "work", short, "--workdir", str(tmp_path / "w"), "--set", "training.mesh.fsdp=2")
    assert "mesh" in told and "needs 2 devices" in told


IMPORTS = """
import sys
from ladder.cli import main
sys.argv = ["ladder", *sys.argv[1:]]
try:
    main.main()
except SystemExit as left:
    assert not left.code, left.code
from jax._src import xla_bridge
assert "ray" not in sys.modules
print(len(xla_bridge._backends))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "demo"], ["fit", "--help"]], ids=" ".join)
def test_no_ray_is_imported_and_no_device_started_for(arguments):
    command = [sys.executable, "-c", IMPORTS, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "0"


@pytest.mark.slow
def test_two_processes_that_share_every_run_work_as_one(tree, write_config, tmp_path):
    rungs = [
        {"sizes": ["w4", "w6", "w8"], "token_multipliers": [50]},
        {"sizes": ["w4", "w6"], "token_multipliers": [100]},
    ]
    training, corpus = {"checkpoint_every_steps": 50, "log_every_steps": 25}, tree["corpus"] | {"epochs": 8}
    config = write_config(
        tree | {"rungs": rungs, "targets": [], "recipe": {"name": "gadre2024"}, "training": training, "corpus": corpus}
    )
    one, two = tmp_path / "one", tmp_path / "two"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [*processes.LADDER, "work", config, "--workdir"]
    subprocess.run([*command, one], env=environment | {"JAX_NUM_CPU_DEVICES": "2"}, check=True)
    gang = [subprocess.Popen([*command, two], env=environment | place) for place in processes.places(2)]
    assert [process.wait() for process in gang] == [0, 0]
    same_results(two, one)
    stories = [attempts.load(epath.Path(path)) for path in two.glob("runs/*/attempts.jsonl")]
    assert [[attempt.why for attempt in story] for story in stories] == [["finished"]] * 5
