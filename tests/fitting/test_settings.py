"""The best settings are the closed form where there is one, and no other setting is better where there is none."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from fitting.laws import catalogue
from fitting.methods import fit
from fitting.settings import best_settings
from fitting.testbeds.testbed import Testbed

RNG = np.random.default_rng(0)
PROPORTIONS = RNG.dirichlet([1.5, 1.5, 1.5], 24)
DOMAINS = ("web", "code", "books")
TRUTHS = {"web": (2.0, 0.2, 1.6, 0.9), "code": (1.1, 1.2, 0.1, 0.7), "books": (2.4, 0.5, 0.9, 0.2)}


def _mixtures(noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"run": [f"m{i}" for i in range(24)], "params": 1e8, "tokens": 1e10})
    table["role"] = ["rung"] * 20 + ["target"] * 4
    for d, name in enumerate(DOMAINS):
        table[f"proportion_{name}"] = PROPORTIONS[:, d]
    law = catalogue.named("mixture:" + ",".join(DOMAINS))
    for name, theta in TRUTHS.items():
        table[f"loss/{name}"] = law.evaluate(theta, *PROPORTIONS.T) * np.exp(noise * rng.standard_normal(24))
    return table


@pytest.fixture(scope="module")
def mixed():
    return fit(Testbed(_mixtures(0.002)), loss=[*DOMAINS], law="mixture", method="best", resamples=40, level=0.8)


def test_losses_fitted_together_are_each_what_they_are_fitted_alone(mixed):
    alone = fit(Testbed(_mixtures(0.002)), loss="code", law="mixture", method="best", resamples=40, level=0.8)
    assert [one.loss.column for one in mixed.each] == ["loss/web", "loss/code", "loss/books"]
    together = mixed.each[1].loss
    assert together.theta == pytest.approx(alone.loss.theta) and together.theta_draws == alone.loss.theta_draws
    assert mixed.predictions[0].columns["loss/code"] == pytest.approx(alone.predictions[0].measured_loss)


def test_the_best_mixture_is_better_than_any_other_within_what_was_tried(mixed):
    best = best_settings(mixed)
    tried_Dx2 = np.array([setting.tried for setting in best.settings])
    r_Dx1 = np.array([setting.value for setting in best.settings])[:, None]
    other_DxN = np.random.default_rng(2).dirichlet(np.ones(3), 20_000).T
    other_DxN = other_DxN[:, ((other_DxN >= tried_Dx2[:, :1]) & (other_DxN <= tried_Dx2[:, 1:])).all(0)]

    def mean(r_DxN):
        form = catalogue.named(mixed.loss.law)
        return np.mean([form.evaluate(tuple(one.loss.theta.values()), *r_DxN) for one in mixed.each], axis=0)

    assert other_DxN.shape[1] > 1000 and r_Dx1.sum() == pytest.approx(1, abs=1e-9)
    assert float(mean(r_Dx1)[0]) <= mean(other_DxN).min() + 1e-6
    assert (
        best.loss == pytest.approx(float(mean(r_Dx1)[0])) and best.loss_interval[0] < best.loss < best.loss_interval[1]
    )
    equal = next(cost for cost in best.costs if cost.choice == "equal parts")
    assert equal.penalty == pytest.approx(float(mean(np.full((3, 1), 1 / 3))[0]) - best.loss, abs=1e-9)
    assert all(s.interval[0] <= s.value + 0.02 and s.value - 0.02 <= s.interval[1] for s in best.settings)


def test_settings_show_themselves_in_a_notebook(mixed):
    import fitting

    shown = fitting.best_settings(mixed)._repr_html_()
    assert "proportion_code" in shown and "What a wrong choice costs" in shown and "equal parts" in shown


def test_the_best_mixture_for_one_loss_is_as_much_of_its_domain_as_was_tried(mixed):
    best = best_settings(mixed, target="code")
    code = next(setting for setting in best.settings if setting.name == "proportion_code")
    assert code.value == pytest.approx(code.tried[1], abs=1e-3) and code.at_edge
    assert best.target == "loss/code" and [*best.losses] == ["loss/code"]


def test_the_best_rate_and_batch_are_those_of_the_law():
    rng = np.random.default_rng(3)
    params, tokens = (10 ** rng.uniform(low, high, 150) for low, high in ((7.5, 9), (9.5, 11)))
    law, theta = catalogue.named("step_law"), (1.8, 480, 2100, 0.02, 0.01, 0.35, 0.37, 1.79, 0.713, 0.307, 0.58, 0.571)
    rate = 1.79 * params**-0.713 * tokens**0.307 * np.exp(rng.uniform(-2, 2, 150))
    batch = 0.58 * tokens**0.571 * np.exp(rng.uniform(-2, 2, 150))
    table = pd.DataFrame({"params": params, "tokens": tokens, "learning_rate": rate, "batch_size": batch})
    table = table.assign(
        run=[f"s{i}" for i in range(150)], **{"loss/web": law.evaluate(theta, params, tokens, rate, batch)}
    )
    fitted = fit(Testbed(table), loss="web", law="step_law", method="best", resamples=0)
    best = best_settings(fitted, given={"params": 5e8, "tokens": 3e10})
    found = {setting.name: setting.value for setting in best.settings}
    assert found == pytest.approx(
        {"learning_rate": 1.79 * 5e8**-0.713 * 3e10**0.307, "batch_size": 0.58 * 3e10**0.571}, rel=1e-2
    )
    costs = {f"{s.name} {cost.choice}": cost.penalty for s in best.settings for cost in s.costs}
    assert costs["learning_rate twice"] == pytest.approx(0.02 * np.log(2) ** 2, rel=0.05)
    assert costs["batch_size half"] == pytest.approx(0.01 * np.log(2) ** 2, rel=0.05)
    budget = best_settings(fitted, budget_flops=1e20)
    sizes = {setting.name: setting.value for setting in budget.settings}
    # Hoffmann et al. 2022, Eq. 4, of the law at the best rate and batch.
    optimal = ((0.35 * 480) / (0.37 * 2100)) ** (1 / 0.72) * (1e20 / 6) ** (0.37 / 0.72)
    assert sizes["params"] == pytest.approx(optimal, rel=0.05)
    assert 6 * sizes["params"] * budget.given["tokens"] == pytest.approx(1e20)


@pytest.mark.parametrize(
    "options, refused",
    [
        ({"target": "maths"}, "target 'maths' has no law here; there are loss/web, loss/code, loss/books and mean"),
        ({"budget_flops": 1e20}, "it takes no budget"),
        ({"given": {"experts": 8.0}}, "experts is 8: mixture:web,code,books is a law of proportion_web"),
    ],
)
def test_what_cannot_be_advised_is_refused(mixed, options, refused):
    with pytest.raises(ValueError, match=refused):
        best_settings(mixed, **options)


def test_a_law_of_size_and_data_alone_has_no_settings(mixed):
    with pytest.raises(ValueError, match="nothing to choose but N and D"):
        best_settings(dataclasses.replace(mixed, loss=dataclasses.replace(mixed.loss, law="chinchilla"), others=()))


def test_proportions_that_do_not_sum_to_one_are_refused_by_fit_and_by_predict(mixed):
    from fitting.prediction import predict

    table = _mixtures()
    table.loc[3, "proportion_web"] += 0.1
    with pytest.raises(ValueError, match=r"proportions of run 'm3' sum to 1\.1: they must sum to one"):
        fit(Testbed(table), loss="web", law="mixture", method="best")
    with pytest.raises(ValueError, match=r"proportions sum to 0\.9: they must sum to one"):
        predict(mixed, 1e8, 1e10, columns={"proportion_web": 0.5, "proportion_code": 0.2, "proportion_books": 0.2})
    percent = _mixtures()
    percent[[f"proportion_{name}" for name in DOMAINS]] *= 100
    with pytest.raises(ValueError, match="it must be a proportion, 0 to 1, not percent"):
        fit(Testbed(percent), loss="web", law="mixture", method="best")
