"""Do the intervals hold what they promise? Simulated ladders with a known truth, and the published held-out targets."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

import gadre2024
from fitting import uncertainty
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.prediction import predict
from fitting.testbeds.testbed import Testbed

# Ladders like the demo's: sizes over an 8-fold range of N at M = 20, the smallest also far over-trained.
SIZES = np.geomspace(13e3, 104e3, 6)
LADDERS = {
    "four_sizes": [*((n, 20) for n in SIZES[[0, 2, 4, 5]]), (SIZES[0], 320)],
    "six_sizes": [*((n, 20) for n in SIZES), (SIZES[0], 80), (SIZES[0], 320)],
}
TARGETS = [(2.7e5, 20), (8e4, 240)]  # 7 and 5 times the compute of the largest rung
AFAR = (2.7e5, 5.4e6)
TRUTH = {"E": 0.6, "at_largest": 0.9, "tokens_share": 0.4}


def _truth(eta: float) -> np.ndarray:
    """Parameters with which the largest rung's loss is E plus 0.9 nats, 40 % of them for want of tokens."""
    size, tokens = SIZES[-1], 20 * SIZES[-1]
    _, size_term, token_term = catalogue.OVER_TRAINING.evaluate_terms([eta], size, tokens)
    at_largest, share = TRUTH["at_largest"], TRUTH["tokens_share"]
    return np.array([TRUTH["E"], at_largest * (1 - share) / size_term, at_largest * share / token_term, eta])


def _simulated(ladder, eta, noise, rng) -> tuple[Testbed, np.ndarray]:
    """A ladder with noise, and what its targets will measure."""
    params, multiplier = np.array([*ladder, *TARGETS], float).T
    loss = catalogue.OVER_TRAINING.evaluate(_truth(eta), params, params * multiplier)
    loss = loss * (1 + noise * rng.standard_normal(len(loss)))
    rungs = len(ladder)
    names = [f"run{i}" for i in range(rungs)]
    table = {"run": names, "params": params[:rungs], "tokens": (params * multiplier)[:rungs], "loss/x": loss[:rungs]}
    return Testbed(pd.DataFrame(table)), loss[rungs:]


def _coverage(ladder, eta, noise, *, repeats, level, seed=0):
    """Share of targets covered, and the median half-width relative to the loss."""
    rng = np.random.default_rng(seed)
    covered, widths, errors = [], [], []
    for _ in range(repeats):
        testbed, truth = _simulated(ladder, eta, noise, rng)
        law = fit(testbed, loss="x", level=level)
        for (params, multiplier), measured in zip(TARGETS, truth, strict=True):
            prediction = predict(law, params, params * multiplier)
            low, high = prediction.loss_interval
            covered.append(low <= measured <= high)
            widths.append((high - low) / 2 / measured)
            errors.append(abs(prediction.loss / measured - 1))
    return np.mean(covered), np.median(widths), np.median(errors)


def test_a_simulated_ladder_covers_its_targets():
    covered, width, _ = _coverage(LADDERS["six_sizes"], eta=0.15, noise=0.005, repeats=20, level=0.9)
    assert covered >= 0.85
    assert width < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("eta", [0.11, 0.14, 0.17, 0.22, 0.28])
@pytest.mark.parametrize("noise", [0.002, 0.005, 0.01])
def test_every_simulated_ladder_covers_its_targets(ladder, eta, noise):
    """Nominal 95 %: never much less, and even where runs scatter five times less than is believed, never vacuous.

    Given shapes, the smaller ladder has one degree of freedom left besides the exponent's. The exact interval of one,
    Student's, has a half-width of 12.7 standard errors, which is 18.8 times the median miss.
    """
    covered, width, miss = _coverage(LADDERS[ladder], eta, noise, repeats=60, level=0.95)
    assert covered >= 0.9
    assert width < scipy.stats.t(1).ppf(0.975) / scipy.stats.norm.ppf(0.75) * miss


def test_intervals_cover_the_published_held_out_runs():
    """Targets of 280 times the largest rung's compute, one degree of freedom, sets unlike the training corpus."""
    losses, errors = [], []
    for corpus in gadre2024.CORPORA:
        for loss in gadre2024.SETS:
            law = fit(
                gadre2024.testbed(corpus),
                loss=loss,
                error="average_17",
                select=gadre2024.FIVE,
                select_error=gadre2024.SIX,
                level=0.8,
            )
            losses += [p.loss_interval[0] <= p.measured_loss <= p.loss_interval[1] for p in law.predictions]
            errors += [p.error_interval[0] <= p.measured_error <= p.error_interval[1] for p in law.predictions]
    assert len(losses) == len(errors) == 48
    assert 0.7 <= np.mean(losses) <= 0.9
    assert 0.7 <= np.mean(errors) <= 0.9


def _posterior(testbed, growths=(2.0,), **changes):
    table = testbed.table
    x = (table["params"].to_numpy(float), table["tokens"].to_numpy(float))
    loss = table["loss/x"].to_numpy()
    prior = uncertainty.Prior({"eta": (0.17, 0.25)}, growths)
    return uncertainty.posterior(
        catalogue.OVER_TRAINING, x, loss, prior, relative=True, log_size_NxF=np.log(np.stack(x, -1)), **changes
    )


def test_posterior_agrees_with_markov_chain_monte_carlo():
    """An independent sampler of the same density, in the parameters themselves: walkers of random-walk Metropolis."""
    testbed, _ = _simulated(LADDERS["six_sizes"], 0.15, 0.005, np.random.default_rng(1))
    params, tokens, loss = testbed.table[["params", "tokens", "loss/x"]].to_numpy(float).T
    best = loss.argmin()
    at_Nx2 = np.log([params, tokens]).T
    runs = uncertainty.Noise.of(loss, loss, at_Nx2, 0.0, False)
    white_MxNxN = np.array([runs.whiten_NxN(misfit) for misfit in uncertainty.MISFITS])
    log_volume_M = np.linalg.slogdet(white_MxNxN)[1]

    def log_density(z_Wx5):
        share_Wx3, log_eta_W, log_noise_W = z_Wx5[:, :3], z_Wx5[:, 3], z_Wx5[:, 4]
        eta_Wx1 = np.exp(log_eta_W)[:, None]
        fitted_WxN = (
            share_Wx3[:, :1]
            + share_Wx3[:, 1:2] * (params / params[best]) ** (-2 * eta_Wx1)
            + share_Wx3[:, 2:] * (tokens / tokens[best]) ** (-2 * eta_Wx1)
        )
        residual_WxN = (fitted_WxN * loss[best] - loss) / (loss * (loss / loss[best]) ** 2)
        squares_WxM = np.square(residual_WxN @ np.swapaxes(white_MxNxN, 1, 2)).sum(2).T
        density_W = (
            -len(loss) * log_noise_W
            + scipy.special.logsumexp(log_volume_M - squares_WxM / (2 * np.exp(2 * log_noise_W))[:, None], 1)
            - (np.log(eta_Wx1[:, 0] / 0.17) / 0.25) ** 2 / 2
            - ((log_noise_W - np.log(0.01)) / 0.7) ** 2 / 2
        )
        possible_W = (share_Wx3 > 0).all(1) & (np.log(0.02) < log_eta_W) & (log_eta_W < 0)
        return np.where(possible_W, density_W, -np.inf)

    posterior = _posterior(testbed)
    rng = np.random.default_rng(2)
    eta_S = posterior.theta_SxP[:, 3]
    E_S = posterior.theta_SxP[:, 0] / loss[best]
    unit = [(params[best] ** 2 * 6) ** -eta_S, (tokens[best] ** 2 * 6) ** -eta_S]
    share_SxJ = np.stack(
        [E_S, *(c * u / loss[best] for c, u in zip(posterior.theta_SxP[:, 1:3].T, unit, strict=True))], -1
    )
    draws = np.column_stack([share_SxJ, np.log(eta_S)])
    step = np.linalg.cholesky(np.cov(np.column_stack([draws, rng.normal(0, 0.3, len(draws))]).T)) * 0.9
    z_Wx5 = np.tile([*draws.mean(0), np.log(0.006)], (200, 1))  # walkers, which begin at one place
    value_W, chain = log_density(z_Wx5), []
    for _ in range(1500):
        proposal_Wx5 = z_Wx5 + rng.standard_normal(z_Wx5.shape) @ step.T
        proposed_W = log_density(proposal_Wx5)
        taken_W = np.log(rng.random(len(z_Wx5))) < proposed_W - value_W
        z_Wx5, value_W = np.where(taken_W[:, None], proposal_Wx5, z_Wx5), np.where(taken_W, proposed_W, value_W)
        chain.append(z_Wx5)
    chain = np.concatenate(chain[500:])
    np.testing.assert_allclose(draws.mean(0), chain[:, :4].mean(0), atol=0.15 * chain[:, :4].std(0).max())
    np.testing.assert_allclose(draws.std(0), chain[:, :4].std(0), rtol=0.12)
    assert posterior.noise == pytest.approx(np.sqrt(np.mean(np.exp(2 * chain[:, 4]))), rel=0.1)


@pytest.mark.parametrize("growth", [0.0, 3.0])
def test_how_noise_grows_is_told_by_many_runs_and_hardly_by_five(growth):
    def told(params, multiplier, rng):
        loss = catalogue.OVER_TRAINING.evaluate(_truth(0.15), params, params * multiplier)
        loss = loss * (1 + 0.004 * (loss / loss.min()) ** growth * rng.standard_normal(len(loss)))
        table = {"run": [f"r{i}" for i in range(len(loss))], "params": params, "tokens": params * multiplier}
        return _posterior(Testbed(pd.DataFrame({**table, "loss/x": loss})), growths=uncertainty.GROWTHS).runs.growth

    many = [v.ravel() for v in np.meshgrid(np.geomspace(5e3, 1e5, 16), [20.0, 80.0, 320.0])]
    few = np.array(LADDERS["four_sizes"], float).T
    of_many, of_few = ([told(*ladder, np.random.default_rng(rng)) for rng in range(6)] for ladder in (many, few))
    assert np.mean(of_many) == pytest.approx(growth, abs=0.6)
    assert 1.5 < np.mean(of_few) < 4.5


def test_more_runs_and_less_noise_mean_narrower_intervals():
    def spread(ladder, noise):
        return np.log(
            _posterior(_simulated(LADDERS[ladder], 0.15, noise, np.random.default_rng(0))[0]).theta_SxP[:, 3]
        ).std()

    assert spread("six_sizes", 0.001) < spread("six_sizes", 0.01) < spread("four_sizes", 0.03)


def test_draws_depend_on_the_seed_and_the_centre_does_not():
    testbed, _ = _simulated(LADDERS["four_sizes"], 0.15, 0.005, np.random.default_rng(0))
    first, other = _posterior(testbed, seed=0), _posterior(testbed, seed=1)
    assert (first.shape_Q == other.shape_Q).all() and first.noise == other.noise
    assert (first.theta_SxP != other.theta_SxP).any()


def test_runs_that_contradict_the_law_are_refused():
    table = pd.DataFrame({"run": list("abcde"), "params": SIZES[:5], "tokens": SIZES[[4, 1, 3, 0, 2]] * 20})
    table["loss/x"] = 2 + np.log(table["params"] / 1e4) + np.log(table["tokens"] / 1e5)
    with pytest.raises(ValueError, match="the runs contradict the law over_training"):
        _posterior(Testbed(table))


def _seeds(misfit_at_D, scatter, seeds, rng):
    """Several seeds of five sizes: the law, off by a misfit at each size and by scatter in each run."""
    params, multiplier = np.repeat(np.array(LADDERS["four_sizes"], float), seeds, axis=0).T
    loss = catalogue.OVER_TRAINING.evaluate(_truth(0.15), params, params * multiplier)
    loss = loss * (1 + np.repeat(misfit_at_D, seeds) + scatter * rng.standard_normal(len(loss)))
    names = [f"run{i}" for i in range(len(loss))]
    return Testbed(pd.DataFrame({"run": names, "params": params, "tokens": params * multiplier, "loss/x": loss}))


def test_seeds_that_scatter_are_averaged_and_what_they_share_is_not():
    """Six seeds of a scatter of 3 % predict better than one; six that agree to 0.01 % tell hardly more than one."""
    truth = catalogue.OVER_TRAINING.evaluate(_truth(0.15), *AFAR)
    misfit = 0.01 * np.random.default_rng(3).standard_normal(5)

    def fitted(misfit_at_D, scatter, seeds, rng=0):
        law = fit(_seeds(misfit_at_D, scatter, seeds, np.random.default_rng(rng)), loss="x")
        return law.loss, predict(law, *AFAR)

    misses = [[abs(fitted(0 * misfit, 0.03, seeds, rng)[1].loss - truth) for rng in range(8)] for seeds in (1, 6)]
    assert np.mean(misses[1]) < 0.5 * np.mean(misses[0])
    scattered, _ = fitted(0 * misfit, 0.03, 6)
    assert scattered.noise == pytest.approx(0.03, rel=0.3) and scattered.misfit < 0.5

    (one, of_one), (alike, of_alike) = fitted(misfit, 0, 1), fitted(misfit, 1e-4, 6)
    assert alike.misfit > 0.99 and 0.6 * one.noise < alike.noise < 1.2 * one.noise
    assert np.ptp(of_alike.loss_interval) > 0.6 * np.ptp(of_one.loss_interval)
    # What one run of a size leaves open, that its noise be its own, moves the law far less than it is unsure of.
    assert abs(of_alike.loss - of_one.loss) < 0.15 * np.ptp(of_one.loss_interval)


def test_runs_lie_by_the_logarithms_of_their_sizes_and_by_the_proportions_they_read():
    law, e = catalogue.loss_law("mixture", ["proportion_web", "proportion_code"]), np.e
    rows = {"params": [1, e], "tokens": [e, e**2], "proportion_web": [0, 1], "proportion_code": [1, 0]}
    place_NxF = uncertainty.place(law, rows)
    np.testing.assert_allclose(place_NxF, [[0, 1, 0, uncertainty.REACH], [1, 2, uncertainty.REACH, 0]], atol=1e-12)
    of_public_models = uncertainty.place(catalogue.named("observational"), {"params": 1e8, "tokens": 1e10})
    np.testing.assert_allclose(of_public_models, np.log([1e8, 1e10]))


def test_many_runs_near_one_another_tell_hardly_more_than_one():
    """Their mean is known to the misfit that they share; runs far apart share none."""
    for apart, expected in ((0.01, 0.9 * 0.7 + 0.37 / 40), (100.0, 1 / 40)):
        at_Nx2 = np.outer(np.arange(40) * apart, [1, 1])
        white_NxN = uncertainty.Noise.of(np.ones(40), np.ones(40), at_Nx2, 0.0, True).whiten_NxN(0.7)
        assert 1 / np.square(white_NxN.sum(1)).sum() == pytest.approx(expected, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("runs", [4, 12, 60])
def test_ladders_of_every_form_in_the_family_are_covered(runs):
    assert_calibrated(runs, ladders=200)


def test_ladders_of_a_form_that_is_not_known_beforehand_are_covered():
    assert_calibrated(8, ladders=40, within=0.13)


def assert_calibrated(runs, ladders, within=0.05):
    """Shapes, growth, misfit and noise drawn from what is believed: nominal 80 and 95 % are held."""
    law, rng, covered = catalogue.LOSS_LAWS["coupled_tied"], np.random.default_rng(runs), []
    for _ in range(ladders):
        shape_Q = [shape.median * np.exp(shape.log_sd * rng.standard_normal()) for shape in law.shapes.values()]
        params = np.append(np.geomspace(1e7, 5e8, runs), 5e9)
        tokens = params * np.append(rng.choice([10, 20, 80, 320], runs), 20)
        _, term = law.evaluate_terms(shape_Q, params, tokens)
        share = rng.uniform(0.3, 0.9)
        loss = share + (1 - share) * term / term[:-1].min()
        noise = uncertainty.NOISE * np.exp(uncertainty.NOISE_LOG_SD * rng.standard_normal())
        log_size = np.log([params, tokens]).T
        # What is believed of a target: noise as at the lowest loss of a run, and a misfit that goes on growing.
        seen = np.maximum(loss, loss[:-1].min())
        runs_off = uncertainty.Noise.of(loss, seen, log_size, rng.choice(uncertainty.GROWTHS[:2]), True)
        scale, misfit = runs_off.scale_N, rng.choice(uncertainty.MISFITS)
        root = np.linalg.inv(runs_off.whiten_NxN(misfit) * scale)
        scale[-1] *= uncertainty.growth_beyond(misfit, log_size[:-1], log_size[-1])
        measured = loss + noise * scale * (root @ rng.standard_normal(runs + 1))
        if (measured < 0.5 * loss).any():
            continue  # noise beyond what a team would fit
        table = {"run": [f"r{i}" for i in range(runs)], "params": params[:-1], "tokens": tokens[:-1]}
        fitted = fit(Testbed(pd.DataFrame({**table, "loss/x": measured[:-1]})), loss="x", level=0.8)
        for level in (0.8, 0.95):
            low, high = predict(dataclasses.replace(fitted, level=level), params[-1], tokens[-1]).loss_interval
            covered.append(low <= measured[-1] <= high)
    assert len(covered) > 1.8 * ladders
    share_80, share_95 = np.mean(np.reshape(covered, (-1, 2)), 0)
    assert abs(share_80 - 0.8) <= within and abs(share_95 - 0.95) <= within
