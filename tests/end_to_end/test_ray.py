"""A tiny ladder on a Ray cluster of fake slices, each of two hosts: it ends as on one machine, whatever is killed."""

import os
import signal
import subprocess
import time

import pytest
import yaml
from etils import epath

import processes
from ladder.engines import attempts
from results import runs_of, same_results

pytestmark = pytest.mark.slow
ray_cluster = pytest.importorskip("ray_cluster", reason="the engine needs ray")
pytest.importorskip("ray")


@pytest.fixture(scope="module")
def config(request, tiny_tree, tmp_path_factory):
    """Runs of 115 to 349 steps whose batches of 64 split over eight chips; or longer ones, branches of trunks."""
    schedule, longer = getattr(request, "param", ("cosine", 1))
    tree = tiny_tree | {
        "rungs": [
            {"sizes": ["w4", "w6", "w8"], "token_multipliers": [50 * longer]},
            {"sizes": ["w4", "w6"], "token_multipliers": [100 * longer]},
        ],
        "targets": [{"sizes": ["w10"], "token_multipliers": [50 * longer]}],
        "recipe": {"name": "gadre2024", "schedule": schedule},
        "corpus": tiny_tree["corpus"] | {"epochs": 8 * longer},
        "training": {"checkpoint_every_steps": 50, "log_every_steps": 25},
    }
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


@pytest.fixture(scope="module")
def reference(config, tmp_path_factory):
    """The ladder's workdir, carried out by one process on two devices."""
    workdir = tmp_path_factory.mktemp("reference") / "w"
    command = [*processes.LADDER, "run", config, "--workdir", str(workdir)]
    subprocess.run(command, env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"}, check=True)
    return workdir


@pytest.fixture(scope="module")
def cluster():
    with ray_cluster.Slices(2) as slices:
        yield slices


@pytest.fixture
def start(config, cluster, tmp_path):
    """Starts a driver on the workdir `w`; none is left behind."""
    drivers = []

    def started():
        command = [*processes.LADDER, "run", config, "--workdir", str(tmp_path / "w")]
        command += ["--engine", "ray", "--address", cluster.address]
        drivers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return drivers[-1]

    yield started
    for driver in drivers:
        driver.kill()
        driver.wait()


def _until(condition, driver=None, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert driver is None or driver.poll() is None, driver.stderr.read()
        time.sleep(0.2)


def _end(driver):
    _, err = driver.communicate(timeout=1800)
    assert driver.returncode == 0, err
    return err


def _stories(workdir):
    return {run: attempts.load(epath.Path(workdir) / "runs" / run / "attempts.jsonl") for run in runs_of(workdir)}


@pytest.mark.parametrize("config", [("cosine", 1), ("wsd", 2)], ids=["cosine", "wsd"], indirect=True, scope="module")
def test_a_ladder_on_slices_gives_the_parameters_of_one_on_one_machine(start, reference, tmp_path):
    err = _end(start())
    assert "(6 of 6 runs)" in err and "Traceback" not in err
    same_results(tmp_path / "w", reference)
    assert not (tmp_path / "w" / "ray").exists()
    for story in _stories(tmp_path / "w").values():
        assert [(attempt.engine, attempt.why) for attempt in story] == [("ray", "finished")]


def test_a_lost_host_a_killed_driver_and_a_second_one_change_nothing(start, cluster, reference, tmp_path):
    w = tmp_path / "w"
    driver = start()
    _until(lambda: len(list(w.glob("runs/*/checkpoints/50"))) == 2, driver)
    cluster.remove(0, 1)
    _until(lambda: any(_stories(w).values()), driver)  # what was under way there, or what ended since elsewhere
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    cluster.replace(0, 1)
    first, second = start(), start()
    told = _end(first) + _end(second)
    same_results(w, reference)
    stories = _stories(w)
    for run, story in stories.items():
        assert [attempt.why for attempt in story].count("finished") == 1, run
        assert {attempt.why for attempt in story} <= {"finished", "lost", "taken away"}, run
        assert sum(attempt.steps_redone for attempt in story) <= 75 * (len(story) - 1)
    assert sum(len(story) > 1 for story in stories.values()) >= 2
    assert "waits for" in told
    assert not list(w.glob("runs/*/lease.json")) and not (w / "lease.json").exists()
