"""The cache: reading in pieces, padded or shared, gives the logits of reading each text whole."""

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import configs, distinct_params
from models.cache import Cache
from models.config import DecoderConfig
from models.decoder import Decoder
from reference_decoder import logits_LxV

SMALL = DecoderConfig(width=16, layers=2, heads=2, vocab_size=29, ffn_multiple=8)


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


@settings(max_examples=6)
@given(
    config=configs(),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    cuts=st.sets(st.integers(1, 6), max_size=1),
    spare_slots=st.integers(0, 3),
)
def test_texts_padded_and_read_in_pieces_get_the_logits_of_texts_read_whole(config, lengths, cuts, spare_slots):
    params = distinct_params(config, seed=0)
    apply = jax.jit(Decoder(config).apply)
    longest = max(lengths)
    start_B = np.array([longest - length for length in lengths])
    token_BxL = np.random.default_rng(0).integers(0, config.vocab_size, (len(lengths), longest))
    cache, pieces = Cache.empty(config, start_B, longest + spare_slots), []
    for piece_BxL in np.split(token_BxL, sorted(cut for cut in cuts if cut < longest), axis=1):
        logits_BxLxV, cache = apply({"params": params}, piece_BxL, cache)
        pieces.append(logits_BxLxV)
    assert cache.filled == longest
    for row_LxV, token_L, start in zip(np.concatenate(pieces, 1), token_BxL, start_B, strict=True):
        close(row_LxV[start:], logits_LxV(params, config, token_L[start:]))


def test_several_texts_go_on_from_prefixes_read_once():
    params = distinct_params(SMALL, seed=1)
    apply = jax.jit(Decoder(SMALL).apply)
    rng = np.random.default_rng(1)
    prefix_PxL, start_P = rng.integers(0, 29, (2, 5)), np.array([2, 0])
    _, cache = apply({"params": params}, prefix_PxL, Cache.empty(SMALL, start_P, slots=9))

    prefix_of_R = np.array([0, 0, 1, 0])
    continuation_RxL = rng.integers(0, 29, (4, 4))
    logits_RxLxV, _ = apply({"params": params}, continuation_RxL, cache.rows(prefix_of_R))
    for row_LxV, prefix, continuation_L in zip(logits_RxLxV, prefix_of_R, continuation_RxL, strict=True):
        whole_L = np.concatenate([prefix_PxL[prefix, start_P[prefix] :], continuation_L])
        close(row_LxV, logits_LxV(params, SMALL, whole_L)[-4:])


def test_rows_that_are_all_padding_stay_finite():
    cache = Cache.empty(SMALL, np.array([6, 0]), slots=6)
    tokens = np.ones((2, 6), np.int32)
    logits_BxLxV, _ = Decoder(SMALL).apply({"params": distinct_params(SMALL, seed=2)}, tokens, cache)
    assert np.isfinite(logits_BxLxV).all()
