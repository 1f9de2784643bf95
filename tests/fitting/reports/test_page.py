"""The HTML page computes what `ladder predict` prints, and shows the run one points at: in headless Chromium."""

import dataclasses
import json
import re

import pytest

from browser import shown
from fitting.laws import catalogue
from fitting.prediction import predict
from fitting.reports import page, report
from synthetic_law import synthetic_law

SIZES = [("250000", "5000000"), ("1.4e9", "9e11"), ("1.4B", "900B"), ("15k", "300k"), ("1,000,000", "2e7"), ("3", "7")]

ASK = """
const answers = [];
for (const [params, tokens] of SIZES) {
  ask.params.value = params; ask.tokens.value = tokens;
  ask.dispatchEvent(new Event("input"));
  answers.push([...document.querySelectorAll("[id^=asked-]")].map((e) => [e.id, e.textContent]));
}
ask.params.value = "large"; ask.dispatchEvent(new Event("input"));
const refused = document.getElementById("asked-note").textContent;
const mark = document.querySelector("#figure-1 .mark");
mark.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
const said = document.createElement("pre");
said.id = "said";
said.textContent = JSON.stringify({
  answers: answers.map(Object.fromEntries), refused, hash: location.hash, run: mark.dataset.run,
  note: note.hidden ? "" : note.textContent, lit: document.querySelectorAll(".lit").length,
  overflow: document.documentElement.scrollWidth - innerWidth, titles: document.querySelectorAll(".mark title").length,
});
document.body.append(said);
"""


def number(text: str) -> float:
    unit = {"k": 1e3, "B": 1e9}.get(text[-1], 1)
    return float(text.replace(",", "").rstrip("kB")) * unit


def told(dom: str) -> dict[str, str]:
    return dict(re.findall(r'id="(asked-[a-z-]+)">([^<]*)<', dom))


def as_printed(law, params, tokens):
    """The digits that `ladder predict` prints, errors as percentages."""
    p = predict(law, params, tokens)
    low, high = p.loss_interval
    said = {"asked-loss": f"{p.loss:.4f}", "asked-loss-low": f"{low:.4f}", "asked-loss-high": f"{high:.4f}"}
    if p.error is not None:
        for name, value in zip(("", "-low", "-high"), (p.error, *p.error_interval), strict=True):
            said[f"asked-error{name}"] = f"{100 * float(f'{value:.4f}'):.2f}"
    return said


@pytest.fixture(scope="module")
def driven(tmp_path_factory):
    path = report.write(synthetic_law(), tmp_path_factory.mktemp("report"))
    dom = shown(path, script=f"const SIZES = {json.dumps(SIZES)};{ASK}", width=500)
    return json.loads(re.search(r'<pre id="said">(.*?)</pre>', dom, re.DOTALL)[1].replace("&amp;", "&"))


def test_the_page_predicts_as_the_program_does(driven):
    law = synthetic_law()
    for (params, tokens), answer in zip(SIZES, driven["answers"], strict=True):
        expected = as_printed(law, number(params), number(tokens))
        assert {name: answer[name] for name in expected} == expected


def test_the_page_says_how_far_a_run_lies_beyond_the_ladder(driven):
    target, far, _, inside, *_ = (answer["asked-note"] for answer in driven["answers"])
    assert "Outside the hull of the runs fitted; beyond the ladder: FLOPs 4.34×, N 2.27×." in target
    assert "N 12700×, M 2.01×" in far
    assert "Among the runs fitted; within the ladder’s range." in inside


def test_what_is_no_size_is_refused_and_the_address_holds_what_was_asked(driven):
    assert "Type a size such as 1.4e9" in driven["refused"]
    assert driven["hash"] == "#params=large&tokens=7"


def test_pointing_at_a_run_tells_of_it_and_lights_it_up_everywhere(driven):
    assert driven["run"] in driven["note"] and "law’s loss" in driven["note"]
    assert driven["lit"] >= 9  # in two figures, six residuals and the table
    assert driven["titles"] == 0


def test_the_page_is_no_wider_than_a_narrow_window(driven):
    assert driven["overflow"] <= 0


def test_an_address_shares_a_prediction_of_a_law_without_error(tmp_path):
    law = synthetic_law(error=False, targets=False)
    dom = shown(report.write(law, tmp_path), "#params=1.4e9&tokens=9e11")
    said = told(dom)
    assert {name: said[name] for name in as_printed(law, 1.4e9, 9e11)} == as_printed(law, 1.4e9, 9e11)
    assert said["asked-command"] == "ladder predict law.json --params 1400000000 --tokens 900000000000"
    assert "asked-error" not in said


def test_a_law_that_needs_more_than_sizes_is_not_asked(tmp_path, monkeypatch):
    law = synthetic_law(error=False)
    form = dataclasses.replace(catalogue.OVER_TRAINING, inputs=("params", "tokens", "unique_tokens"))
    monkeypatch.setattr(catalogue, "named", lambda name: form)
    assert page.formulas(law) == {}


def test_the_page_holds_the_draws_to_the_last_bit():
    import base64

    import numpy as np

    law = synthetic_law()
    packed = page.data(law, {"ladder": dict.fromkeys(("flops", "params", "token_multiplier", "hull")), "runs": [],
                             "predictions": []})["laws"]["loss"]["draws"]  # fmt: skip
    draws = np.frombuffer(base64.b64decode(packed), "<f8").reshape(-1, 4)
    assert (draws == np.array(law.loss.theta_draws)).all()
