"""Leases, on a disk and in a bucket: one holder at a time, whoever asks and dies, and only the dead are robbed."""

import json
import multiprocessing
import os
import threading
import time

import pytest
from etils import epath

import fake_gcs
import processes
from ladder import storage
from ladder.engines import attempts, lease, owned
from ladder.events import Begun, Finished, Trained
from ladder.spec import Workdir

FORK = multiprocessing.get_context("fork")


def _holder(path, **changes):
    """What a lease file says of its holder."""
    told = json.loads(path.read_bytes())
    if changes:
        path.write_text(json.dumps(told | changes))
    return told


def _of_elsewhere(path, heard_s_ago):
    """A lease file of a process on another host."""
    heard = lease.iso(time.time() - heard_s_ago)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {"holder": "there:7:0123abcd", "host": "there", "pid": 7, "engine": "work", "schema_version": 1}
    path.write_text(json.dumps(names | {"since": heard, "heartbeat": heard}))


def _hold_for_ever(path, pipe):
    with lease.claim(path, "local"):
        pipe.send("held")
        time.sleep(600)


def says_who_holds_it_until_it_is_released(path, monkeypatch):
    with lease.claim(path, "local") as own:
        told = _holder(path)
        assert told["holder"] == own.holder.holder and told["pid"] == os.getpid() and told["engine"] == "local"
        assert told["since"] == told["heartbeat"] and told["schema_version"] == 1
        with pytest.raises(lease.Busy, match=r"is held by .*, since .*; wait for it, or stop that process"):
            lease.claim(path, "local")
        assert lease.live_holder(path) == own.holder
    assert not path.exists() and lease.live_holder(path) is None


def of_many_threads_one_gets_it_at_a_time(path, monkeypatch):
    held, taken, ready = [], [], threading.Barrier(4)

    def ask():
        ready.wait()
        for _ in range(2):
            try:
                with lease.claim(path, "local"):
                    held.append(1)
                    taken.append(len(held))
                    held.pop()
            except lease.Busy:
                pass

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken and set(taken) == {1} and not path.exists()


def of_many_thieves_one_gets_a_stale_one(path, monkeypatch):
    _of_elsewhere(path, heard_s_ago=lease.FRESH_SECONDS + 1)
    ready, got = threading.Barrier(4), []

    def steal():
        ready.wait()
        try:
            got.append(lease.claim(path, "work"))
        except lease.Busy:
            got.append(None)

    threads = [threading.Thread(target=steal) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (own,) = [found for found in got if found]
    assert own.after.holder == "there:7:0123abcd" and _holder(path)["pid"] == os.getpid()


def a_fresh_one_of_another_host_is_left_alone(path, monkeypatch):
    _of_elsewhere(path, heard_s_ago=lease.FRESH_SECONDS - 20)
    with pytest.raises(lease.Busy, match="held by there, process 7"):
        lease.claim(path, "local")


def a_holder_is_heard_of_and_notices_when_it_was_robbed(path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    with lease.claim(path, "local") as own:
        since = _holder(path)["since"]
        deadline = time.monotonic() + 60
        while _holder(path)["heartbeat"] == since:
            assert time.monotonic() < deadline
        own.check()
        thief = owned.read(path)
        while not (taken := thief.take(b"{}")):
            thief = owned.read(path)
        while own.is_held():
            assert time.monotonic() < deadline
        with pytest.raises(lease.Lost):
            own.check()
    assert path.read_bytes() == b"{}"  # whoever was robbed neither writes nor removes it
    taken.remove()


def a_holder_that_slept_too_long_does_not_go_on(path, monkeypatch):
    with lease.claim(path, "local") as own:
        monkeypatch.setattr(lease, "FRESH_SECONDS", 0.0)
        own.renew()
        with pytest.raises(lease.Lost):
            own.check()


BEHAVIOURS = (
    says_who_holds_it_until_it_is_released,
    of_many_threads_one_gets_it_at_a_time,
    of_many_thieves_one_gets_a_stale_one,
    a_fresh_one_of_another_host_is_left_alone,
    a_holder_is_heard_of_and_notices_when_it_was_robbed,
    a_holder_that_slept_too_long_does_not_go_on,
)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=lambda behaviour: behaviour.__name__)
def test_a_lease_on_a_disk(behaviour, tmp_path, monkeypatch):
    behaviour(epath.Path(tmp_path) / "runs" / "a" / "lease.json", monkeypatch)


def in_a_bucket(root):
    for behaviour in BEHAVIOURS:
        with pytest.MonkeyPatch.context() as monkeypatch:
            behaviour(root / behaviour.__name__ / "lease.json", monkeypatch)


def test_a_lease_in_a_bucket_whose_requests_fail_now_and_then():
    with fake_gcs.serving(0.03, seed=1) as address:
        environment = fake_gcs.environment(address) | storage.ONE_CLIENT
        processes.run(in_a_bucket, epath.Path("gs://bucket/ladder"), environment=environment)


def test_the_lease_of_a_process_of_this_machine_that_was_killed_is_free_at_once(tmp_path):
    path = epath.Path(tmp_path) / "lease.json"
    here, there = FORK.Pipe()
    process = FORK.Process(target=_hold_for_ever, args=(path, there))
    process.start()
    assert here.recv() == "held"
    assert lease.live_holder(path).pid == process.pid
    process.kill()
    process.join()
    assert lease.live_holder(path) is None
    with lease.claim(path, "local") as own:
        assert own.after.pid == process.pid


def test_a_lease_whose_maker_died_over_it_is_free_after_a_while(tmp_path):
    path = epath.Path(tmp_path) / "lease.json"
    path.touch()
    with pytest.raises(lease.Busy, match="an unknown host"):
        lease.claim(path, "local")
    old = time.time() - lease.FRESH_SECONDS - 1
    os.utime(path, (old, old))
    with lease.claim(path, "local"):
        pass


def test_a_full_disk_leaves_no_half_lease_and_costs_no_lease_that_is_held(tmp_path, monkeypatch):
    path = epath.Path(tmp_path) / "lease.json"
    with lease.claim(path, "local") as own:
        monkeypatch.setattr(os, "pwrite", _full)
        own.renew()
        own.check()
    with pytest.raises(OSError, match="No space left"):
        lease.claim(path, "local")
    assert not path.exists()


def _full(*_):
    raise OSError(28, "No space left on device")


def test_whoever_takes_over_from_the_dead_writes_down_their_attempt_once(tmp_path, spec):
    workdir = Workdir(epath.Path(tmp_path))
    _of_elsewhere(workdir.lease(spec.run), heard_s_ago=1000)
    workdir.metrics(spec.run).write_text('{"step": 12, "tokens": 1, "loss_nats": 1}\n')

    def job(config, spec, workdir, report):
        report(Begun(spec.run, 10, "splash"))
        report(Trained(spec.run, 25, 1.0, 1.0))
        report(Finished(spec.run, ""))

    ended = attempts.attempt(job, None, spec, workdir, lambda event: None, "local")
    assert ended.why == "finished"
    dead, own = attempts.load(workdir.attempts(spec.run))
    assert (dead.host, dead.engine, dead.why, dead.last_step) == ("there", "work", "lost", 12)
    assert (own.first_step, own.last_step, own.steps_redone) == (11, 25, 2)
    assert (dead.attention, own.attention) == ("", "splash")


def test_the_lines_of_before_are_read_that_do_not_say_what_attended(tmp_path, spec):
    line = {"host": "h", "engine": "local", "start": "", "end": "", "why": "finished", "message": ""}
    steps = {"first_step": 1, "last_step": 9, "steps_redone": 0}
    path = epath.Path(tmp_path) / "attempts.jsonl"
    path.write_text(json.dumps(line | steps) + "\n")
    assert attempts.load(path) == [attempts.Attempt(**line, **steps)]
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="is damaged"):
        attempts.load(path)


def test_a_run_that_another_holds_is_not_begun(tmp_path, spec):
    workdir = Workdir(epath.Path(tmp_path))
    _of_elsewhere(workdir.lease(spec.run), heard_s_ago=1)
    ended = attempts.attempt(pytest.fail, None, spec, workdir, lambda event: None, "local")
    assert ended.why == "held" and "there, process 7" in ended.message
    assert not workdir.attempts(spec.run).exists()


def test_a_job_that_does_nothing_is_no_attempt(tmp_path, spec):
    workdir = Workdir(epath.Path(tmp_path))
    job = lambda config, spec, workdir, report: report(Finished(spec.run, ""))  # noqa: E731
    assert attempts.attempt(job, None, spec, workdir, lambda event: None, "local").why == "finished"
    assert not workdir.attempts(spec.run).exists()


def test_a_damaged_story_of_attempts_is_refused_before_the_run_is_begun(tmp_path, spec):
    workdir = Workdir(epath.Path(tmp_path))
    workdir.attempts(spec.run).parent.mkdir(parents=True)
    workdir.attempts(spec.run).write_text("{")
    ended = attempts.attempt(pytest.fail, None, spec, workdir, lambda event: None, "local")
    assert ended.why == "refused" and "attempts.jsonl is damaged" in ended.message and "remove it" in ended.message
    assert not workdir.lease(spec.run).exists()
