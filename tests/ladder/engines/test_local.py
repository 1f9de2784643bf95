"""Many runs: in turn or side by side, each failure by its kind, and no process left behind."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types

import pytest
from etils import epath

from ladder.config import Training
from ladder.engines import attempts, local
from ladder.engines.here import Here
from ladder.engines.launch import RunFailed, launch
from ladder.engines.local import Local
from ladder.events import Again, Begun, Finished, SetAside, Stops, Trained
from ladder.spec import Workdir
from ladder.training.preemption import EXIT_CODE, Notice, Preempted

GRACE_SECONDS = 1.0  # in which a worker that sleeps for half of it is surely heard of
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
    os.kill(os.getpid(), signal.SIGSEGV)


def go_on(config, spec, workdir, report):
    """Ten steps with a checkpoint after each; run b is killed at its fourth and told to leave at its seventh."""
    path = workdir.root / f"{spec.run}.steps"
    done = int(path.read_text()) if path.exists() else 0
    report(Begun(spec.run, done))
    for step in range(done + 1, 11):
        report(Trained(spec.run, step, 1.0, 1.0))
        if spec.run == "b" and step in (4, 7) and not (workdir.root / str(step)).exists():
            (workdir.root / str(step)).touch()
            os.kill(os.getpid(), signal.SIGKILL if step == 4 else signal.SIGTERM)
            time.sleep(60)
        path.write_text(str(step))
    report(Finished(spec.run, ""))


def find_no_room(config, spec, workdir, report):
    report(Begun(spec.run, 0))
    found = workdir.root / f"{spec.run}.found"
    if not found.exists():
        found.touch()
        raise ValueError("RESOURCE_EXHAUSTED: writing") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    report(Finished(spec.run, ""))


def save_when_told(config, spec, workdir, report):
    with Notice() as notice:
        (workdir.root / f"{spec.run}.{os.getpid()}").touch()
        while not notice.given(0):
            time.sleep(0.01)
    time.sleep(0.5)
    (workdir.root / f"{spec.run}.saved").touch()
    raise Preempted


def _await_notice(spec, workdir, report):
    """What a run does until it is told to stop: it saves its step 5, and tells of 7."""
    with Notice() as notice:
        (workdir.checkpoints(spec.run) / "5").mkdir(parents=True)
        report(Trained(spec.run, 7, 1.0, 1.0))
        while not notice.given(0):
            time.sleep(0.01)


def save_after_word_upon_word(config, spec, workdir, report):
    _await_notice(spec, workdir, report)
    for step in (8, 9, 10):
        time.sleep(0.5 * GRACE_SECONDS)
        report(Trained(spec.run, step, 1.0, 1.0))
    (workdir.checkpoints(spec.run) / "10").mkdir()
    raise Preempted


def save_after_a_silence_as_before(config, spec, workdir, report):
    report(Trained(spec.run, 6, 1.0, 1.0))
    time.sleep(2.5 * GRACE_SECONDS)
    _await_notice(spec, workdir, report)
    time.sleep(1.5 * GRACE_SECONDS)
    (workdir.checkpoints(spec.run) / "10").mkdir()
    raise Preempted


def hang_when_told(config, spec, workdir, report):
    _await_notice(spec, workdir, report)
    time.sleep(600)


def be_interrupted(config, spec, workdir, report):
    (workdir.checkpoints(spec.run) / "5").mkdir(parents=True)
    report(Trained(spec.run, 7, 1.0, 1.0))
    raise KeyboardInterrupt


def finish_when_told(config, spec, workdir, report):
    _await_notice(spec, workdir, report)
    report(Finished(spec.run, ""))


def quarantine_b(config, spec, workdir, report):
    report(Finished(spec.run, "diverged" if spec.run == "b" else ""))


@pytest.fixture
def run(tmp_path):
    """Launches a job for runs `a`, `b`, … and gives the events, and what is left."""

    def launched(job, runs, cores_per_run=1, **how):
        events, workdir = [], Workdir(epath.Path(tmp_path))
        config = types.SimpleNamespace(training=Training(cores_per_run=cores_per_run))
        specs = [types.SimpleNamespace(run=run) for run in runs]
        with (Local if cores_per_run else Here)(job, config, workdir, "local") as engine:
            left = launch(engine, specs, workdir, events.append, **how)
        assert not list(tmp_path.glob("runs/*/lease.json"))
        return events, left

    return launched


@pytest.fixture
def story(tmp_path):
    """How the attempts at a run ended."""
    return lambda run: attempts.load(Workdir(epath.Path(tmp_path)).attempts(run))


def _finished(events):
    return [event.run for event in events if isinstance(event, Finished)]


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
    assert _finished(run(quarantine_b, "abc", cores_per_run=0)[0]) == ["a", "b", "c"]


@pytest.mark.parametrize("cores_per_run", [0, pytest.param(1, marks=needs_affinity)])
def test_a_run_that_fails_is_tried_again_and_set_aside_while_all_others_go_on(run, story, cores_per_run):
    events, left = run(explode, "abc", cores_per_run, retries=1)
    assert sorted(_finished(events)) == ["a", "c"]
    assert [(type(event), event.why) for event in events if event.run == "b" and hasattr(event, "why")] == [
        (Again, "failed"),
        (SetAside, "failed"),
    ]
    assert [attempt.why for attempt in story("b")] == ["failed", "failed"]
    assert "in explode" in left.aside[0].message
    with pytest.raises(RunFailed, match=r"(?m)^  b  failed: ArithmeticError: no such number$"):
        left.refuse_failures()


def test_failures_of_earlier_commands_count_where_they_are_to_be_remembered(run, story):
    run(explode, "b", cores_per_run=0, retries=1)
    events, left = run(explode, "b", cores_per_run=0, retries=1, remember=True)
    assert [type(event) for event in events] == [SetAside] and "have it tried again" in left.aside[0].message
    assert len(story("b")) == 2
    run(explode, "b", cores_per_run=0, retries=1)
    assert len(story("b")) == 4


def test_a_full_disk_is_no_failure_of_the_run(run, story):
    events, left = run(find_no_room, "a", cores_per_run=0, retries=0)
    assert _finished(events) == ["a"] and not left.aside
    (full,) = (event for event in events if isinstance(event, Again))
    assert full.why == "taken away" and [attempt.why for attempt in story("a")] == ["taken away", "finished"]


@needs_affinity
def test_a_run_that_was_killed_and_told_to_leave_goes_on_without_count(run, story):
    events, left = run(go_on, "abc", retries=0)
    assert sorted(_finished(events)) == ["a", "b", "c"] and not left.aside
    assert [(a.why, a.first_step, a.last_step, a.steps_redone) for a in story("b")] == [
        ("lost", 1, 4, 0),
        ("taken away", 4, 7, 1),
        ("finished", 7, 10, 1),
    ]
    assert [(a.why, a.first_step, a.last_step) for a in story("a")] == [("finished", 1, 10)]


@needs_affinity
def test_runs_side_by_side_have_cores_of_their_own_and_all_finish(run, tmp_path):
    assert sorted(_finished(run(note_cores, "abc")[0])) == ["a", "b", "c"]
    assert {(tmp_path / name).read_text() for name in "abc"} <= {str(core) for core in CORES}


@needs_affinity
@pytest.mark.parametrize(
    ("job", "run_", "message"),
    [
        (refuse, "a", "a has no text"),
        (refuse, "b", ".* is gone"),
        (lack, "a", "jax_of_another_world is not installed; training and evaluating need pip install .*"),
    ],
)
def test_a_refusal_is_one_line_and_is_not_tried_again(run, story, job, run_, message):
    _, left = run(job, run_)
    (refused,) = left.aside
    assert refused.why == "refused" and re.fullmatch(message, refused.message)
    assert [attempt.why for attempt in story(run_)] == ["refused"]


@needs_affinity
def test_a_process_that_dies_of_its_own_is_a_failure_and_written_down(run, story):
    _, left = run(die, "a", retries=1)
    assert left.aside[0].message == "its process died of SIGSEGV"
    assert [(a.why, a.message) for a in story("a")] == [("failed", "its process died of SIGSEGV")] * 2


def test_a_negative_number_of_retries_is_refused(run):
    with pytest.raises(ValueError, match="retries is -1: it must be zero or more"):
        run(note_cores, "a", cores_per_run=0, retries=-1)


def test_more_cores_than_there_are_is_refused(run):
    with pytest.raises(ValueError, match=r"training\.cores_per_run: 4096 are asked for, there are \d+"):
        run(note_cores, "a", cores_per_run=4096)


ORPHANING = """
import signal, sys, types
sys.path.insert(0, sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from etils import epath
import test_local
from ladder.engines.launch import launch
from ladder.engines.local import Local
from ladder.config import Training
from ladder.spec import Workdir

config = types.SimpleNamespace(training=Training(cores_per_run=1))
specs = [types.SimpleNamespace(run=run) for run in "ab"]
workdir = Workdir(epath.Path(sys.argv[2]))
with Local(getattr(test_local, sys.argv[3]), config, workdir, "local") as engine:
    launch(engine, specs, workdir, print)
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
def test_a_parent_that_is_told_to_leave_lets_its_workers_save(tmp_path, story):
    assert _stopped_parent(tmp_path, "save_when_told", signal.SIGTERM) == EXIT_CODE
    assert [attempt.why for attempt in story("a")] == ["taken away"]
    assert len(list(tmp_path.glob("?.saved"))) == min(2, len(CORES))


def _told_to_stop(tmp_path, job, also_at=()):
    """What is reported of a run that has told of step 7 and is then told to stop, and at those messages again."""
    events, workdir = [], Workdir(epath.Path(tmp_path))
    config = types.SimpleNamespace(training=Training(cores_per_run=1))

    def report(event):
        events.append(event)
        if getattr(event, "step", 0) == 7 or (isinstance(event, Stops) and event.message in also_at):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Preempted), Local(job, config, workdir, "local") as engine:
        launch(engine, [types.SimpleNamespace(run="a")], workdir, report)
    return events


TO_SAVE = "it is to save first; stop once more to end it at once"
IS_LOST = "it is saved after step 5, and goes on from there; what it did since, up to step 7, is lost"


@needs_affinity
@pytest.mark.parametrize(
    ("job", "messages"),
    [
        (save_after_word_upon_word, [TO_SAVE, "it is saved after step 10, and goes on from there"]),
        (save_after_a_silence_as_before, [TO_SAVE, "it is saved after step 10, and goes on from there"]),
        (hang_when_told, [TO_SAVE, IS_LOST]),
        (finish_when_told, [TO_SAVE]),
    ],
    ids=["word_upon_word", "a_silence_as_before", "hang", "finish"],
)
def test_a_run_that_is_told_to_stop_is_given_time_while_it_gets_on_and_what_is_saved_is_told(
    tmp_path, monkeypatch, story, job, messages
):
    monkeypatch.setattr(local, "GRACE_SECONDS", GRACE_SECONDS)
    events = _told_to_stop(tmp_path, job)
    assert [event.message for event in events if isinstance(event, Stops)] == messages
    assert not list(tmp_path.glob("runs/*/lease.json"))
    hung = [attempt.why for attempt in story("a") if "was silent for" in attempt.message]
    assert hung == (["taken away"] if job is hang_when_told else [])


def test_of_a_run_in_this_process_that_is_interrupted_what_is_lost_is_told(tmp_path):
    events, workdir = [], Workdir(epath.Path(tmp_path))
    with pytest.raises(KeyboardInterrupt), Here(be_interrupted, None, workdir, "local") as engine:
        launch(engine, [types.SimpleNamespace(run="a")], workdir, events.append)
    assert [event.message for event in events if isinstance(event, Stops)] == [IS_LOST]


@needs_affinity
def test_told_to_stop_once_more_a_run_is_ended_at_once_and_what_is_lost_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 1e6)
    events = _told_to_stop(tmp_path, hang_when_told, also_at=[TO_SAVE])
    assert [event.message for event in events if isinstance(event, Stops)] == [TO_SAVE, IS_LOST]


@needs_affinity
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_workers_do_not_outlive_their_parent(tmp_path, sent):
    _stopped_parent(tmp_path, "hang", sent)
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("?.*")]
    _until(lambda: all(_gone(pid) for pid in workers), seconds=20)


def save_step(config, spec, workdir, report):
    (workdir.root / spec.run).touch()
    report(Finished(spec.run, ""))


def fail_trunk(config, spec, workdir, report):
    if spec.run == "trunk":
        raise ValueError("no text")
    report(Finished(spec.run, ""))


def wait_for_branch(config, spec, workdir, report):
    """The trunk comes to where its branch leaves it, and goes on until that has begun."""
    (workdir.root / spec.run).touch()
    if spec.run == "trunk":
        _until(lambda: (workdir.root / "branch").exists())
    report(Finished(spec.run, ""))


def test_a_branch_is_not_begun_before_its_trunk_has_come_to_it(run, tmp_path):
    awaits = lambda spec: "trunk" if spec.run == "branch" and not (tmp_path / "trunk").exists() else ""  # noqa: E731
    events, left = run(save_step, ["branch", "trunk"], cores_per_run=0, awaits=awaits)
    assert _finished(events) == ["trunk", "branch"] and not left.held


@needs_affinity
@pytest.mark.skipif(len(CORES) < 2, reason="two runs at once need two cores")
def test_a_branch_is_begun_while_its_trunk_goes_on(run, tmp_path):
    awaits = lambda spec: "trunk" if spec.run == "branch" and not (tmp_path / "trunk").exists() else ""  # noqa: E731
    events, _ = run(wait_for_branch, ["branch", "trunk"], awaits=awaits)
    assert sorted(_finished(events)) == ["branch", "trunk"]


def test_the_branches_of_a_trunk_that_is_set_aside_are_set_aside_too_and_all_others_go_on(run):
    awaits = lambda spec: "trunk" if spec.run == "branch" else ""  # noqa: E731
    events, left = run(fail_trunk, ["branch", "trunk", "other"], cores_per_run=0, awaits=awaits)
    assert _finished(events) == ["other"]
    with pytest.raises(
        RunFailed, match=r"(?s)  trunk   refused: no text\n  branch  refused: its trunk trunk was set aside"
    ):
        left.refuse_failures()


def test_a_branch_whose_trunk_nobody_here_trains_is_left(run):
    events, left = run(fail_trunk, ["branch"], cores_per_run=0, awaits=lambda spec: "trunk")
    assert not events and left.held == {"branch": "its trunk trunk"} and not left.aside
