"""Whatever a file holds, it is read rightly or refused in one line that names the place; nothing hangs."""

import codecs
import functools
import gzip
import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

import watchdog
from tasks import messages
from tasks.text import corpora, documents, encoding, json_lines, records, tokenizer, vocab
from tasks.text.tokenizer_vocabulary import TokenizerVocabulary

BYTES, ASCII = vocab.load("bytes"), vocab.load("ascii")
LONGEST_REFUSAL = 600
READERS = {
    "a.txt": documents.text,
    "a.jsonl": functools.partial(documents.jsonl, field="text"),
    "a.jsonl.gz": functools.partial(documents.jsonl, field="text"),
    "a.jsonl.zst": functools.partial(documents.jsonl, field="text"),
    "a.jsonl.bz2": functools.partial(documents.jsonl, field="text"),
    "a.parquet": functools.partial(documents.parquet, field="text"),
}
TEXTS = st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def watched():
    with watchdog.watched():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("documents")


def _read(folder, name, content):
    """The documents of a file of this content, or the refusal."""
    path = folder / name
    path.write_bytes(content)
    try:
        return [document for read in READERS[name](str(path)).whole().values() for document in read()]
    except ValueError as error:
        told = str(error)
        assert told.startswith(str(path)) and "\n" not in told and len(told) < LONGEST_REFUSAL, told
        return told


def _packed(name, content):
    sink = pyarrow.BufferOutputStream()
    ending = f".{name.rpartition('.')[2]}"
    if ending not in documents.COMPRESSIONS:
        return content
    with pyarrow.CompressedOutputStream(sink, documents.COMPRESSIONS[ending]) as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


def _parquet(texts, type_=None):
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, type_)}), sink, row_group_size=3)
    return sink.getvalue().to_pybytes()


def _with_text(texts):
    return [text for text in texts if text.strip()]


@given(
    texts=TEXTS,
    name=st.sampled_from([name for name in READERS if "jsonl" in name]),
    end=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]),
    last=st.booleans(),
    mark=st.sampled_from([b"", codecs.BOM_UTF8]),
    escaped=st.booleans(),
)
def test_json_lines_give_their_texts_whatever_ends_packs_and_escapes_them(
    folder, texts, name, end, last, mark, escaped
):
    lines = [json.dumps({"id": 1, "text": text}, ensure_ascii=escaped) for text in texts]
    content = mark + (end.join(lines) + (end if last else "")).encode()
    read = _read(folder, name, _packed(name, content))
    assert _with_text(document.decode() for document in read) == _with_text(texts)


@given(texts=TEXTS, type_=st.sampled_from([pyarrow.string(), pyarrow.large_string()]))
def test_parquet_gives_its_texts(folder, texts, type_):
    read = _read(folder, "a.parquet", _parquet(texts, type_))
    assert _with_text(document.decode() for document in read) == _with_text(texts)


@given(text=st.text(), encoding_=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"]))
def test_a_text_file_gives_all_its_text_or_the_byte_that_is_none(folder, text, encoding_):
    content = text.encode(encoding_, errors="ignore")
    read = _read(folder, "a.txt", content)
    try:
        whole = content.decode()
    except UnicodeDecodeError as error:
        assert f"a.txt: not UTF-8 at byte {error.start}" in read
    else:
        assert b"".join(read).decode() == whole


@settings(max_examples=200)
@given(content=st.binary(max_size=200), name=st.sampled_from(list(READERS)))
def test_random_bytes_are_text_or_refused_in_one_line(folder, content, name):
    read = _read(folder, name, content)
    assert isinstance(read, str) or all(document.decode().encode() == document for document in read)


@settings(max_examples=200)
@given(
    name=st.sampled_from(list(READERS)),
    place=st.floats(0, 1, exclude_max=True),
    damage=st.sampled_from(["cut", "flip", "zero", "twice"]),
    bit=st.integers(0, 7),
)
def test_a_damaged_file_is_read_or_refused_in_one_line(folder, name, place, damage, bit):
    texts = [f"text {number} " + "some words of it " * 20 for number in range(20)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    content = _parquet(texts) if name == "a.parquet" else _packed(name, lines)
    at = int(place * len(content))
    content = {
        "cut": content[:at],
        "flip": content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :],
        "zero": content[:at] + b"\0" * len(content[at:]),
        "twice": content[:at] + content,
    }[damage]
    read = _read(folder, name, content)
    assert isinstance(read, str) or all(document.decode().encode() == document for document in read)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (rb'{"text": "half a smile \ud83d"}', r"field 'text' holds \ud83d alone at character 13, half of a character"),
        (
            b'{"text": "caf\xe9"}',
            "no JSON object with a field 'text' ('utf-8' codec can't decode byte 0xe9 in position 13",
        ),
        (b'{"text": "a"', "no JSON object with a field 'text' (Expecting ',' delimiter"),
        (b'{"text": "nul\0"}', "(Invalid control character at"),
        (b'{"text": ' + b"[" * 200_000, "nested too deep"),
        (b'{"text": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deep"),
        (b'{"text": 3}', "field 'text' holds int, not text"),
        (b'{"text": ' + b"9" * 5000 + b"}", "Exceeds the limit"),
        (b'{"text": null}', "field 'text' holds NoneType, not text"),
        (b'{"text": ["a"]}', "field 'text' holds list, not text"),
        (b'["text"]', "no JSON object with a field 'text'"),
        (b'{"body": "' + b"a" * 228_000 + b'"}', "no JSON object with a field 'text'"),
        (b'{"text": "' + b"a" * 228_000 + b'\xff"}', "can't decode byte 0xff in position 228010"),
        ('{"text": "a"}'.encode("utf-16"), "can't decode byte 0xff in position 0"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_line_that_cannot_be_read_is_named_by_file_and_number(folder, line, why):
    told = _read(folder, "a.jsonl", b'{"text": "fine"}\n\n' + line + b'\n{"text": "fine too"}\n')
    assert told.startswith(f"{folder}/a.jsonl, line 3: ") and why in told


def test_whole_characters_in_halves_nul_and_a_huge_document_are_text(folder):
    huge = "0123456789\0" * 500_000
    lines = [r'{"text": "\ud83d\ude00"}', r'{"text": "a\u0000b"}', json.dumps({"text": huge})]
    read = _read(folder, "a.jsonl", "\n".join(lines).encode())
    assert [document.decode() for document in read] == ["😀", "a\0b", huge]
    assert encoding.encode(BYTES, read)[1].tolist() == [ord("a") + 3, 3, ord("b") + 3]


def test_a_row_of_parquet_that_is_not_text_is_named(folder):
    column = pyarrow.array([b"fine", b"caf\xe9"], pyarrow.binary())
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": column.cast(pyarrow.string(), safe=False)}), sink)
    assert ", row 2: 'text' is not UTF-8 at byte 3" in _read(folder, "a.parquet", sink.getvalue().to_pybytes())
    assert ", row 1: 'text' holds bytes, not text" in _read(folder, "a.parquet", _parquet([b"a"], pyarrow.binary()))


@given(texts=TEXTS, length=st.integers(1, 20))
def test_records_are_the_documents_each_ended_and_nothing_else(texts, length):
    texts = ["one", *_with_text(texts)]
    source = documents.ShardedSource({"train": {"one": lambda: (text.encode() for text in texts)}})
    task = corpora._text_task("texts", source, BYTES)
    stream = np.concatenate([example["targets"] for example in records.examples(task, "train")])
    assert stream[stream > 1].astype(int).tolist() == [byte + 3 for text in texts for byte in text.encode()]
    assert (stream == BYTES.eos_id).sum() == len(texts)
    packed = list(records.pack([stream], length))
    whole = len(stream) // (length + 1) * (length + 1)
    assert np.concatenate(packed or [np.zeros((0, length + 1), int)]).ravel().tolist() == stream[:whole].tolist()


@pytest.fixture(scope="module")
def trained(folder):
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.train([b"some words to learn, some words"] * 20, 262))
    return vocab.load(str(path))


@settings(max_examples=60)
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), max_size=5))
def test_ids_are_those_of_the_vocabulary_in_python_and_in_tensorflow(trained, texts):
    for vocabulary in (BYTES, ASCII, trained):
        made = encoding.encode(vocabulary, [text.encode() for text in texts])
        assert [ids.tolist() for ids in made] == [list(vocabulary.encode(text)) for text in texts]
        assert all(
            ids.tolist() == vocabulary.encode_tf(tf.constant(text)).numpy().tolist()
            for ids, text in zip(made, texts, strict=True)
        )
        assert all(ids.dtype == np.int32 for ids in made)


def test_marks_of_a_vocabulary_are_no_characters_of_a_text():
    assert encoding.encode(ASCII, ["a\0\ue004\ue005é\n".encode()])[0].tolist() == [*ASCII.encode("a"), 2, 2, 2, 2, 4]


def _closed(model, folder):
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    (folder / "tokenizer.json").write_text(inner.to_str())
    return inner


KNOWN = ["</s>", "alpha", "beta"]
CLOSED = {
    "WordLevel": models.WordLevel({word: i for i, word in enumerate(KNOWN)}, unk_token="[UNK]"),
    "WordPiece": models.WordPiece({word: i for i, word in enumerate(KNOWN)}, unk_token="[UNK]"),
    "Unigram": models.Unigram([(word, -1.0) for word in [*KNOWN, *"alphabet"]]),
}


@pytest.mark.parametrize("model", CLOSED.values(), ids=CLOSED)
def test_a_tokenizer_without_an_unknown_token_is_refused_when_it_is_loaded_and_when_it_is_met(model, tmp_path):
    inner = _closed(model, tmp_path)
    for load in (vocab.load, vocab.size):
        with pytest.raises(ValueError, match=r"tokenizer\.json' cannot hold every text: .*; give it an unknown token"):
            load(str(tmp_path))
    vocabulary = TokenizerVocabulary(tokenizer.Tokenizer(inner, 0))
    (tmp_path / "text").mkdir()
    for number in range(60):
        (tmp_path / "text" / f"{number:02}.txt").write_text("gamma " * 9000 if number == 47 else "alpha beta")
    task = corpora.build("text", vocabulary, path=str(tmp_path / "text"), held_out=0.0).train
    with pytest.raises(ValueError, match="cannot encode a text that begins 'gamma gamma") as refusal:
        list(records.examples(task, "train"))
    assert len(str(refusal.value)) < LONGEST_REFUSAL
    for _ in range(10):  # as other trainers read it; this hung in most runs
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"cannot encode a text that begins .{1,3}gamma gamma"):
            list(task.get_dataset(None, "train", shuffle=False).as_numpy_iterator())


def test_a_tokenizer_that_leaves_out_what_it_does_not_know_is_warned_of(tmp_path):
    _closed(models.BPE({"</s>": 0, "a": 1}, []), tmp_path)
    with pytest.warns(UserWarning, match="leaves out what it does not know, such as 'qzxjvwk'; give it an unknown"):
        vocab.load(str(tmp_path))


def test_other_trainers_are_told_which_document_cannot_be_read(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' * 200 + "{\n" + '{"text": "fine"}\n' * 200)
    task = corpora.build("jsonl", BYTES, path=str(tmp_path), held_out=0.0).train
    for _ in range(10):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"a\.jsonl, line 201: no JSON object"):
            list(task.get_dataset(None, "train", shuffle=False).as_numpy_iterator())


@given(st.text(min_size=100), st.integers(100, 200))
def test_no_message_holds_a_document(text, times):
    for shown in (messages.excerpt(text * times), messages.excerpt((text * times).encode(errors="replace"))):
        assert len(shown) <= messages.MOST and len(shown.splitlines()) == 1


@given(st.binary())
def test_a_line_is_json_or_refused_in_few_words(line):
    try:
        json_lines.read(line)
    except ValueError as error:
        assert len(str(error)) < LONGEST_REFUSAL


def test_files_packed_one_after_another_are_read_to_the_end(folder):
    packed = [gzip.compress(b'{"text": "%d"}\n' % number) for number in range(3)]
    assert _read(folder, "a.jsonl.gz", b"".join(packed)) == [b"0", b"1", b"2"]
