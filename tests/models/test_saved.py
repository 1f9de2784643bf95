"""A model's folder: what is saved comes back, and what does not fit is refused by name."""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from etils import epath
from flax import linen as nn

from models import saved
from models.config import DecoderConfig
from models.decoder import Decoder
from models.saved import SavedModel

TINY = DecoderConfig(width=8, layers=2, heads=2, vocab_size=11, ffn_multiple=8)


@pytest.fixture
def params():
    made = nn.unbox(Decoder(TINY).init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32)))["params"]
    return jax.tree.map(np.asarray, made)


@pytest.fixture
def folder(tmp_path) -> epath.Path:
    return epath.Path(tmp_path / "model")


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_what_is_saved_comes_back_in_its_own_type(params, folder, dtype):
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    model = SavedModel(TINY, "bytes", 32, {"source": "nowhere"})
    saved.save(model, params, folder)
    loaded, restored = saved.load(folder)
    assert loaded == model
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(restored)} == {np.dtype(dtype)}


def test_jax_arrays_and_transposed_views_are_saved_alike(params, folder):
    turned = jax.tree.map(lambda leaf: np.ascontiguousarray(leaf.T).T, params)
    turned["output"] = jnp.asarray(turned["output"])
    saved.save(SavedModel(TINY, "", 32), turned, folder)
    jax.tree.map(np.testing.assert_array_equal, saved.load(folder)[1], params)


def test_a_vocabulary_that_is_a_name_is_no_file_of_the_folder_one_stands_in(params, folder, tmp_path, monkeypatch):
    (tmp_path / "bytes").write_text("of something else")
    monkeypatch.chdir(tmp_path)
    saved.save(SavedModel(TINY, "bytes", 32), params, folder)
    assert saved.describe(folder).vocabulary == "bytes" and not (folder / "bytes").exists()


def test_a_vocabulary_file_travels_with_the_folder(params, folder, tmp_path):
    file = tmp_path / "words.json"
    file.write_text("{}")
    saved.save(SavedModel(TINY, str(file), 32), params, folder)
    file.unlink()
    moved = folder.rename(folder.parent / "moved")
    assert saved.describe(moved).vocabulary == str(moved / "words.json")


def test_a_folder_that_holds_a_model_is_not_overwritten(params, folder):
    saved.save(SavedModel(TINY, "", 32), params, folder)
    with pytest.raises(ValueError, match="holds a model already"):
        saved.save(SavedModel(TINY, "", 32), params, folder)


def test_a_folder_left_half_written_is_no_model_and_can_be_written_again(params, folder):
    saved.save(SavedModel(TINY, "", 32), params, folder)
    (folder / "model.json").unlink()
    with pytest.raises(ValueError, match=r"holds no model\.json; make it with `ladder convert`"):
        saved.load(folder)
    saved.save(SavedModel(TINY, "", 64), params, folder)
    assert saved.load(folder)[0].sequence_length == 64


def test_parameters_that_do_not_fit_are_named(params, folder):
    params["extra"] = params.pop("output")
    params["norm"] = {"gain": np.ones(9, np.float32)}
    with pytest.raises(ValueError) as refusal:
        saved.save(SavedModel(TINY, "", 32), params, folder)
    for part in ("extra is unknown", "output is missing", "norm/gain has shape (9,) instead of (8,)"):
        assert part in str(refusal.value)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "another version of this program"),
        ({"sequence_length": "long"}, "sequence_length"),
        ({"decoder": {"width": 8, "layers": 2, "heads": 3, "vocab_size": 11}}, "does not split into 3 heads"),
        ({"decoder": {"width": 8, "layers": 2, "heads": 2, "vocab_size": 11, "colour": 1}}, "unknown options: colour"),
    ],
)
def test_a_description_that_cannot_be_read_says_why(params, folder, change, message):
    saved.save(SavedModel(TINY, "", 32), params, folder)
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        saved.load(folder)
