"""One step of training, and the state that it takes and gives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import AbstractMesh, Mesh

from ladder.config import Training
from ladder.recipe import Cooldown, Hyperparameters
from ladder.spec import RunSpec
from ladder.training import mesh as meshes
from models import layers
from models.decoder import Decoder
from models.execution import Execution, as_it_is
from models.loss import chunked_training_loss, training_loss


class TrainState(flax.struct.PyTreeNode):
    """All that a run carries from step to step; the data's position and the learning rate follow from `step`."""

    step: jax.Array
    params: Any
    opt_state: optax.OptState


class Program:
    """The compiled parts of one run on one mesh.

    A state lies on disk with a tree a block, whatever layout it is trained in, so that a run can go on in another.

    Args:
      training: how to carry it out.
      spec: the run.
      mesh: of the devices, which may be those of a machine that is only described.

    Attributes:
      init: () → the state before the first step.
      step: (state, batch_BxT) → (state, metrics); the state that it takes is gone.
      loaded, on_disk: between the state as it lies on disk and as it is trained.
      abstract, abstract_on_disk: shapes, types and shardings of the state.
      abstract_batch, batch_sharding: of batch_BxT, T = sequence length + 1.

    Raises:
      ValueError: if the batch, the model or its heads do not split over the mesh.
    """

    def __init__(self, training: Training, spec: RunSpec, mesh: Mesh):
        h = spec.hyperparameters
        training = training.for_batch(h.batch_size // meshes.shares(mesh))
        meshes.refuse_ragged(h.batch_size, mesh, spec.run, training.accumulation_steps)
        optimizer = make_optimizer(h, spec.steps)
        init = partial(init_state, spec, optimizer)
        self.abstract_on_disk = abstract_on_disk(spec, mesh)
        stack, unstack = (layers.stacked, layers.unstacked) if training.scan_layers else (_same, _same)
        self.abstract = _abstract(lambda: stack(init()), mesh, spec.run)
        self.batch_sharding = meshes.batch_sharding(mesh)
        shape_BxT = (h.batch_size, spec.sequence_length + 1)
        self.abstract_batch = jax.ShapeDtypeStruct(shape_BxT, jnp.int32, sharding=self.batch_sharding)
        sharding, on_disk = (jax.tree.map(lambda x: x.sharding, t) for t in (self.abstract, self.abstract_on_disk))
        self.init = jax.jit(lambda: nn.unbox(stack(init())), out_shardings=sharding)
        self.loaded = jax.jit(stack, out_shardings=sharding) if training.scan_layers else _same
        self.on_disk = jax.jit(unstack, out_shardings=on_disk) if training.scan_layers else _same
        execution = Execution(
            attend=_splash(spec, mesh) if training.attention == "splash" else None,
            shard=partial(meshes.constrain, mesh) if mesh.size > 1 else as_it_is,
            remat=training.remat,
        )
        self.step = jax.jit(
            partial(
                train_step,
                Decoder(spec.decoder, execution),
                optimizer,
                h.z_loss,
                loss_chunk=training.loss_chunk_tokens,
                accumulation=training.accumulation_steps,
            ),
            in_shardings=(sharding, self.batch_sharding),
            out_shardings=(sharding, None),
            donate_argnums=0,
            compiler_options=_compiler_options(mesh.devices.flat[0]),
        )


def abstract_on_disk(spec: RunSpec, mesh: Mesh | AbstractMesh) -> TrainState:
    """Shapes, types and shardings of a run's state as it lies on disk, a tree a block, to restore it to a mesh.

    Raises:
      ValueError: if the model does not split over the mesh.
    """
    return _abstract(partial(init_state, spec, make_optimizer(spec.hyperparameters, spec.steps)), mesh, spec.run)


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
    *,
    loss_chunk: int = 0,
    accumulation: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of the optimiser on the mean cross-entropy plus `z_loss` times the mean squared log normaliser.

    Args:
      decoder: the model.
      optimizer: of `make_optimizer`.
      z_loss: weight of the squared log normaliser.
      state: before the step.
      batch_BxT: tokens, T = L + 1.
      loss_chunk: positions of each sequence whose logits are held at a time; 0 holds all of them.
      accumulation: parts of the batch, one after another; their gradients are averaged in float32.

    Returns:
      The state after the step; `loss_nats` and `grad_norm`, before clipping.
    """

    def objective(params: Any, batch_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
        token_BxL, target_BxL = batch_BxT[:, :-1], batch_BxT[:, 1:]
        apply: Callable[..., Any] = partial(decoder.apply, {"params": params}, token_BxL)
        if not loss_chunk:
            return training_loss(apply(), target_BxL, z_loss)

        def readout(x_BxLxD: jax.Array, output_DxV: jax.Array) -> tuple[jax.Array, jax.Array]:
            return chunked_training_loss(x_BxLxD, output_DxV, target_BxL, z_loss, loss_chunk)

        return apply(readout=readout)

    gradient = jax.value_and_grad(objective, has_aux=True)
    if accumulation == 1:
        (_, loss), grads = gradient(state.params, batch_BxT)
    else:
        loss, grads = _accumulated(gradient, state.params, batch_BxT, accumulation, decoder.execution.shard)
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
    """Of the step counted from 0: linear warm-up, then half a cosine (open_lm's scheduler).

    With a cooldown the rate is constant until that begins (Hägele et al. 2024, arXiv 2405.18392).
    """
    warmup = h.learning_rate * (step + 1) / h.warmup_steps
    height = _cosine(h, steps, step) if h.cooldown is None else _cooldown(h.cooldown, steps, step)
    after = h.final_learning_rate + height * (h.learning_rate - h.final_learning_rate)
    return jnp.where(step < h.warmup_steps, warmup, after)


def _cosine(h: Hyperparameters, steps: int, step: jax.Array) -> jax.Array:
    share = (step - h.warmup_steps) / max(1, steps - h.warmup_steps)
    return 0.5 * (1 + jnp.cos(jnp.pi * share))


def _cooldown(cooldown: Cooldown, steps: int, step: jax.Array) -> jax.Array:
    share = jnp.clip((step - (steps - cooldown.steps)) / cooldown.steps, 0.0, 1.0)
    return 1 - (jnp.sqrt(share) if cooldown.shape == "1-sqrt" else share)


def _accumulated(gradient, params: Any, batch_BxT: jax.Array, parts: int, shard) -> tuple[jax.Array, Any]:
    # Every device splits its own rows, so that none moves: part p takes rows p, p + parts, p + 2 parts, ...
    batch_PxBxT = batch_BxT.reshape(-1, parts, batch_BxT.shape[1]).swapaxes(0, 1)

    def add(total: Any, batch_BxT: jax.Array) -> tuple[Any, None]:
        (_, loss), grads = gradient(params, shard(batch_BxT, ("batch", None)))
        return jax.tree.map(lambda sum_, x: sum_ + x / parts, total, (loss, grads)), None

    nothing = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, (jnp.zeros(()), nothing), batch_PxBxT)[0]


def _abstract(init: Callable[[], TrainState], mesh: Mesh | AbstractMesh, run: str) -> TrainState:
    boxed = jax.eval_shape(init)
    sharding = meshes.sharding_of(boxed, mesh)
    meshes.refuse_uneven(nn.unbox(boxed), sharding, run)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        sharding,
    )


def _splash(spec: RunSpec, mesh: Mesh) -> Callable[..., jax.Array]:
    from models import splash  # and with it Pallas, which training on a CPU does without

    meshes.refuse_split_heads(spec.decoder.groups, mesh, spec.run)
    return meshes.per_device(mesh, splash.attend)


def _same(state: TrainState) -> TrainState:
    return state


def _compiler_options(device: jax.Device) -> dict[str, str]:
    if not device.device_kind.startswith("TPU"):
        return {}
    # What hides an all-gather behind parts of a product costs more than it hides: about three times the step of a model
    # split over all of 16 chips.
    options = ("xla_tpu_enable_windowed_einsum_for_all_gather", "xla_tpu_enable_windowed_einsum_for_reduce_scatter")
    return dict.fromkeys(options, "false")
