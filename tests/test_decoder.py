import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from open_lm_fixture import as_our_params, read_weights

from models.config import DecoderConfig
from models.decoder import Decoder
from models.loss import token_losses

SMALL = DecoderConfig(width=16, layers=3, heads=2, vocab_size=29, ffn_multiple=8)
LENGTH = 7


def initial_params(config: DecoderConfig):
    return nn.unbox(Decoder(config).init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32)))["params"]


@pytest.fixture(scope="module")
def open_lm(shared):
    """The published architecture as the real open_lm computes it: its weights, one batch, its gradients."""
    folder = shared / "parity" / "open_lm" / "d96_l8_h4_v512_s64"
    config = DecoderConfig(width=96, layers=8, heads=4, vocab_size=512)
    params = as_our_params(read_weights(folder / "checkpoints" / "epoch_1.pt"), config.layers)
    with np.load(folder / "batch.npz") as batch, np.load(folder / "grads.npz") as grads:
        return config, params, dict(batch), as_our_params(dict(grads), config.layers)


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
    ],
)
def test_impossible_shapes_are_refused(change, message):
    shape = {"width": 16, "layers": 3, "heads": 2, "vocab_size": 29}
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{**shape, **change})
