"""Tokenizers give Hugging Face's ids, end texts, come back exactly, and are trained the same every time."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder import config_file
from ladder import plan as plans
from ladder.corpus import prepare
from tasks.text import tokenizer, vocab

TEXTS = ("", " a", "Hello, world!\n\n  indented\t", "naïve 漢字 🙂", "x" * 300, "def f(x):\n        return x  # 25")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tokenizer of 300 ids."""
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    path.write_text(tokenizer.train(_documents(), 300))
    return path


def _documents():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 6)) for _ in range(50)]
    return [" ".join(rng.choice(words, 200)).encode() for _ in range(20)]


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_neox"])
def test_ids_are_those_of_the_published_tokenizers(shared, name):
    folder = shared / "parity" / "icl" / name
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = vocab.load(str(folder))
    assert ours.vocab_size == vocab.size(str(folder / "tokenizer.json")) == theirs.get_vocab_size()
    assert ours.eos_id == 0
    for text in TEXTS:
        ids = theirs.encode(text).ids
        assert list(ours.encode(text)) == ids
        assert ours.encode_tf(tf.constant(text)).numpy().tolist() == ids
        assert ours.decode(ids) == text
    assert ours.decode_tf(tf.constant(theirs.encode("a b").ids)).numpy() == b"a b"


def test_the_papers_tokenizer_has_the_known_ids(shared):
    neox = vocab.load(str(shared / "parity" / "icl" / "tokenizer_neox"))
    assert neox.vocab_size == 50_277
    assert (neox.encode(" a"), neox.encode("\n")) == ([247], [187])
    assert neox.decode([247, 50_300, 247]) == " a"  # past the last id, as padded tables have: the end


@settings(max_examples=60)
@given(st.text())
def test_every_text_comes_back_from_a_trained_tokenizer_as_transformers_has_it(trained, text):
    vocabulary = vocab.load(str(trained))
    ids = vocabulary.encode(text)
    assert ids == tokenizers.Tokenizer.from_file(str(trained)).encode(text).ids
    assert vocabulary.decode(ids) == text


SPECIAL = "<|endoftext|> and <|padding|></s>"


def test_letters_of_a_special_token_are_text_and_end_nothing(trained, tmp_path):
    vocabulary = vocab.load(str(trained))
    ids = vocabulary.encode(SPECIAL)
    assert vocabulary.eos_id not in ids and min(ids) > 1 and vocabulary.decode(ids) == SPECIAL
    assert vocabulary.encode_tf(tf.constant(SPECIAL)).numpy().tolist() == ids
    for name in ("bytes", "ascii"):
        assert vocab.load(name).eos_id not in vocab.load(name).encode(SPECIAL)


def test_letters_of_a_special_token_are_text_to_a_sentencepiece_model(tmp_path):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(f"{document.decode()} and/or <a|b> padding soxt" for document in _documents()),
        model_prefix=str(tmp_path / "model"),
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    vocabulary = vocab.load(str(tmp_path / "model.model"))
    ids = vocabulary.encode(SPECIAL)
    assert vocabulary.eos_id not in ids and vocabulary.decode(ids) == SPECIAL


def test_a_trained_tokenizer_is_the_same_every_time_and_shortens_its_corpus(trained):
    assert tokenizer.train(_documents(), 300) == trained.read_text()
    vocabulary = vocab.load(str(trained))
    assert (vocabulary.vocab_size, vocabulary.eos_id) == (300, 0)
    document = _documents()[0].decode()
    assert len(vocabulary.encode(document)) < len(document) / 1.5


def test_training_reads_no_more_than_it_is_told(trained):
    def endless():
        while True:
            yield from _documents()

    assert json.loads(tokenizer.train(endless(), 270, max_bytes=50_000))["model"]["type"] == "BPE"


@pytest.mark.parametrize(
    ("documents", "size", "message"),
    [([b"abc"], 100, "choose at least 258"), ([b"abc"], 400, "gives 2.. ids and not 400"), ([], 300, "give more text")],
)
def test_training_on_too_little_is_refused(documents, size, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.train(documents, size)


def test_the_end_of_a_text_is_the_one_its_settings_name(trained, tmp_path):
    inner = tokenizers.Tokenizer.from_file(str(trained))
    inner.add_special_tokens(["<stop>"])
    (tmp_path / "tokenizer.json").write_text(inner.to_str())
    assert vocab.load(str(tmp_path)).eos_id == 0
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<stop>"}}))
    assert vocab.load(str(tmp_path)).eos_id == 300
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<nothing>"}))
    with pytest.raises(ValueError, match="no end-of-text token to put between documents; name it as eos_token"):
        vocab.load(str(tmp_path))


def test_files_that_are_no_tokenizers_are_refused(tmp_path):
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match=r"broken\.json': not a tokenizer\.json"):
        vocab.load(str(tmp_path / "broken.json"))
    with pytest.raises(ValueError, match=r"no such file; give 'bytes', 'ascii', a tokenizer\.json"):
        vocab.load(str(tmp_path / "nowhere.json"))


@pytest.fixture
def bucket(monkeypatch):
    """gs:// in the memory of this process."""
    from etils.epath import backend, gpath
    from fsspec.implementations.memory import MemoryFileSystem

    memory = MemoryFileSystem(global_store=False, skip_instance_cache=True)
    monkeypatch.setattr(gpath, "_is_tf_installed", lambda: False)
    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda self, name: memory)


def test_tokenizers_are_trained_into_and_read_from_buckets(bucket, trained, tree, write_config):
    out = epath.Path("gs://bucket/made/tokenizer.json")
    prepare.train_tokenizer(config_file.load(write_config(tree)), 280, out)
    for name in (str(out), "gs://bucket/made"):
        assert (vocab.size(name), vocab.load(name).eos_id) == (280, 0)
    inner = tokenizers.Tokenizer.from_str(out.read_text())
    assert vocab.load(str(out)).encode("let a be") == inner.encode("let a be").ids
    (out.parent / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|padding|>"}))
    assert vocab.load(str(out)).eos_id == 1
    with pytest.raises(ValueError, match=r"'gs://bucket/nowhere\.json': no such file"):
        vocab.load("gs://bucket/nowhere.json")
    with pytest.raises(ValueError, match="exists; remove it"):
        prepare.train_tokenizer(config_file.load(write_config(tree)), 280, out)


def test_a_name_of_the_hub_that_cannot_be_reached_is_refused_clearly(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def unreachable(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("cannot find the requested files")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(
        ValueError, match=r"'someone/something' is no file here, and Hugging Face does not give its tok"
    ):
        vocab.load("someone/something")


def test_what_the_hubs_own_client_fetched_before_is_read_without_a_network(monkeypatch, trained, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    held, commit = tmp_path / "models--someone--something", "a" * 40
    (held / "refs").mkdir(parents=True)
    (held / "refs" / "main").write_text(commit)
    snapshot = held / "snapshots" / commit
    snapshot.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"'someone/something' is no file here, .* give the path of a tokenizer\.json"):
        vocab.size("someone/something")
    (snapshot / "tokenizer.json").write_text(trained.read_text())
    assert (vocab.size("someone/something"), vocab.load("someone/something").eos_id) == (300, 0)
    (snapshot / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|padding|>"}))
    assert vocab.load("someone/something").eos_id == 1


def test_a_name_of_the_hub_is_fetched_once(monkeypatch, trained):
    import huggingface_hub
    from huggingface_hub import errors

    asked = []

    def download(repo_id, file, local_files_only=False):
        asked.append((repo_id, file, local_files_only))
        if local_files_only and len(asked) == 1:
            raise errors.LocalEntryNotFoundError("not fetched yet")
        return str(trained.parent / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert vocab.size("someone/something") == 300
    assert asked[:2] == [("someone/something", "tokenizer.json", local) for local in (True, False)]


@pytest.mark.parametrize("name", ["bytes", "ascii"])
def test_built_in_vocabularies_are_written_as_tokenizers_with_the_same_ids(tmp_path, name):
    ids = vocab.write_for_transformers(name, epath.Path(tmp_path))
    assert ids == {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    theirs, ours = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")), vocab.load(name)
    assert theirs.get_vocab_size() == ours.vocab_size
    for text in TEXTS:
        assert theirs.encode(text).ids == list(ours.encode(text))
        if name == "bytes" or text.isascii():
            assert theirs.decode(theirs.encode(text).ids) == text


def test_a_ladders_corpus_trains_its_own_vocabulary(tree, write_config, tmp_path):
    out = epath.Path(tmp_path / "made" / "tokenizer.json")
    prepare.train_tokenizer(config_file.load(write_config(tree)), 280, out)
    assert vocab.size(str(out)) == 280
    with pytest.raises(ValueError, match="exists; remove it"):
        prepare.train_tokenizer(config_file.load(write_config(tree)), 280, out)
    config = config_file.load(write_config(tree), [f"corpus.vocabulary={out}"])
    specs = plans.plan(config, vocab.size(config.corpus.vocabulary))
    assert {spec.decoder.vocab_size for spec in specs} == {280}
