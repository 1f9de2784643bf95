"""Checkpoints: whole or absent, the last two kept, each exactly the state of its step although buffers are reused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ladder.checkpoint import Checkpoints

STATE = {"weight": jax.ShapeDtypeStruct((400_000,), jnp.float32), "step": jax.ShapeDtypeStruct((), jnp.int32)}


@pytest.fixture
def folder(tmp_path):
    return epath.Path(tmp_path / "checkpoints")


def _state(value):
    return {name: jnp.full(leaf.shape, value, leaf.dtype) for name, leaf in STATE.items()}


def _on_one_device():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding) for name, leaf in STATE.items()}


def test_a_new_folder_has_no_step(folder):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() is None


def test_the_last_two_are_kept(folder):
    with Checkpoints(folder) as checkpoints:
        for step in (10, 20, 25):
            checkpoints.save(step, _state(step))
    assert sorted(int(path.name) for path in folder.iterdir()) == [20, 25]
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 25


def test_a_checkpoint_that_was_never_finished_is_not_seen(folder):
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(10, _state(10))
    (folder / "20.orbax-checkpoint-tmp-3").mkdir()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 10


def test_a_save_holds_its_own_step_although_the_next_steps_reuse_the_buffers(folder):
    # On a CPU a host copy may be a view of the device's buffer, which the next step donates to its result.
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = advance(_state(0))
    saved = 0
    for _ in range(8):
        with Checkpoints(folder) as checkpoints:
            for _ in range(3):
                state = advance(state)
                saved += 1
                checkpoints.save(saved, state)
                expected = saved + 1
                for _ in range(5):  # the write is under way
                    state = advance(state)
            state = jax.tree.map(lambda leaf: leaf - 15, state)
        with Checkpoints(folder) as checkpoints:
            restored = checkpoints.restore(saved, _on_one_device())
        for leaf in restored.values():
            np.testing.assert_array_equal(leaf, restored["step"])
        assert int(restored["step"]) == expected + 10
        state = jax.tree.map(lambda leaf: leaf, state)
