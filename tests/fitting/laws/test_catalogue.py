"""The laws say what the paper's equations say, at any size, and print themselves."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.mathtext import MathTextParser

from fitting.laws import catalogue, latex
from synthetic_law import synthetic_law

_DOMAINS = ["proportion_web", "proportion_code-2", "proportion_books_old"]
_MIXTURES = [catalogue.loss_law(name, _DOMAINS) for name in catalogue.FAMILIES]
_ALL = [
    *(law for laws in (catalogue.LOSS_LAWS, catalogue.TASK_LAWS, catalogue.ERROR_LAWS) for law in laws.values()),
    *_MIXTURES,
]


def test_over_training_is_equation_4_of_gadre_et_al():
    """N = 2, D = 24: M = 12, C = 288; with eta = 1/2, L = 1 + (3 √12 + 5/√12)/√288."""
    expected = 1 + (3 * 12**0.5 + 5 * 12**-0.5) * 288**-0.5
    assert catalogue.OVER_TRAINING.evaluate((1, 3, 5, 0.5), 2.0, 24.0) == pytest.approx(expected, rel=1e-14)


def test_exponential_decay_is_equation_5_of_gadre_et_al():
    assert catalogue.EXPONENTIAL_DECAY.evaluate((0.75, 2.0, np.log(2)), 3.0) == pytest.approx(0.75 - 2 / 8, rel=1e-14)


@settings(max_examples=30)
@given(st.floats(0.02, 1), st.floats(3, 15), st.floats(3, 18))
def test_over_training_is_a_power_law_in_params_and_in_tokens(eta, log_params, log_tokens):
    """The terms are (6N²)^-eta and (6D²)^-eta, from a thousand parameters to beyond anything that will be trained."""
    params, tokens = 10**log_params, 10**log_tokens
    one, size, data = catalogue.OVER_TRAINING.evaluate_terms([eta], params, tokens)
    assert one == 1
    np.testing.assert_allclose(size, (6 * params**2) ** -eta, rtol=1e-11)
    np.testing.assert_allclose(data, (6 * tokens**2) ** -eta, rtol=1e-11)


def test_laws_are_evaluated_in_double_precision_and_leave_jax_as_it_was():
    value = catalogue.OVER_TRAINING.evaluate((1.0, 200.0, 300.0, 0.14), np.array([1e9]), np.array([2e10]))
    assert value.dtype == np.float64
    assert jax.numpy.ones(1).dtype == np.float32


def test_draws_and_runs_broadcast():
    theta_PxSx1 = np.ones((4, 7, 1)) * np.array([1, 2, 3, 0.1])[:, None, None]
    assert catalogue.OVER_TRAINING.evaluate(theta_PxSx1, np.ones(5), np.ones(5)).shape == (7, 5)


@pytest.mark.parametrize("law", _ALL, ids=lambda law: law.name)
def test_every_law_prints_in_symbols(law):
    text = latex.in_symbols(law)
    assert "{" + law.parameters[0] + "}" not in text
    MathTextParser("path").parse(f"${text}$")


def test_a_fitted_law_prints_its_numbers():
    law = synthetic_law()
    assert (
        latex.in_numbers(catalogue.OVER_TRAINING, law.loss.theta)
        == r"L = 0.9 + (3.1\,M^{0.14} + 28\,M^{-0.14})\,C^{-0.14}"
    )
    MathTextParser("path").parse(f"${latex.in_numbers(catalogue.EXPONENTIAL_DECAY, law.error.theta)}$")


def test_large_and_negative_numbers_print_as_people_write_them():
    fit = dataclasses.replace(synthetic_law().loss, theta={"E": -1.5, "a": 1234567.0, "b": -2e-7, "eta": 0.25})
    assert latex.in_numbers(catalogue.OVER_TRAINING, fit.theta) == (
        r"L = -1.5 + (1.235\times 10^{6}\,M^{0.25} - 2\times 10^{-7}\,M^{-0.25})\,C^{-0.25}"
    )


CHINCHILLA = (1.8, 480.0, 2100.0, 0.35, 0.37)


def test_chinchilla_is_equation_2_of_hoffmann_et_al():
    law = catalogue.LOSS_LAWS["chinchilla"]
    assert law.evaluate((1, 2, 3, 0.5, 0.25), 4.0, 16.0) == pytest.approx(1 + 2 / 2 + 3 / 2, rel=1e-14)
    tied = catalogue.LOSS_LAWS["chinchilla_tied"]
    assert tied.evaluate((1, 2, 3, 0.5), 4.0, 16.0) == law.evaluate((1, 2, 3, 0.5, 0.5), 4.0, 16.0)


def test_kaplan_is_equation_1_5_of_kaplan_et_al():
    expected = ((8.8e13 / 1e9) ** (0.076 / 0.095) + 5.4e13 / 2e10) ** 0.095
    assert catalogue.LOSS_LAWS["kaplan"].evaluate((8.8e13, 5.4e13, 0.076, 0.095), 1e9, 2e10) == pytest.approx(expected)


@settings(max_examples=20)
@given(st.floats(6, 11), st.floats(8, 13))
def test_coupled_without_interaction_is_chinchilla_and_with_it_lies_between_the_terms_and_their_sum(log_n, log_d):
    size, data = 10**log_n, 10**log_d
    chinchilla = catalogue.LOSS_LAWS["chinchilla"].evaluate(CHINCHILLA, size, data)
    coupled = catalogue.LOSS_LAWS["coupled"]
    assert coupled.evaluate((*CHINCHILLA, 1.0), size, data) == pytest.approx(float(chinchilla), rel=1e-12)
    larger = max(480 * size**-0.35, 2100 * data**-0.37)
    assert 1.8 + larger <= coupled.evaluate((*CHINCHILLA, 0.5), size, data) <= chinchilla


def test_data_constrained_is_chinchilla_on_new_data_and_worse_on_repeated():
    law, theta = catalogue.LOSS_LAWS["data_constrained"], (*CHINCHILLA, 5.3, 15.4)
    chinchilla = catalogue.LOSS_LAWS["chinchilla"]
    once, four, forty = law.evaluate(theta, 1e8, 4e10, np.array([4e10, 1e10, 1e9]))
    assert once == pytest.approx(float(chinchilla.evaluate(CHINCHILLA, 1e8, 4e10)), rel=1e-12)
    # D' after 4 epochs: U + U R* (1 - exp(-3/R*)); 1e8 parameters are fewer than is optimal for 1e10 tokens.
    effective = 1e10 * (1 + 15.4 * (1 - np.exp(-3 / 15.4)))
    assert four == pytest.approx(float(chinchilla.evaluate(CHINCHILLA, 1e8, effective)), rel=1e-12)
    assert once < four < forty
    assert law.evaluate((*CHINCHILLA, 5.3, 1e15), 1e8, 4e10, 1e10) == pytest.approx(float(once), rel=1e-6)


def test_precision_is_chinchilla_with_fewer_parameters():
    law = catalogue.LOSS_LAWS["precision"]
    effective = 1e9 * (1 - np.exp(-4 / 2.7))
    expected = catalogue.LOSS_LAWS["chinchilla"].evaluate(CHINCHILLA, effective, 2e10)
    assert law.evaluate((*CHINCHILLA, 2.7), 1e9, 2e10, 4.0) == pytest.approx(float(expected), rel=1e-12)


def test_error_laws_are_those_of_their_papers():
    sigmoid, log_sigmoid = catalogue.ERROR_LAWS["sigmoid"], catalogue.ERROR_LAWS["log_sigmoid"]
    # Acc = a / (1 + exp(-k (L - L_0))) + b with a = -0.6 and b = 0.9.
    assert sigmoid.evaluate((0.1, 0.6, 3.0, 0.8), 1.0) == pytest.approx(1 - (-0.6 / (1 + np.exp(-3 * 0.2)) + 0.9))
    # Acc = 1 - a log(1 - sigmoid), as their code has it, with a = -0.3.
    accuracy = 1 + 0.3 * np.log(1 - 1 / (1 + np.exp(-3 * 0.2)))
    assert log_sigmoid.evaluate((0.3, 3.0, 0.8), 1.0) == pytest.approx(1 - accuracy)
    # With no error at no loss, b = 1 and eps = -a.
    assert catalogue.ERROR_LAWS["logistic"].evaluate((0.6, 3.0, 0.8), 1.0) == pytest.approx(
        0.6 / (1 + np.exp(-3 * 0.2))
    )
    assert catalogue.ERROR_LAWS["logistic"].evaluate((0.6, 50.0, 20.0), 0.1) == pytest.approx(0, abs=1e-99)
    assert catalogue.ERROR_LAWS["loss_to_loss"].evaluate((1.2, 0.9, 2.0, 1.5), 2.0) == pytest.approx(1.2 + 0.9 * 0.25)


def test_an_unknown_law_is_named_with_those_that_are_known():
    with pytest.raises(ValueError, match="law 'chinchila' is unknown to this version; it knows over_training"):
        catalogue.named("chinchila")


@pytest.mark.parametrize("law", _ALL, ids=lambda law: law.name)
def test_a_law_is_the_same_by_numpy_and_traced_by_jax(law):
    x = {"loss": 3.0, "lr_area": 4.0, "lr_annealing": 0.01, "weight_bits": 8.0, "unique_tokens": 1e9}
    x |= {"params": 1e8, "tokens": 2e10, "width": 512.0, "depth": 12.0, "experts": 8.0, "streams": 4.0}
    x |= {"params_active": 4e7, "params_average": 7e7, "params_non_vocab": 8e7, "params_vocab": 2e7}
    x |= {"teacher_loss": 2.4, "student_loss": 2.6, "seconds": 1e5, "tries": 10.0, "capability": -0.3}
    x |= {"quantised_bits": 4.0, "tokens_before": 1e10, "learning_rate": 1e-3, "batch_size": 256.0}
    x |= {"proportion_web": 0.5, "proportion_code-2": 0.0, "proportion_books_old": 0.5}
    theta = [1.5] * len(law.linear) + [shape.median for shape in law.shapes.values()]
    inputs = [x[name] for name in law.inputs]
    with jax.enable_x64(True):
        traced = jax.jit(lambda theta, inputs: law.f(theta, *inputs))(theta, inputs)
    assert float(law.evaluate(theta, *inputs)) == pytest.approx(float(traced), rel=1e-13)


def test_experts_are_the_law_of_clark_et_al():
    """With S-BASE's coefficients, in decimal logarithms, as they write it."""
    a, b, c, d, E_start, E_max = -0.082, -0.108, 0.009, 1.104, 1.847, 314.478
    for experts in (1, 8, 512):
        log_e = -np.log10(1 / (experts - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max)
        expected = 10 ** (a * np.log10(5e8) + b * log_e + c * np.log10(5e8) * log_e + d)
        ours = catalogue.LOSS_LAWS["experts"].evaluate((10**d, -a, -b, c / np.log(10), E_start, E_max), 5e8, experts)
        assert ours == pytest.approx(expected, rel=1e-12)
    assert 10 ** (-np.log10(1 / (0 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max)) == pytest.approx(E_start)


def test_the_joint_law_of_experts_is_that_of_ludziejewski_et_al():
    """With their coefficients: E-hat saturates as Clark et al.'s does."""
    N, D, log_e = 1e9, 2e10, -np.log(1 / (7 + 1 / (1 / 2.0732 - 1 / 290.4521)) + 1 / 290.4521)
    size = 35.91 * np.exp(0.2285 * log_e) * N ** (-0.1889 - 0.0098 * log_e)
    data = 35.98 * np.exp(-0.5529 * log_e) * D ** (-0.1775 + 0.0259 * log_e)
    theta = (1.3637, 35.91, 35.98, 0.1889, 0.1775, 0.2285, 0.0098, 0.5529, 0.0259, 2.0732, 290.4521)
    ours = catalogue.LOSS_LAWS["experts_joint"].evaluate(theta, N, D, 8.0)
    assert ours == pytest.approx(1.3637 + size + data, rel=1e-12)


def test_parallel_streams_are_as_many_more_parameters_as_chen_et_al_say():
    """Their fit to the Pile: A = 1.35e8, k = 0.345, alpha = 0.224, E = 1.377."""
    expected = (1.353353e8 / (1.6e9 * (0.344689 * np.log(4) + 1))) ** 0.223649 + 1.376680
    theta = (1.376680, 1.353353e8**0.223649, 0.223649, 0.344689)
    assert catalogue.LOSS_LAWS["parallel_streams"].evaluate(theta, 1.6e9, 4) == pytest.approx(expected, rel=1e-12)


def test_a_swept_run_is_best_at_the_rate_and_batch_of_step_law():
    law, N, D = catalogue.LOSS_LAWS["step_law"], 1e9, 1e11
    theta = (1.8, 480, 2100, 0.02, 0.01, 0.35, 0.37, 1.79, 0.713, 0.307, 0.58, 0.571)
    rate, batch = 1.79 * N**-0.713 * D**0.307, 0.58 * D**0.571
    best = law.evaluate(theta, N, D, rate, batch)
    assert best == pytest.approx(float(catalogue.LOSS_LAWS["chinchilla"].evaluate(theta[:3] + theta[5:7], N, D)))
    assert law.evaluate(theta, N, D, rate * np.e, batch / np.e**2) == pytest.approx(float(best) + 0.02 + 0.04)
    moved = catalogue.LOSS_LAWS["rate_and_batch"]
    still = moved.evaluate((*theta, 0.0, 0.0), N, D, 1e-3, 1e6)
    assert still == pytest.approx(float(law.evaluate(theta, N, D, 1e-3, 1e6)), rel=1e-12)


@pytest.mark.parametrize(
    "law, name, values, bad",
    [
        ("experts", "experts", [1, 8, 0.5, np.nan, -1], [False, False, True, True, True]),
        ("parallel_streams", "streams", [1, 0], [False, True]),
        ("chinchilla", "tokens", [1e9, 0, -1, np.inf], [False, True, True, True]),
        ("annealing", "lr_annealing", [0, -1, np.inf], [False, False, True]),
        ("mixture:a,b", "proportion_a", [0, 1, 20, -0.1, np.nan], [False, False, True, True, True]),
    ],
)
def test_a_law_knows_what_its_inputs_can_be(law, name, values, bad):
    assert catalogue.named(law).refuse(name, values)[0].tolist() == bad


def test_laws_along_a_ray_are_chinchilla_along_it():
    """At one D/N = M and one exponent, N^-a = M^(a/2) (C/6)^(-a/2); at one D or N the other term is irreducible."""
    params = np.geomspace(1e7, 1e10, 5)
    E, A, B, alpha = 1.8, 480.0, 2100.0, 0.34
    along = catalogue.LOSS_LAWS["chinchilla_tied"].evaluate((E, A, B, alpha), params, 20 * params)
    c = (A * 20 ** (alpha / 2) + B * 20 ** (-alpha / 2)) * 6 ** (alpha / 2)
    assert catalogue.LOSS_LAWS["compute"].evaluate((E, c, alpha / 2), params, 20 * params) == pytest.approx(along)
    at_one_d = catalogue.LOSS_LAWS["chinchilla"].evaluate((E, A, B, alpha, 0.3), params, 1e10)
    assert catalogue.LOSS_LAWS["params_only"].evaluate((E + B * 1e10**-0.3, A, alpha), params) == pytest.approx(
        at_one_d
    )
    at_one_n = catalogue.LOSS_LAWS["chinchilla"].evaluate((E, A, B, alpha, 0.3), 1e9, params)
    assert catalogue.LOSS_LAWS["tokens_only"].evaluate((E + A * 1e9**-alpha, B, 0.3), params) == pytest.approx(at_one_n)


def test_every_law_is_on_the_page_that_readers_choose_from():
    page = (pathlib.Path(__file__).parents[3] / "docs" / "laws.md").read_text()
    known = {**catalogue.LOSS_LAWS, **catalogue.TASK_LAWS, **catalogue.ERROR_LAWS, **catalogue.FAMILIES}
    assert [name for name in known if f"`{name}`" not in page] == []
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    for name, law in {**catalogue.LOSS_LAWS, **catalogue.TASK_LAWS}.items():
        (row,) = (row for row in rows if f"`{name}`" in row[0])
        assert set(row[1].replace(" or ", ", ").split(", ")) >= set(law.inputs), name
        assert ("*" in row[0]) == (len(law.shapes) <= 3 and not law.units), name


def test_a_mixture_is_the_law_of_ye_et_al_and_the_same_law_whenever_it_is_named():
    """With k = 2 and t = (-1, 0.5) of two domains, c = 1.5."""
    law = catalogue.named("mixture:web,code")
    ours = law.evaluate((1.5, 2 * np.exp(-1), 2 * np.exp(0.5)), 0.3, 0.7)
    assert ours == pytest.approx(1.5 + 2 * np.exp(-1 * 0.3 + 0.5 * 0.7), rel=1e-14)
    assert law.evaluate((1.5, 0.2, 0.4), 0.0, 1.0) == pytest.approx(1.9)
    assert catalogue.loss_law("mixture", ["run", "proportion_web", "proportion_code"]) is law
    assert law.off_one({"proportion_web": [0.3, 0.333, 0.5], "proportion_code": [0.7, 0.666, 0.7]}) == pytest.approx(
        [0, 0, 0.2]
    )


def test_a_law_whose_columns_are_missing_is_refused_with_those_that_could_be_fitted():
    with pytest.raises(ValueError, match=r"of proportion_<domain> of two domains or more: there is no column"):
        catalogue.loss_law("mixture", ["params", "tokens", "proportion_web"])
    with pytest.raises(
        ValueError, match=r"no column experts; those there are are enough for .*params_only, tokens_only"
    ):
        catalogue.loss_law("experts", ["params", "tokens", "params_active"])
    with pytest.raises(ValueError, match="a domain's name"):
        catalogue.named("mixture:web,c/4")
