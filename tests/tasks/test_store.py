"""Records on disk: read by index as they were written, from a disk and from a bucket; other records are refused."""

import fsspec
import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from tasks import store


def _write(folder, shards):
    """Writes each array as one shard."""
    paths = []
    for index, record_RxT in enumerate(shards):
        path = store.shard(folder, index, len(shards))
        with store.replaced(path) as file:
            store.write_header(file, len(record_RxT), record_RxT.shape[1], record_RxT.dtype)
            file.write(record_RxT.tobytes())
        paths.append(path)
    return store.finish(folder, paths)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Records of five shards, one of them empty, and what they hold."""
    rng = np.random.default_rng(0)
    shards = [rng.integers(0, 60_000, (rows, 5)).astype(np.uint16) for rows in (7, 1, 0, 12, 3)]
    return _write(tmp_path_factory.mktemp("records"), shards), np.concatenate(shards)


@given(index=st.lists(st.integers(0, 22), max_size=40))
def test_records_are_read_by_index_whatever_their_shard(written, index):
    records, everything_RxT = written
    index_B = np.array(index, int)
    np.testing.assert_array_equal(records[index_B], everything_RxT[index_B])
    assert len(records) == 23 and records.width == 5 and records[index_B].dtype == np.uint16


def test_a_shard_is_a_file_that_numpy_opens(written):
    records, everything_RxT = written
    np.testing.assert_array_equal(np.load(epath.Path(records._folder) / "00003-of-00005.npy"), everything_RxT[8:20])


def test_of_a_bucket_only_the_records_asked_for_are_fetched(written, monkeypatch):
    local, everything_RxT = written
    bucket = fsspec.filesystem("memory")
    for path in epath.Path(local._folder).iterdir():
        bucket.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    asked = []
    cat_ranges = type(bucket).cat_ranges

    def counted(self, paths, starts, ends, **options):
        asked.extend(end - start for start, end in zip(starts, ends, strict=True))
        return cat_ranges(self, paths, starts, ends, **options)

    monkeypatch.setattr(type(bucket), "cat_ranges", counted)
    records = store.Records("memory://bucket")
    index_B = np.array([22, 0, 7, 9, 9])
    np.testing.assert_array_equal(records[index_B], everything_RxT[index_B])
    assert asked == [10] * 5


def test_records_in_memory_are_written_as_one_shard(tmp_path):
    record_RxT = np.arange(12, dtype=np.uint8).reshape(4, 3)
    np.testing.assert_array_equal(store.write(tmp_path, record_RxT)[np.arange(4)], record_RxT)
    assert store.records_in(store.shard(tmp_path, 0, 1)) == 4


def test_a_folder_is_claimed_by_one_origin(tmp_path):
    store.begin(tmp_path, {"kind": "jsonl", "shards": ["a", "b"]})
    store.begin(tmp_path, {"kind": "jsonl", "shards": ("a", "b")})
    with pytest.raises(ValueError, match=r'other records: kind is "jsonl" there and "text" here; name another folder'):
        store.begin(tmp_path, {"kind": "text", "shards": ["a", "b"]})
    with pytest.raises(ValueError, match="holds no finished records"):
        store.Records(tmp_path)


def test_a_folder_is_emptied_for_another_origin_only_where_that_is_asked_for(tmp_path):
    store.begin(tmp_path / "w", {"kind": "jsonl"})
    store.shard(tmp_path / "w", 0, 2).write_bytes(b"begun")
    store.begin(tmp_path / "w", {"kind": "jsonl"}, anew=True)
    assert store.shard(tmp_path / "w", 0, 2).exists()
    store.begin(tmp_path / "w", {"kind": "text"}, anew=True)
    assert not store.shard(tmp_path / "w", 0, 2).exists()
    store.write(tmp_path / "w", np.zeros((1, 2), np.uint8))
    store.begin(tmp_path / "w", {"kind": "text"}, anew=True)
    assert not store.is_finished(tmp_path / "w")


def test_what_is_not_written_to_its_end_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), store.replaced(tmp_path / "x.npy") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
