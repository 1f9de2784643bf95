"""A comparison in words, as a page, as Markdown and as data: they say the same, and stand alone."""

import dataclasses
import html.parser
import json
import re

import pytest

from fitting.comparison import compare
from fitting.reports import cells, compared
from synthetic_law import synthetic_law

AT = {"params": 250_000, "tokens": 5e6}


@pytest.fixture(scope="module")
def laws():
    a, b = synthetic_law(), synthetic_law(seed=1)
    better = [dataclasses.replace(p, measured=0.97 * p.measured) for p in b.loss.points]
    return a, dataclasses.replace(b, method="published", loss=dataclasses.replace(b.loss, points=tuple(better)))


@pytest.fixture(scope="module")
def said(laws):
    return compare(*laws, **AT)


def test_the_page_stands_alone_and_says_what_the_data_says(laws, said, tmp_path):
    names = ("fits/<a>", "fits/b|c")
    page = compared.write(said, *laws, tmp_path, names=names)
    text = page.read_text()
    html.parser.HTMLParser().feed(text)
    assert not re.search(r'(src|href)="(?!#)', text) and text.count("<svg") == 2
    assert "fits/&lt;a&gt;" in text and "<a>" not in text
    data = json.loads((tmp_path / "comparison.json").read_text())
    assert data["names"] == list(names) and data["loss"]["difference"] == said.loss.difference
    markdown = (tmp_path / "comparison.md").read_text()
    shown = f"{said.loss.difference:.4f}".replace("-", "−")
    assert shown in text and shown in markdown and "b\\|c" in markdown
    assert all(caution.partition(":")[0] in text for caution in said.cautions) and "## Read with care" in markdown
    for figure in re.findall(r"\((figures/\S+)\)", markdown):
        assert (tmp_path / figure).exists()


def test_the_figures_mark_every_run_of_both_and_every_pair(laws, said, tmp_path):
    compared.write(said, *laws, tmp_path, names=("A", "B"))
    runs = len(laws[0].loss.points)
    two, pairs = ((tmp_path / "figures" / f"{name}.svg").read_text() for name in ("two_ladders", "paired_difference"))
    assert two.count('class="mark"') == 2 * runs and pairs.count('class="mark"') == runs


def test_ladders_without_a_pair_are_drawn_all_the_same(laws, tmp_path):
    a, b = laws
    moved = [dataclasses.replace(p, params=1.2 * p.params) for p in b.loss.points]
    b = dataclasses.replace(b, loss=dataclasses.replace(b.loss, points=tuple(moved)), error=None)
    said = compare(a, b, **AT)
    page = compared.write(said, a, b, tmp_path, names=("A", "B"))
    assert "no run of A has the size of one of B" in page.read_text()
    assert "B has no error law" in page.read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [(0, "settled"), (1, "some 1 more pair would"), (7, "some 7 more pairs would"), (None, "not settle")],
)
def test_how_many_more_pairs_would_settle_it_is_said(said, more, words):
    assert words in compared.pairs(dataclasses.replace(said, more_pairs=more))


def test_what_is_out_of_reach_is_said_in_words(said):
    never = dataclasses.replace(said, multiplier=float("inf"), multiplier_interval=(3.0, float("inf")))
    assert "A takes more than 10,000× the compute to equal B (3× to more than 10,000×)" in compared.headline(never)


def test_the_better_one_is_named_with_the_probability_that_it_is(said):
    assert compared.headline(said).startswith("B is better with a probability of")
    worse = dataclasses.replace(said, loss=dataclasses.replace(said.loss, probability=0.0002))
    assert compared.headline(worse).startswith("A is better with a probability of above 99.9 %")


def test_a_notebook_shows_it(said):
    shown = cells.comparison(said)
    assert "B is better" in shown and "effective" in shown.lower() and said.cautions[0].partition(":")[0] in shown
