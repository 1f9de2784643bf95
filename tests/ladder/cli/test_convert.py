"""A stranger's way with models, verb by verb: in, text, out, back in; what is refused gets one line."""

import json
import os
import pickle

import numpy as np
import pytest

import torch_files
from open_lm_weights import WIDTH, weights_of
from tasks.text import vocab

BYTES_SIZE = 259
SETTINGS = "model_norm: gain_only_lp_layer_norm\nname: tiny\nqk_norm: True\nseq_len: 48\n"


@pytest.fixture
def checkpoint(tmp_path):
    """Writes open_lm's weights, changed, with their settings; gives the path."""

    def write(change=(), settings=SETTINGS) -> str:
        weights = {name: w for name, w in (weights_of(vocab=BYTES_SIZE) | dict(change)).items() if w is not None}
        torch_files.write(tmp_path / "epoch_1.pt", {"epoch": 1, "state_dict": weights})
        (tmp_path / "params.txt").write_text(settings)
        return str(tmp_path / "epoch_1.pt")

    return write


@pytest.fixture
def refusal(ladder_):
    """The one line that a command is refused with."""

    def refused(*arguments) -> str:
        with pytest.raises(SystemExit) as exit_:
            ladder_(*map(str, arguments))
        line = exit_.value.code
        assert isinstance(line, str) and line.startswith("ladder: ") and "\n" not in line
        return line

    return refused


def test_a_model_comes_in_writes_goes_out_and_comes_back(ladder_, checkpoint, tmp_path, capsys):
    def text(folder) -> str:
        capsys.readouterr()
        ladder_("generate", "--checkpoint", str(folder), "--prompt", "ab", "--temperature", "0", "--json")
        # seqio leaves out bytes that are no text, tokenizers mark them.
        return json.loads(capsys.readouterr().out)[0]["text"].replace("\ufffd", "")

    ours, theirs, back = tmp_path / "ours", tmp_path / "theirs", tmp_path / "back"
    params = ("--params", str(tmp_path / "params.txt"))
    ladder_("convert", "open-lm", checkpoint(), *params, "--out", str(ours), "--vocabulary", "bytes")
    assert "259 ids" in capsys.readouterr().err
    written = text(ours)
    assert written
    ladder_("convert", "hugging-face", "--checkpoint", str(ours), "--out", str(theirs))
    assert "OlmoeForCausalLM" in capsys.readouterr().err
    assert {file.name for file in theirs.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    ladder_("convert", "from-hugging-face", str(theirs), "--out", str(back))
    assert text(back) == written


def test_a_tokenizer_is_trained_and_named(ladder_, tree, write_config, tmp_path, capsys):
    out = tmp_path / "tokenizer.json"
    ladder_("tokenizer", write_config(tree), "--size", "270", "--out", str(out))
    assert f"corpus.vocabulary={out}" in capsys.readouterr().err.replace("\n", "")
    assert vocab.size(str(out)) == 270


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"norm.weight": np.ones(WIDTH + 1, np.float32)}, "norm.weight has shape (13,) instead of (12,)"),
        ({"output.weight": None}, "output.weight is missing"),
        ({"layers.0.attention.bias": np.ones(WIDTH, np.float32)}, "layers.0.attention.bias is unknown"),
    ],
    ids=["shape", "missing", "extra"],
)
def test_weights_that_do_not_fit_are_named_in_one_line(refusal, checkpoint, tmp_path, change, why):
    assert why in refusal("convert", "open-lm", checkpoint(change), "--out", tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_hostile_and_broken_files_are_refused_in_one_line(refusal, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "mark"),)

    file, out = tmp_path / "epoch_1.pt", tmp_path / "w"
    torch_files.write_members(file, pickle.dumps({"state_dict": Hostile()}), {})
    assert "posix.mkdir, which does not belong in a state dict" in refusal("convert", "open-lm", file, "--out", out)
    file.write_bytes(pickle.dumps(Hostile()))
    assert "is not a zip archive" in refusal("convert", "open-lm", file, "--out", out)
    assert "no such file" in refusal("convert", "open-lm", tmp_path / "absent.pt", "--out", out)
    assert not (tmp_path / "mark").exists() and not out.exists()


def test_settings_and_vocabularies_that_do_not_fit_are_refused_in_one_line(refusal, checkpoint, tmp_path):
    file, out = checkpoint(settings="model_norm: batch_norm\n"), ("--out", tmp_path / "w")
    params = ("--params", tmp_path / "params.txt")
    assert "model_norm=batch_norm does not map" in refusal("convert", "open-lm", file, *params, *out)
    assert "absent.txt" in refusal("convert", "open-lm", file, "--params", tmp_path / "absent.txt", *out)
    torch_files.write(tmp_path / "small.pt", weights_of())
    small = ("convert", "open-lm", tmp_path / "small.pt", *out)
    assert "has 259 ids and the model only 11" in refusal(*small, "--vocabulary", "bytes")
    assert "no such file" in refusal("convert", "open-lm", file, "--vocabulary", "nowhere.model", *out)


def test_models_and_prompts_that_cannot_be_used_are_refused_in_one_line(ladder_, refusal, checkpoint, tmp_path):
    ours, params = tmp_path / "ours", tmp_path / "params.txt"
    assert "holds no model" in refusal("generate", "--checkpoint", ours, "--prompt", "a")
    assert "holds no model" in refusal("convert", "hugging-face", "--checkpoint", ours, "--out", tmp_path / "x")
    assert "holds no config.json" in refusal("convert", "from-hugging-face", ours, "--out", tmp_path / "x")
    ladder_("convert", "open-lm", checkpoint(), "--params", str(params), "--out", str(ours), "--vocabulary", "bytes")
    long = refusal("generate", "--checkpoint", ours, "--prompt", "a", "--prompt", "b" * 48)
    assert "prompt 1 has 48 tokens and fills the context of 48" in long
    assert "holds a model already" in refusal("convert", "open-lm", checkpoint(), "--out", ours)
