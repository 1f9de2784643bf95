"""Watching a run: metrics.jsonl, which is the truth, and what shows it; a profile on request; a word when it stalls."""

import hashlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from fitting.files import write
from ladder import storage
from ladder.config import Training
from ladder.spec import RunSpec, Workdir
from ladder.training import hosts
from models import accounting

# Of one device as JAX names it, in bfloat16, by its maker.
PEAK_FLOPS_PER_SECOND = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # a chip is two devices
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
}
WRITE_SECONDS = 30
STALLED_STEPS = 10
STALLED_SECONDS = 30

Show = Callable[[Mapping[str, float]], None]


class Watch:
    """A run's rows, each with the means and the speed of a window of steps; a context manager.

    `loss_nats` and `grad_norm` are means over the window; `tokens_per_second`, `step_seconds` and, where the device's
    peak is known, `mfu` (6ND over it) are of its steps alone, without compilation and saving. `goodput` is the share of
    the time since the run's first start, stops included, that went into steps that counted: a row's that a restart
    drops did not. `started` is that start, in seconds since 1970. A branch's have `first_step`, after which it began.

    Args:
      training: says what shows the rows and which steps to profile.
      spec: the run.
      workdir: has the run's metrics.jsonl.
    """

    def __init__(self, training: Training, spec: RunSpec, workdir: Workdir):
        self._training, self._spec, self._workdir = training, spec, workdir
        self._path = workdir.metrics(spec.run)
        self._rows: list[dict[str, float]] = []
        self._shows: list[Show] = []
        self._good_seconds, self._started, self._written = 0.0, time.time(), time.monotonic()
        self._first_step = 0
        self._window = (0.0, 0)  # when it began, and the steps done by then
        self._open, self._compiling = False, True
        self._profiler = Profiler(training.profile_steps, workdir.tensorboard(spec.run))
        self._stall = Stall(spec.run)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *exception):
        self._stall.stop()
        self._profiler.stop()

    def start(self, done: int) -> None:
        """The run goes on from a state after so many steps, its own or its trunk's; rows of later ones are dropped."""
        before = storage.read_rows(self._path) if self._path.exists() else []
        self._rows = [row for row in before if row["step"] <= done]
        self._started = before[0]["started"] if before else self._started
        if self._rows:
            self._first_step = int(self._rows[0].get("first_step", 0))
        else:
            self._first_step = done if self._spec.trunk else 0
        steps = np.diff([self._first_step, *(row["step"] for row in self._rows)])
        self._good_seconds = float(sum(n * row["step_seconds"] for n, row in zip(steps, self._rows, strict=True)))
        if hosts.is_first():
            self._shows = _shows(self._training, self._spec, self._workdir)

    def before(self, step: int, state: Any) -> None:
        """To be called before each step, with the state that it starts from."""
        self._profiler.before(step, state)
        if not self._open:
            self._window, self._open = (time.monotonic(), step - 1), True
        elif self._compiling:  # the first step of this process is behind us
            self._window, self._compiling = (time.monotonic(), step - 1), False

    def row(self, step: int, values: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Ends a window: its row, from the values of each of its steps."""
        spec, (began, behind) = self._spec, self._window
        step_seconds = (time.monotonic() - began) / (step - behind)
        self._good_seconds += step_seconds * len(next(iter(values.values())))
        tokens_per_step = spec.hyperparameters.batch_size * spec.sequence_length
        row: dict[str, float] = {"step": step, "tokens": step * tokens_per_step}
        row |= {name: float(of_steps.mean()) for name, of_steps in values.items()}
        row |= {"tokens_per_second": tokens_per_step / step_seconds, "step_seconds": step_seconds}
        device = jax.devices()[0]
        if device.device_kind in PEAK_FLOPS_PER_SECOND:
            peak_flops_per_second = PEAK_FLOPS_PER_SECOND[device.device_kind] * jax.device_count()
            flops_per_second = accounting.training_flops(spec.params, tokens_per_step) / step_seconds
            row["mfu"] = flops_per_second / peak_flops_per_second
        row |= {"goodput": self._good_seconds / (time.time() - self._started), "started": self._started}
        if self._first_step:
            row["first_step"] = self._first_step
        self._rows.append(row)
        self._open = False
        self._stall.expect(step, step_seconds, len(next(iter(values.values()))))
        for show in self._shows:
            show(row)
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()
        return row

    def write(self) -> None:
        """Writes metrics.jsonl; rows past the newest checkpoint are dropped when the run goes on from there."""
        if hosts.is_first():
            write(self._path, "".join(json.dumps(row) + "\n" for row in self._rows))
        self._written = time.monotonic()


class Profiler:
    """Traces steps from one to another, both included, for TensorBoard and Perfetto."""

    def __init__(self, steps: tuple[int, int] | None, folder: epath.Path):
        self._steps, self._folder = steps, folder
        self._temporary: tempfile.TemporaryDirectory | None = None

    def before(self, step: int, state: Any) -> None:
        """To be called before each step, with the state that it starts from."""
        if self._steps is None:
            return
        if step == self._steps[0]:
            self._temporary = tempfile.TemporaryDirectory()
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._temporary.name)
        elif step == self._steps[1] + 1:
            jax.block_until_ready(state)
            self.stop()

    def stop(self) -> None:
        """Ends a trace that is under way and keeps it."""
        if self._temporary is None:
            return
        jax.profiler.stop_trace()
        with self._temporary as folder:
            storage.copy(epath.Path(folder), self._folder)
        self._temporary = None


class Stall:
    """Says on stderr, once a time, that a window of steps is overdue by ten of them, and by half a minute."""

    def __init__(self, run: str):
        self._run = run
        self._step_seconds: list[float] = []
        self._timer: threading.Timer | None = None

    def expect(self, step: int, step_seconds: float, steps: int) -> None:
        """A window has ended at `step`; the next is as long."""
        self.stop()
        self._step_seconds = [*self._step_seconds[-100:], step_seconds]
        median = statistics.median(self._step_seconds)
        allowed = steps * median + max(STALLED_STEPS * median, STALLED_SECONDS)
        self._timer = threading.Timer(allowed, self._tell, (step, median, allowed))
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Expects nothing more."""
        if self._timer:
            self._timer.cancel()

    def _tell(self, step: int, median: float, allowed: float) -> None:
        host = f" on host {jax.process_index()}" if jax.process_count() > 1 else ""
        print(
            f"{self._run}: nothing heard{host} for {allowed:.0f} s since step {step}; a step takes {median:.3g} s "
            "(median); waiting for the devices, for other hosts or for the storage",
            file=sys.stderr,
            flush=True,
        )


def _shows(training: Training, spec: RunSpec, workdir: Workdir) -> list[Show]:
    return [
        *([_tensorboard(workdir.tensorboard(spec.run))] if training.tensorboard else []),
        *([_wandb(training.wandb, spec, workdir)] if training.wandb else []),
    ]


def _tensorboard(folder: epath.Path) -> Show:
    try:
        from clu import metric_writers
    except ModuleNotFoundError as e:
        raise _missing("tensorboard", e) from None
    writer = metric_writers.SummaryWriter(str(folder))

    def show(row: Mapping[str, float]) -> None:
        writer.write_scalars(row["step"], {name: row[name] for name in row if name not in ("step", "started")})
        writer.flush()

    return show


def _wandb(project: str, spec: RunSpec, workdir: Workdir) -> Show:
    try:
        import wandb
    except ModuleNotFoundError as e:
        raise _missing("wandb", e) from None
    # A run that goes on is the same run there.
    name = hashlib.sha256(str(workdir.root / spec.run).encode()).hexdigest()[:16]
    run = wandb.init(project=project, id=name, name=spec.run, resume="allow")
    return lambda row: run.log(dict(row), step=row["step"])


def _missing(setting: str, error: ModuleNotFoundError) -> ValueError:
    return ValueError(f"training.{setting}: {error.name} is not installed: pip install 'scaling-ladder[watch]'")
