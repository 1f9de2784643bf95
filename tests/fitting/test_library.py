"""`import fitting`: a few names, each with an example that runs; what they give shows itself in a notebook."""

import dataclasses
import doctest
import html.parser
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import fitting
from fitting.testbeds.curves import annealing_sums
from synthetic_law import synthetic_law


class Shown(html.parser.HTMLParser):
    """What a person would read of a cell; raises where tags do not nest."""

    def __init__(self, shown):
        super().__init__()
        self.texts, self._open = [], []
        self.feed(shown._repr_html_())
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_data(self, data):
        if "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


@pytest.mark.parametrize("name", ["", *fitting.__all__])
def test_every_public_name_has_an_example_that_runs(name):
    subject = getattr(fitting, name) if name else fitting
    (example,) = doctest.DocTestFinder(recurse=False).find(subject, name or "fitting", globs={})
    assert example.examples
    failures = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_importing_the_package_or_a_room_of_it_loads_neither_jax_nor_pandas():
    script = "import fitting, sys; from fitting import files; dir(fitting); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "fitting.files" in loaded and not {"jax", "pandas", "matplotlib"} & set(loaded)


def test_a_name_that_is_not_there_is_said_to_be_absent():
    with pytest.raises(AttributeError, match="'fitting' has no attribute 'fitt'"):
        fitting.fitt  # noqa: B018


def test_a_law_shows_its_predictions_its_figures_and_its_parameters(shown):
    law = synthetic_law()
    text, html_ = shown(law)
    for target in law.predictions:
        assert target.run in text and f"{target.loss:.4f}" in text
    for name, value in {**law.loss.theta, **law.error.theta}.items():
        low, high = {**law.loss.theta_intervals, **law.error.theta_intervals}[name]
        assert f"{name} {value:.5g} {low:.4g} to {high:.4g}" in text
    assert html_.count("<figure>") == 2


def test_a_law_of_runs_steps_shows_the_end_of_each_run_that_it_predicts(shown):
    curves = fitting.annealed(_two_runs())
    table = curves.table.assign(role=["checkpoint"] * 21 + ["target"] * 21)
    how = {"law": "annealing", "method": "best", "resamples": 0}
    law = fitting.fit(fitting.Testbed(table), loss="train", select="role == 'checkpoint'", **how)
    text, _ = shown(law)
    assert "constant@2000" in text and "constant@1900" not in text and "21 steps, 4 parameters" in text
    assert [p.loss for p in law.predictions] == pytest.approx([p.measured_loss for p in law.predictions], rel=1e-3)


def test_a_prediction_shows_its_interval_and_what_was_measured(shown):
    law = synthetic_law()
    text, _ = shown(law.predictions[0])
    assert "loss" in text and "error" in text and f"{law.predictions[0].measured_loss:.4f}" in text
    text, _ = shown(fitting.predict(law, 1e9, 2e10))
    assert text.startswith("Prediction N 1B, D 20B, M 20, C 1.2×10²⁰ FLOPs") and text.endswith("– –")


def test_a_table_shows_its_runs_by_role_and_what_was_measured(shown):
    text, _ = shown(fitting.read("gadre2024"))
    assert text.startswith("24 runs, 1 loss and 2 errors")
    assert "rpj target 2 1.44B to 6.89B 138B to 921B" in text and "loss: c4_val error: average , average_17" in text


def test_a_table_of_curves_shows_them_and_counts_runs_not_rows(shown):
    text, html_ = shown(_two_runs())
    assert text.startswith("2 runs, 1 loss") and "checkpoint 42" in text
    assert set(re.findall(r'data-run="([^"]*)"', html_)) == {"falling", "constant"}


def test_advice_and_a_drawing_show_themselves(shown):
    law = synthetic_law()
    text, _ = shown(fitting.advise(law, 1e20, served_tokens=1e12))
    assert "For 10²⁰ training FLOPs" in text and "inference-aware" in text and "doubt left" in text
    _, html_ = shown(fitting.draw(law, "over_training", budgets_flops=[1e18, 1e20], part="error"))
    assert html_.count("<figure>") == 1


def test_a_cell_follows_light_and_dark_and_hostile_names_stay_text(shown):
    law = synthetic_law()
    hostile = dataclasses.replace(law.predictions[0], run="<script>$x$</script>")
    _, html_ = shown(dataclasses.replace(law, predictions=(hostile,)))
    assert "<script>" not in html_
    drawn = html_.partition("</style>")[2]
    bare = re.sub(r"light-dark\([^)]*\)", "", drawn)
    assert "light-dark(#" in drawn and not re.search(r"#[0-9a-f]{6}\b", bare)


def test_a_figure_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="figure 'pie' is unknown; there are reducible_loss"):
        fitting.draw(synthetic_law(), "pie")


def test_a_report_is_written_with_its_law(tmp_path):
    law = synthetic_law()
    assert fitting.report(law, tmp_path, checks=False).exists()
    assert fitting.load(tmp_path / "law.json").loss == law.loss


@pytest.fixture
def shown():
    """What a notebook would show: its text, and its HTML."""

    def show(value) -> tuple[str, str]:
        fitting.read  # noqa: B018  # the first of the public names to be used has them show themselves
        return Shown(value).text, value._repr_html_()

    return show


def _two_runs():
    """Steps of two runs that follow the annealing law exactly: one's rate falls down a line, one's is constant."""
    step = np.arange(1, 2001)
    rates = {"falling": 1e-2 * (1 - step / 2500), "constant": np.full(2000, 1e-2)}
    rows = []
    for run, rate_S in rates.items():
        area_S, annealing_S = annealing_sums(rate_S)
        for s in (1, *step[99::100]):
            loss = 2.0 + 1.5 * area_S[s - 1] ** -0.5 - 0.1 * annealing_S[s - 1]
            rows.append((f"{run}@{s}", "checkpoint", 1e6, 1e4 * s, rate_S[s - 1], loss))
    columns = ["run", "role", "params", "tokens", "learning_rate", "loss/train"]
    return fitting.Testbed(pd.DataFrame(rows, columns=columns))
