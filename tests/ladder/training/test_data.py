"""Batches are a pure function of (seed, step): one order for all batch sizes, each pass a permutation."""

import threading

import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from ladder.training.data import Batches
from ladder.training.pool import Part, write_mixture
from tasks import store


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Writes R records, each of which holds its own number."""

    def write(records: int) -> epath.Path:
        folder = epath.Path(tmp_path_factory.mktemp("records"))
        store.write(folder / "text", np.arange(records, dtype=np.uint16)[:, None] * np.ones(3, np.uint16))
        write_mixture(folder, [Part(1.0, "text")])
        return folder

    return write


def _order(path, batch_size: int, seed: int, records: int) -> np.ndarray:
    """Numbers of the first records that are read, in order."""
    batches = Batches(path, batch_size, seed)
    return np.concatenate([batches(step)[:, 0] for step in range(-(-records // batch_size))])[:records]


def test_a_batch_has_the_asked_shape_and_type(numbered):
    batch_BxT = Batches(numbered(10), 4, 0)(0)
    assert batch_BxT.shape == (4, 3) and batch_BxT.dtype == np.int32


def test_a_batch_depends_on_seed_and_step_alone(numbered):
    path = numbered(40)
    forward, backward = Batches(path, 6, 1), Batches(path, 6, 1)
    ahead = {step: forward(step) for step in range(30)}
    for step in reversed(range(30)):
        np.testing.assert_array_equal(backward(step), ahead[step])


def test_batches_on_a_mesh_come_in_order_and_are_read_before_they_are_asked_for(numbered, monkeypatch):
    batches, read = Batches(numbered(40), 6, 1), threading.Event()
    expected = [batches(step) for step in range(3, 20)]
    on_mesh = batches.on_mesh(range(3, 20), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    plain = Batches.__call__
    monkeypatch.setattr(
        Batches, "__call__", lambda self, step, rows: (step == 4 and read.set()) or plain(self, step, rows)
    )
    np.testing.assert_array_equal(next(on_mesh), expected[0])
    assert read.wait(60)
    for batch_BxT, expected_BxT in zip(on_mesh, expected[1:], strict=True):
        np.testing.assert_array_equal(batch_BxT, expected_BxT)


def test_a_read_that_fails_fails_where_its_batch_is_asked_for(numbered, monkeypatch):
    def fails(self, step, rows):
        raise OSError(f"no batch {step}")

    on_mesh = Batches(numbered(40), 6, 1).on_mesh(range(9), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    monkeypatch.setattr(Batches, "__call__", fails)
    with pytest.raises(OSError, match="no batch 0"):
        next(on_mesh)


@given(records=st.integers(1, 50), seed=st.integers(0, 2**32 - 1), batch_sizes=st.tuples(*[st.integers(1, 70)] * 2))
def test_runs_of_any_batch_size_read_one_order_whose_passes_are_permutations(numbered, records, seed, batch_sizes):
    path = numbered(records)
    order, other = (_order(path, batch_size, seed, 3 * records) for batch_size in batch_sizes)
    np.testing.assert_array_equal(order, other)
    for epoch_R in order.reshape(3, records):
        np.testing.assert_array_equal(np.sort(epoch_R), np.arange(records))


def test_passes_and_seeds_differ(numbered):
    path = numbered(100)
    first_R, second_R = _order(path, 10, 0, 200).reshape(2, 100)
    assert (first_R != second_R).any()
    assert (first_R != _order(path, 10, 1, 100)).any()


def test_records_of_another_tokenizer_are_refused_when_they_are_read(workdir, token_RxT):
    largest = int(token_RxT.max())
    assert Batches(workdir.train_records, 300, 0, ids=largest + 1)(0).max() == largest
    with pytest.raises(
        ValueError, match=rf"train/text holds the id {largest} and the model knows {largest}: these records"
    ):
        Batches(workdir.train_records, 300, 0, ids=largest)(0)
