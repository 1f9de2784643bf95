"""Inside is what lies between the runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.reports.hull import hull, is_inside

SQUARE = [(1e6, 1e8), (1e8, 1e8), (1e8, 1e10), (1e6, 1e10), (1e7, 1e9)]


@pytest.mark.parametrize(
    ("params", "tokens", "inside"),
    [(1e7, 1e9, True), (1e6, 1e8, True), (1e8, 3e9, True), (2e8, 1e9, False), (1e7, 2e10, False), (5e5, 1e8, False)],
)
def test_a_square_holds_what_is_in_it(params, tokens, inside):
    assert len(hull(SQUARE)) == 4
    assert is_inside(hull(SQUARE), params, tokens) == inside


def test_runs_on_a_line_hold_that_line_alone():
    line = hull([(1e6, 2e7), (1e7, 2e8), (1e8, 2e9)])
    assert is_inside(line, 3e6, 6e7)
    assert not is_inside(line, 3e8, 6e9)
    assert not is_inside(line, 3e6, 6e8)
    assert is_inside(hull([(1e6, 2e7)]), 1e6, 2e7) and not is_inside(hull([(1e6, 2e7)]), 2e6, 2e7)


sizes = st.tuples(st.floats(1e4, 1e12), st.floats(1e5, 1e14))


@settings(max_examples=100)
@given(st.lists(sizes, min_size=1, max_size=12), st.integers(0, 1000))
def test_every_run_and_every_geometric_mean_of_runs_is_inside(runs, seed):
    weights = np.random.default_rng(seed).dirichlet(np.ones(len(runs)))
    mixed = np.exp(weights @ np.log(np.array(runs)))
    assert all(is_inside(hull(runs), *run) for run in [*runs, mixed])
