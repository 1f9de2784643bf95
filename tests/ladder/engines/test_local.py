"""Many runs: in turn or side by side, with failures that are told and no process left behind."""

import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import pytest
from etils import epath

from ladder.config import Training
from ladder.engines import local
from ladder.events import Finished
from ladder.spec import Workdir
from ladder.training.preemption import EXIT_CODE, Notice, Preempted

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
needs_affinity = pytest.mark.skipif(not CORES, reason="this system cannot give a process cores of its own")

# Jobs stand in for training; a worker process imports them by name.


def note_cores(config, spec, workdir, report):
    (workdir.root / spec.run).write_text(",".join(map(str, sorted(os.sched_getaffinity(0)))))
    report(Finished(spec.run, ""))


def explode(config, spec, workdir, report):
    if spec.run == "b":
        raise ArithmeticError("no such number")
    report(Finished(spec.run, ""))


def refuse(config, spec, workdir, report):
    raise FileNotFoundError(f"{workdir.root} is gone") if spec.run == "b" else ValueError(f"{spec.run} has no text")


def lack(config, spec, workdir, report):
    import jax_of_another_world  # noqa: F401


def hang(config, spec, workdir, report):
    (workdir.root / f"{spec.run}.{os.getpid()}").touch()
    time.sleep(600)


def die(config, spec, workdir, report):
    os.kill(os.getpid(), signal.SIGKILL)


def save_when_told(config, spec, workdir, report):
    with Notice() as notice:
        (workdir.root / f"{spec.run}.{os.getpid()}").touch()
        while not notice.given(0):
            time.sleep(0.01)
    time.sleep(0.5)
    (workdir.root / f"{spec.run}.saved").touch()
    raise Preempted


def quarantine_b(config, spec, workdir, report):
    report(Finished(spec.run, "diverged" if spec.run == "b" else ""))


@pytest.fixture
def run(tmp_path):
    """Launches a job for runs `a`, `b`, … and gives the events."""

    def launched(job, runs, cores_per_run=1):
        events = []
        config = types.SimpleNamespace(training=Training(cores_per_run=cores_per_run))
        specs = [types.SimpleNamespace(run=run) for run in runs]
        local.launch(job, config, specs, Workdir(epath.Path(tmp_path)), events.append)
        return events

    return launched


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = pathlib.Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def _until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_runs_in_this_process_go_in_turn(run):
    assert [event.run for event in run(quarantine_b, "abc", cores_per_run=0)] == ["a", "b", "c"]


def test_an_error_in_this_process_is_its_own(run):
    with pytest.raises(ArithmeticError):
        run(explode, "ab", cores_per_run=0)


@needs_affinity
def test_runs_side_by_side_have_cores_of_their_own_and_all_finish(run, tmp_path):
    events = run(note_cores, "abc")
    assert sorted(event.run for event in events) == ["a", "b", "c"]
    assert {(tmp_path / name).read_text() for name in "abc"} <= {str(core) for core in CORES}


@needs_affinity
def test_an_error_in_a_worker_comes_with_its_run_and_traceback(run):
    with pytest.raises(local.RunFailed, match=r"(?s)^b failed:.*in explode.*ArithmeticError: no such number"):
        run(explode, "abc")


@needs_affinity
@pytest.mark.parametrize(("run_", "why"), [("a", "a: a has no text"), ("b", "b: .* is gone")])
def test_a_refusal_in_a_worker_is_one_line_without_a_traceback(run, run_, why):
    with pytest.raises(local.RunFailed, match=f"^{why}$"):
        run(refuse, run_)


@needs_affinity
def test_what_is_not_installed_is_told_as_in_this_process(run):
    with pytest.raises(ModuleNotFoundError) as told:
        run(lack, "a")
    assert told.value.name == "jax_of_another_world"


@needs_affinity
def test_a_killed_worker_is_told_with_its_run_and_what_to_do(run):
    with pytest.raises(local.RunFailed, match="the process that ran a was killed; run again to go on"):
        run(die, "a")


def test_more_cores_than_there_are_is_refused(run):
    with pytest.raises(ValueError, match=r"training\.cores_per_run: 4096 are asked for, there are \d+"):
        run(note_cores, "a", cores_per_run=4096)


ORPHANING = """
import signal, sys, types
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from etils import epath
import test_local
from ladder.engines import local
from ladder.config import Training
from ladder.spec import Workdir

config = types.SimpleNamespace(training=Training(cores_per_run=1))
specs = [types.SimpleNamespace(run=run) for run in "ab"]
local.launch(getattr(test_local, sys.argv[3]), config, specs, Workdir(epath.Path(sys.argv[2])), print)
"""


def _stopped_parent(tmp_path, job, sent):
    """The exit code of a process whose workers were busy with `job` when it was sent a signal."""
    tests = str(pathlib.Path(__file__).parent)
    runs = min(2, len(CORES))
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANING, tests, str(tmp_path), job], stderr=subprocess.DEVNULL, start_new_session=True
    ) as parent:
        try:
            _until(lambda: len(list(tmp_path.glob("?.*"))) == runs)
            parent.send_signal(sent)
            return parent.wait(60)
        finally:
            parent.kill()  # or leaving the block would wait for it forever


@needs_affinity
def test_a_parent_that_is_told_to_leave_lets_its_workers_save(tmp_path):
    assert _stopped_parent(tmp_path, "save_when_told", signal.SIGTERM) == EXIT_CODE
    assert len(list(tmp_path.glob("?.saved"))) == min(2, len(CORES))


@needs_affinity
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_workers_do_not_outlive_their_parent(tmp_path, sent):
    _stopped_parent(tmp_path, "hang", sent)
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("?.*")]
    _until(lambda: all(_gone(pid) for pid in workers), seconds=20)
