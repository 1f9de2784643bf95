"""Documents: every one once, whether read whole or drawn by chunks; text cut between characters, whatever it holds."""

import bz2
import collections
import gzip
import json
import math

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.text import documents, files

CHUNK_BYTES, PIECE_BYTES = 256, 64
seeds = st.integers(0, 3)
fast = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def small(monkeypatch):
    """Chunks, pieces and shards of few bytes, so that small files have many."""
    monkeypatch.setattr(files, "CHUNK_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(documents, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(documents, "SAMPLE_SHARD_BYTES", 600)


def _read(shards):
    return [document for read in shards.values() for document in read()]


def _same(collection, seed):
    """What a collection holds, which is the same drawn in any order."""
    whole, drawn = _read(collection.whole()), _read(collection.sample(seed))
    assert collections.Counter(drawn) == collections.Counter(whole)
    return whole


line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=200)
texts = st.lists(st.one_of(line, st.text("ab 漢🙂", max_size=900)), max_size=12)


@fast
@given(lines=texts, end=st.sampled_from(["\n", "\r\n", "\r", " ", ""]), seed=seeds, many=st.booleans())
@example(lines=["漢🙂" * 800], end="", seed=0, many=False)
@example(lines=["x" * 5000], end="\n", seed=1, many=True)
@example(lines=["x" * (PIECE_BYTES - 1) + "🙂"], end="", seed=0, many=False)
def test_text_is_cut_without_loss_between_characters_into_short_pieces(small, tmp_path, lines, end, seed, many):
    content = end.join(lines).encode()
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    (file,) = files.find("text", str(path))
    read = lambda file, chunks: documents.read_text(file, chunks, in_pieces=not many)  # noqa: E731
    pieces = _same(documents.Collection([file], read, lambda file: False, math.inf), seed)
    assert b"".join(pieces) == content
    for piece in pieces:
        piece.decode()
        assert len(piece) <= (CHUNK_BYTES + PIECE_BYTES if many else 2 * PIECE_BYTES)


@fast
@given(content=st.binary(max_size=2000), seed=seeds)
def test_bytes_that_are_no_utf8_are_refused_with_their_place_and_all_others_are_read(small, tmp_path, content, seed):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    collection = documents.text(str(path))
    try:
        content.decode()
    except UnicodeDecodeError as error:
        with pytest.raises(ValueError, match=rf"text\.txt: not UTF-8 at byte {error.start};"):
            _read(collection.whole())
        with pytest.raises(ValueError, match=r"text\.txt: not UTF-8 at byte \d+;"):
            _read(collection.sample(seed))
    else:
        assert b"".join(_same(collection, seed)) == content


PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}


@fast
@given(
    lines=st.lists(st.one_of(st.text(st.characters(codec="utf-8"), max_size=120), st.just("x" * 3000)), max_size=25),
    packed=st.sampled_from(list(PACKERS)),
    files_=st.integers(1, 3),
    ascii_=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    seed=seeds,
)
def test_lines_of_json_are_read_once_packed_or_not(small, tmp_path, lines, packed, files_, ascii_, end, seed):
    for old in tmp_path.iterdir():
        old.unlink()
    rows = [json.dumps({"id": 1, "text": text}, ensure_ascii=ascii_) for text in lines]
    for number in range(files_):
        content = end.join(rows[number::files_]).encode()
        (tmp_path / f"{number}.jsonl{packed}").write_bytes(PACKERS[packed](content))
    read = _same(documents.jsonl(str(tmp_path), "text"), seed)
    assert collections.Counter(read) == collections.Counter(text.encode() for text in lines)


@fast
@given(
    rows=st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=40),
    group=st.integers(1, 9),
    seed=seeds,
)
def test_rows_of_parquet_are_read_once_whatever_their_groups(small, tmp_path, rows, group, seed):
    table = pyarrow.table({"text": pyarrow.array(rows, pyarrow.string()), "other": [0.5] * len(rows)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    assert _same(documents.parquet(str(tmp_path / "a.parquet"), "text"), seed) == [row.encode() for row in rows]


@pytest.mark.parametrize("packed", PACKERS)
def test_a_line_that_is_refused_is_named_by_its_number_wherever_its_chunk_begins(small, tmp_path, packed):
    rows = [json.dumps({"text": "word " * (number % 40)}) for number in range(60)]
    rows[50] = "{"
    path = tmp_path / f"bad.jsonl{packed}"
    path.write_bytes(PACKERS[packed]("\n".join(rows).encode()))
    for shards in (documents.jsonl(str(path), "text").whole(), documents.jsonl(str(path), "text").sample(2)):
        with pytest.raises(ValueError, match=rf"bad\.jsonl{packed}, line 51: no JSON object"):
            _read(shards)


@pytest.mark.parametrize("packed", PACKERS)
def test_the_first_shards_hold_text_of_every_folder_however_large_the_others_are(small, tmp_path, packed):
    for folder, count in (("arxiv", 900), ("books", 700), ("code", 800)):
        (tmp_path / folder).mkdir()
        rows = "".join(json.dumps({"text": f"{folder} {number} {number**9}"}) + "\n" for number in range(count))
        (tmp_path / folder / f"all.jsonl{packed}").write_bytes(PACKERS[packed](rows.encode()))
    shards = list(documents.jsonl(str(tmp_path), "text").sample(0).values())
    first = [document.split()[0] for read in shards[: len(shards) // 4] for document in read()]
    assert set(first) == {b"arxiv", b"books", b"code"}
    assert len(first) < 2400 / 2


def test_a_packed_file_is_unpacked_once_whatever_the_shards_and_their_order(small, tmp_path, monkeypatch):
    for number in range(3):
        rows = "".join(json.dumps({"text": f"{number} {row} {row**9}"}) + "\n" for row in range(400))
        (tmp_path / f"{number}.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    begun = []
    lines = documents._lines
    monkeypatch.setattr(documents, "_lines", lambda file, *rest: begun.append(file.name) or lines(file, *rest))
    shards = list(documents.jsonl(str(tmp_path), "text").sample(1).values())
    assert len(shards) > 5
    texts = [list(read()) for read in shards]
    assert sorted(begun) == ["0.jsonl.gz", "1.jsonl.gz", "2.jsonl.gz"]
    assert [list(read()) for read in reversed(shards)] == texts[::-1]
    next(shards[3]())  # a reader that goes away in the middle
    assert [list(read()) for read in shards] == texts
    monkeypatch.setattr(documents, "OPEN_FILES", 1)
    assert [list(read()) for read in documents.jsonl(str(tmp_path), "text").sample(1).values()] == texts
