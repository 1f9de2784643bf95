"""Validation sets: every token but first ones is scored once, to the ragged end; bytes are those of the text."""

import gzip
import json

import numpy as np
import pyarrow
import pytest

from tasks.questions import validation
from tasks.questions.validation import ValidationSet
from tasks.text import corpora, published, vocab

BYTES = vocab.load("bytes")


@pytest.fixture
def task(tmp_path):
    """A set of documents of 3, 7 and 12 bytes, which are as many tokens and one at each end."""

    def of(texts=("abc", "defghij", "klmnopqrstuv"), name="set.jsonl.gz"):
        lines = "".join(json.dumps({"body": text}) + "\n" for text in texts).encode()
        (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
        return corpora.validation("own", "jsonl", BYTES, path=str(tmp_path / name), field="body")

    return of


@pytest.mark.parametrize("length", [1, 4, 7, 24, 100])
def test_every_token_is_read_once_and_all_but_first_ones_are_scored(task, tmp_path, length):
    written = validation.read(task(), "validation", record_length=length)
    assert len(written.token_T) == 25 and written.text_bytes == 22
    asked = list(written)
    joined = np.concatenate([np.concatenate([q.contexts[0], q.answers[0]]) for q in asked])
    # A lone last token has nothing before it and follows nothing.
    np.testing.assert_array_equal(joined, written.token_T[: len(joined)])
    assert len(written.token_T) - len(joined) == (25 % (length + 1) == 1)
    assert [len(q.answers[0]) for q in asked[:-1]] == [length] * (len(asked) - 1)


def test_what_is_written_is_read_and_has_its_own_hash(task, tmp_path):
    written = validation.read(task(), "validation", record_length=4)
    validation.save(written, tmp_path / "own.npz")
    loaded = validation.load(tmp_path / "own.npz")
    np.testing.assert_array_equal(loaded.token_T, written.token_T)
    assert (loaded.record_length, loaded.text_bytes, loaded.sha256) == (4, 22, written.sha256)
    assert ValidationSet(loaded.token_T, 5, 22).sha256 != written.sha256
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"other\.npz: holds \['a'\]"):
        validation.load(tmp_path / "other.npz")


def test_a_large_set_is_cut_and_its_bytes_are_counted_as_far(task, tmp_path):
    written = validation.read(task(), "validation", record_length=4, max_sequences=2)
    assert len(written.token_T) == 10 and len(list(written)) == 2
    assert written.text_bytes == round(3 + 7 * 6 / 8)


def test_the_papers_eight_sets_are_found_by_name_or_it_is_told_where_to_get_them(tmp_path, task):
    assert len(published.PAPER) == 8
    for name, source in published.PAPER.items():
        if source.kind == "jsonl":
            with pytest.raises(
                ValueError, match=f"validation set '{name}': .*no file at '{tmp_path}.*; get it from http"
            ):
                corpora.validation(name, "paper", BYTES, source=str(tmp_path))
    folder = tmp_path / "ptb" / "val"
    folder.mkdir(parents=True)
    (folder / "part-0.jsonl.zst").write_bytes(pyarrow.compress(b'{"text": "some news"}\n', "zstd", asbytes=True))
    found = corpora.validation("paloma_ptb", "paper", BYTES, source=str(tmp_path))
    assert validation.read(found, "validation", record_length=4).text_bytes == 9
    with pytest.raises(ValueError, match="validation set 'pile': is none of the paper's; they are c4_val, "):
        corpora.validation("pile", "paper", BYTES, source=str(tmp_path))


def test_a_set_that_cannot_be_read_is_refused(tmp_path, task):
    with pytest.raises(ValueError, match="validation set 'a': kind 'txt'; known: jsonl, parquet, text, tfds, paper"):
        corpora.validation("a", "txt", BYTES)
    with pytest.raises(ValueError, match="validation set 'a', kind 'jsonl': missing a required argument: 'path'"):
        corpora.validation("a", "jsonl", BYTES)
    with pytest.raises(ValueError, match="'own': no text in split 'validation'"):
        validation.read(task([""]), "validation", record_length=4)
