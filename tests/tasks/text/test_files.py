"""Files: found whatever their names, hidden ones left out, known by content, drawn in a fair order."""

import collections
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text import files
from tasks.text.files import File


def _write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"text of {name}")


def _names(path):
    return [file.name for file in files.find("text", str(path))]


def test_files_below_a_hidden_folder_are_left_out_and_a_corpus_that_lies_below_one_is_not(tmp_path):
    corpus = tmp_path / ".cache" / "corpus"
    _write(corpus, "a.txt", "b/c.txt", ".hidden.txt", ".cache/d.txt", "b/.ipynb_checkpoints/c.txt")
    assert _names(corpus) == ["a.txt", "b/c.txt"]
    assert _names(corpus / "**" / "*.txt") == ["a.txt", "b/c.txt"]
    assert _names(corpus / "*" / "*.txt") == ["b/c.txt"]
    assert _names(corpus / ".hidden.txt") == [".hidden.txt"]
    assert _names(corpus / ".cache" / "*.txt") == ["d.txt"]


@pytest.mark.parametrize("name", ["wiki [en].txt", "what?.txt", "all*.txt", "[a]/[b].txt"])
def test_a_file_named_exactly_is_found_whatever_its_name(tmp_path, name):
    _write(tmp_path, name, "other.txt", "wiki e.txt", "whatx.txt", "allx.txt")
    (file,) = files.find("text", str(tmp_path / name))
    with files.opened(file) as opened:
        assert opened.read().decode() == f"text of {name}"
    assert file.path in [found.path for found in files.find("text", str(tmp_path))]


def test_names_are_the_same_wherever_the_corpus_lies(tmp_path):
    for root in ("here", "there/deeper"):
        _write(tmp_path / root, "a/1.txt", "b/2.txt")
    for path in ("", "*/*.txt", "**/*.txt"):
        assert _names(tmp_path / "here" / path) == _names(tmp_path / "there/deeper" / path) == ["a/1.txt", "b/2.txt"]


def test_content_is_another_when_a_byte_is_and_the_same_when_only_a_date_is(tmp_path):
    _write(tmp_path, "a.txt", "b.txt")
    before = files.content(files.find("text", str(tmp_path)))
    os.utime(tmp_path / "a.txt", (0, 0))
    assert files.content(files.find("text", str(tmp_path))) == before
    (tmp_path / "a.txt").write_text("Text of a.txt")
    after = files.content(files.find("text", str(tmp_path)))
    assert after["a.txt"] != before["a.txt"] and after["b.txt"] == before["b.txt"]


def test_a_buckets_own_digests_are_taken_and_nothing_is_read(monkeypatch):
    monkeypatch.setattr(files, "opened", lambda file: pytest.fail("a bucket knows"))
    known = [File("gs://b/a", "a", 7, "md5 1"), File("gs://b/b", "b", 8, "")]
    assert files.content(known) == {"a": "7 bytes, md5 1", "b": "8 bytes"}


corpora = st.lists(st.integers(0, 5 * files.CHUNK_BYTES), min_size=1, max_size=8).map(
    lambda sizes: [File(f"/corpus/{number}", str(number), size) for number, size in enumerate(sizes)]
)


@given(corpus=corpora, seed=st.integers(0, 2**32 - 1), packed=st.booleans())
def test_every_chunk_is_drawn_once_and_of_a_packed_file_in_order(corpus, seed, packed):
    file_C, chunk_C = files.drawn(corpus, seed, lambda file: packed)
    drawn = list(zip(file_C.tolist(), chunk_C.tolist(), strict=True))
    assert sorted(drawn) == [(place, chunk) for place, file in enumerate(corpus) for chunk in range(file.chunks)]
    if packed:
        for place in range(len(corpus)):
            assert (np.diff(chunk_C[file_C == place]) == 1).all()


@given(corpus=corpora, seed=st.integers(0, 2**32 - 1))
def test_the_order_depends_on_seed_and_names_and_not_on_where_or_beside_what_a_file_lies(corpus, seed):
    def order(some):
        file_C, chunk_C = files.drawn(some, seed, lambda file: False)
        return [(some[place].name, chunk) for place, chunk in zip(file_C.tolist(), chunk_C.tolist(), strict=True)]

    everything = order([File("/else" + file.path, file.name, file.size_bytes) for file in reversed(corpus)])
    assert everything == order(corpus)
    rest = corpus[1:]
    assert not rest or order(rest) == [drawn for drawn in everything if drawn[0] != corpus[0].name]


def test_the_first_of_any_number_are_a_fair_sample_of_all_folders_and_of_all_of_a_file():
    folders = {"arxiv": (40, 3), "books": (2, 100), "code": (300, 1)}  # so many files of so many chunks
    corpus = [
        File(f"/{folder}/{number}", f"{folder}/{number}", chunks * files.CHUNK_BYTES)
        for folder, (count, chunks) in folders.items()
        for number in range(count)
    ]
    every = sum(file.chunks for file in corpus)
    share = {folder: count * chunks / every for folder, (count, chunks) in folders.items()}
    chi_squares = []
    for seed in range(200):
        file_C, chunk_C = files.drawn(corpus, seed, lambda file: False)
        drawn = collections.Counter(corpus[place].name.partition("/")[0] for place in file_C[:62].tolist())
        assert set(drawn) == set(folders)
        expected = {folder: 62 * part for folder, part in share.items()}
        # Drawn without replacement, counts scatter less than the multinomial's by (1 - 62 / every).
        scatter = sum((drawn[folder] - mean) ** 2 / mean for folder, mean in expected.items())
        chi_squares.append(scatter / (1 - 62 / every))
        if seed == 0:
            halves = np.histogram(chunk_C[file_C == 40][:50], 2, (0, 100))[0]
            assert abs(halves[0] - 25) <= 4 * 50**0.5 / 2
    # Of 200 draws from chi-square with two degrees of freedom: mean 2, variance 4.
    assert abs(np.mean(chi_squares) - 2) < 4 * (4 / 200) ** 0.5
