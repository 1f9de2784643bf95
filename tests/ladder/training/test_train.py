"""Training: open_lm's schedule and steps, golden metrics, exact resume, no step too many, divergence named."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ladder.recipe import Cooldown, Hyperparameters
from ladder.training.checkpoint import Checkpoints, Damaged
from ladder.training.data import Batches
from ladder.training.preemption import EXIT_CODE, Preempted
from ladder.training.step import TrainState, init_state, learning_rate, make_optimizer, train_step
from ladder.training.train import Diverged, final_params
from models.config import DecoderConfig
from models.convert.open_lm import as_params, read_weights
from models.decoder import Decoder
from models.loss import token_losses

GOLDEN = pathlib.Path(__file__).parent / "golden" / "first_steps.json"


def _init(spec):
    optimizer = make_optimizer(spec.hyperparameters, spec.steps)
    return optimizer, jax.jit(lambda: nn.unbox(init_state(spec, optimizer)))()


def _state(spec, workdir, step):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), jax.eval_shape(lambda: _init(spec)[1])
    )
    with Checkpoints(workdir.checkpoints(spec.run)) as checkpoints:
        assert checkpoints.latest_step() == step
        return checkpoints.restore(step, abstract)


def _rows(spec, workdir):
    rows = [json.loads(line) for line in workdir.metrics(spec.run).read_text().splitlines()]
    return [{key: row[key] for key in ("step", "tokens", "loss_nats", "grad_norm")} for row in rows]


def _schedule(h, steps):
    return jax.jit(lambda step: learning_rate(h, steps, step))(jnp.arange(steps))


def test_the_schedule_is_the_hand_computed_one():
    h = Hyperparameters(
        batch_size=1, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=4, weight_decay=0.0
    )  # fmt: skip
    warmup = [0.25, 0.5, 0.75, 1.0]
    cosine = [1.0, 0.9657, 0.8682, 0.7222, 0.55, 0.3778, 0.2318, 0.1343]  # 0.1 + 0.45 (1 + cos(pi s / 8)), s = 0..7
    np.testing.assert_allclose(_schedule(h, 12), warmup + cosine, atol=5e-5)


@pytest.mark.parametrize(
    ("shape", "cooldown"),
    [
        ("1-sqrt", [1.0, 0.55, 0.3636, 0.2206]),  # 0.1 + 0.9 (1 - sqrt(s / 4)), s = 0..3
        ("linear", [1.0, 0.775, 0.55, 0.325]),
    ],
)
def test_with_a_cooldown_the_rate_is_constant_until_it_begins(shape, cooldown):
    h = Hyperparameters(
        batch_size=1,
        learning_rate=1.0,
        final_learning_rate=0.1,
        warmup_steps=4,
        weight_decay=0.0,
        cooldown=Cooldown(4, shape),
    )
    np.testing.assert_allclose(_schedule(h, 12), [0.25, 0.5, 0.75, 1.0, *[1.0] * 4, *cooldown], atol=5e-5)


def test_a_warmup_longer_than_the_run_never_reaches_the_peak():
    h = Hyperparameters(
        batch_size=1, learning_rate=1.0, final_learning_rate=0.1, warmup_steps=8, weight_decay=0.0
    )  # fmt: skip
    np.testing.assert_allclose(_schedule(h, 4), [1 / 8, 2 / 8, 3 / 8, 4 / 8], rtol=1e-6)


def test_token_losses_are_cross_entropies_and_log_normalisers():
    logits_BxLxV = np.random.default_rng(0).normal(size=(2, 3, 5)) * 4
    target_BxL = np.array([[0, 4, 2], [1, 1, 3]])
    loss_BxL, log_normaliser_BxL = token_losses(jnp.asarray(logits_BxLxV), jnp.asarray(target_BxL))
    normaliser_BxL = np.exp(logits_BxLxV).sum(-1)
    probability_BxL = np.take_along_axis(np.exp(logits_BxLxV), target_BxL[..., None], -1)[..., 0] / normaliser_BxL
    np.testing.assert_allclose(loss_BxL, -np.log(probability_BxL), rtol=1e-5)
    np.testing.assert_allclose(log_normaliser_BxL, np.log(normaliser_BxL), rtol=1e-5)


def test_the_first_steps_give_the_golden_metrics(spec, workdir):
    """Update the file with LADDER_UPDATE_GOLDEN=1 only where decoder, optimiser, schedule or order of data changed on
    purpose; a change that should not touch the numbers must not."""
    optimizer, state = _init(spec)
    batches = Batches(workdir.train_records, spec.hyperparameters.batch_size, spec.seed)
    step = jax.jit(lambda state, batch: train_step(Decoder(spec.decoder), optimizer, 1e-4, state, batch))
    measured = []
    for i in range(3):
        state, metrics = step(state, batches(i))
        measured.append({name: float(value) for name, value in metrics.items()})
    if os.environ.get("LADDER_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(measured, indent=2) + "\n")
    for row, golden in zip(measured, json.loads(GOLDEN.read_text()), strict=True):
        for name, value in golden.items():
            assert row[name] == pytest.approx(value, rel=2e-5), (
                f"{name} was {value} and is {row[name]}; if decoder, optimiser, schedule or order of data changed on "
                f"purpose, update {GOLDEN.name} by running this test with LADDER_UPDATE_GOLDEN=1"
            )


def test_ten_steps_are_those_of_the_real_open_lm(shared):
    folder = shared / "parity" / "open_lm"
    facts = json.loads((folder / "train10.json").read_text())
    with np.load(folder / "train10.npz") as arrays:
        expected = dict(arrays)
    h = Hyperparameters(
        batch_size=4,
        learning_rate=facts["peak_lr"],
        final_learning_rate=facts["lr_cooldown_end"],
        warmup_steps=facts["warmup"],
        weight_decay=facts["wd"],
    )
    assert [h.beta1, h.beta2] == facts["betas"]
    assert (h.epsilon, h.clip_norm, h.z_loss) == (facts["eps"], facts["clip"], facts["z"])
    steps = facts["total_steps"]
    np.testing.assert_allclose(_schedule(h, steps), expected["lr"], rtol=1e-5)

    decoder = Decoder(DecoderConfig(width=96, layers=8, heads=4, vocab_size=512))
    optimizer = make_optimizer(h, steps)
    params = as_params(read_weights(folder / facts["start"]), decoder.config)
    params = jax.tree.map(jnp.asarray, params)
    state = TrainState(step=jnp.int32(0), params=params, opt_state=optimizer.init(params))

    @jax.jit
    def step(state, batch_BxT):
        # open_lm logs the z-loss with the rest, train_step does not.
        _, log_normaliser_BxL = token_losses(
            decoder.apply({"params": state.params}, batch_BxT[:, :-1]), batch_BxT[:, 1:]
        )
        state, metrics = train_step(decoder, optimizer, h.z_loss, state, batch_BxT)
        return state, metrics, metrics["loss_nats"] + h.z_loss * jnp.square(log_normaliser_BxL).mean()

    losses, norms = [], []
    for batch_BxT in expected["batches"]:
        state, metrics, loss = step(state, jnp.asarray(batch_BxT, jnp.int32))
        losses.append(float(loss))
        norms.append(float(metrics["grad_norm"]))
    np.testing.assert_allclose(losses, expected["loss"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(norms, expected["gnorm"], rtol=1e-4)
    token_BxL = jnp.asarray(expected["batches"][0][:, :-1], jnp.int32)
    logits_BxLxV = jax.jit(decoder.apply)({"params": state.params}, token_BxL)
    np.testing.assert_allclose(logits_BxLxV, expected["final_logits_on_batch0"], rtol=0, atol=5e-3)


def test_the_z_loss_is_added_to_what_is_minimised_and_not_to_what_is_reported(spec, workdir):
    optimizer, state = _init(spec)
    batch = Batches(workdir.train_records, 8, 0)(0)
    step = jax.jit(lambda z_loss: train_step(Decoder(spec.decoder), optimizer, z_loss, state, batch))
    (_, plain), (_, with_z) = step(0.0), step(1.0)
    assert plain["loss_nats"] == with_z["loss_nats"]
    assert plain["grad_norm"] != with_z["grad_norm"]


def test_weight_decay_falls_on_every_parameter(spec):
    h = dataclasses.replace(spec.hyperparameters, warmup_steps=1, weight_decay=0.5, learning_rate=0.1)
    optimizer = make_optimizer(h, 10)
    params = {"gain": jnp.ones(3), "kernel": jnp.full((2, 2), 2.0)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for name, update in updates.items():
        np.testing.assert_allclose(update, -0.1 * 0.5 * params[name], rtol=1e-6)


def test_the_loss_falls_on_text_that_can_be_learned(spec, workdir, train_here, losses_of):
    train_here(spec, workdir)
    losses = losses_of(workdir, spec)
    assert losses[0] == pytest.approx(np.log(97), abs=0.5)
    assert losses[-1] < losses[0] - 1


def test_the_metrics_are_means_of_windows_and_end_with_the_last_step(spec, workdir, train_here):
    events = train_here(dataclasses.replace(spec, steps=12), workdir)
    rows = _rows(spec, workdir)
    assert [row["step"] for row in rows] == [5, 10, 12] == [event.step for event in events]
    assert [row["tokens"] for row in rows] == [step * 8 * 16 for step in (5, 10, 12)]
    assert [row["loss_nats"] for row in rows] == [event.loss_nats for event in events]


def test_a_trained_run_is_left_as_it_is(spec, workdir, train_here):
    train_here(spec, workdir)
    before = _state(spec, workdir, spec.steps)
    assert int(before.step) == spec.steps
    files = {path: path.stat().st_mtime_ns for path in pathlib.Path(workdir.root).rglob("*") if path.is_file()}
    assert train_here(spec, workdir) == []
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(workdir.root).rglob("*") if path.is_file()} == files
    jax.tree.map(np.testing.assert_array_equal, final_params(spec, workdir), before.params)


@pytest.mark.parametrize("stops", [(5,), (15, 20, 10)], ids=str)
def test_a_run_that_was_stopped_ends_bit_for_bit_as_one_that_was_not(spec, workdir, train_here, tmp_path, stops):
    train_here(spec, workdir)
    stopped = type(workdir)(workdir.root.parent / "stopped")
    shutil.copytree(workdir.train_records, stopped.train_records)
    for step in stops:
        train_here(spec, stopped, stop_at=step)
    train_here(spec, stopped)
    jax.tree.map(np.testing.assert_array_equal, _state(spec, stopped, 25), _state(spec, workdir, 25))
    assert _rows(spec, stopped) == _rows(spec, workdir)


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(spec, workdir, train_here):
    train_here(spec, workdir)
    expected, rows = _state(spec, workdir, 25), _rows(spec, workdir)
    for path in pathlib.Path(workdir.checkpoints(spec.run) / "25").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Damaged, match="checkpoints/25 is damaged and cannot be read; run `ladder train`"):
        final_params(spec, workdir)
    with pytest.warns(UserWarning, match="checkpoints/25 is damaged and cannot be read; going on from step 20"):
        events = train_here(spec, workdir)
    assert [event.step for event in events] == [25]
    jax.tree.map(np.testing.assert_array_equal, _state(spec, workdir, 25), expected)
    assert _rows(spec, workdir) == rows


@pytest.fixture
def ctrl_c():
    """Ctrl-C as a terminal has it, whatever the tests were started by."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_a_run_that_is_told_to_stop_saves_at_once_and_goes_on_as_if_it_had_not(
    spec, workdir, train_here, ctrl_c, sent, capfd
):
    told = dataclasses.replace(spec, run="told")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Preempted) as left:
        train_here(told, workdir, at={15: lambda: os.kill(os.getpid(), sent)})
    assert left.value.code == EXIT_CODE == 75
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert ("Ctrl-C once more stops at once" in capfd.readouterr().err) == (sent == signal.SIGINT)
    assert int(_state(told, workdir, 16).step) == 16
    assert [row["step"] for row in _rows(told, workdir)] == [5, 10, 15, 16]
    train_here(told, workdir)
    train_here(spec, workdir)
    jax.tree.map(np.testing.assert_array_equal, _state(told, workdir, 25), _state(spec, workdir, 25))


def test_ctrl_c_twice_stops_at_once(spec, workdir, train_here, ctrl_c):
    """Where the second is heard, and nothing of the step is saved."""

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise ConnectionAbortedError  # in its stead: the tests have a use for it of their own

    with pytest.raises(ConnectionAbortedError):
        train_here(spec, workdir, at={15: twice})
    assert [row["step"] for row in _rows(spec, workdir)] == [5, 10]


def test_how_often_is_saved_changes_nothing_that_is_learned(spec, workdir, train_here):
    train_here(spec, workdir, log_every_steps=1, checkpoint_every_steps=1)
    often = _state(spec, workdir, 25)
    rare = dataclasses.replace(spec, run="rare")
    train_here(rare, workdir, log_every_steps=25, checkpoint_every_steps=25)
    jax.tree.map(np.testing.assert_array_equal, _state(rare, workdir, 25), often)


def test_a_run_that_diverges_at_once_names_run_and_step_and_saves_nothing(spec, workdir, train_here):
    spec = dataclasses.replace(spec, hyperparameters=spec.hyperparameters.scaled(1e30))
    with pytest.raises(Diverged, match=r"^w8-m1 diverged at step [23]: loss .*, gradient norm (nan|inf)"):
        train_here(spec, workdir)
    assert not workdir.metrics(spec.run).exists()
    with Checkpoints(workdir.checkpoints(spec.run)) as checkpoints:
        assert checkpoints.latest_step() is None


def test_a_run_that_diverges_late_keeps_the_checkpoint_before_and_diverges_again_at_the_same_step(
    spec, workdir, train_here
):
    h = dataclasses.replace(spec.hyperparameters, learning_rate=1e-3, final_learning_rate=1e30, warmup_steps=13)
    spec = dataclasses.replace(spec, hyperparameters=h)
    refusals = []
    for _ in range(2):
        with pytest.raises(Diverged, match=r"step 1[5-9]:") as refusal:
            train_here(spec, workdir)
        refusals.append(str(refusal.value))
        assert int(_state(spec, workdir, 10).step) == 10
    assert refusals[0] == refusals[1]


def test_final_params_of_a_run_that_is_not_trained_to_its_end_are_refused(spec, workdir, train_here):
    with pytest.raises(ValueError, match=r"^w8-m1 is not trained to its last step 25; run `ladder train` first$"):
        final_params(spec, workdir)
    train_here(spec, workdir, stop_at=15)
    with pytest.raises(ValueError, match="not trained to its last step"):
        final_params(spec, workdir)
