"""Records: every token in its place, none written twice, no half-written file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text import corpora, documents, records, vocab


@given(
    documents=st.lists(st.lists(st.integers(0, 9), max_size=30).map(np.array), max_size=20),
    record_length=st.integers(1, 12),
)
def test_packing_keeps_every_token_in_order_but_the_last_partial_record(documents, record_length):
    blocks = list(records.pack(documents, record_length))
    stream = np.concatenate(documents) if documents else np.array([])
    whole = len(stream) // (record_length + 1) * (record_length + 1)
    packed = np.concatenate(blocks) if blocks else np.empty((0, record_length + 1))
    assert packed.shape[1] == record_length + 1
    np.testing.assert_array_equal(packed.ravel(), stream[:whole])


def test_tokens_take_the_smallest_unsigned_type():
    sizes = (256, 257, 65_536, 65_537)
    assert [records.token_dtype(size) for size in sizes] == [np.uint8, np.uint16, np.uint16, np.uint32]


@pytest.fixture
def corpus(tmp_path):
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_text(chr(97 + number % 26) * (50 + number))
    return corpora.build("text", vocab.load("bytes"), path=str(tmp_path), held_out=0.3)


def _everything(records):
    return records[np.arange(len(records))]


def test_records_are_the_documents_joined_by_end_of_text(corpus, tmp_path):
    written = records.cache(corpus.train, "train", tmp_path / "cache", record_length=15)
    stream = np.concatenate([example["targets"] for example in records.examples(corpus.train, "train")])
    assert written.dtype == np.uint16 and written.width == 16
    np.testing.assert_array_equal(_everything(written).ravel(), stream[: len(stream) // 16 * 16])
    assert (stream == 1).sum() == len(list(records.examples(corpus.train, "train")))


def test_no_shard_is_begun_when_there_are_enough_records_and_more_of_them_begin_with_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "SAMPLE_SHARD_BYTES", 500)
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_text(chr(97 + number % 26) * (50 + number))
    task = corpora.build("text", vocab.load("bytes"), 0, path=str(tmp_path), held_out=0.3).train

    def cached(enough):
        told = []
        tell = lambda *event: told.append(event)  # noqa: E731
        where = {"record_length": 15, "enough_records": enough, "progress": tell}
        return records.cache(task, "train", tmp_path / "cache", **where), told

    few, told = cached(7)
    assert 7 <= len(few) < 7 + 500 // 16 and not few.is_whole
    assert told == sorted(told) and told[-1] == (0, len(few))
    first = _everything(few)
    more, told = cached(50)
    assert len(more) >= 50 and told[0][0] == 1
    np.testing.assert_array_equal(_everything(more)[: len(few)], first)
    everything, _ = cached(None)
    assert everything.is_whole
    np.testing.assert_array_equal(_everything(everything)[: len(more)], _everything(more))


def test_documents_without_text_are_left_out_and_counted(tmp_path):
    texts = [f"text {number}" if number % 3 else " \n" * (number % 2) for number in range(300)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    task = corpora.build("jsonl", vocab.load("bytes"), 0, path=str(tmp_path), held_out=0.0).train
    left_out = []
    written = records.cache(task, "train", tmp_path / "r", record_length=9, left_out=lambda: left_out.append(1))
    assert len(left_out) == 100
    token_R = _everything(written).ravel()
    assert not ((token_R[1:] == 1) & (token_R[:-1] == 1)).any()


def test_a_sample_is_drawn_over_the_documents_and_repeats_with_its_seed(corpus, tmp_path):
    def sample(seed):
        path = tmp_path / "sample.npy"
        records.write_sample(corpus.train, "validation", path, record_length=15, max_records=10, seed=seed)
        return np.load(path)

    everything = records.cache(corpus.train, "validation", tmp_path / "everything", record_length=15)
    rows = {tuple(row) for row in _everything(everything).tolist()}
    assert {tuple(row) for row in sample(0).tolist()} <= rows
    np.testing.assert_array_equal(sample(0), sample(0))
    assert not np.array_equal(sample(0), sample(1))


def test_text_shorter_than_a_record_is_refused_and_leaves_no_file(corpus, tmp_path):
    path = tmp_path / "train.npy"
    with pytest.raises(ValueError, match="split 'train': less text than one record of 100001 tokens"):
        records.cache(corpus.train, "train", tmp_path / "cache", record_length=100_000)
    with pytest.raises(ValueError, match="split 'validation': less text"):
        records.write_sample(corpus.train, "validation", path, record_length=100_000, max_records=10)
    assert not path.exists()
