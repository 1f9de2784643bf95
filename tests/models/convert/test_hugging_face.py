"""Exported models compute the same in transformers' architectures, and come back; what does not map is named."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.evaluation import convert
from models import sample, saved
from models.config import DecoderConfig
from models.convert import hugging_face
from models.decoder import Decoder
from models.sample import Sampling
from models.saved import SavedModel

PAPERS = DecoderConfig(width=24, layers=2, heads=2, vocab_size=300, ffn_multiple=8)
ROUNDED = tuple(float(10_000.0 ** (-i / 12) * 1.003) for i in range(0, 12, 2))
CONFIGS = {
    "the paper's": PAPERS,
    "the paper's, bfloat16 wavelengths": dataclasses.replace(PAPERS, inverse_wavelengths=ROUNDED),
    "no QK-norm": dataclasses.replace(PAPERS, qk_norm=False, rope_theta=500.0, norm_eps=1e-4),
    "QK-norm by head": dataclasses.replace(PAPERS, qk_norm_per_head=True),
    "grouped, tied": dataclasses.replace(PAPERS, key_heads=1, tied_embeddings=True),
    "grouped, tied, RMS": dataclasses.replace(PAPERS, norm="rms", key_heads=1, tied_embeddings=True),
    "Qwen3's": dataclasses.replace(PAPERS, norm="rms", key_heads=1, tied_embeddings=True, qk_norm_per_head=True),
    "Llama's": dataclasses.replace(PAPERS, norm="rms", key_heads=1, qk_norm=False),
    "wide heads": dataclasses.replace(PAPERS, norm="rms", key_heads=1, qk_norm_per_head=True, head_dim=20),
    "narrow heads": dataclasses.replace(PAPERS, key_heads=1, qk_norm=False, head_dim=6),
}


def params_of(c: DecoderConfig, seed: int = 0):
    """Parameters with means to take out, and no gain at 1."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(leaf.ndim == 1, (c.width + 1) ** -0.5, leaf.shape).astype(np.float32),
        saved.abstract_params(c),
    )


def logits_of(c: DecoderConfig, params, token_BxL) -> np.ndarray:
    return np.asarray(Decoder(c).apply({"params": params}, token_BxL))


@pytest.fixture
def folder(tmp_path) -> epath.Path:
    return epath.Path(tmp_path / "exported")


@pytest.fixture
def exported(folder):
    """Exports the paper's small decoder: (folder, params)."""
    params = params_of(PAPERS)
    hugging_face.export(SavedModel(PAPERS, "bytes", 64), params, folder, {"eos_token_id": 1})
    return folder, params


@settings(max_examples=12)
@given(
    config=st.sampled_from(list(CONFIGS.values())),
    layers=st.integers(1, 2),
    heads=st.sampled_from([2, 6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_exported_weights_with_root_mean_squares_alone_give_the_same_logits(config, layers, heads, seed):
    c = dataclasses.replace(config, layers=layers, heads=heads, inverse_wavelengths=None)
    params = params_of(c, seed)
    tensors = hugging_face.as_tensors(params, c)
    settings = hugging_face.as_settings(SavedModel(c, "", 64), "float32", "lm_head.weight" not in tensors)
    theirs = hugging_face.config_of(json.loads(json.dumps(settings)))
    assert theirs.norm == "rms"
    token_BxL = np.random.default_rng(seed).integers(0, c.vocab_size, (2, 9))
    ours = logits_of(c, params, token_BxL)
    again = logits_of(theirs, hugging_face.as_params(tensors, theirs), token_BxL)
    np.testing.assert_allclose(again, ours, rtol=0, atol=5e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_computes_the_same_logits_and_the_same_64_tokens(folder, name):
    torch = pytest.importorskip("torch", reason="PyTorch is only needed to compare with it")
    transformers = pytest.importorskip("transformers", reason="transformers is only needed to compare with it")
    c = CONFIGS[name]
    params = params_of(c)
    hugging_face.export(SavedModel(c, "bytes", 128), params, folder, {"eos_token_id": None, "pad_token_id": 0})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    token_BxL = np.random.default_rng(1).integers(0, c.vocab_size, (3, 40))
    with torch.no_grad():
        logits = theirs(torch.tensor(token_BxL)).logits.numpy()
    np.testing.assert_allclose(logits, logits_of(c, params, token_BxL), rtol=0, atol=1e-4)
    new = theirs.generate(torch.tensor(token_BxL[:1]), max_new_tokens=64, do_sample=False)[0, 40:].tolist()
    greedy = sample.generate(params, c, token_BxL[:1].tolist(), Sampling(0), context=128, max_tokens=64)
    assert [token for [tokens] in greedy for token in tokens] == new
    resaved = folder.parent / "resaved"
    theirs.save_pretrained(str(resaved))
    config, _, again = hugging_face.read(resaved)
    np.testing.assert_allclose(logits_of(config, again, token_BxL), logits, rtol=0, atol=1e-4)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_llama3s_wavelengths_are_kept_where_they_are_short_and_stretched_where_they_are_long():
    c = dataclasses.replace(CONFIGS["Llama's"], head_dim=128, rope_theta=500_000.0)
    settings = hugging_face.as_settings(SavedModel(c, "", 64), "float32", tied=False)
    read = hugging_face.config_of({**settings, "rope_scaling": LLAMA3})
    formula_k = 500_000.0 ** (-np.arange(0, 128, 2) / 128)
    slowed_k, wavelength_k = read.inverse_wavelengths / formula_k, 2 * np.pi / formula_k
    short_k, long_k = wavelength_k < 8192 / 4, wavelength_k > 8192 / 1
    assert 0 < short_k.sum() < (~long_k).sum() < 64
    np.testing.assert_allclose(slowed_k[short_k], 1, rtol=1e-12)
    np.testing.assert_allclose(slowed_k[long_k], 1 / 8, rtol=1e-12)
    between_k = ~short_k & ~long_k
    smooth_k = (8192 / wavelength_k[between_k] - 1) / (4 - 1)
    np.testing.assert_allclose(slowed_k[between_k], (1 - smooth_k) / 8 + smooth_k, rtol=1e-12)


@pytest.mark.parametrize("rope", [LLAMA3, {"rope_type": "linear", "factor": 3.0}, {"rope_type": "default"}], ids=str)
def test_transformers_own_models_are_computed_as_transformers_does(tmp_path, rope):
    torch = pytest.importorskip("torch", reason="PyTorch is only needed to compare with it")
    transformers = pytest.importorskip("transformers", reason="transformers is only needed to compare with it")
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=24,
            intermediate_size=70,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,
            max_position_embeddings=16384,
            rope_parameters={"rope_theta": 500_000.0, **rope},
        )
    ).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    token_BxL = np.random.default_rng(0).integers(0, 300, (2, 700))
    with torch.no_grad():
        logits = theirs(torch.tensor(token_BxL)).logits.numpy()
    config, _, params = hugging_face.read(epath.Path(tmp_path / "theirs"))
    np.testing.assert_allclose(logits_of(config, params, token_BxL), logits, rtol=0, atol=1e-4)


def test_what_no_architecture_computes_is_refused_before_anything_is_written(tmp_path):
    c = dataclasses.replace(PAPERS, head_dim=8)
    saved.save(SavedModel(c, "bytes", 64), params_of(c), epath.Path(tmp_path / "w"))
    with pytest.raises(ValueError, match="no architecture of transformers normalises 2 heads of width 8 together"):
        convert.to_hugging_face(str(tmp_path / "w"), str(tmp_path / "x"), None, print)
    assert not (tmp_path / "x").exists()


def test_the_architecture_follows_the_options():
    told = [hugging_face.architecture(CONFIGS[name]) for name in ("the paper's", "QK-norm by head", "no QK-norm")]
    assert told == ["OlmoeForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM"]


def test_weights_keep_bfloat16_where_no_means_are_taken_out(folder):
    c = CONFIGS["Llama's"]
    params = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), params_of(c))
    hugging_face.export(SavedModel(c, "", 64), params, folder, {})
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == "bfloat16"
    config, sequence_length, again = hugging_face.read(folder)
    assert (config, sequence_length) == (dataclasses.replace(c, ffn_multiple=c.ffn_width), 64)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_a_model_goes_out_with_its_tokenizer_and_comes_back(tmp_path):
    params = params_of(PAPERS)
    saved.save(SavedModel(PAPERS, "bytes", 64), params, epath.Path(tmp_path / "w"))
    assert convert.to_hugging_face(str(tmp_path / "w"), str(tmp_path / "x"), None, print) == "OlmoeForCausalLM"
    settings = json.loads((tmp_path / "x" / "config.json").read_text())
    assert (settings["eos_token_id"], settings["pad_token_id"]) == (1, 0)
    model = convert.from_hugging_face(str(tmp_path / "x"), str(tmp_path / "back"), None, print)
    loaded, again = saved.load(epath.Path(tmp_path / "back"))
    assert loaded.vocabulary == str(tmp_path / "back" / "tokenizer.json")
    token_BxL = np.arange(20)[None]
    np.testing.assert_allclose(
        logits_of(model.decoder, again, token_BxL), logits_of(PAPERS, params, token_BxL), rtol=0, atol=5e-5
    )
    with pytest.raises(ValueError, match="holds a model already"):
        convert.to_hugging_face(str(tmp_path / "w"), str(tmp_path / "x"), None, print)
    with pytest.raises(ValueError, match="holds a model already"):
        convert.from_hugging_face(str(tmp_path / "x"), str(tmp_path / "back"), None, print)


def test_a_vocabulary_larger_than_the_table_is_refused(tmp_path):
    small = dataclasses.replace(PAPERS, vocab_size=200)
    saved.save(SavedModel(small, "", 64), params_of(small), epath.Path(tmp_path / "w"))
    with pytest.raises(ValueError, match="vocabulary bytes has 259 ids and the model only 200"):
        convert.to_hugging_face(str(tmp_path / "w"), str(tmp_path / "x"), "bytes", print)
    said = []
    convert.to_hugging_face(str(tmp_path / "w"), str(tmp_path / "x"), None, said.append)
    assert "no tokenizer is written" in said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "GPT2LMHeadModel does not map onto our decoder; LlamaForCausalLM, Qwen3",
        ),
        ({"num_experts": 4}, "num_experts=4 does not map onto our decoder; it must be 1"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' does not map"),
        ({"attention_bias": True}, "attention_bias=True does not map"),
        ({"clip_qkv": 8.0}, r"clip_qkv=8\.0 does not map"),
        ({"head_dim": 16}, "normalises 2 heads of width 16 together in a model of width 24"),
        ({"head_dim": 15}, "head_dim is 15; it must be even"),
        ({"intermediate_size": 40}, "feed-forward width of 40 is less than 8/3"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rotary scaling 'yarn' does not map"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "'original_max_position_embeddings' is missing"),
        ({"hidden_size": None}, "config.json"),
    ],
    ids=str,
)
def test_settings_that_do_not_map_are_named(exported, change, message):
    folder, _ = exported
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        hugging_face.read(folder)


def test_weights_that_do_not_fit_are_named(exported):
    folder, _ = exported
    config, _, _ = hugging_face.read(folder)
    tensors = hugging_face.as_tensors(params_of(PAPERS), PAPERS)
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(24, np.float32)
    del tensors["lm_head.weight"]
    tensors["model.norm.weight"] = np.zeros(25, np.float32)
    with pytest.raises(ValueError) as refusal:
        hugging_face.as_params(tensors, config)
    for part in (
        "lm_head.weight is missing",
        "model.layers.0.self_attn.q_proj.bias is unknown",
        "model.norm.weight has shape (25,) instead of (24,)",
    ):
        assert part in str(refusal.value)


def test_folders_without_what_is_needed_are_refused(exported, tmp_path):
    folder, _ = exported
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        hugging_face.read(epath.Path(tmp_path))
    (folder / "model.safetensors").write_bytes(b"12345678 not safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        hugging_face.read(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors"):
        hugging_face.read(folder)


def test_weights_in_several_files_are_read(exported):
    import safetensors.numpy

    folder, _ = exported
    whole = hugging_face.read(folder)
    tensors = safetensors.numpy.load((folder / "model.safetensors").read_bytes())
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[:7], names[7:])):
        weight_map |= dict.fromkeys(part, f"part{i}.safetensors")
        (folder / f"part{i}.safetensors").write_bytes(safetensors.numpy.save({name: tensors[name] for name in part}))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    jax.tree.map(np.testing.assert_array_equal, hugging_face.read(folder)[2], whole[2])
