"""The order of records: exact rates in every block, passes that are permutations, found at once at any position."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ladder.training import order

rates = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6)


@given(rates=rates, seed=st.integers(0, 2**32 - 1), positions=st.integers(0, 25_000))
def test_parts_are_drawn_at_their_rates_each_in_its_own_order(rates, seed, positions):
    mixing = order.Mixing(rates, seed)
    part_B, index_B = mixing(np.arange(positions))
    drawn_P = mixing.drawn(positions)
    for part, drawn in enumerate(drawn_P):
        np.testing.assert_array_equal(index_B[part_B == part], np.arange(drawn))
    whole = positions // order.BLOCK_POSITIONS * order.BLOCK_POSITIONS
    share_P = np.array(rates) / sum(rates)
    np.testing.assert_allclose(mixing.drawn(whole), whole * share_P, atol=positions / order.BLOCK_POSITIONS)


def test_the_rates_that_papers_give_are_met_exactly():
    redpajama = [0.67, 0.15, 0.045, 0.045, 0.045, 0.025, 0.02]
    assert order.Mixing(redpajama, 0).drawn(30_000).tolist() == [20_100, 4500, 1350, 1350, 1350, 750, 600]
    with pytest.raises(ValueError, match="rate 1e-09 is less than 1 in 10,000 of all"):
        order.Mixing([1.0, 1e-9], 0)


def test_a_lone_part_is_read_straight_on():
    part_B, index_B = order.Mixing([3.0], 5)(np.arange(25_000))
    assert not part_B.any()
    np.testing.assert_array_equal(index_B, np.arange(25_000))


@given(records=st.integers(1, 200), page=st.integers(1, 60), seed=st.integers(0, 2**32 - 1))
def test_each_pass_over_a_part_is_a_permutation_whatever_its_pages(records, page, seed):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(order, "PAGE_RECORDS", page)
        index_R = np.arange(2 * records)
        first_R, second_R = order.record(index_R, records, seed).reshape(2, records)
        for epoch_R in (first_R, second_R):
            np.testing.assert_array_equal(np.sort(epoch_R), np.arange(records))
        backwards_R = order.record(index_R[::-1], records, seed)[::-1]
        np.testing.assert_array_equal(backwards_R, np.concatenate([first_R, second_R]))


def test_a_page_of_a_large_part_is_spread_over_all_of_it(monkeypatch):
    monkeypatch.setattr(order, "PAGE_RECORDS", 1000)
    first_page = order.record(np.arange(1000), 10_000, seed=0)
    assert len(set(first_page.tolist())) == 1000
    np.testing.assert_allclose(np.histogram(first_page, 10, (0, 10_000))[0], 100)


def test_the_last_of_a_trillion_tokens_is_found_at_once():
    records = 500_000_000
    order.record(np.arange(8), 10, seed=0)
    start = time.perf_counter()
    record_B = order.record(np.arange(3 * records - 512, 3 * records), records, seed=0)
    assert time.perf_counter() - start < 10  # a permutation of all would take 4 GB and as many seconds
    assert len(set(record_B.tolist())) == 512 and record_B.max() < records
