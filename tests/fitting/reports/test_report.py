"""The report says what the law says: in numbers, in words, on a page that stands alone."""

import csv
import dataclasses
import html.parser
import json
import math
import pathlib
import re

import pytest

from fitting.artifacts.fitted import LeftOut
from fitting.forms import Form
from fitting.reports import drawing, report, summary
from fitting.selection import Checks, Refit
from synthetic_law import synthetic_law

PLAN = [
    {"run": "rung-n15k-m20", "role": "rung", "params": 15_000, "params_non_embedding": 6_500, "tokens": 300_000,
     "flops": 2.7e10, "steps": 146, "batch_size": 8, "learning_rate": 0.02},
    {"run": "target-n250k-m20", "role": "target", "params": 250_000, "tokens": 5_000_000, "flops": 7.5e12},
]  # fmt: skip


def _checks():
    """As `fitting.selection.checks` would give them: one roll-out, one run that can and one that cannot be left out."""
    law = synthetic_law()
    last = max(law.loss.points, key=lambda point: point.flops)
    held_out = dataclasses.replace(
        law.predictions[0], run=last.run, params=last.params, tokens=last.tokens, measured_loss=last.measured
    )
    far = tuple(dataclasses.replace(p, loss=1.1 * p.loss) for p in law.predictions)
    return Checks(
        aicc=-31.4,
        forms=(Form("coupled", 0.75, 0.0033), Form("over_training", 0.25, 0.0108)),
        roll_outs=(Refit("7 cheapest runs", law.loss.theta, (held_out,)),),
        influence=(
            Refit(f"without {law.loss.points[0].run}", law.loss.theta, far),
            Refit(f"without {law.loss.points[1].run}", {}, (), "the runs cannot tell | the parameters apart"),
        ),
        sensitivity=(Refit("as fitted", law.loss.theta, law.predictions),),
    )


CHECKS = _checks()
NONE = (math.nan, math.nan)


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with their attributes, and text; raises where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "img", "input"):
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


@pytest.fixture(autouse=True)
def _pdfs_are_not_drawn(monkeypatch):
    """It takes longer than all the rest; `test_figures` draws one."""
    monkeypatch.setattr(drawing, "pdf", lambda figure: b"%PDF")


def write(folder, law, **extras):
    path = report.write(law, folder, **extras)
    return Page(path.read_text()), (folder / "report.md").read_text(), json.loads((folder / "report.json").read_text())


def measured(law, **values):
    return dataclasses.replace(law, predictions=tuple(dataclasses.replace(p, **values) for p in law.predictions))


def test_the_page_stands_alone(tmp_path):
    law = synthetic_law()
    curves = {point.run: [(100, 4.0), (point.tokens, point.measured)] for point in law.loss.points}
    page, markdown, _ = write(tmp_path, law, curves=curves, plan=PLAN, settings_yaml="seed: 0", checks=CHECKS)
    assert not {"link", "img", "iframe"} & {tag for tag, _ in page.tags}
    references = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href")
    ]
    assert {value for value in references if not value.startswith("#")} == {
        "report.json", "law.json", "runs.csv", "report.tex", "report.md"
    }  # fmt: skip
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = re.findall(r"\]\((figures/[^)]*)\)", markdown)
    assert sorted(pictures) == sorted(f"figures/{path.name}" for path in (tmp_path / "figures").glob("*.svg"))
    assert {path.stem for path in (tmp_path / "figures").glob("*.pdf")} == {pathlib.Path(p).stem for p in pictures}


@pytest.mark.parametrize("error", [True, False])
def test_markdown_tables_have_a_header_and_equally_many_cells_in_every_row(tmp_path, error):
    _, markdown, _ = write(tmp_path, synthetic_law(error=error), plan=PLAN, checks=CHECKS)
    tables = [block.strip().splitlines() for block in markdown.split("\n\n") if block.lstrip().startswith("|")]
    assert len(tables) == 9 + error
    for _, rule, *rows in tables:
        assert re.fullmatch(r"\|(-+:?\|)+", rule)
        assert rows and {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {rule.count("|")}


def test_the_same_law_gives_the_same_bytes_and_nothing_half_written(tmp_path):
    for _ in range(2):
        write(tmp_path / "a", synthetic_law(), plan=PLAN, checks=CHECKS)
    write(tmp_path / "b", synthetic_law(), plan=PLAN, checks=CHECKS)
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()}
    names = {"report.html", "report.md", "report.json", "report.tex", "runs.csv", "figures/reducible_loss.pdf"}
    assert names <= {str(file) for file in files}
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
    page, markdown, data = write(tmp_path, law, checks=CHECKS)
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
    assert "Training loss" not in page.text and "The plan" not in markdown
    assert "roll-outs" not in page.text and "Held-out check not made" in page.text


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
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [12, 4, 3]
    latex = (tmp_path / "report.tex").read_text()
    assert latex.count("{") == latex.count("}")


def test_cautions_tell_what_weakens_a_law():
    law = synthetic_law()
    assert list(summary.cautions(dataclasses.replace(law, predictions=law.predictions[:1]))) == []
    loss = dataclasses.replace(law.loss, at_bound=("b",), degrees_of_freedom=1, share_at_optimum=0.12, noise=0.0002)
    fitted_target = dataclasses.replace(law.predictions[0], run=law.loss.points[0].run)
    inside = dataclasses.replace(law.predictions[0], tokens=1e5)
    said = " ".join(summary.cautions(dataclasses.replace(law, loss=loss, predictions=(fitted_target, inside))))
    assert "Parameter b of the loss law lies at its bound" in said
    assert "1 degree of freedom (8 runs, 4 parameters)" in said
    assert "Only 12 % of the loss law's 64 starts reached the optimum" in said
    assert said.count("noise standard deviations off the loss law") == 4
    off = sorted(abs(p.measured - p.fitted) / loss.noise_at(p.fitted, p.fitted) for p in loss.points)
    assert all(f"lies {deviations:.1f} noise" in said for deviations in off[-3:])
    assert f"{sum(deviations > 3 for deviations in off) - 3} runs more of 8 lie over 3 noise" in said
    assert "is among the runs that were fitted" in said
    assert "nothing is extrapolated" in said


def test_checks_are_told_and_what_they_shake_is_a_caution(tmp_path):
    page, markdown, data = write(tmp_path, synthetic_law(), checks=CHECKS)
    assert data["checks"]["aicc"] == -31.4
    assert data["checks"]["forms"][0] == {"law": "coupled", "weight": 0.75, "miss": 0.0033}
    markdown = markdown.replace("\u00a0", " ")
    assert "| coupled | 75 % | 0.33 % |" in markdown and "| over\\_training, this law | 25 % | 1.08 % |" in markdown
    assert "coupled 75 % 0.33 %" in page.text and "over_training , this law 25 %" in page.text
    (rolled,) = data["checks"]["roll_outs"]
    largest = max(synthetic_law().loss.points, key=lambda point: point.flops)
    assert rolled["relative_error"] == pytest.approx(synthetic_law().predictions[0].loss / largest.measured - 1)
    assert data["checks"]["influence"][0]["targets"][0]["moved"] == pytest.approx(0.1)
    for text in (page.text, markdown.replace("\u00a0", " ").replace("\\|", "|")):
        assert "7 cheapest runs" in text and "+10.00 %" in text
        assert "the runs cannot tell | the parameters apart" in text
        assert "Without rung-n15k-m20, the predicted loss of target-n250k-m20 is" in text


def test_the_checklist_of_misfitting_is_answered(tmp_path):
    law = synthetic_law()
    points = tuple(
        dataclasses.replace(point, columns={"params_non_embedding": 0.6 * point.params}) for point in law.loss.points
    )
    law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points))
    page, markdown, data = write(tmp_path, law, checks=CHECKS, chance_errors={"recall": 0.75, "order": 0.5})
    assert list(data["checklist"]) == ["Hypothesis", "Training setup", "Data collection", "Fitting"]
    asked = {question: answer for answers in data["checklist"].values() for question, answer in answers.items()}
    assert "embeddings are up to 40" in asked["How N is counted"]
    assert "recall 75" in asked["Tasks and their chance level"]
    assert asked["The loss law’s parameters at a bound"] == "none"
    assert asked["Data and tokenizer"] == "not in the table of runs"
    assert "4 degrees of freedom" in asked["Goodness of the loss law’s fit"]
    for question in asked:
        assert question in page.text and question in markdown


@pytest.mark.parametrize(
    ("column", "counted", "head"),
    [
        ("params_non_embedding", "parameters without embeddings", "N leaves out the head, so C does too"),
        ("params_active", "the table’s params_active", "in C where params_active counts the head"),
    ],
)
def test_what_n_counts_is_said_wherever_it_matters(tmp_path, column, counted, head):
    law = synthetic_law()
    points = tuple(
        dataclasses.replace(point, columns={"params_non_embedding": point.params}) for point in law.loss.points
    )
    law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points), params_column=column)
    page, markdown, data = write(tmp_path, law)
    asked = {question: answer for answers in data["checklist"].values() for question, answer in answers.items()}
    assert asked["How N is counted"] == f"as the table’s column {column}: {counted}"
    assert head in asked["How C is counted"] and head in asked["Three confounds of Porian et al. 2024"]
    assert data["params_column"] == column
    for text in (page.text, markdown.replace("\\_", "_"), (tmp_path / "report.tex").read_text().replace("\\_", "_")):
        assert counted in text and "all parameters" not in text


def test_how_n_was_counted_is_said_only_where_the_table_tells(tmp_path):
    asked = {}
    for name, columns in (("silent", {}), ("told", {"params_non_embedding": 1e4})):
        law = synthetic_law()
        points = tuple(dataclasses.replace(point, columns=columns) for point in law.loss.points)
        law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points))
        _, _, data = write(tmp_path / name, law)
        asked[name] = {q: answer for answers in data["checklist"].values() for q, answer in answers.items()}
    assert "the table does not say whether with embeddings" in asked["silent"]["How N is counted"]
    assert "in C where params counts the head" in asked["silent"]["How C is counted"]
    assert "all parameters; embeddings are up to" in asked["told"]["How N is counted"]
    assert "N includes the head" in asked["told"]["How C is counted"]


def test_bits_a_byte_are_not_called_nats(tmp_path):
    law = synthetic_law(error=False)
    in_bits = dataclasses.replace(law.loss, column="bpb/code", noise_is_relative=False)
    page, markdown, data = write(tmp_path, dataclasses.replace(law, loss=in_bits), checks=CHECKS)
    assert data["unit"] == "bits per byte" and "bits per byte" in page.text and "bits per byte" in markdown
    for text in (page.text, markdown, (tmp_path / "report.tex").read_text(), json.dumps(data)):
        assert "nats" not in text
    figure = (tmp_path / "figures" / "reducible_loss.svg").read_text()
    assert "nats" not in figure


def test_a_best_fit_without_intervals_is_reported_without(tmp_path):
    law = synthetic_law()

    def bare(fit):
        return dataclasses.replace(fit, theta_draws=fit.theta_draws[:1], theta_intervals=dict.fromkeys(fit.theta, NONE))

    targets = [
        dataclasses.replace(p, loss_interval=NONE, error_interval=NONE, measured_loss=2.0, measured_error=0.5)
        for p in law.predictions
    ]
    law = dataclasses.replace(law, loss=bare(law.loss), error=bare(law.error), predictions=tuple(targets))
    page, markdown, data = write(tmp_path, law, checks=CHECKS)
    assert data["predictions"][0]["loss"]["covered"] is None and "losses inside" not in page.text
    assert not any("outside the interval" in caution for caution in data["cautions"])
    assert "none: the best fit alone" in markdown and "nan to" not in f"{page.text} {markdown}"


def test_every_run_is_a_row_of_the_csv(tmp_path):
    law = synthetic_law()
    write(tmp_path, law)
    rows = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert [row["role"] for row in rows] == ["rung"] * 8 + ["target"] * 2
    target = next(row for row in rows if row["run"] == law.predictions[1].run)
    assert float(target["loss"]) == law.predictions[1].measured_loss
    assert float(target["loss_low"]) == law.predictions[1].loss_interval[0]
    assert rows[0]["loss_low"] == "" and float(rows[0]["error_law"]) > 0


def test_the_latex_has_a_row_for_every_parameter_and_every_prediction(tmp_path):
    law = measured(synthetic_law(), run="a_b%c")
    write(tmp_path, law)
    latex = (tmp_path / "report.tex").read_text()
    rows = [line for line in latex.splitlines() if line.endswith(r"\\") and "&" in line]
    assert len(rows) == 1 + 4 + 3 + 1 + 2 * 2
    assert r"a\_b\%c & 250k & 5M & loss &" in latex
    assert "$\\eta$ & $0.14$ &" in latex and "×" not in latex
