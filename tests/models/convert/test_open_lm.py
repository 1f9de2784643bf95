"""open_lm's checkpoints: every layout and prefix gives the same model; what does not map is refused by name."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

import torch_files
from ladder.evaluation import convert
from models import accounting, saved
from models.config import PAPER, DecoderConfig
from models.convert.open_lm import as_params, config_of, read_settings, read_weights
from models.decoder import Decoder
from open_lm_weights import FFN, LAYERS, VOCAB, WIDTH, weights_of
from reference_decoder import logits_LxV


@pytest.fixture
def checkpoint(tmp_path):
    """Writes an object as a checkpoint where open_lm puts it, and gives its path."""
    path = tmp_path / "run" / "checkpoints" / "epoch_1.pt"
    path.parent.mkdir(parents=True)

    def write(held):
        torch_files.write(path, held)
        return path

    return write


@pytest.fixture(scope="module")
def fixture(shared):
    """The run that the real open_lm saved, and what it computed."""
    folder = shared / "parity" / "open_lm" / "d96_l8_h4_v512_s64"
    with np.load(folder / "batch.npz") as batch:
        return folder, dict(batch)


@pytest.mark.parametrize("name", ["epoch_1.pt", "epoch_1_fsdp_noprefix.pt"])
def test_the_real_checkpoints_are_imported_whole_and_give_open_lms_logits(fixture, name, tmp_path):
    folder, batch = fixture
    said = []
    convert.from_open_lm(str(folder / "checkpoints" / name), None, str(tmp_path / "w"), "bytes", said.append)
    model, params = saved.load(epath.Path(tmp_path / "w"))
    assert model.decoder == DecoderConfig(width=96, layers=8, heads=4, vocab_size=512)
    assert (model.sequence_length, model.vocabulary) == (64, "bytes")
    assert model.provenance["run"] == "d96_l8_h4_v512_s64"
    assert len(model.provenance["sha256"]) == 64
    assert said == [f"settings: {folder / 'params.txt'}"]
    logits_BxLxV = jax.jit(Decoder(model.decoder).apply)({"params": params}, batch["input_ids"])
    np.testing.assert_allclose(logits_BxLxV, batch["logits"], rtol=0, atol=5e-5)


def test_both_layouts_of_the_real_checkpoint_hold_the_same_weights(fixture):
    folder, _ = fixture
    weights, again = (
        read_weights(folder / "checkpoints" / name) for name in ("epoch_1.pt", "epoch_1_fsdp_noprefix.pt")
    )
    assert weights.keys() == again.keys()
    for name, w in weights.items():
        np.testing.assert_array_equal(again[name], w)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize(
    "layout", [lambda w: w, lambda w: {"epoch": 1, "state_dict": w, "step": 2}], ids=["bare", "full"]
)
def test_every_prefix_and_layout_gives_the_same_weights(checkpoint, prefix, layout):
    weights = weights_of()
    read = read_weights(checkpoint(layout({f"{prefix}{name}": w for name, w in weights.items()})))
    assert read.keys() == weights.keys()
    for name, w in weights.items():
        np.testing.assert_array_equal(read[name], w)


@settings(max_examples=8)
@given(
    heads=st.integers(1, 4),
    half=st.integers(1, 6),
    layers=st.integers(1, 3),
    vocab=st.integers(2, 40),
    qk_norm=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_computes_what_open_lms_layout_means(heads, half, layers, vocab, qk_norm, seed):
    width = 2 * half * heads
    weights = weights_of(width, layers, heads, vocab, qk_norm=qk_norm, seed=seed)
    config = config_of(weights, {})
    assert (config.width, config.layers, config.heads, config.vocab_size) == (width, layers, heads, vocab)
    assert (config.ffn_width, config.qk_norm, config.inverse_wavelengths) == (FFN, qk_norm, None)
    params = as_params(weights, config)
    token_L = np.random.default_rng(seed).integers(0, vocab, 6)
    logits = jax.jit(Decoder(config).apply)({"params": params}, token_L[None])[0]
    np.testing.assert_allclose(logits, logits_LxV(params, config, token_L), rtol=0, atol=5e-5)
    x_D = np.random.default_rng(seed).normal(size=width)
    attention, in_proj = params["block_0"]["attention"], weights["layers.0.attention.in_proj.weight"]
    split = np.concatenate([x_D @ attention[name] for name in ("query", "key", "value")])
    np.testing.assert_allclose(split, in_proj @ x_D, rtol=1e-5, atol=1e-6)
    ffn, w12 = params["block_0"]["ffn"], weights["layers.0.feed_forward.w12.weight"]
    np.testing.assert_allclose(np.concatenate([x_D @ ffn["gate"], x_D @ ffn["up"]]), w12 @ x_D, rtol=1e-5, atol=1e-6)


def test_the_checkpoints_own_rotary_wavelengths_are_kept_and_told(checkpoint, tmp_path):
    weights = weights_of()
    for name, w in weights.items():
        if name.endswith("inv_freq"):
            weights[name] = w.astype(ml_dtypes.bfloat16).astype(np.float32)
    said = []
    model = convert.from_open_lm(str(checkpoint(weights)), None, str(tmp_path / "w"), None, said.append)
    assert model.decoder.inverse_wavelengths == tuple(weights["layers.0.attention.pos_embed.inv_freq"].tolist())
    assert any("rotary wavelengths differ" in line for line in said)
    assert any("does not tell its vocabulary" in line for line in said)
    weights["layers.1.attention.pos_embed.inv_freq"] = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="wavelengths differ from one another"):
        config_of(weights, {})


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_weights_keep_their_type_where_jax_has_it(checkpoint, dtype):
    weights = {name: w.astype(dtype) for name, w in weights_of().items()}
    read = read_weights(checkpoint(weights))
    params = as_params(read, config_of(read, {}))
    expected = np.dtype(np.float32) if dtype == np.float64 else np.dtype(dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {expected}


def test_tied_tables_are_told_by_their_shared_storage(checkpoint):
    weights = weights_of()
    table = weights["tok_embeddings.weight"]
    one = torch_files.Tensor(torch_files.Storage(table.reshape(-1), "t"), 0, table.shape, (table.shape[1], 1))
    read = read_weights(checkpoint({**weights, "tok_embeddings.weight": one, "output.weight": one}))
    config = config_of(read, {})
    assert config.tied_embeddings and "output" not in as_params(read, config)
    assert not config_of(read_weights(checkpoint(weights)), {}).tied_embeddings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "norm.weight is missing"),
        ({"layers.1.attention.q_norm.weight": None}, "layers.1.attention.q_norm.weight is missing"),
        ({"tok_embeddings.weight": None}, "tok_embeddings.weight is missing"),
        ({"norm.bias": np.zeros(WIDTH, np.float32)}, "norm.bias is unknown"),
        ({"post_embed_norm.weight": np.ones(WIDTH, np.float32)}, "post_embed_norm.weight is unknown"),
        ({"output.weight": np.ones((VOCAB, WIDTH + 1), np.float32)}, r"output.weight has shape \(11, 13\) instead"),
        ({"norm.weight": np.ones(WIDTH, np.int64)}, "norm.weight holds int64"),
        ({"module.norm.weight": np.ones(WIDTH, np.float32)}, "holds norm.weight twice"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_named(checkpoint, tmp_path, change, message):
    changed = {name: w for name, w in (weights_of() | change).items() if w is not None}
    with pytest.raises(ValueError, match=message):
        convert.from_open_lm(str(checkpoint(changed)), None, str(tmp_path / "w"), None, print)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "line",
    [
        "model-norm: default_layer_norm",
        "positional_embedding_type: head_rotary",
        "ffn_type: gelu",
        "attn_name: custom_attn",
        "attn_activation: relu",
    ],
)
def test_settings_that_do_not_map_are_named(checkpoint, tmp_path, line):
    path = checkpoint(weights_of())
    (path.parent.parent / "params.txt").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=line.partition(":")[0].replace("-", "_")):
        convert.from_open_lm(str(path), None, str(tmp_path / "w"), None, lambda _: None)


def test_settings_are_read_in_every_spelling(tmp_path):
    file = tmp_path / "params.txt"
    file.write_text(
        "--model-norm: gain_only_layer_norm\nQK_Norm: True\nlr: 1e-3\nreport_to: \nname: d=96: a\nresume: None\n"
        "train_data: ['a', 'b']\n  indented: 1\nno colon\nbroken: [1\nseq-len:64\n"
    )
    settings = read_settings(file)
    assert settings["model_norm"] == "gain_only_layer_norm"
    assert settings["qk_norm"] is True
    assert settings["name"] == "d=96: a"
    assert (settings["resume"], settings["report_to"], settings["seq_len"]) == (None, None, 64)
    assert config_of(weights_of(), settings).norm == "layer"
    assert config_of(weights_of(), {"model_norm": "rms_norm"}).norm == "rms"


def test_heads_come_from_the_models_json_where_the_checkpoint_does_not_tell_them(tmp_path):
    weights = {name: w for name, w in weights_of().items() if not name.endswith("inv_freq")}
    with pytest.raises(ValueError, match="to tell the heads by; give the model's JSON"):
        config_of(weights, {})
    file = tmp_path / "model.json"
    file.write_text(json.dumps({"hidden_dim": WIDTH, "n_heads": 2, "n_layers": LAYERS}))
    assert config_of(weights, read_settings(file)).heads == 2


def test_other_files_and_places_are_refused(checkpoint, tmp_path):
    path = checkpoint({"epoch": 1, "optimizer": {"state": {}}})
    with pytest.raises(ValueError, match=r"holds no model \(epoch, optimizer\); give open_lm's epoch"):
        convert.from_open_lm(str(path), None, str(tmp_path / "w"), None, print)
    with pytest.raises(ValueError, match=r"no such file: gs://bucket/a\.pt; a checkpoint at a distance must be copied"):
        convert.from_open_lm("gs://bucket/a.pt", None, str(tmp_path / "w"), None, print)
    path = checkpoint(weights_of())
    with pytest.raises(ValueError, match="vocabulary bytes has 259 ids and the model only 11"):
        convert.from_open_lm(str(path), None, str(tmp_path / "w"), "bytes", print)
    convert.from_open_lm(str(path), None, str(tmp_path / "w"), None, lambda _: None)
    with pytest.raises(ValueError, match="holds a model already"):
        convert.from_open_lm(str(path), None, str(tmp_path / "w"), None, print)


def test_every_paper_size_is_told_by_its_weights_alone():
    for name, config in PAPER.items():
        shapes = {"tok_embeddings.weight": (config.vocab_size, config.width)}
        shapes["layers.0.feed_forward.w3.weight"] = (config.width, config.ffn_width)
        shapes["layers.0.attention.q_norm.weight"] = (config.width,)
        shapes |= {f"layers.{layer}.norm.weight": (1,) for layer in range(config.layers)}
        weights = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
        inv_freq = 10_000.0 ** (-np.arange(0, config.head_width, 2) / config.head_width)
        weights["layers.0.attention.pos_embed.inv_freq"] = inv_freq.astype(np.float32)
        assert accounting.params(config_of(weights, {})) == accounting.params(config), name
