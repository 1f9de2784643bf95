"""Vocabularies: the byte ids, a SentencePiece model from a path, refusals."""

import pytest
import sentencepiece

from tasks.text import vocab


def test_bytes_have_the_ids_of_byt5():
    bytes_ = vocab.load("bytes")
    assert (bytes_.vocab_size, bytes_.pad_id, bytes_.eos_id, bytes_.unk_id) == (259, 0, 1, 2)
    assert bytes_.encode("\x00A\x7f") == [3, 68, 130]
    assert bytes_.encode("é") == [0xC3 + 3, 0xA9 + 3]
    assert bytes_.encode_tf("aé").numpy().tolist() == bytes_.encode("aé")


def test_ascii_keeps_what_can_be_printed_and_no_more():
    ascii_ = vocab.load("ascii")
    assert (ascii_.vocab_size, ascii_.pad_id, ascii_.eos_id, ascii_.unk_id) == (100, 0, 1, 2)
    text = "def f(x):\n\treturn ~x"
    assert ascii_.decode(ascii_.encode(text)) == text
    assert ascii_.encode("é\r") == [2, 2]
    assert ascii_.encode_tf("a\n~é").numpy().tolist() == ascii_.encode("a\n~é")


@pytest.mark.parametrize("name", ["bytes", "ascii"])
def test_a_size_known_without_tensorflow_is_the_vocabularys(name):
    assert vocab.size(name) == vocab.load(name).vocab_size


def _train_model(path, eos_id):
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the quick brown fox", "jumps over the lazy dog"] * 20),
            model_writer=file,
            vocab_size=30,
            pad_id=0,
            eos_id=eos_id,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    return str(path)


def test_a_path_is_a_sentencepiece_model(tmp_path):
    loaded = vocab.load(_train_model(tmp_path / "words.model", eos_id=1))
    assert (loaded.vocab_size, loaded.eos_id) == (30, 1)
    assert loaded.decode(loaded.encode("the lazy fox")) == "the lazy fox"


def test_what_is_no_vocabulary_is_refused_with_its_path(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.model.*no such file.*'bytes'"):
        vocab.load(str(tmp_path / "nowhere.model"))
    (tmp_path / "broken.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"broken\.model.*not a SentencePiece model"):
        vocab.load(str(tmp_path / "broken.model"))
    with pytest.raises(ValueError, match=r"endless\.model.*no end-of-text"):
        vocab.load(_train_model(tmp_path / "endless.model", eos_id=-1))
