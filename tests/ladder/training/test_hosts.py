"""Many processes, each a host of its own: one command, one result, whoever is killed; and runs that change devices."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from etils import epath

import processes
import watchdog
from ladder.spec import Workdir
from ladder.training import hosts
from ladder.training.preemption import EXIT_CODE


@pytest.fixture
def another(workdir, tmp_path):
    """Makes workdirs with the same records."""

    def make(name):
        made = Workdir(epath.Path(tmp_path / name))
        shutil.copytree(workdir.train_records, made.train_records)
        return made

    return make


def _losses(spec, workdir):
    return [json.loads(line)["loss_nats"] for line in workdir.metrics(spec.run).read_text().splitlines()]


def test_two_processes_one_killed_go_on_to_the_same_parameters_and_count_as_one(spec, another, train_here):
    whole, broken, alone = another("whole"), another("broken"), another("alone")
    processes.run(processes.train, spec, whole, count=2)
    with processes.Together(processes.train, spec, broken, 15, count=2) as together:
        together.processes[-1].join()  # then the other is taken down too, as whoever starts them does
        assert together.processes[-1].exitcode == -signal.SIGKILL
    processes.run(processes.train, spec, broken, count=2)
    jax.tree.map(np.testing.assert_array_equal, processes.newest(spec, broken), processes.newest(spec, whole))
    assert _losses(spec, broken) == _losses(spec, whole)
    train_here(spec, alone)
    np.testing.assert_allclose(_losses(spec, whole), _losses(spec, alone), rtol=1e-4)


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_of_which_one_is_told_to_leave_save_the_same_step_and_go_on_in_one(count, spec, another, train_here):
    left, alone = another("left"), another("alone")
    spec = dataclasses.replace(spec, steps=100)
    with processes.Together(processes.train, spec, left, None, 15, count=count) as together:
        assert together.exit_codes() == [EXIT_CODE] * count
    step, _ = processes.newest(spec, left)
    assert 15 < step < 100
    train_here(spec, left)
    train_here(spec, alone)
    assert processes.newest(spec, left)[0] == 100
    np.testing.assert_allclose(_losses(spec, left)[-1], _losses(spec, alone)[-1], rtol=1e-4)


def test_a_run_goes_on_with_eight_devices_four_and_one_as_if_it_had_had_one(spec, another, train_here):
    # Every restore proves that it gives, bit for bit, what the devices before had saved.
    fewer, alone = another("fewer"), another("alone")
    for devices, stop_at in ((8, 10), (4, 15)):
        with processes.Together(processes.train, spec, fewer, None, stop_at, devices=devices) as together:
            assert together.exit_codes() == [EXIT_CODE]
        assert processes.newest(spec, fewer)[0] == stop_at + 1
    train_here(spec, fewer)
    train_here(spec, alone)
    np.testing.assert_allclose(_losses(spec, fewer)[-1], _losses(spec, alone)[-1], rtol=1e-4)


@pytest.fixture
def said(tmp_path):
    (tmp_path / "said").mkdir()
    return tmp_path / "said"


def _all_said(said):
    return [(said / str(index)).read_text() for index in range(len(list(said.iterdir())))]


@pytest.mark.parametrize(
    ("who", "where"), [((0,), "barrier"), ((0,), "collective"), ((2,), "collective"), ((0, 1, 2), "barrier")], ids=str
)
def test_what_one_process_refuses_ends_all_of_them_at_once_with_its_line(said, who, where):
    with watchdog.watched(), processes.Together(processes.refuse, who, where, count=3, said=said) as together:
        assert together.exit_codes() == [1, 1, 1]
    assert _all_said(said) == ["ladder: its corpus is missing\n"] * 3


@pytest.mark.parametrize("who", [0, 1])
def test_a_command_that_one_host_refuses_ends_on_all_with_that_line(said, tree, write_config, tmp_path, who):
    """The first finds no corpus when it has joined the others; another has no config to begin with."""
    if who == 0:
        tree["corpus"]["options"]["path"] = "gs://BUCKET/absent"
    train = ["--run", "w4-m10", "--workdir", str(tmp_path / "w")]
    arguments = [["train", write_config(tree), *train] for _ in range(2)]
    if who == 1:
        arguments[1][1] = "absent.yaml"
    with watchdog.watched(), processes.Together(processes.command, *arguments, count=2, said=said) as together:
        assert together.exit_codes() == [1, 1]
    told = [text.splitlines()[-1] for text in _all_said(said)]
    assert told[0] == told[1] and "absent" in told[0] and told[0].startswith("ladder: ")
    assert len(_all_said(said)[1].splitlines()) == 1


@pytest.mark.parametrize(
    "environment, why",
    [
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS is set and JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
        (dict(zip(hosts.EXPLICIT, ("a:1", "2", "2"), strict=True)), "JAX_PROCESS_ID 2 of JAX_NUM_PROCESSES 2: count"),
        (dict(zip(hosts.EXPLICIT, ("a:1", "two", "0"), strict=True)), "JAX_PROCESS_ID 0 of JAX_NUM_PROCESSES two"),
    ],
    ids=["some are missing", "one too many", "not a number"],
)
def test_an_environment_that_makes_no_sense_is_refused(environment, why):
    with pytest.raises(ValueError, match=why):
        hosts.join(environment)


def test_a_process_whose_others_do_not_come_says_so(monkeypatch, capfd):
    monkeypatch.setattr(hosts, "LATE_SECONDS", 0.1)
    for waits, told in ((0.0, ""), (0.5, "process 1 of 3 waits for the others at a:1: start all 3 of them\n")):
        monkeypatch.setattr(jax.distributed, "initialize", lambda *_, waits=waits: time.sleep(waits))
        hosts.join(dict(zip(hosts.EXPLICIT, ("a:1", "3", "1"), strict=True)))
        assert capfd.readouterr().err == told


def test_a_process_alone_is_first_and_waits_for_nobody():
    hosts.join({"JAX_PLATFORMS": "cpu"})
    assert hosts.is_first()
    hosts.wait("here")


@pytest.mark.slow
def test_the_same_commands_on_two_hosts_train_and_measure_a_run_and_only_one_writes(tmp_path, tree, write_config):
    tree["recipe"]["name"] = "gadre2024"  # 64 sequences a batch, which two hosts can share, and a warm-up of 100 steps
    tree["rungs"], tree["targets"] = [{"sizes": ["w4"], "token_multipliers": [50]}], []

    def on_hosts(count, verb, workdir):
        command = [*processes.LADDER, verb, write_config(tree), "--run", "w4-m50", "--workdir", str(tmp_path / workdir)]
        places = processes.places(count)
        started = [subprocess.Popen(command, env=os.environ | told, stderr=subprocess.PIPE) for told in places]
        said = [process.communicate()[1].decode() for process in started]
        assert not any(process.returncode for process in started), said

    for count, workdir in ((2, "two"), (1, "one")):
        for verb in ("train", "evaluate"):
            on_hosts(count, verb, workdir)
    two, one = (json.loads((tmp_path / name / "runs/w4-m50/record.json").read_text()) for name in ("two", "one"))
    assert two.keys() == one.keys() and two["losses"].keys() == one["losses"].keys()
    for name, measured in one["losses"].items():
        assert two["losses"][name]["value"] == pytest.approx(measured["value"], rel=1e-3)
