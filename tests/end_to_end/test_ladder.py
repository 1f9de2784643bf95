"""The whole path at a tiny size: one command to a report, and the same report whatever was killed on the way."""

import contextlib
import csv
import dataclasses
import datetime
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import pytest
import yaml
from etils import epath

import processes
from fitting.artifacts import frozen
from fitting.testbeds.testbed import RunRecord
from ladder import config_file
from ladder import plan as plans
from ladder.engines import attempts
from ladder.engines.here import Here
from ladder.engines.jobs import train_and_evaluate
from ladder.engines.launch import launch
from ladder.events import Finished
from ladder.spec import Workdir
from results import runs_of, same_results

if not hasattr(os, "sched_getaffinity"):
    pytest.skip("this system cannot give a process cores of its own", allow_module_level=True)


@pytest.fixture(scope="module")
def command(tiny_tree, tmp_path_factory):
    """Gives the command that runs the tiny ladder in a workdir, two runs side by side where there are two cores."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    tree = tiny_tree | {
        "rungs": [
            {"sizes": ["w4", "w6", "w8", "w10"], "token_multipliers": [4]},
            {"sizes": ["w4"], "token_multipliers": [12]},
        ],
        "targets": [{"sizes": ["w12"], "token_multipliers": [4]}],
        "training": tiny_tree["training"] | {"cores_per_run": 1},
    }
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return lambda workdir, *more: [*processes.LADDER, "run", str(path), "--workdir", str(workdir), *more]


def _start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(command):
    process = _start(command)
    out, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    """The workdir of a ladder that nothing interrupted, what it printed, and how long it took."""
    workdir = tmp_path_factory.mktemp("finished") / "w"
    start = time.monotonic()
    out, err = _finish(command(workdir))
    return workdir, out, err, time.monotonic() - start


def _descendants(pid: int) -> list[int]:
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = list(children.get(pid, ()))
    for child in found:
        found += children.get(child, ())
    return found


def _workers(pid: int) -> list[int]:
    def is_worker(child):
        try:
            return b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            return False

    return [child for child in _descendants(pid) if is_worker(child)]


def _all_gone(pids, seconds=30):
    deadline = time.monotonic() + seconds
    while alive := [pid for pid in pids if _is_alive(pid)]:
        assert time.monotonic() < deadline, f"left behind: {alive}"
        time.sleep(0.05)


def _is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _kill(command, workdir, after_s, whole):
    """Starts the command and kills it, or one of its workers, that long after its runs have begun."""
    process = _start(command)
    while process.poll() is None and not ((workdir / "ladder.yaml").exists() and _workers(process.pid)):
        time.sleep(0.02)
    time.sleep(after_s)
    family = _descendants(process.pid)
    workers = _workers(process.pid)
    victim = process.pid if whole or not workers else workers[0]
    if process.poll() is None:
        os.kill(victim, signal.SIGKILL)
    _, err = process.communicate(timeout=600)
    _all_gone(family)
    if victim in workers:
        assert process.returncode == 0 and "lost: its process was killed" in err
    return process.returncode


def test_one_command_goes_from_a_config_to_a_report(finished):
    workdir, out, err, _ = finished
    assert out == ""
    runs = runs_of(workdir)
    assert f"({len(runs)} of {len(runs)} runs)" in err
    for name in ("ladder.yaml", "plan.json", "testbed.csv", "fits/default/law.json", "fits/default/report.html"):
        assert (workdir / name).stat().st_size
    assert (workdir / "fits/default/report.md").exists()
    with (workdir / "testbed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == runs
    assert all(0 < float(row["loss/held_out"]) < 6 and 0 <= float(row["error/average"]) <= 1 for row in rows)
    law = json.loads((workdir / "fits/default/law.json").read_text())
    assert [prediction["run"] for prediction in law["predictions"]] == ["w12-m4"]
    assert "w12-m4" not in [point["run"] for point in law["loss"]["points"]]
    html = (workdir / "fits/default/report.html").read_text()
    assert "w12-m4" in html and "<svg" in html


def test_what_the_rungs_say_of_a_target_is_frozen_before_it_is_trained(finished):
    workdir, _, err, _ = finished
    foretold = frozen.load(workdir / "predictions" / "w12-m4.json")
    assert "w12-m4" not in foretold.known_runs and len(foretold.known_runs) == len(runs_of(workdir)) - 1
    first_checkpoint_s = (workdir / "runs/w12-m4/metrics.jsonl").stat().st_ctime
    assert datetime.datetime.fromisoformat(foretold.frozen).timestamp() <= first_checkpoint_s
    assert err.index("w12-m4: loss ") < err.index("w12-m4  done")
    law = json.loads((workdir / "fits/default/law.json").read_text())
    assert law["predictions"][0]["loss"] == foretold.prediction.loss


def test_a_ladder_that_reuses_all_runs_of_another_trains_none_and_ends_as_it_did(finished, command, tmp_path):
    reference, _, _, _ = finished
    _, err = _finish(command(tmp_path / "w", "--reuse", str(reference)))
    for run in runs_of(reference):
        assert f"{run}: taken from {reference}, where it is {run}" in err
    assert "done  (" not in err  # which is said of a run that was trained or measured
    same_results(tmp_path / "w", reference)


def test_a_ladder_that_was_killed_ends_as_one_that_was_not(finished, command, tmp_path):
    reference, _, _, took_s = finished
    rng = random.Random(0)
    for whole in (True, False):
        _kill(command(tmp_path / "w"), tmp_path / "w", rng.uniform(0, took_s / 8), whole)
    stories = [attempts.load(path) for path in epath.Path(tmp_path / "w/runs").glob("*/attempts.jsonl")]
    assert [story[-1].why for story in stories] == ["finished"] * len(runs_of(reference))
    assert sum(attempt.why == "lost" for story in stories for attempt in story) >= 2
    same_results(tmp_path / "w", reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_ladder_that_was_killed_many_times_ends_as_one_that_was_not(finished, command, tmp_path, seed):
    reference, _, _, took_s = finished
    rng = random.Random(seed)
    while _kill(command(tmp_path / "w"), tmp_path / "w", rng.uniform(0, took_s / 6), rng.random() < 0.5):
        pass
    same_results(tmp_path / "w", reference)


@pytest.mark.slow
def test_a_trunk_and_its_branches_that_were_killed_end_as_those_that_were_not(command, tmp_path):
    rungs = [
        {"sizes": ["w4", "w6", "w8", "w10"], "token_multipliers": [20]},
        {"sizes": ["w4"], "token_multipliers": [10, 40]},
    ]
    wsd = [f"--set={key}={json.dumps(value)}" for key, value in (("recipe.schedule", "wsd"), ("rungs", rungs))]
    wsd += ["--set=targets=[]", "--set=evaluation.tasks=[]", "--set=fit.error=null"]
    start = time.monotonic()
    _finish(command(tmp_path / "reference", *wsd))
    rng, took_s = random.Random(0), time.monotonic() - start
    while _kill(command(tmp_path / "w", *wsd), tmp_path / "w", rng.uniform(0, took_s / 4), rng.random() < 0.5):
        pass
    same_results(tmp_path / "w", tmp_path / "reference")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "disk", folder], capture_output=True).returncode:
        pytest.skip("this user cannot mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def _fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while_costs_time_and_nothing_else(finished, command, small_disk):
    reference, _, _, _ = finished
    w = small_disk / "w"
    process = _start(command(w))
    while not list(w.glob("runs/*/checkpoints/100")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    filler = small_disk / "filler"
    _fill(filler)
    time.sleep(20)
    assert process.poll() is None
    filler.unlink()
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    assert "taken away: " in err and "No space left on device" in err
    same_results(w, reference)
    stories = [attempts.load(epath.Path(path)) for path in w.glob("runs/*/attempts.jsonl")]
    assert {attempt.why for story in stories for attempt in story} == {"taken away", "finished"}


def test_a_run_that_diverges_is_quarantined_while_the_others_go_on_and_no_finished_one_is_trained_again(
    finished, command, tmp_path
):
    workdir = tmp_path / "w"
    shutil.copytree(finished[0], workdir)
    for run in ("w6-m4", "w8-m4"):
        shutil.rmtree(workdir / "runs" / run / "checkpoints")
        (workdir / "runs" / run / "metrics.jsonl").unlink()
        (workdir / "runs" / run / "record.json").unlink()
    config = config_file.load(str(workdir / "ladder.yaml"), ["training.cores_per_run=0"])
    specs = plans.plan(config, 259)
    bad, good = plans.find(specs, "w6-m4"), plans.find(specs, "w8-m4")
    bad = dataclasses.replace(bad, hyperparameters=bad.hyperparameters.scaled(1e30))
    events = []
    w = Workdir(epath.Path(workdir))
    with Here(train_and_evaluate, config, w, "local") as engine:
        launch(engine, [bad, good], w, events.append)

    ended = {event.run: event.quarantine for event in events if isinstance(event, Finished)}
    assert "w6-m4 diverged at step " in ended["w6-m4"] and not ended["w8-m4"]
    record = RunRecord.load(workdir / "runs/w6-m4/record.json")
    assert record.quarantine == ended["w6-m4"] and not record.losses
    assert not (workdir / "runs/w6-m4/metrics.jsonl").exists()

    def last_written():
        files = (path for path in (workdir / "runs").rglob("*") if path.is_file() and path.name != "spec.json")
        return {path: path.stat().st_mtime_ns for path in files}

    before = last_written()
    _, err = _finish(command(workdir))
    assert last_written() == before  # what is finished or quarantined is not trained again
    assert "left out: w6-m4" in err and "diverged at step" in err
    law = json.loads((workdir / "fits/default/law.json").read_text())
    assert "w6-m4" in [row["run"] for row in law["left_out"] if "diverged" in row["reason"]]
    assert "w6-m4" not in [point["run"] for point in law["loss"]["points"]]
