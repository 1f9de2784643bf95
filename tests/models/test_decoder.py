import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import LENGTH, configs, distinct_params
from models.config import DecoderConfig
from models.convert.open_lm import as_params, read_weights
from models.decoder import Decoder
from models.loss import token_losses
from reference_decoder import logits_LxV

SMALL = DecoderConfig(width=16, layers=3, heads=2, vocab_size=29, ffn_multiple=8)


def initial_params(config: DecoderConfig, seed: int = 0):
    init = jax.jit(Decoder(config).init)
    return nn.unbox(init(jax.random.key(seed), jnp.zeros((1, LENGTH), jnp.int32)))["params"]


def as_bfloat16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def relative_error(ours: np.ndarray, exact: np.ndarray) -> float:
    """Root mean square of the differences over that of the numbers."""
    return float(np.sqrt(np.square(ours - exact).mean() / np.square(exact).mean()))


@pytest.fixture(scope="module")
def open_lm(shared):
    """The published architecture as the real open_lm computes it: its weights, one batch, its gradients."""
    folder = shared / "parity" / "open_lm" / "d96_l8_h4_v512_s64"
    config = DecoderConfig(width=96, layers=8, heads=4, vocab_size=512)
    params = as_params(read_weights(folder / "checkpoints" / "epoch_1.pt"), config)
    with np.load(folder / "batch.npz") as batch, np.load(folder / "grads.npz") as grads:
        return config, params, dict(batch), as_params(dict(grads), config)


def test_logits_and_token_losses_equal_open_lm(open_lm):
    config, params, batch, _ = open_lm
    logits_BxLxV = jax.jit(Decoder(config).apply)({"params": params}, batch["input_ids"])
    np.testing.assert_allclose(logits_BxLxV, batch["logits"], rtol=0, atol=5e-5)
    loss_BxL, logsumexp_BxL = token_losses(logits_BxLxV, batch["target_ids"])
    np.testing.assert_allclose(loss_BxL, batch["token_ce"], rtol=0, atol=5e-5)
    np.testing.assert_allclose(logsumexp_BxL, batch["logsumexp"], rtol=0, atol=5e-5)


def test_loss_and_gradients_equal_open_lm(open_lm):
    config, params, batch, expected = open_lm

    def objective(params):
        logits_BxLxV = Decoder(config).apply({"params": params}, batch["input_ids"])
        loss_BxL, logsumexp_BxL = token_losses(logits_BxLxV, batch["target_ids"])
        return loss_BxL.mean() + batch["z_coef"] * jnp.square(logsumexp_BxL).mean()

    loss, grads = jax.jit(jax.value_and_grad(objective))(params)
    assert abs(loss - batch["loss_f64"]) < 1e-5

    def assert_equal(path, ours, theirs):
        norm = np.linalg.norm(theirs)
        assert np.linalg.norm(ours) == pytest.approx(norm, rel=1e-4), path
        assert np.linalg.norm(ours - theirs) < 1e-4 * norm, path

    jax.tree_util.tree_map_with_path(assert_equal, grads, expected)


@settings(max_examples=10)
@given(config=configs(), length=st.integers(1, 9), seed=st.integers(0, 99))
def test_any_shape_with_any_options_computes_its_definition(config, length, seed):
    params = distinct_params(config, seed)
    token_L = np.random.default_rng(seed).integers(0, config.vocab_size, length)
    ours_LxV = jax.jit(Decoder(config).apply)({"params": params}, token_L[None])[0]
    expected_LxV = logits_LxV(params, config, token_L)
    np.testing.assert_allclose(ours_LxV, expected_LxV, rtol=0, atol=2e-5 * np.abs(expected_LxV).max())


@settings(max_examples=4)
@given(config=configs(), seed=st.integers(0, 99))
def test_gradients_are_the_slopes_of_the_definition(config, seed):
    rng = np.random.default_rng(seed)
    token_L, target_L = rng.integers(0, config.vocab_size, (2, 5))

    def objective(logits_LxV, xp):
        logsumexp_L = xp.log(xp.exp(logits_LxV).sum(-1))
        return (logsumexp_L - logits_LxV[xp.arange(5), target_L]).mean() + 0.1 * (logsumexp_L**2).mean()

    params = distinct_params(config, seed)
    slopes_of = jax.grad(lambda params: objective(Decoder(config).apply({"params": params}, token_L[None])[0], jnp))
    exactly = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)  # noqa: E731
    grads, params = exactly(jax.jit(slopes_of)(params)), exactly(params)
    largest = max(np.linalg.norm(leaf) for leaf in jax.tree.leaves(grads))

    def assert_is_slope(at, grad):
        # Along the gradient itself, and a random way that would meet what it lacks.
        way = rng.normal(size=grad.shape)
        way = way / np.linalg.norm(way) + grad / (np.linalg.norm(grad) + 1e-9 * largest)

        def loss(step):
            moved = jax.tree_util.tree_map_with_path(
                lambda path, leaf: leaf + step * way if path == at else leaf, params
            )
            return objective(logits_LxV(moved, config, token_L), np)

        slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
        assert np.vdot(way, grad) == pytest.approx(slope, rel=1e-4, abs=1e-5 * largest), at

    jax.tree_util.tree_map_with_path(assert_is_slope, grads)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "rms", "qk_norm_per_head": True, "key_heads": 2, "tied_embeddings": True}],
    ids=["paper", "alternatives"],
)
def test_bfloat16_errs_as_much_as_rounding_every_activation_does(options, seed):
    config = DecoderConfig(width=64, layers=4, heads=4, vocab_size=100, ffn_multiple=8, dtype="bfloat16", **options)
    params = initial_params(config, seed)
    token_L = np.random.default_rng(seed).integers(0, config.vocab_size, 24)
    exact_LxV = logits_LxV(params, config, token_L)
    ours_LxV = jax.jit(Decoder(config).apply)({"params": params}, token_L[None])[0]
    assert ours_LxV.dtype == jnp.float32
    error = relative_error(ours_LxV, exact_LxV)
    assert error == pytest.approx(relative_error(logits_LxV(params, config, token_L, as_bfloat16), exact_LxV), rel=0.3)
    assert 2**-9 < error < 2**-5


def test_open_lms_checkpoint_errs_in_bfloat16_as_much_as_rounding_does_and_keeps_its_loss(open_lm):
    config, params, batch, _ = open_lm
    config = dataclasses.replace(config, dtype="bfloat16")
    ours_BxLxV = jax.jit(Decoder(config).apply)({"params": params}, batch["input_ids"])
    rounded_BxLxV = np.stack([logits_LxV(params, config, token_L, keep=as_bfloat16) for token_L in batch["input_ids"]])
    ours, rounded = (relative_error(logits_BxLxV, batch["logits"]) for logits_BxLxV in (ours_BxLxV, rounded_BxLxV))
    assert ours == pytest.approx(rounded, rel=0.3)
    exact_BxL, ours_BxL, rounded_BxL = (
        np.asarray(token_losses(jnp.asarray(logits_BxLxV, jnp.float32), batch["target_ids"])[0])
        for logits_BxLxV in (batch["logits"], ours_BxLxV, rounded_BxLxV)
    )
    assert exact_BxL.mean() == pytest.approx(batch["ce"], rel=1e-6)
    standard_error = (rounded_BxL - exact_BxL).std() / exact_BxL.size**0.5
    assert abs(ours_BxL.mean() - batch["ce"]) < 3 * standard_error


def test_logits_depend_on_every_earlier_token_and_on_none_after():
    params = initial_params(SMALL)

    def logits_LxV(embedding_VxD):
        # Position t reads token t, so a row of the embedding stands for one position.
        return Decoder(SMALL).apply({"params": {**params, "embedding": embedding_VxD}}, jnp.arange(LENGTH)[None])[0]

    jacobian_LxVxVxD = jax.jit(jax.jacobian(logits_LxV))(params["embedding"])
    influence_LxL = np.abs(jacobian_LxVxVxD[:, :, :LENGTH]).max((1, 3))
    later_LxL = np.triu(np.ones((LENGTH, LENGTH), bool), k=1)
    assert (influence_LxL[later_LxL] == 0).all()
    assert (influence_LxL[~later_LxL] > 0).all()


def test_scores_too_large_for_a_bare_exponential_stay_finite():
    params = initial_params(SMALL)
    loud = jax.tree_util.tree_map_with_path(lambda path, x: x * (100 if "query_norm" in str(path) else 1), params)
    logits_BxLxV = Decoder(SMALL).apply({"params": loud}, jnp.arange(LENGTH)[None])
    assert np.isfinite(logits_BxLxV).all()


def test_initial_spread_is_open_lms():
    config = DecoderConfig(width=128, layers=2, heads=2, vocab_size=64, ffn_multiple=8)
    params = initial_params(config)
    # Cutting a normal at three deviations leaves 0.9866 of its own.
    plain = 0.9866 * config.width**-0.5
    for depth in range(config.layers):
        shrink = (2 * (depth + 1)) ** -0.5
        attention, ffn = params[f"block_{depth}"]["attention"], params[f"block_{depth}"]["ffn"]
        for kernel in (attention["query"], attention["key"], attention["value"], ffn["gate"], ffn["up"]):
            assert kernel.std() == pytest.approx(plain, rel=0.02)
        assert attention["out"].std() == pytest.approx(plain * shrink, rel=0.02)
        assert ffn["down"].std() == pytest.approx(0.9866 * config.ffn_width**-0.5 * shrink, rel=0.02)
        assert (attention["query_norm"]["gain"] == 1).all()
    assert params["embedding"].std() == pytest.approx(plain, rel=0.03)
    assert params["output"].std() == pytest.approx(plain, rel=0.03)
    assert abs(params["output"]).max() <= 3 * config.width**-0.5


def test_every_parameter_names_its_logical_axes():
    boxed = jax.eval_shape(Decoder(SMALL).init, jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))
    leaves = jax.tree.leaves(boxed, is_leaf=lambda leaf: isinstance(leaf, nn.Partitioned))
    assert all(isinstance(leaf, nn.Partitioned) and len(leaf.names) == leaf.value.ndim for leaf in leaves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers is 0"),
        ({"width": -4}, "width is -4"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"heads": 3}, "16 does not split into 3 heads.*multiple of 6"),
        ({"heads": 16}, "16 does not split into 16 heads of even width"),
        ({"head_dim": 5}, "head_dim is 5; it must be even"),
        ({"key_heads": 0}, "heads 2 do not split over 0 key_heads"),
        ({"heads": 4, "key_heads": 3}, "heads 4 do not split over 3 key_heads"),
        ({"norm": "batch"}, "norm is 'batch'; it must be 'layer' or 'rms'"),
        ({"qk_norm": False, "qk_norm_per_head": True}, "set qk_norm too"),
        ({"inverse_wavelengths": (1.0,)}, "1 entries; heads of width 8 need 4"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    shape = {"width": 16, "layers": 3, "heads": 2, "vocab_size": 29}
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{**shape, **change})
