"""The pool: what a run reads is fixed by the config and the run, and not by the runs that stand beside it."""

import json

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from ladder.training import order
from ladder.training.data import Batches
from ladder.training.pool import Part, Pool, sizes, write_mixture
from tasks import store

SEQUENCES = 5


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Writes parts of so many records, each of which holds its part and its number."""

    def write(counts, parts, epochs=1):
        folder = epath.Path(tmp_path_factory.mktemp("pool"))
        for number, count in enumerate(counts):
            record_Rx2 = np.stack([np.full(count, number), np.arange(count)], axis=1).astype(np.uint16)
            store.write(folder / parts[number].records, record_Rx2)
        write_mixture(folder, parts, epochs)
        return folder

    return write


def _read(folder, steps, seed):
    batches = Batches(folder, SEQUENCES, seed, steps)
    return np.concatenate([batches(step) for step in range(steps)])


parts_of_pools = st.lists(st.tuples(st.floats(0.1, 1), st.integers(1, 60)), min_size=1, max_size=3).map(
    lambda some: [Part(rate, f"part{number}", records) for number, (rate, records) in enumerate(some)]
)


@given(
    parts=parts_of_pools,
    epochs=st.integers(1, 3),
    steps=st.integers(1, 60),
    more=st.lists(st.integers(0, 200), min_size=3, max_size=3),
    seed=st.integers(0, 9),
)
def test_records_that_a_larger_run_adds_change_nothing_of_what_a_run_reads(numbered, parts, epochs, steps, more, seed):
    enough = sizes(parts, epochs, steps * SEQUENCES, seed)
    small = numbered(enough, parts, epochs)
    large = numbered([own + extra for own, extra in zip(enough, more, strict=False)], parts, epochs)
    np.testing.assert_array_equal(_read(small, steps, seed), _read(large, steps, seed))


@given(parts=parts_of_pools, epochs=st.integers(1, 3), steps=st.integers(1, 60), seed=st.integers(0, 9))
def test_a_run_has_the_configs_pool_or_as_much_as_it_needs(numbered, parts, epochs, steps, seed):
    enough = sizes(parts, epochs, steps * SEQUENCES, seed)
    drawn = order.Mixing([part.rate for part in parts], seed).drawn(steps * SEQUENCES)
    for part, own, need in zip(parts, enough, drawn, strict=True):
        assert own == max(part.pool_records, -(-need // epochs))
    read = _read(numbered(enough, parts, epochs), steps, seed)
    assert max(np.unique(read, axis=0, return_counts=True)[1]) <= epochs


def test_runs_that_need_no_more_than_the_pool_read_one_order_whatever_their_lengths(numbered):
    folder = numbered([50], [Part(1.0, "part0", 40)])
    long, short = _read(folder, 8, 3), _read(folder, 4, 3)
    np.testing.assert_array_equal(long[: len(short)], short)
    assert set(long[:, 1]) == set(range(40))
    assert set(_read(folder, 10, 3)[:, 1]) == set(range(50))


def test_a_mixture_from_before_there_were_pools_is_read_as_it_was(numbered):
    folder = numbered([30], [Part(1.0, "part0")])
    (folder / "mixture.json").write_text(json.dumps({"parts": [{"rate": 1.0, "records": "part0"}]}))
    expected = order.record(np.arange(4 * SEQUENCES), 30, 1)
    np.testing.assert_array_equal(_read(folder, 4, 1)[:, 1], expected)


ORIGIN = {
    "kind": "text",
    "options": {"path": "/here", "held_out": 0.1},
    "vocabulary": "tokenizer.json",
    "vocabulary_sha256": "v",
    "record_length": 16,
    "sample_seed": 0,
    "shards": None,
    "files": {"a.txt": "7 bytes, sha256 a"},
}


def test_a_pool_is_described_by_its_content_and_not_by_where_it_lies(numbered, spec):
    def described(changes):
        folder = numbered([1000], [Part(1.0, "part0", 500)])
        (folder / "part0" / "origin.json").write_text(json.dumps(ORIGIN | changes))
        return Pool(folder).described(spec)

    known = described({})
    assert known == [{"rate": 1.0, "records": 500, "origin": known[0]["origin"]}]
    places = {"options": {"path": "gs://there", "held_out": 0.1}, "vocabulary": "moved.json", "shards": ["a"]}
    assert described(places) == known
    for changes in (
        {"kind": "jsonl"},
        {"options": {"path": "/here", "held_out": 0.2}},
        {"vocabulary_sha256": "w"},
        {"record_length": 17},
        {"sample_seed": 1},
        {"files": {"a.txt": "7 bytes, sha256 b"}},
        {"files": {**ORIGIN["files"], "b.txt": "0 bytes"}},
    ):
        assert described(changes) != known, changes
    assert Pool(numbered([1000], [Part(1.0, "part0", 500)])).described(spec) is None
