"""Figures show what the law says, where the runs lie, and the same bytes for the same data."""

import dataclasses
import math
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.laws import catalogue, latex
from fitting.reports import drawing, figures, words
from synthetic_law import LOSS_THETA, loss_of, synthetic_law


def marks(figure, marker):
    """(x, y) of every mark of that shape, one a line, as `drawing.rung` and `drawing.star` make them."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker and line.get_xdata().size == 1]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def test_reducible_loss_marks_every_run_at_its_compute_and_measured_loss_above_e():
    law = synthetic_law()
    figure = figures.reducible_loss(law)
    rungs = [mark for kind in drawing.families(law) for mark in marks(figure, kind.marker)]
    for point in law.loss.points:
        assert any(np.allclose(mark, (point.flops, point.measured - LOSS_THETA["E"])) for mark in rungs)
    expected = [(target.flops, target.measured_loss - LOSS_THETA["E"]) for target in law.predictions]
    np.testing.assert_allclose(marks(figure, "*"), expected)


def test_reducible_loss_draws_the_law_at_each_token_multiplier():
    law = synthetic_law()
    figure = figures.reducible_loss(law)
    curves = [line for line in figure.axes[0].lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 10]
    for kind, curve in zip(drawing.families(law), curves, strict=True):
        flops, drawn = curve.get_xdata()[7], curve.get_ydata()[7]
        params = math.sqrt(flops / 6 / kind.token_multiplier)
        expected = loss_of(tuple(LOSS_THETA.values()), params, kind.token_multiplier * params) - LOSS_THETA["E"]
        assert drawn == pytest.approx(expected, rel=1e-9)


def test_a_law_of_more_than_sizes_is_drawn_at_its_runs(monkeypatch):
    more = dataclasses.replace(catalogue.OVER_TRAINING, name="more", inputs=("params", "tokens", "unique_tokens"))
    monkeypatch.setattr(catalogue, "LOSS_LAWS", {**catalogue.LOSS_LAWS, "more": more})
    law = synthetic_law()
    law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, law="more"))
    figure = figures.reducible_loss(law)
    expected = [(point.flops, point.fitted - LOSS_THETA["E"]) for point in law.loss.points]
    drawn = marks(figure, "_")
    assert all(any(np.allclose(mark, point) for mark in drawn) for point in expected)
    assert not [line for line in figure.axes[0].lines if len(line.get_xdata()) > 10]


def test_error_figure_puts_targets_at_measured_loss_and_error():
    law = synthetic_law()
    figure = figures.error_against_loss(law, chance_error=0.75)
    np.testing.assert_allclose(marks(figure, "*"), [(p.measured_loss, p.measured_error) for p in law.predictions])
    assert figure.axes[0].get_ylim()[1] > 0.75


def test_a_projection_has_an_interval_but_no_star():
    law = synthetic_law()
    unknown = [dataclasses.replace(p, measured_loss=math.nan, measured_error=math.nan) for p in law.predictions]
    law = dataclasses.replace(law, predictions=tuple(unknown))
    for figure in (
        figures.reducible_loss(law),
        figures.error_against_loss(law),
        figures.residuals(law, "loss", against="params"),
    ):
        assert marks(figure, "*") == []
    intervals = [line for line in figures.reducible_loss(law).axes[0].lines if line.get_marker() == "_"]
    assert [tuple(line.get_ydata() + LOSS_THETA["E"]) for line in intervals] == [
        p.loss_interval for p in law.predictions
    ]


def test_error_figure_of_a_law_without_error_says_what_to_do():
    with pytest.raises(ValueError, match="fit it with an error column"):
        figures.error_against_loss(synthetic_law(error=False))


def test_residuals_are_percent_of_the_law():
    law = synthetic_law()
    stars = marks(figures.residuals(law, "loss", against="params"), "*")
    np.testing.assert_allclose(stars, [(250_000, 0.4), (76_000, -3.1)], rtol=1e-6)


def test_training_curves_average_slices_and_skip_what_is_not_finite():
    law = synthetic_law()
    run = law.loss.points[0].run
    tokens = np.arange(1, 5001) * 64.0
    curve = [*zip(tokens, np.full(5000, 2.5), strict=True), (5001 * 64.0, math.nan)]
    figure = figures.training_curves(
        law, {run: curve, "unknown": [(10, 3.0), (20, 2.0)], "empty": []}, against="tokens"
    )
    thinned, unknown = figure.axes[0].lines
    assert len(thinned.get_xdata()) <= 200
    np.testing.assert_allclose(thinned.get_ydata(), 2.5)
    assert unknown.get_color() == drawing.MUTED
    assert len(figures.training_curves(law, {run: curve, "unknown": curve}, against="flops").axes[0].lines) == 1


@pytest.mark.parametrize("tokens", [64.0, 12_345_678_901.0, 1e-3])
@pytest.mark.parametrize("against", ["tokens", "flops"])
def test_a_training_curve_of_one_point_is_that_point(tokens, against):
    law = synthetic_law()
    figure = figures.training_curves(law, {p.run: [(tokens, 2.5)] for p in law.loss.points}, against=against)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o"] * len(law.loss.points)
    assert all(line.get_ydata().tolist() == [2.5] for line in figure.axes[0].lines)
    assert "<svg" in drawing.svg(figure, "x")


@given(st.floats(1e-6, 1e18), st.lists(st.floats(1, 1 + 1e-12), min_size=1, max_size=4))
@settings(max_examples=30)
def test_points_that_are_nearly_one_are_averaged(tokens, times):
    law = synthetic_law()
    curve = [(tokens * t, 2.5) for t in times]
    (line,) = figures.training_curves(law, {law.loss.points[0].run: curve}, against="tokens").axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), 2.5)


def test_the_same_data_gives_the_same_bytes_and_ids_of_its_own():
    first, second = (drawing.svg(figures.reducible_loss(synthetic_law()), "one") for _ in range(2))
    assert first == second
    assert all(name.startswith("one-") for name in re.findall(r' id="([^"]*)"', first))
    references = re.findall(r'(?:href="#|url\(#)([^")]*)', first)
    assert references and set(references) <= set(re.findall(r' id="([^"]*)"', first))


def test_a_pdf_is_the_same_bytes_for_the_same_data():
    first, second = (drawing.pdf(figures.residuals(synthetic_law(), "loss", against="params")) for _ in range(2))
    assert first == second and first.startswith(b"%PDF") and b"/Font" in first


def test_marks_tell_their_run_and_hostile_names_stay_text():
    law = synthetic_law()
    hostile = dataclasses.replace(law.loss.points[0], run='<script>"&$x$')
    law = dataclasses.replace(
        law, loss=dataclasses.replace(law.loss, column="loss/$<b>", points=(hostile, *law.loss.points[1:]))
    )
    drawn = drawing.svg(figures.reducible_loss(law), "name") + drawing.svg(figures.error_against_loss(law), "name")
    assert "<title>&lt;script&gt;&quot;&amp;$x$: N = 15k, D = 300k, M = 20</title>" in drawn
    assert "<script>" not in drawn and "<b>" not in drawn


@settings(max_examples=50)
@given(st.lists(st.floats(1, 1e4), min_size=1, max_size=60))
def test_every_run_has_one_family_and_families_stay_few(multipliers):
    law = synthetic_law(targets=False, error=False)
    points = tuple(dataclasses.replace(law.loss.points[0], tokens=15_000 * m, params=15_000) for m in multipliers)
    law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points))
    kinds = drawing.families(law)
    assert len(kinds) <= 8
    assert len({(kind.colour, kind.marker) for kind in kinds}) == len(kinds)
    assert all(sum(kind.low <= point.token_multiplier <= kind.high for kind in kinds) == 1 for point in points)


@settings(max_examples=50)
@given(low=st.floats(1e-3, 1e24), ratio=st.floats(1.5, 1e12))
def test_log_ticks_are_few_and_within_the_axis(low, ratio):
    _, panel = drawing.axes()
    panel.set_xscale("log")
    panel.set_xlim(low, low * ratio)
    drawing.log_ticks(panel, "x", words.number)
    ticks = panel.get_xticks()
    assert 1 <= len(ticks) <= 7
    assert all(low <= tick <= low * ratio for tick in ticks)


@pytest.mark.parametrize(
    "law", [*catalogue.LOSS_LAWS.values(), *catalogue.ERROR_LAWS.values()], ids=lambda law: law.name
)
def test_every_law_can_be_typeset(law):
    assert "<path" in drawing.svg(figures.formula(latex.in_symbols(law)), "formula")


@pytest.mark.parametrize(
    "words, value, expected",
    [
        (words.short, 15_000, "15k"),
        (words.short, 999_900, "1M"),
        (words.short, 1.38e11, "138B"),
        (words.flops, 1e12, "10¹²"),
        (words.flops, 8.8e12, "8.8×10¹²"),
        (words.flops, 9.96e12, "10¹³"),
        (words.number, -0.0000314, "−3.14×10⁻⁵"),
        (words.number, 0.27139, "0.2714"),
        (words.number, math.nan, "–"),
    ],
)
def test_numbers_in_words(words, value, expected):
    assert words(value) == expected


def test_drawing_leaves_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    drawing.svg(figures.reducible_loss(synthetic_law()), "name")
    assert dict(matplotlib.rcParams) == before
    imported = subprocess.run(
        [sys.executable, "-c", "import fitting.reports.report, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"matplotlib.pyplot", "jax", "pandas", "tensorflow"} & set(imported)
