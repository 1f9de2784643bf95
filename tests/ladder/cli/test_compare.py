"""`ladder compare`: a law or its folder, JSON alone on stdout, a report, and one line where it is refused."""

import dataclasses
import json

import pytest

from fitting.artifacts import fitted
from synthetic_law import synthetic_law

AT = ("--params", "250000", "--tokens", "5e6")


@pytest.fixture
def laws(tmp_path):
    """law.json of two ladders: the folder of one, the file of the other."""
    a, b = synthetic_law(), synthetic_law(seed=1)
    better = [dataclasses.replace(p, measured=0.97 * p.measured) for p in b.loss.points]
    b = dataclasses.replace(b, loss=dataclasses.replace(b.loss, points=tuple(better)))
    for name, law in (("a", a), ("b", b)):
        fitted.save(law, tmp_path / name / "law.json")
    return str(tmp_path / "a"), str(tmp_path / "b" / "law.json")


def test_a_person_gets_words_and_a_report_and_a_program_json_alone(ladder_, laws, tmp_path, capsys):
    ladder_("compare", *laws, *AT, "--out", str(tmp_path / "out"))
    shown = capsys.readouterr()
    assert shown.out == ""
    for said in (
        "B is better with a probability of",
        "effective compute multiplier",
        "80 % interval",
        "8 pairs of runs",
    ):
        assert said in shown.err
    ladder_("compare", *laws, *AT, "--json")
    data = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert data["loss"]["probability"] > 0.5 and data["multiplier"] > 1 and "along" not in data
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {name: report[name] for name in data} == data and report["names"] == list(laws)


def test_a_budget_is_spent_and_a_slip_of_units_is_told(ladder_, laws, capsys):
    ladder_("compare", *laws, "--budget-flops", "1e15", "--json")
    shown = capsys.readouterr()
    data = json.loads(shown.out)
    assert data["budget_flops"] == 1e15 and 6 * data["a"]["params"] * data["a"]["tokens"] == pytest.approx(1e15)
    ladder_("compare", *laws, "--params", "250e6", "--tokens", "5e9")
    assert capsys.readouterr().err.count("warning: params is 2.5e+08") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "say where to compare"),
        ((*AT, "--budget-flops", "1e15"), "say where to compare"),
        ((*AT, "--given", "unique_tokens"), "write NAME=VALUE"),
        (("--params", "nan", "--tokens", "5e6"), "params is nan"),
    ],
)
def test_what_is_refused_gets_one_line(ladder_, laws, options, message):
    with pytest.raises(SystemExit, match=message):
        ladder_("compare", *laws, *options)


def test_a_law_with_itself_or_one_that_is_absent_is_refused(ladder_, laws, tmp_path):
    with pytest.raises(SystemExit, match="laws of the same runs"):
        ladder_("compare", laws[0], laws[0], *AT)
    with pytest.raises(SystemExit, match="absent: no such file"):
        ladder_("compare", laws[0], str(tmp_path / "absent"), *AT)
