"""Checkpoints: whole or absent, the last two kept, each exactly the state of its step, or known to be damaged."""

import logging
import pathlib
import shutil
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from ladder import quiet
from ladder.training.checkpoint import Checkpoints, Damaged, _fingerprint, fingerprint

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


def test_a_folder_may_be_named_from_where_one_stands(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with Checkpoints(epath.Path("checkpoints")) as checkpoints:
        checkpoints.save(10, _state(1))
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 10


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
    unfinished = folder / "20.orbax-checkpoint-tmp-3"
    unfinished.mkdir()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.latest_step() == 10
    assert unfinished.exists()  # whoever writes it may be at work still


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


def _save(folder, *steps):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, _noise(step))


def _noise(step):
    rng = np.random.default_rng(step)
    return {"weight": jnp.asarray(rng.normal(size=400_000), jnp.float32), "step": jnp.int32(step)}


def _files(folder):
    return sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())


def _damage(path, rng):
    content = bytearray(path.read_bytes())
    how = rng.integers(4)
    if how == 0:
        path.unlink()
    elif how == 1:
        path.write_bytes(content[: rng.integers(len(content))])
    elif how == 2:
        start = rng.integers(len(content))
        path.write_bytes(content[:start] + bytes(len(content) - start))
    else:
        for place in rng.integers(0, len(content), rng.integers(1, 20)):
            content[place] ^= rng.integers(1, 256)
        path.write_bytes(content)


def test_whatever_is_damaged_what_is_restored_is_exactly_what_was_saved(folder, tmp_path, capfd, caplog):
    _save(folder, 10, 20)
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    rng = np.random.default_rng(0)
    fell_back = 0
    for logger in ("absl", "asyncio"):
        caplog.set_level(logging.NOTSET, logger)  # puts back at the end what the next line sets
    quiet.libraries()
    for number in range(24):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        files = _files(folder / "20")
        for path in {files[number % len(files)], *rng.choice(files, rng.integers(0, 3))}:
            _damage(path, rng)
        with warnings.catch_warnings(record=True) as caught, Checkpoints(folder) as checkpoints:
            warnings.simplefilter("always")
            step, state = checkpoints.restore_newest(_on_one_device())
        np.testing.assert_array_equal(state["weight"], _noise(step)["weight"])
        assert int(state["step"]) == step
        told = [str(w.message) for w in caught]
        assert (len(told), step) in ((0, 20), (1, 10))
        assert (folder / "20").exists() == (step == 20)
        assert (folder / "20.damaged").exists() == (step == 10)
        assert all("going on from step 10; the damaged one is kept as 20.damaged" in line for line in told)
        fell_back += step == 10
    assert capfd.readouterr().err == ""
    assert caplog.records == []
    assert fell_back > 12


def test_a_run_whose_checkpoints_are_all_damaged_starts_again_and_keeps_them_however_often(folder):
    for kept in ("10.damaged", "10.damaged2"):
        _save(folder, 10)
        for path in _files(folder / "10"):
            path.write_bytes(b"lost")
        with (
            pytest.warns(UserWarning, match=f"10 is damaged and cannot be read; starting again.* kept as {kept}$"),
            Checkpoints(folder) as checkpoints,
        ):
            assert checkpoints.restore_newest(_on_one_device()) == (0, None)
        assert {path.read_bytes() for path in _files(folder / kept)} == {b"lost"}
    _save(folder, 10)
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.restore_newest(_on_one_device())[0] == 10
    assert sorted(path.name for path in folder.iterdir()) == ["10", "10.damaged", "10.damaged2"]


def test_nothing_damaged_is_moved_before_another_one_is_restored(folder, monkeypatch):
    _save(folder, 10, 20)
    for path in _files(folder / "20"):
        path.write_bytes(b"")
    restore = Checkpoints.restore

    def killed_at_the_second(self, step, abstract):
        if step == 10:
            raise KeyboardInterrupt
        return restore(self, step, abstract)

    monkeypatch.setattr(Checkpoints, "restore", killed_at_the_second)
    with Checkpoints(folder) as checkpoints, pytest.raises(KeyboardInterrupt):
        checkpoints.restore_newest(_on_one_device())
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]


def test_a_checkpoint_from_before_there_were_fingerprints_is_used_with_a_warning(folder):
    with ocp.CheckpointManager(folder) as manager:
        manager.save(10, args=ocp.args.StandardSave(_noise(10)))
    with pytest.warns(UserWarning, match="10 has no fingerprint"), Checkpoints(folder) as checkpoints:
        step, state = checkpoints.restore_newest(_on_one_device())
        checkpoints.save(20, state)
    np.testing.assert_array_equal(state["weight"], _noise(step)["weight"])
    assert step == 10
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]


def test_a_checkpoint_that_can_be_read_and_holds_other_numbers_is_refused(folder, monkeypatch):
    monkeypatch.setattr("ladder.training.checkpoint.fingerprint", lambda state: np.uint32([1, 2]))
    _save(folder, 10)
    monkeypatch.undo()
    with (
        Checkpoints(folder) as checkpoints,
        pytest.raises(Damaged, match="10 is damaged: it holds other numbers"),
    ):
        checkpoints.restore(10, _on_one_device())


@pytest.mark.parametrize("error", [PermissionError("no"), ValueError("UNAVAILABLE: HTTP response code: 503")], ids=str)
def test_a_storage_that_cannot_be_reached_is_no_damage(folder, monkeypatch, error):
    _save(folder, 10)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointHandler.restore", fail)
    with Checkpoints(folder) as checkpoints, pytest.raises(type(error)):
        checkpoints.restore_newest(_on_one_device())
    assert (folder / "10").exists()


@given(st.data())
def test_a_change_of_any_one_element_changes_the_fingerprint_of_its_leaf_alone(data):
    dtype = data.draw(st.sampled_from(["float32", "bfloat16", "int32", "uint8"]))
    bits = np.random.default_rng(0).integers(0, 256, 6 * jnp.dtype(dtype).itemsize, np.uint8)
    state = {"a": jnp.arange(3), "b": jnp.asarray(bits.view(jnp.dtype(dtype)).reshape(2, 3))}
    place, flip = data.draw(st.integers(0, len(bits) - 1)), data.draw(st.integers(1, 255))
    changed = bits.copy()
    changed[place] ^= flip
    other = {"a": state["a"], "b": jnp.asarray(changed.view(jnp.dtype(dtype)).reshape(2, 3))}
    np.testing.assert_array_equal(fingerprint(state) == fingerprint(other), [True, False])
    on_device = jax.jit(lambda state: [_fingerprint(leaf) for leaf in jax.tree.leaves(state)])
    np.testing.assert_array_equal(fingerprint(state), on_device(state))


def test_the_fingerprint_knows_where_an_element_stands():
    a, b = fingerprint({"a": jnp.arange(6.0).reshape(2, 3)}), fingerprint({"a": jnp.arange(6.0)[::-1].reshape(2, 3)})
    assert a != b
