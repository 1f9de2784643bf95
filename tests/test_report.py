"""The report says what the law says: in numbers, in words, on a page that stands alone."""

import dataclasses
import html.parser
import json
import math
import re

import pytest
from synthetic_law import synthetic_law

from fitting import report, summary
from fitting.fitted import LeftOut

PLAN = [
    {"run": "rung-n15k-m20", "role": "rung", "params": 15_000, "params_non_embedding": 6_500, "tokens": 300_000,
     "flops": 2.7e10, "steps": 146, "batch_size": 8, "learning_rate": 0.02},
    {"run": "target-n250k-m20", "role": "target", "params": 250_000, "tokens": 5_000_000, "flops": 7.5e12},
]  # fmt: skip


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with their attributes, and text; raises where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


def write(folder, law, **extras):
    path = report.write(law, folder, **extras)
    return Page(path.read_text()), (folder / "report.md").read_text(), json.loads((folder / "report.json").read_text())


def measured(law, **values):
    return dataclasses.replace(law, predictions=tuple(dataclasses.replace(p, **values) for p in law.predictions))


def test_the_page_stands_alone(tmp_path):
    law = synthetic_law()
    curves = {point.run: [(100, 4.0), (point.tokens, point.measured)] for point in law.loss.points}
    page, markdown, _ = write(tmp_path, law, curves=curves, plan=PLAN, settings_yaml="seed: 0", chance_error=0.75)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    references = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href")
    ]
    assert {value for value in references if not value.startswith("#")} == {"report.json", "law.json", "report.md"}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = re.findall(r"\]\((figures/[^)]*)\)", markdown)
    assert sorted(pictures) == sorted(f"figures/{path.name}" for path in (tmp_path / "figures").iterdir())


@pytest.mark.parametrize("error", [True, False])
def test_markdown_tables_have_a_header_and_equally_many_cells_in_every_row(tmp_path, error):
    _, markdown, _ = write(tmp_path, synthetic_law(error=error), plan=PLAN)
    tables = [block.strip().splitlines() for block in markdown.split("\n\n") if block.lstrip().startswith("|")]
    assert len(tables) == 6 + error
    for _, rule, *rows in tables:
        assert re.fullmatch(r"\|(-+:?\|)+", rule)
        assert rows and {row.count("|") for row in rows} == {rule.count("|")}


def test_the_same_law_gives_the_same_bytes_and_nothing_half_written(tmp_path):
    for _ in range(2):
        write(tmp_path / "a", synthetic_law(), plan=PLAN)
    write(tmp_path / "b", synthetic_law(), plan=PLAN)
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert {"report.html", "report.md", "report.json"} <= {str(file) for file in files}
    assert not [file for file in files if file.suffix == ".tmp"]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_predictions_are_scored_against_measurements(tmp_path):
    law = synthetic_law()
    page, markdown, data = write(tmp_path, law)
    near, far = data["predictions"]
    assert near["loss"]["relative_error"] == pytest.approx(1 / 1.004 - 1)
    assert (near["loss"]["covered"], far["loss"]["covered"]) == (True, False)
    assert near["error"]["absolute_error"] == pytest.approx(-0.011)
    total_flops = sum(6 * point.params * point.tokens for point in law.loss.points)
    assert near["loss"]["times_fitted_flops"] == pytest.approx(6 * 250_000 * 5_000_000 / total_flops)
    assert near["beyond_ladder"] == pytest.approx({"flops": 7.5 / 1.728, "params": 250 / 110, "token_multiplier": 1})
    assert data["headline"].replace("\u00a0", " ") == (
        "8 small runs predicted the loss of 2 larger runs to within 3.20 %, "
        "with 1.7 times less compute than either takes; their top-1 error to within 1.10 points."
    )
    for text in (page.text, markdown.replace("\u00a0", " ")):
        assert "−0.40 %" in text and "+3.20 %" in text
        assert "The measured loss of target-n76k-m240 lies outside its 80 % interval." in text
        assert "not yet measured" not in text


def test_what_is_not_measured_is_called_a_projection(tmp_path):
    law = measured(synthetic_law(), measured_loss=math.nan, measured_error=math.nan)
    page, markdown, data = write(tmp_path, law)
    assert {p["kind"] for p in data["predictions"]} == {"projection"}
    assert data["predictions"][0]["loss"]["measured"] is None
    assert "8 small runs project the loss of 2 larger runs" in page.text
    assert "Predictions against measurements" not in page.text + markdown
    assert "projection, not yet measured" in page.text


def test_provenance_and_settings_are_all_there(tmp_path):
    law = synthetic_law()
    page, markdown, _ = write(tmp_path, law, plan=PLAN, settings_yaml="corpus:\n  kind: python_sources\n")
    for text in (page.text, " ".join(markdown.split())):
        settings = ("kind: python_sources", "5,000,000", "0.02", "jaxopt 0.8.5")
        for needed in (law.command, law.testbed_sha256, law.select, *settings):
            assert needed in text
        for point in law.loss.points:
            assert f"{point.measured:.4f} ± 0.0040" in text
    assert "quarantined: loss became NaN at step 1,204" in page.text


@pytest.mark.parametrize("error", [True, False])
@pytest.mark.parametrize("targets", [True, False])
def test_any_part_may_be_absent(tmp_path, error, targets):
    page, markdown, data = write(tmp_path, synthetic_law(error=error, targets=targets))
    assert ("error" in data["laws"]) == error
    assert ("Predictions against measurements" in page.text) == targets
    assert ("No target has been predicted yet" in page.text) == (not targets)
    assert "Training" not in page.text and "The plan" not in markdown


def test_unknown_sampling_errors_and_an_error_of_zero_are_shown_as_unknown(tmp_path):
    law = measured(synthetic_law(), measured_error=0.0, error=0.0)
    points = tuple(dataclasses.replace(point, measured_stderr=math.nan) for point in law.loss.points)
    page, _, data = write(tmp_path, dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points)))
    assert data["runs"][0]["loss"]["stderr"] is None
    assert data["predictions"][0]["error"]["relative_error"] is None
    assert "± –" not in page.text and "± 1.20 %" in page.text and "nan" not in page.text


def test_runs_of_only_one_law_are_listed_once(tmp_path):
    law = synthetic_law()
    fewer = dataclasses.replace(law.loss, points=law.loss.points[:-1])
    _, _, data = write(tmp_path, dataclasses.replace(law, loss=fewer))
    assert len(data["runs"]) == 8 and data["ladder"]["runs"] == 7
    assert "7 small runs predicted" in data["headline"] and ", from 8 runs with 1.7 times less" in data["headline"]
    assert sum("loss" not in row for row in data["runs"]) == 1


def test_many_runs_of_many_multipliers_with_hostile_names(tmp_path):
    law = synthetic_law(rungs=[(15_000 * 1.1**i, 5 * 1.17**i) for i in range(40)])
    name = "a|b<img src=x onerror=alert(1)>`*_" + "long" * 30
    points = (dataclasses.replace(law.loss.points[0], run=name), *law.loss.points[1:])
    law = dataclasses.replace(
        law, loss=dataclasses.replace(law.loss, points=points), left_out=(LeftOut(name, "a | b\n<c>"),)
    )
    page, markdown, data = write(tmp_path, law, plan=[{"run": name, "steps": None}], title="<b>title</b>")
    assert data["runs"][0]["run"] == name
    assert "img" not in {tag for tag, _ in page.tags}
    assert name in page.text and "<b>title</b>" in page.text
    assert "<img" not in markdown and "<c>" not in markdown
    rows = [line for line in markdown.splitlines() if "onerror" in line]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [12, 3, 3]


def test_cautions_tell_what_weakens_a_law():
    law = synthetic_law()
    assert list(summary.cautions(dataclasses.replace(law, predictions=law.predictions[:1]))) == []
    loss = dataclasses.replace(law.loss, at_bound=("b",), degrees_of_freedom=1, share_at_optimum=0.12, noise=0.001)
    fitted_target = dataclasses.replace(law.predictions[0], run=law.loss.points[0].run)
    inside = dataclasses.replace(law.predictions[0], tokens=1e5)
    said = " ".join(summary.cautions(dataclasses.replace(law, loss=loss, predictions=(fitted_target, inside))))
    assert "Parameter b of the loss law lies at its bound" in said
    assert "1 degree of freedom (8 runs, 4 parameters)" in said
    assert "Only 12 % of the loss law's 64 starts reached the optimum" in said
    assert "noise standard deviations off the loss law" in said
    assert "is among the runs that were fitted" in said
    assert "nothing is extrapolated" in said
