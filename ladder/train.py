"""The loop of one run, straight down one function."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from ladder import mesh as meshes
from ladder.checkpoint import Checkpoints
from ladder.config import LadderConfig
from ladder.data import Batches
from ladder.preemption import Notice, Preempted
from ladder.progress import Trained
from ladder.recipe import Hyperparameters
from ladder.spec import RunSpec, Workdir
from ladder.watch import Watch
from models.decoder import Decoder
from models.loss import token_losses


class Diverged(RuntimeError):
    """The loss or the gradient of a run stopped being a finite number."""

    def __init__(self, run: str, step: int, loss_nats: float, grad_norm: float):
        super().__init__(f"{run} diverged at step {step}: loss {loss_nats}, gradient norm {grad_norm}")


class TrainState(flax.struct.PyTreeNode):
    """All that a run carries from step to step; the data's position and the learning rate follow from `step`."""

    step: jax.Array
    params: Any
    opt_state: optax.OptState


def train(config: LadderConfig, spec: RunSpec, workdir: Workdir, report: Callable[[Trained], None]) -> None:
    """Trains a run to its last step, going on from its newest checkpoint; a trained run is left as it is.

    Where there are many processes (`ladder.hosts`), all of them call this, and the first one writes.

    Args:
      config: the ladder's; its `training` says how often to log and to checkpoint.
      spec: the run.
      workdir: holds the token records; gets checkpoints and metrics.jsonl.
      report: called every `log_every_steps`.

    Raises:
      Diverged: naming the first step that is not finite. No state after it is ever saved.
      Preempted: this process was told to leave (SIGTERM); the state of the step under way is saved.
    """
    mesh = meshes.make()
    meshes.refuse_ragged(spec.hyperparameters.batch_size, mesh, spec.run)
    batches = Batches(workdir.train_records, spec.hyperparameters.batch_size, spec.seed)
    optimizer = make_optimizer(spec.hyperparameters, spec.steps)
    init = partial(init_state, spec, optimizer)
    sharding = meshes.sharding_of(jax.eval_shape(init), mesh)
    batch_sharding = meshes.batch_sharding(mesh)
    jit_step = jax.jit(
        partial(train_step, Decoder(spec.decoder), optimizer, spec.hyperparameters.z_loss),
        in_shardings=(sharding, batch_sharding),
        donate_argnums=0,
    )

    with (
        Notice() as notice,
        Checkpoints(workdir.checkpoints(spec.run)) as checkpoints,
        Watch(config.training, spec, workdir) as watch,
    ):
        done, state = checkpoints.restore_newest(abstract_state(init, sharding))
        if done == spec.steps:
            return
        if not done:
            state = jax.jit(lambda: nn.unbox(init()), out_shardings=sharding)()
        watch.start(done)

        pending = []
        for step in range(done + 1, spec.steps + 1):
            watch.before(step, state)
            batch_BxT = batches.on_mesh(step - 1, batch_sharding)
            state, metrics = jit_step(state, batch_BxT)
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
                checkpoints.save(step, state)
            if leave:
                raise Preempted


def final_params(spec: RunSpec, workdir: Workdir) -> Any:
    """The parameters after a run's last step.

    Raises:
      ValueError: if the run has no such checkpoint.
    """
    init = partial(init_state, spec, make_optimizer(spec.hyperparameters, spec.steps))
    sharding = meshes.sharding_of(jax.eval_shape(init), meshes.make())
    with Checkpoints(workdir.checkpoints(spec.run)) as checkpoints:
        if checkpoints.latest_step() != spec.steps:
            raise ValueError(f"{spec.run} is not trained to its last step {spec.steps}; run `ladder train` first")
        return checkpoints.restore(spec.steps, abstract_state(init, sharding)).params


def abstract_state(init: Callable[[], TrainState], sharding: TrainState) -> TrainState:
    """Shapes, types and shardings of the state, to restore into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(jax.eval_shape(init)),
        sharding,
    )


def init_state(spec: RunSpec, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, its leaves boxed with their logical axes."""
    token_1xL = jnp.zeros((1, spec.sequence_length), jnp.int32)
    params = Decoder(spec.decoder).init(jax.random.key(spec.seed), token_1xL)["params"]
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


def train_step(
    decoder: Decoder,
    optimizer: optax.GradientTransformation,
    z_loss: float,
    state: TrainState,
    batch_BxT: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of the optimiser on the mean cross-entropy plus `z_loss` times the mean squared log normaliser."""

    def objective(params):
        logits_BxLxV = decoder.apply({"params": params}, batch_BxT[:, :-1])
        loss_BxL, log_normaliser_BxL = token_losses(logits_BxLxV, batch_BxT[:, 1:])
        loss = loss_BxL.mean()
        return loss + z_loss * jnp.square(log_normaliser_BxL).mean(), loss

    (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss_nats": loss, "grad_norm": optax.global_norm(grads)}
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics


def make_optimizer(h: Hyperparameters, steps: int) -> optax.GradientTransformation:
    """open_lm's: global-norm clipping, then AdamW with decay on every parameter."""
    return optax.chain(
        optax.clip_by_global_norm(h.clip_norm),
        optax.adamw(partial(learning_rate, h, steps), h.beta1, h.beta2, h.epsilon, weight_decay=h.weight_decay),
    )


def learning_rate(h: Hyperparameters, steps: int, step: jax.Array) -> jax.Array:
    """Of the step counted from 0: linear warm-up, then half a cosine (open_lm's scheduler)."""
    warmup = h.learning_rate * (step + 1) / h.warmup_steps
    share = (step - h.warmup_steps) / max(1, steps - h.warmup_steps)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * share))
    cooldown = h.final_learning_rate + cosine * (h.learning_rate - h.final_learning_rate)
    return jnp.where(step < h.warmup_steps, warmup, cooldown)


def _refuse_divergence(run: str, last_step: int, window: dict[str, np.ndarray]) -> None:
    finite = np.isfinite(window["loss_nats"]) & np.isfinite(window["grad_norm"])
    if not finite.all():
        first = int(np.argmin(finite))
        raise Diverged(run, last_step - len(finite) + 1 + first, window["loss_nats"][first], window["grad_norm"][first])
