"""Laws that are plausible beforehand are what the priors say, whatever the unit of the loss."""

import numpy as np
import pytest

from fitting.designs import plausible
from fitting.laws import catalogue
from fitting.priors import PUBLISHED
from fitting.testbeds.published import Example

SIZES = np.array([(1e7, 2e8), (1e8, 2e9), (1e8, 3.2e10), (1e9, 2e10)])
TARGET = np.array([(7e9, 1.4e11)])


def test_an_outlook_is_the_same_again_and_another_with_another_seed():
    one, again, other = (plausible.outlook(SIZES, TARGET, draws=12, seed=seed) for seed in (0, 0, 1))
    assert one.doubt([0, 1, 2]) == again.doubt([0, 1, 2]) != other.doubt([0, 1, 2])


def test_a_larger_run_tells_more_of_a_large_target_than_a_small_one():
    outlook = plausible.outlook(SIZES, TARGET, draws=24)
    left_K = outlook.doubt_with_one_more([0, 1, 2])
    assert left_K.argmin() == 3


@pytest.mark.parametrize("form", plausible.FORMS)
def test_at_the_reference_a_law_has_the_reducible_loss_drawn_and_its_optimum(form):
    """Least at the multiplier drawn, along a line of equal compute through the reference."""
    law = catalogue.named(form)
    theta_P, _ = plausible._drawn(law, PUBLISHED, 0.5, 30.0, np.random.default_rng(0))
    n = plausible.REFERENCE_PARAMS * np.exp(np.linspace(-0.2, 0.2, 41))
    loss = law.evaluate(theta_P[:, None], n, 30 * plausible.REFERENCE_PARAMS**2 / n)
    assert loss[20] == pytest.approx(1.5) and abs(loss.argmin() - 20) <= 1


def test_the_reducible_loss_is_learned_from_ladders_that_have_it():
    law = catalogue.named("coupled_tied")
    rng = np.random.default_rng(0)
    examples = []
    for testbed in range(2):
        n, m = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 2e9, 5), [10.0, 40.0, 160.0]))
        u = float(law.evaluate([0.0, 1.0, 0.25, 0.45, 20.0], 1e9, 2e10))
        y = law.evaluate([2.0, 2 * 0.5 / u, 0.25, 0.45, 20.0], n, n * m) * (1 + 0.002 * rng.standard_normal(len(n)))
        examples.append(Example(f"t{testbed}", (n, n * m), y, np.log(np.stack([n, n * m], 1)), True))
    median, log_sd = plausible.learn_reducible(examples)
    assert median == pytest.approx(0.5, rel=0.25) and log_sd < 0.5
