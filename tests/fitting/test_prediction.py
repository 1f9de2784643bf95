"""A prediction comes from the artifact alone, and its interval is of what one run would measure."""

import dataclasses
import math
import re

import numpy as np
import pytest

from fitting.artifacts import fitted
from fitting.prediction import ladder_of, pooled_error, predict, strays
from fitting.uncertainty import REACH, alike, apart
from synthetic_law import ERROR_THETA, LOSS_THETA, error_of, loss_of, synthetic_law

PARAMS, TOKENS = 2.5e5, 5e6


def _certain(law, misfit=0.0):
    """The law with its parameters known exactly: only the noise of a run is left, so much of it the law's misfit."""
    loss, error = (
        dataclasses.replace(fit, theta_draws=(tuple(fit.theta.values()),) * 1000, misfit=misfit)
        for fit in (law.loss, law.error)
    )
    return dataclasses.replace(law, loss=loss, error=error)


def test_the_point_is_the_law_and_the_error_is_fed_the_predicted_loss():
    prediction = predict(synthetic_law(), PARAMS, TOKENS, "big")
    assert prediction.loss == pytest.approx(loss_of(tuple(LOSS_THETA.values()), PARAMS, TOKENS), rel=1e-12)
    assert prediction.error == pytest.approx(error_of(tuple(ERROR_THETA.values()), prediction.loss), rel=1e-12)
    assert (prediction.run, prediction.params, prediction.tokens) == ("big", PARAMS, TOKENS)
    assert math.isnan(prediction.measured_loss)


def test_the_file_alone_predicts_the_same(tmp_path):
    fitted.save(synthetic_law(), tmp_path / "law.json")
    from_file = predict(fitted.load(tmp_path / "law.json"), PARAMS, TOKENS)
    assert repr(from_file) == repr(predict(synthetic_law(), PARAMS, TOKENS))


def test_with_known_parameters_the_interval_is_the_noise_of_one_run():
    law = dataclasses.replace(_certain(synthetic_law()), level=0.9)
    law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, noise=0.01, noise_is_relative=True))
    prediction = predict(law, PARAMS, TOKENS)
    low, high = prediction.loss_interval
    assert low == pytest.approx(prediction.loss * (1 - 0.01645), rel=2e-4)
    assert high == pytest.approx(prediction.loss * (1 + 0.01645), rel=2e-4)


def test_the_errors_interval_carries_the_losss():
    """Error noise 0: what is left of its interval is the slope of the error law times the loss's."""
    law = _certain(synthetic_law())
    law = dataclasses.replace(law, error=dataclasses.replace(law.error, noise=0.0))
    prediction = predict(law, PARAMS, TOKENS)
    expected = [error_of(tuple(ERROR_THETA.values()), loss) for loss in prediction.loss_interval]
    assert prediction.error_interval == pytest.approx(expected, abs=1e-3)


def test_a_higher_level_is_a_wider_interval_around_the_point():
    narrow, wide = (predict(dataclasses.replace(synthetic_law(), level=level), PARAMS, TOKENS) for level in (0.5, 0.99))
    for interval in ("loss_interval", "error_interval"):
        inner, outer = getattr(narrow, interval), getattr(wide, interval)
        assert outer[0] < inner[0] < inner[1] < outer[1]


def test_errors_stay_fractions():
    law = synthetic_law()
    law = dataclasses.replace(law, error=dataclasses.replace(law.error, noise=2.0))
    assert predict(law, PARAMS, TOKENS).error_interval == (0.0, 1.0)
    assert predict(law, 1e30, 1e30).error == 0.0


def test_without_an_error_law_there_is_no_error():
    prediction = predict(synthetic_law(error=False), PARAMS, TOKENS)
    assert prediction.error is None and prediction.error_interval is None


@pytest.mark.parametrize(("params", "tokens"), [(0, 1e6), (1e5, -1), (math.nan, 1e6), (1e5, math.inf)])
def test_impossible_sizes_are_refused(params, tokens):
    with pytest.raises(ValueError, match="must be a positive number"):
        predict(synthetic_law(), params, tokens)


def _shifted(law, by):
    """The law with every error higher by `by`."""
    theta = {**law.error.theta, "eps": law.error.theta["eps"] + by}
    draws = tuple((eps + by, k, gamma) for eps, k, gamma in law.error.theta_draws)
    return dataclasses.replace(law, error=dataclasses.replace(law.error, theta=theta, theta_draws=draws))


def test_a_pooled_error_is_the_median_and_its_interval_holds_every_laws():
    some = [_shifted(synthetic_law(), by) for by in (0.0, 0.01, 0.3)]
    error, (low, high) = pooled_error(some, PARAMS, TOKENS)
    each = [predict(law, PARAMS, TOKENS) for law in some]
    assert error == pytest.approx(each[1].error, abs=1e-12)
    assert low < each[1].error and high > each[2].error_interval[0]
    assert pooled_error(some[:1], PARAMS, TOKENS) == (each[0].error, each[0].error_interval)


def test_laws_of_different_errors_are_not_pooled():
    other = dataclasses.replace(synthetic_law(), level=0.5)
    for some in ([], [synthetic_law(error=False)], [synthetic_law(), other]):
        with pytest.raises(ValueError, match="laws to pool predict the same error at the same level"):
            pooled_error(some, PARAMS, TOKENS)


def test_noise_grows_with_the_loss_above_the_lowest_that_was_fitted():
    law = _certain(synthetic_law(error=True))
    for params, tokens in ((2.5e5, 5e6), (15e3, 3e5)):
        prediction = predict(law, params, tokens)
        grown = max(prediction.loss / law.loss.lowest_loss, 1) ** 3  # the artifact's growth
        low, high = prediction.loss_interval
        assert (high - low) / 2 == pytest.approx(1.2816 * 0.005 * grown * prediction.loss, rel=2e-3)


def test_noise_grows_away_from_the_nearest_run_by_the_misfit_that_is_in_it():
    law, misfit = synthetic_law(), 0.75
    known, certain = _certain(law, misfit), _certain(law)
    points = law.loss.points
    for params, tokens in ((points[0].params, points[0].tokens), (2e3, 9e4), (1e6, 1e8)):
        (low, high), (low_0, high_0) = (predict(one, params, tokens).loss_interval for one in (known, certain))
        apart = min(math.log(params / p.params) ** 2 + math.log(tokens / p.tokens) ** 2 for p in points)
        assert (high - low) / (high_0 - low_0) == pytest.approx(math.sqrt(1 + misfit * apart / REACH**2))


def test_nearby_is_what_the_fitted_runs_lead_to_expect_of_one_more():
    """By hand: of runs and target jointly normal about the law, the precision has the mean and the variance."""
    law = dataclasses.replace(_certain(synthetic_law(), misfit=0.8), level=0.8)
    fit, at = law.loss, (1.5e5, 4e6)
    points = fit.points
    off_N = np.array([p.measured / p.fitted - 1 for p in points])
    place = np.log([*((p.params, p.tokens) for p in points), at])
    point = predict(law, *at)
    loss_T = np.array([*(p.measured for p in points), point.loss])
    value_T = np.array([*(p.measured for p in points), point.loss])
    scale_T = fit.noise_at(value_T, loss_T)
    correlation = 0.8 * alike(apart(place, place)) + 0.2 * np.eye(len(place))
    correlation[-1, -1] += 0.8 * apart(place[-1:], place[:-1]).min()
    precision = np.linalg.inv(correlation * np.outer(scale_T, scale_T))
    mean = -precision[-1, :-1] @ (off_N * [p.fitted for p in points]) / precision[-1, -1]
    near = predict(law, *at, nearby=True)
    assert near.loss - point.loss == pytest.approx(mean, rel=1e-6)
    low, high = near.loss_interval
    # A draw's noise is of what the law says there, off the law or not.
    assert (high - low) / 2 == pytest.approx(1.2816 / math.sqrt(precision[-1, -1]), rel=0.01)
    assert near.error != point.error


def test_nearby_makes_no_difference_far_from_all_runs():
    law = _certain(synthetic_law(), misfit=0.8)
    far, alone = (predict(law, 1e12, 1e14, nearby=nearby) for nearby in (True, False))
    assert far.loss == pytest.approx(alone.loss, rel=1e-6)
    assert far.loss_interval == pytest.approx(alone.loss_interval, rel=1e-6)


def test_a_law_that_knows_no_misfit_has_no_runs_nearby():
    with pytest.raises(ValueError, match=r"was fitted as if each run were off it by its own.*and best without"):
        predict(_certain(synthetic_law()), PARAMS, TOKENS, nearby=True)


def test_no_draw_of_an_error_is_no_fraction_however_far_it_is():
    for params, tokens in ((3, 7), (1e15, 1e18)):
        low, high = predict(synthetic_law(), params, tokens).error_interval
        assert 0 <= low <= high <= 1


def test_a_run_of_more_flops_than_numbers_hold_is_refused():
    with pytest.raises(ValueError, match=r"params is 1e\+300 and tokens 1e\+300: no number is as large as the FLOPs"):
        predict(synthetic_law(), 1e300, 1e300)


def test_a_size_absurdly_far_off_is_said_in_few_digits():
    (told,) = strays({"params": 1e150}, {"params": [1e6]})
    assert "params is 1e+150, 1e+144 times more than the largest run fitted has (1e+06)" in told


def test_a_law_of_repeated_data_is_told_how_much_of_it_is_new():
    theta = {"E": 1.5, "A": 300.0, "B": 400.0, "alpha": 0.3, "beta": 0.3, "R_N": 5.0, "R_D": 15.0}
    law = synthetic_law(error=False)
    draws = (tuple(theta.values()),) * 9
    points = tuple(dataclasses.replace(p, columns={"unique_tokens": p.tokens}) for p in law.loss.points)
    loss = dataclasses.replace(law.loss, law="data_constrained", theta=theta, theta_draws=draws, points=points)
    law = dataclasses.replace(law, loss=loss)
    new, repeated = predict(law, 1e8, 1e10), predict(law, 1e8, 1e10, columns={"unique_tokens": 1e9})
    assert repeated.loss > new.loss and repeated.columns == {"unique_tokens": 1e9}
    with pytest.raises(ValueError, match="data_constrained is a law of params, tokens, unique_tokens, not of width"):
        predict(law, 1e8, 1e10, columns={"width": 10.0})
    with pytest.raises(ValueError, match="it must be a positive number"):
        predict(law, 1e8, 1e10, columns={"unique_tokens": -1.0})


LADDER = {"params": [2e7, 4e8], "tokens": [4e8, 1.3e11], "flops": [5e16, 3e20]}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"params": 7}, r"params is 7, 2,900,000 times less than .*\(2e\+07\).*was 7e\+06 or 7e\+09 meant\?"),
        ({"tokens": 2000}, r"tokens is 2000, 200,000 times less .*was 2e\+09 or 2e\+12 meant\?"),
        ({"tokens": 2e18}, r"tokens is 2e\+18, 15,000,000 times more than the largest .*was 2e\+12 or 2e\+09 meant\?"),
        ({"flops": 1e3}, r"flops is 1000, .* times less .*was 1e\+18 or 1e\+21 meant\?"),
        ({"served_tokens": 5}, r"served_tokens is 5, .* times less"),
    ],
)
def test_a_size_absurdly_far_off_the_ladder_is_told_with_what_may_have_been_meant(asked, said):
    (told,) = strays(asked, LADDER)
    assert re.match(said, told)


def test_what_a_ladder_is_for_is_told_nothing_of():
    """The targets of Gadre et al. 2024 from their five rungs, and a model that serves a lot."""
    ladder = {"params": [1.1e7, 4.1e8], "tokens": [2e8, 8.2e9], "flops": [1.3e16, 2e19]}
    for params, tokens in ((1.4e9, 9.2e11), (6.9e9, 1.4e11), (4e6, 1e8)):
        assert strays({"params": params, "tokens": tokens, "flops": 6 * params * tokens}, ladder) == []
    assert strays({"served_tokens": 1e15, "unique_tokens": 3}, ladder) == []
    assert strays({"params": 0, "tokens": math.inf}, ladder) == []


def test_a_ladder_is_known_by_every_size_that_its_law_is_of():
    law = synthetic_law()
    points = tuple(dataclasses.replace(p, columns={"unique_tokens": p.tokens / 2}) for p in law.loss.points)
    ladder = ladder_of(dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points)))
    assert set(ladder) == {"params", "tokens", "flops", "unique_tokens"}
    assert min(ladder["params"]) == 15_000 and max(ladder["unique_tokens"]) == max(p.tokens for p in points) / 2
