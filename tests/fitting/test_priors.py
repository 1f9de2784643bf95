"""What published ladders teach: known shapes are found again, and the shipped numbers are those the data give."""

import numpy as np
import pytest

import gadre2024
from fitting import priors
from fitting.laws import catalogue
from fitting.testbeds import published
from fitting.testbeds.published import Example

LAW = catalogue.OVER_TRAINING


def _example(corpus, eta, noise, rng) -> Example:
    """A grid of 12 rungs, and two targets of ten times the size, on a law whose largest rung has a loss near 3."""
    params, multiplier = (v.ravel() for v in np.meshgrid([1e7, 2e7, 4e7, 8e7], [20.0, 80.0, 320.0]))
    params, multiplier = np.append(params, [8e8, 2e8]), np.append(multiplier, [20, 320])
    _, size, data = LAW.evaluate_terms([eta], 8e7, 1.6e9)
    loss = LAW.evaluate((1.0, 1 / size, 1 / data, eta), params, params * multiplier)
    measured = loss * (1 + noise * (loss / 3) ** 3 * rng.standard_normal(len(loss)))
    sizes = (params, params * multiplier)
    return Example(corpus, sizes, measured, np.log(np.stack(sizes, -1)), relative=True)


def test_the_shapes_of_many_ladders_are_learned():
    rng = np.random.default_rng(0)
    etas = np.exp(rng.normal(np.log(0.2), 0.15, size=18))
    prior = priors.learn(LAW, [_example(f"c{i % 3}", eta, 0.002, rng) for i, eta in enumerate(etas)], "simulated")
    median, log_sd = prior.shapes["eta"]
    assert median == pytest.approx(np.exp(np.log(etas).mean()), rel=0.08)
    assert 0.5 * np.log(etas).std() < log_sd < 1.5 * np.log(etas).std()
    assert prior.source == "simulated"


def test_every_testbed_weighs_the_same():
    rng = np.random.default_rng(1)
    many, one = [_example("many", 0.15, 0.001, rng) for _ in range(9)], [_example("one", 0.25, 0.001, rng)]
    assert priors.learn(LAW, many + one).shapes["eta"][0] == pytest.approx(np.sqrt(0.15 * 0.25), rel=0.08)


def test_one_testbed_cannot_teach():
    example = _example("only", 0.2, 0.001, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least two testbeds; there is only"):
        priors.learn(LAW, [example, example])


def test_a_law_without_learned_shapes_believes_its_own():
    assert set(priors.believed(catalogue.named("logistic"), priors.PUBLISHED).shapes) == {"k", "L_0"}
    assert priors.believed(LAW, priors.PUBLISHED) is priors.PUBLISHED["over_training"]
    family = catalogue.named("coupled_tied")
    broad, learned = (priors.believed(family, given).shapes for given in ({}, priors.PUBLISHED))
    assert broad["kappa"][1] > 2 * learned["kappa"][1]  # the default leaves the form open


@pytest.mark.slow
def test_the_shipped_priors_are_what_the_testbeds_teach():
    if not gadre2024.ROOT.exists():
        pytest.skip(f"the published testbeds are not at {gadre2024.ROOT.parent}; set LADDER_SHARED")
    for law, examples in published.examples(published.ladders(gadre2024.ROOT.parent)).items():
        learned = priors.learn(catalogue.named(law), examples)
        for name, numbers in priors.PUBLISHED[law].shapes.items():
            assert learned.shapes[name] == pytest.approx(numbers, rel=0.02)
