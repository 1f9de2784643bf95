"""A design is what linear regression says of a set of runs, and near the best of all sets there are."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.designs import design, plausible
from fitting.designs.design import Outlook, Rules
from fitting.uncertainty import apart, growth_beyond
from synthetic_law import synthetic_law

SIZES = np.array([(n, m * n) for n in (1e7, 3e7, 1e8, 3e8) for m in (20.0, 80.0, 320.0)])
TARGET = np.array([(7e9, 1.4e11)])
FLOPS = 6 * SIZES.prod(1)


def cost(set_SxR):
    return FLOPS[set_SxR].sum(1)


@pytest.fixture(scope="module")
def outlook():
    return plausible.outlook(SIZES, TARGET, draws=24)


def linear(slope_KxP, target_P, scale_K, misfit):
    """An outlook of one law, whose runs' misfits are not alike."""
    size_Kx2 = np.geomspace(1e6, 1e30, 2 * len(slope_KxP)).reshape(-1, 2)
    return Outlook(
        size_Kx2=size_Kx2,
        slope_HxKxP=np.array([slope_KxP], float),
        target_HxTxP=np.array([[target_P]], float),
        scale_HxK=np.array([scale_K], float),
        misfit_H=np.array([misfit]),
        alike_KxK=np.eye(len(slope_KxP)),
        target_noise_H=np.zeros(1),
        apart_TxK=np.zeros((1, len(slope_KxP))),
    )


def test_the_doubt_is_that_of_the_regression():
    """By hand: slopes 3 and 4 in one parameter of variance one, noise 1: the precision is 1 + 9 + 16."""
    one = linear([[3.0], [4.0]], [2.0], [1.0, 1.0], 0.0)
    assert one.doubt([]) == pytest.approx(2)
    assert one.doubt([0, 1]) == pytest.approx(2 / np.sqrt(26))
    assert one.doubt([1, 1]) == pytest.approx(2 / np.sqrt(33))  # two seeds


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 11), max_size=6))
def test_one_more_run_leaves_what_the_larger_set_leaves(chosen):
    outlook = plausible.outlook(SIZES, TARGET, draws=6)
    left_K = outlook.doubt_with_one_more(chosen)
    np.testing.assert_allclose(left_K, [outlook.doubt([*chosen, k]) for k in range(len(SIZES))], rtol=1e-5)
    assert (left_K <= outlook.doubt(chosen) * (1 + 1e-9)).all()


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
def test_the_search_finds_nearly_the_best_set_there_is(outlook, share):
    """Against all sets of five that the budget pays for and the rules allow."""
    budget, rules = share * 6 * TARGET.prod(), Rules(most_runs=5, seeds=1)
    every = np.array([*itertools.combinations(range(len(SIZES)), 5)])
    every = every[rules.allow(outlook, every) & (cost(every) <= budget)]
    best = min(outlook.doubt(some) for some in every)
    chosen = design.best(outlook, cost, budget, rules)
    assert FLOPS[[*chosen]].sum() <= budget and rules.allow(outlook, np.array([chosen])).all()
    assert outlook.doubt(chosen) <= 1.02 * best


def test_more_compute_tells_more(outlook):
    doubts = [outlook.doubt(design.best(outlook, cost, share * 6 * TARGET.prod())) for share in (0.0003, 0.003, 0.03)]
    assert doubts[0] > doubts[1] > doubts[2]


def test_runs_that_share_their_cost_are_bought_together(outlook):
    """A trunk of a size is paid for once, as far as its longest run goes: more of its multipliers are worth having."""
    budget = 0.001 * 6 * TARGET.prod()

    def trunks(set_SxR):
        costs = np.zeros(len(set_SxR))
        for params in np.unique(SIZES[:, 0]):
            costs += np.where(SIZES[set_SxR, 0] == params, FLOPS[set_SxR], 0).max(1)
        return costs

    alone, shared = (design.best(outlook, each, budget, Rules(seeds=1)) for each in (cost, trunks))
    assert trunks(np.array([shared]))[0] <= budget
    assert outlook.doubt(shared) < outlook.doubt(alone)


def test_seeds_are_bought_where_noise_is_each_runs_own_and_no_other_run_is_to_be_had():
    """Two informative runs and a limit of sizes: the budget goes to seeds, up to as many as are allowed."""
    one = linear([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], [1.0, 1.0], 0.0)
    rules = Rules(least_runs=2, least_sizes=2, spread=1.0, most_runs=6, seeds=3)
    chosen = design.best(one, lambda set_SxR: np.full(len(set_SxR), float(set_SxR.shape[1])), 6.0, rules)
    assert sorted(chosen) == [0, 0, 0, 1, 1, 1]


def test_a_budget_too_small_says_the_smallest_that_works_and_that_one_works(outlook):
    with pytest.raises(ValueError, match="the smallest that works is") as refused:
        design.best(outlook, cost, 1e10)
    said = float(str(refused.value).rpartition(" ")[2])
    assert len(design.best(outlook, cost, said * 1.01)) >= 5


def test_candidates_of_one_multiplier_are_refused(outlook):
    along = plausible.outlook(SIZES[::3], TARGET, draws=4)
    with pytest.raises(ValueError, match="token multipliers that differ by a factor of 4"):
        design.best(along, cost, 1e30, Rules(least_runs=4))


def test_the_noise_of_a_target_is_no_doubt_that_runs_can_take(outlook):
    assert outlook.doubt(range(len(SIZES))) > np.exp(np.log(outlook.target_noise_H).mean())


def test_what_a_law_is_off_by_grows_with_the_distance_of_the_nearest_run():
    """By hand: of a noise of 2, half is misfit, which at a distance of 3 reaches is ten times as large in variance."""
    one = linear([[1e-9], [1e-9]], [1e-9], [1.0, 1.0], 0.5)
    one = dataclasses.replace(one, target_noise_H=np.array([2.0]), apart_TxK=np.array([[9.0, 0.0]]))
    assert one.doubt([0]) == pytest.approx(2 * np.sqrt(0.5 + 0.5 * 10))
    assert one.doubt([1]) == one.doubt([0, 1]) == pytest.approx(2)
    np.testing.assert_allclose(one.doubt_with_one_more([0]), [one.doubt([0]), 2])


def test_a_design_doubts_a_target_as_a_fit_will_and_buys_the_nearer_of_runs_that_tell_as_much():
    one = linear([[1e-9], [1e-9]], [1e-9], [1.0, 1.0], 0.5)
    log_size_Kx2 = np.log([(1e9, 2e10), (1e8, 2e9)])
    apart_TxK = apart(np.log(TARGET), log_size_Kx2)
    one = dataclasses.replace(one, target_noise_H=np.ones(1), apart_TxK=apart_TxK)
    for chosen in ([0], [1], [0, 1]):
        assert one.doubt(chosen) == pytest.approx(growth_beyond(0.5, log_size_Kx2[chosen], np.log(TARGET[0])))
    assert one.doubt_with_one_more([]).argmin() == 0


def test_a_batch_leaves_less_than_its_best_run_and_stays_in_its_budget():
    law = synthetic_law()
    budget = sum(point.flops for point in law.loss.points)
    alone = design.next_runs(law, 2.5e5, 5e6)[1]
    batch = design.batch(law, 2.5e5, 5e6, budget)
    assert sum(run.flops for run in batch) <= budget * (1 + 1e-9)
    assert batch[-1].doubt_left <= min(run.doubt_left for run in alone) * (1 + 1e-6)
    assert (np.diff([run.doubt_left for run in batch]) < 0).all()


def test_a_batch_for_nothing_is_refused():
    with pytest.raises(ValueError, match="pay for no run"):
        design.batch(synthetic_law(), 2.5e5, 5e6, 1.0)
