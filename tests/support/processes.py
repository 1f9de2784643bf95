"""Real processes for tests: each with devices of its own, or several that carry out one command together."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
import types

import fake_gcs
from ladder.training import hosts

LADDER = [sys.executable, "-c", "from ladder.cli.main import main; main()"]  # of this tree, installed or not

# Forked from one process that has imported all this, and started no device: each import would take seconds.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["processes", "ladder.training.train", "ladder.training.hosts"])


class Together:
    """Processes that call `job(*args)`; a context manager that leaves none behind.

    Args:
      job: a function of a module.
      args: of the job.
      count: of processes; more than one join each other as `ladder.training.hosts` does.
      devices: of each process.
      environment: of each process, besides this one's.
      said: folder that gets what each process says on stderr, as a file of its number.
    """

    def __init__(self, job, *args, count=1, devices=1, environment=None, said=None):
        environments = [{**(environment or {}), **place} for place in places(count)]
        files = [said / str(index) if said else None for index in range(count)]
        self.processes = [
            _context.Process(target=_run, args=(e, devices, job, args, file))
            for e, file in zip(environments, files, strict=True)
        ]

    def __enter__(self):
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *exception):
        for process in self.processes:
            process.kill()
            process.join()

    def exit_codes(self, seconds=600):
        """Waits for all of them to end."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        return [process.exitcode for process in self.processes]


def run(job, *args, **which):
    """Has processes do a job to its end; `which` are those of `Together`."""
    with Together(job, *args, **which) as together:
        assert not any(together.exit_codes())


def _run(environment, devices, job, args, said):
    os.environ |= {**environment, "JAX_PLATFORMS": "cpu"}
    if said:
        os.dup2(os.open(said, os.O_CREAT | os.O_WRONLY), 2)
    if "STORAGE_EMULATOR_HOST" in environment:
        fake_gcs.shorten_pauses()
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    if job is not command:  # which joins the others itself
        hosts.join(environment)
    job(*args)


def places(count):
    """What tells each of so many processes of the others, in its environment; nothing tells one alone."""
    if count == 1:
        return [{}]
    with contextlib.closing(socket.socket()) as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    return [dict(zip(hosts.EXPLICIT, (address, str(count), str(index)), strict=True)) for index in range(count)]


def command(*arguments):
    """The console script; `arguments` are a list for each process."""
    from ladder.cli import main

    sys.argv = ["ladder", *arguments[int(os.environ["JAX_PROCESS_ID"])]]
    main.main()


def refuse(who, where):
    """One process refuses something while the others wait for it, at a barrier or in a collective, for ever."""
    import jax
    from jax.experimental import multihost_utils

    with hosts.one_end(lambda error: f"ladder: {error}"):
        multihost_utils.sync_global_devices("all are there")
        if jax.process_index() in who:
            raise ValueError("its corpus is missing")
        if where == "barrier":
            hosts.wait("for the one that left")
        else:
            multihost_utils.sync_global_devices("the one that left")


def train(spec, workdir, kill_at=None, stop_at=None):
    """Trains a run; the last process is killed in the report of one step, the first is told to leave in another's."""
    import jax

    from ladder.config import Training
    from ladder.events import Trained
    from ladder.training.train import train

    def report(event):
        if not isinstance(event, Trained):
            return
        if event.step == kill_at and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if event.step == stop_at and jax.process_index() == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        if stop_at and event.step > stop_at:
            time.sleep(0.2)  # JAX looks for notices once a second, and these steps take a thousandth of one

    training = Training(log_every_steps=5, checkpoint_every_steps=10)
    train(types.SimpleNamespace(training=training), spec, workdir, report)


def newest(spec, workdir):
    """The run's newest checkpoint, on one device whichever wrote it: its step and state."""
    import jax

    from ladder.training import mesh as meshes
    from ladder.training.checkpoint import Checkpoints
    from ladder.training.step import abstract_on_disk

    abstract = abstract_on_disk(spec, meshes.make((1, 1, 1), jax.devices()[:1]))
    with Checkpoints(workdir.checkpoints(spec.run)) as checkpoints:
        return checkpoints.latest_step(), checkpoints.restore(checkpoints.latest_step(), abstract)
