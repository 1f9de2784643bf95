"""The loop of one run, straight down one function."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ladder.config import LadderConfig
from ladder.events import Begun, Trained
from ladder.spec import RunSpec, Trunk, Workdir
from ladder.training import mesh as meshes
from ladder.training.checkpoint import Checkpoints, Damaged, restore
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

    A branch begins with the state in which it leaves its trunk.

    Where there are many processes (`ladder.training.hosts`), all of them call this, and the first one writes.

    Args:
      config: the ladder's; its `training` says how often to log and to checkpoint.
      spec: the run.
      workdir: holds the token records; gets checkpoints and metrics.jsonl.
      report: called before the first step that is trained, and every `log_every_steps`.

    Raises:
      Diverged: naming the first step that is not finite. No state after it is ever saved.
      ValueError: a branch whose trunk has not come there yet.
      Preempted: this process was told to leave (SIGTERM, Ctrl-C); the state of the step under way is saved.
    """
    program = Program(config.training, spec, meshes.of(config.training.mesh))
    seed, ids = spec.seed, spec.decoder.vocab_size
    batches = Batches(workdir.train_records, spec.hyperparameters.batch_size, seed, spec.pool_steps, ids)
    with (
        Notice() as notice,
        Checkpoints(workdir.checkpoints(spec.run), spec.branches) as checkpoints,
        Watch(config.training, spec, workdir) as watch,
    ):
        done, state = checkpoints.restore_newest(program.abstract_on_disk)
        if done == spec.steps:
            return
        if spec.trunk and not done:
            done, state = _branched_off(spec, spec.trunk, workdir, program.abstract_on_disk)
        state = program.loaded(state) if done else program.init()
        watch.start(done)
        report(Begun(spec.run, done, program.attention))

        pending = []
        for step, batch_BxT in enumerate(batches.on_mesh(range(done, spec.steps), program.batch_sharding), done + 1):
            watch.before(step, state)
            state, metrics = program.step(state, batch_BxT)
            pending.append(metrics)
            leave = notice.given(step)
            must_save = step == spec.steps or step in spec.branches or leave
            if step % config.training.log_every_steps and not must_save:
                continue

            window = jax.tree.map(lambda *values: np.asarray(values, np.float64), *jax.device_get(pending))
            _refuse_divergence(spec.run, step, window)
            row = watch.row(step, window)
            report(Trained(spec.run, step, row["loss_nats"], row["tokens_per_second"]))
            pending = []

            if step % config.training.checkpoint_every_steps == 0 or must_save:
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


def _branched_off(spec: RunSpec, trunk: Trunk, workdir: Workdir, abstract: Any) -> tuple[int, Any]:
    """The newest state of a trunk that is a branch's too, and its step: the one in which it leaves it, if it is there.

    Where that was deleted, or is damaged, the branch trains the steps since the one before itself.
    """
    workdir.refuse_early(spec)
    folder = workdir.checkpoints(trunk.run)
    done, state = 0, None
    for step in reversed([step for step in workdir.checkpoint_steps(trunk.run) if step <= trunk.step]):
        try:
            done, state = step, restore(folder, step, abstract)
            break
        except Damaged as e:
            warnings.warn(str(e), stacklevel=2)
    if done < trunk.step:
        warnings.warn(
            f"{folder / str(trunk.step)}, from which {spec.run} is to begin, is not to be had; it begins "
            + (f"from step {done:,}" if done else "by itself"),
            stacklevel=2,
        )
    return done, state


def _refuse_divergence(run: str, last_step: int, window: dict[str, np.ndarray]) -> None:
    finite = np.isfinite(window["loss_nats"]) & np.isfinite(window["grad_norm"])
    if not finite.all():
        first = int(np.argmin(finite))
        raise Diverged(run, last_step - len(finite) + 1 + first, window["loss_nats"][first], window["grad_norm"][first])
