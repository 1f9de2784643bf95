"""What is told of a run while it trains: rows with their times, goodput over restarts, profiles, stalls, shows."""

import dataclasses
import json
import sys
import time
import types

import numpy as np
import pytest

from ladder.config import Training
from ladder.training import watch as watching
from ladder.training.watch import Profiler, Stall, Watch

VALUES = {"loss_nats": np.array([3.0, 1.0]), "grad_norm": np.array([1.0, 2.0])}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(watching, "time", made)
    return made


def _train(watch, clock, steps, seconds, first_step_seconds=0.0):
    """Ends a window of two steps for every two of `steps`."""
    for step in steps:
        watch.before(step, None)
        clock.now += first_step_seconds if step == steps[0] and first_step_seconds else seconds
        if step % 2 == 0:
            row = watch.row(step, VALUES)
    return row


def test_a_row_has_the_windows_means_and_the_speed_of_its_steps_without_compilation(spec, workdir, clock):
    with Watch(Training(), spec, workdir) as watch:
        watch.start(0)
        first = _train(watch, clock, range(1, 3), seconds=2.0, first_step_seconds=50.0)
        clock.now += 7  # a checkpoint
        second = _train(watch, clock, range(3, 5), seconds=2.0)
    assert {key: first[key] for key in ("step", "tokens", "loss_nats", "grad_norm", "step_seconds")} == {
        "step": 2,
        "tokens": 2 * 8 * 16,
        "loss_nats": 2.0,
        "grad_norm": 1.5,
        "step_seconds": 2.0,
    }
    assert second["tokens_per_second"] == 8 * 16 / 2
    assert first["goodput"] == pytest.approx(4 / 52)
    assert second["goodput"] == pytest.approx(8 / 63)
    assert "mfu" not in first  # nobody knows this CPU's peak


def test_goodput_counts_no_step_twice_and_all_the_time_since_the_first_start(spec, workdir, clock):
    with Watch(Training(), spec, workdir) as watch:
        watch.start(0)
        _train(watch, clock, range(1, 5), seconds=1.0)
        watch.write()
    clock.now += 92  # nobody restarted it
    with Watch(Training(), spec, workdir) as watch:
        watch.start(2)
        row = _train(watch, clock, range(3, 7), seconds=1.0)
        watch.write()
    assert row["goodput"] == pytest.approx(6 / 100)
    rows = [json.loads(line) for line in workdir.metrics(spec.run).read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert {row["started"] for row in rows} == {1000.0}


def test_mfu_is_6nd_over_the_peak_of_all_devices(spec, workdir, clock, monkeypatch):
    import jax

    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(watching.PEAK_FLOPS_PER_SECOND, kind, 1e9)
    with Watch(Training(), spec, workdir) as watch:
        watch.start(0)
        row = _train(watch, clock, range(1, 3), seconds=0.5)
    assert row["mfu"] == pytest.approx(6 * spec.params * 8 * 16 / 0.5 / (1e9 * jax.device_count()))


def test_rows_are_written_every_half_minute_though_no_checkpoint_is_due(spec, workdir, clock):
    with Watch(Training(), spec, workdir) as watch:
        watch.start(0)
        _train(watch, clock, range(1, 3), seconds=1.0)
        assert not workdir.metrics(spec.run).exists()
        clock.now += 60
        _train(watch, clock, range(3, 5), seconds=1.0)
    assert len(workdir.metrics(spec.run).read_text().splitlines()) == 2


def test_a_window_that_is_long_overdue_is_told_once(monkeypatch, capfd):
    monkeypatch.setattr(watching, "STALLED_SECONDS", 0.2)
    stall = Stall("w8-m1")
    for step in (5, 10, 15):
        stall.expect(step, 0.001, 5)
        time.sleep(0.01)
    assert capfd.readouterr().err == ""
    time.sleep(0.6)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("w8-m1: nothing heard for 0 s since step 15; a step takes 0.001 s (median)")
    stall.expect(20, 0.001, 5)
    stall.stop()
    time.sleep(0.4)
    assert capfd.readouterr().err == ""


def test_a_profile_is_kept_of_the_steps_that_were_asked_for(spec, workdir, train_here, monkeypatch):
    import jax

    traced = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: traced.append(folder))
    monkeypatch.setattr(
        jax.profiler, "stop_trace", lambda: (watching.epath.Path(traced[0]) / "plugins").mkdir()
        or (watching.epath.Path(traced[0]) / "plugins" / "host.trace").write_text("trace")
    )  # fmt: skip
    profiler = Profiler((2, 3), workdir.tensorboard(spec.run))
    kept = workdir.tensorboard(spec.run) / "plugins" / "host.trace"
    for step in range(1, 4):
        profiler.before(step, None)
        assert bool(traced) == (step >= 2)
        assert not kept.exists()
    profiler.before(4, None)
    assert kept.read_text() == "trace"
    profiler.stop()


@pytest.mark.slow
def test_tensorboard_and_a_profile_are_really_there(spec, workdir, train_here):
    pytest.importorskip("tensorboard", reason="pip install 'scaling-ladder[watch]'")
    train_here(spec, workdir, profile_steps=(3, 4), tensorboard=True)
    assert list(workdir.tensorboard(spec.run).glob("plugins/profile/*/*.xplane.pb"))
    assert list(workdir.tensorboard(spec.run).glob("events.out.tfevents.*"))


def test_weights_and_biases_is_shown_every_row_and_the_same_run_when_it_goes_on(spec, workdir, clock, monkeypatch):
    asked, logged = [], []

    def init(**settings):
        asked.append(settings)
        return types.SimpleNamespace(log=lambda row, step: logged.append((step, row["loss_nats"])))

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    training = dataclasses.replace(Training(), wandb="ladders")
    for _ in range(2):
        with Watch(training, spec, workdir) as watch:
            watch.start(0)
            _train(watch, clock, range(1, 3), seconds=1.0)
    assert logged == [(2, 2.0)] * 2
    assert asked[0] == asked[1] and asked[0]["project"] == "ladders" and asked[0]["name"] == spec.run


def test_tensorboard_is_shown_every_number_of_a_row_but_its_step(spec, workdir, clock, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(workdir.tensorboard(spec.run))

        def write_scalars(self, step, scalars):
            written.append((step, scalars))

        def flush(self):
            pass

    monkeypatch.setitem(
        sys.modules, "clu", types.SimpleNamespace(metric_writers=types.SimpleNamespace(SummaryWriter=Writer))
    )
    with Watch(dataclasses.replace(Training(), tensorboard=True), spec, workdir) as watch:
        watch.start(0)
        _train(watch, clock, range(1, 3), seconds=1.0)
    ((step, scalars),) = written
    assert step == 2
    assert set(scalars) == {"tokens", "loss_nats", "grad_norm", "tokens_per_second", "step_seconds", "goodput"}


@pytest.mark.parametrize("setting", [{"tensorboard": True}, {"wandb": "ladders"}], ids=str)
def test_a_show_that_is_not_installed_is_refused_by_name(spec, workdir, monkeypatch, setting):
    for module in ("clu", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"is not installed: pip install 'scaling-ladder\[watch\]'"):
        Watch(dataclasses.replace(Training(), **setting), spec, workdir).start(0)
