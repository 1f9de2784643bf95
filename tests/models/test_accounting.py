import dataclasses

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import accounting
from models.config import PAPER, DecoderConfig
from models.decoder import Decoder

PUBLISHED = {
    "d=96_l=8_h=4": (10_569_312, 10_570_848),
    "d=512_l=8_h=4": (78_914_048, 78_922_240),
    "d=576_l=24_h=8": (153_677_376, 153_705_024),
    "d=1024_l=24_h=8": (411_616_256, 411_665_408),
    "open_lm_1b": (1_439_795_200, 1_439_893_504),
    "open_lm_7b": (6_889_410_560, 6_889_672_704),
}


def parameters(config: DecoderConfig) -> int:
    tree = jax.eval_shape(Decoder(config).init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", PAPER)
def test_counts_are_the_published_ones(name):
    published, existing = PUBLISHED[name]
    assert accounting.as_the_paper_counts(PAPER[name]) == published
    assert accounting.params(PAPER[name]) == existing


@settings(max_examples=20)
@given(
    half_head=st.integers(1, 9),
    width=st.sampled_from([None, 7]),
    groups=st.integers(1, 3),
    repeats=st.integers(1, 3),
    layers=st.integers(1, 3),
    vocab_size=st.integers(1, 300),
    ffn_multiple=st.sampled_from([1, 8, 256]),
    qk_norm=st.sampled_from([{"qk_norm": False}, {}, {"qk_norm_per_head": True}]),
    tied=st.booleans(),
)
def test_counts_are_of_the_parameters_that_exist(
    half_head, width, groups, repeats, layers, vocab_size, ffn_multiple, qk_norm, tied
):
    heads = groups * repeats
    shape = {"width": width or 2 * half_head * heads, "layers": layers, "heads": heads, "vocab_size": vocab_size}
    options = {"ffn_multiple": ffn_multiple, "key_heads": groups, "tied_embeddings": tied, **qk_norm}
    if width:
        options["head_dim"] = 2 * half_head
    config = DecoderConfig(**shape, **options)
    tables = vocab_size * config.width * (1 if tied else 2)
    assert accounting.params(config) == parameters(config)
    assert accounting.params_non_embedding(config) == parameters(config) - tables


def test_flops_are_the_papers_convention():
    assert accounting.training_flops(params=411_616_256, tokens=8_232_325_120) == 6 * 411_616_256 * 8_232_325_120


def test_products_flops_equal_a_hand_count():
    config = DecoderConfig(width=4, layers=1, heads=1, vocab_size=10, ffn_multiple=8)
    projections, ffn, attention, head = 4 * 4 * 4, 3 * 4 * 16, 2 * 5 * 4, 4 * 10
    assert accounting.matmul_flops_per_token(config, length=5) == 2 * (projections + ffn + attention + head)
    twice = dataclasses.replace(config, head_dim=8)
    assert accounting.matmul_flops_per_token(twice, length=5) == 2 * (2 * (projections + attention) + ffn + head)


def test_exact_flops_are_6nd_without_the_embedding_where_attention_is_short():
    c = PAPER["open_lm_1b"]
    exact = 3e9 * accounting.matmul_flops_per_token(c, length=1)  # forward, and twice as much backward
    with_head = accounting.params(c) - c.vocab_size * c.width
    assert exact == pytest.approx(accounting.training_flops(with_head, 1e9), rel=1e-3)
    longer = 3e9 * accounting.matmul_flops_per_token(c, length=2049) - exact
    assert longer == 1e9 * 3 * c.layers * 4 * 2048 * c.width
