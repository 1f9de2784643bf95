"""The loop of one run, straight down one function."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ladder.config import LadderConfig
from ladder.events import Begun, Trained
from ladder.spec import RunSpec, Workdir
from ladder.training import mesh as meshes
from ladder.training.checkpoint import Checkpoints, Damaged
from ladder.training.data import Batches
from ladder.training.preemption import Notice, Preempted
from ladder.training.step import Program, abstract_on_disk
from ladder.training.watch import Watch


class Diverged(RuntimeError):
    """The loss or the gradient of a run stopped being a finite number."""

    def __init__(self, run: str, step: int, loss_nats: float, grad_norm: float):
        super().__init__(f"{run} diverged at step {step}: loss {loss_nats}, gradient norm {grad_norm}")


def train(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Callable[[Begun | Trained], None]) -> None:
    """Trains a run to its last step, going on from its newest checkpoint; a trained run is left as it is.

    Where there are many processes (`ladder.training.hosts`), all of them call this, and the first one writes.

    Args:
      config: the ladder's; its `training` says how often to log and to checkpoint.
      spec: the run.
      workdir: holds the token records; gets checkpoints and metrics.jsonl.
      report: called before the first step that is trained, and every `log_every_steps`.

    Raises:
      Diverged: naming the first step that is not finite. No state after it is ever saved.
      Preempted: this process was told to leave (SIGTERM); the state of the step under way is saved.
    """
    program = Program(config.training, spec, meshes.of(config.training.mesh))
    seed, ids = spec.seed, spec.decoder.vocab_size
    batches = Batches(workdir.train_records, spec.hyperparameters.batch_size, seed, spec.steps, ids)
    with (
        Notice() as notice,
        Checkpoints(workdir.checkpoints(spec.run)) as checkpoints,
        Watch(config.training, spec, workdir) as watch,
    ):
        done, state = checkpoints.restore_newest(program.abstract_on_disk)
        if done == spec.steps:
            return
        state = program.loaded(state) if done else program.init()
        watch.start(done)
        report(Begun(spec.run, done, program.attention))

        pending = []
        for step, batch_BxT in enumerate(batches.on_mesh(range(done, spec.steps), program.batch_sharding), done + 1):
            watch.before(step, state)
            state, metrics = program.step(state, batch_BxT)
            pending.append(metrics)
            leave = notice.given(step)
            if step % config.training.log_every_steps and step < spec.steps and not leave:
                continue

            window = jax.tree.map(lambda *values: np.asarray(values, np.float64), *jax.device_get(pending))
            _refuse_divergence(spec.run, step, window)
            row = watch.row(step, window)
            report(Trained(spec.run, step, row["loss_nats"], row["tokens_per_second"]))
            pending = []

            if step % config.training.checkpoint_every_steps == 0 or step == spec.steps or leave:
                # Rows first: a kill in between leaves rows past the checkpoint, which a restart drops.
                watch.write()
                checkpoints.save(step, program.on_disk(state))
            if leave:
                raise Preempted


def final_params(spec: RunSpec, workdir: Workdir, mesh: Mesh | None = None) -> Any:
    """The parameters after a run's last step, a tree a block, on a mesh; on all devices' copies where none is given.

    Raises:
      ValueError: if the run has no such checkpoint, or it is damaged.
    """
    with Checkpoints(workdir.checkpoints(spec.run)) as checkpoints:
        if checkpoints.latest_step() != spec.steps:
            raise ValueError(f"{spec.run} is not trained to its last step {spec.steps}; run `ladder train` first")
        try:
            return checkpoints.restore(spec.steps, abstract_on_disk(spec, mesh or meshes.make())).params
        except Damaged as e:
            raise Damaged(f"{e}; run `ladder train`, which goes on from the one before") from None


def _refuse_divergence(run: str, last_step: int, window: dict[str, np.ndarray]) -> None:
    finite = np.isfinite(window["loss_nats"]) & np.isfinite(window["grad_norm"])
    if not finite.all():
        first = int(np.argmin(finite))
        raise Diverged(run, last_step - len(finite) + 1 + first, window["loss_nats"][first], window["grad_norm"][first])
