"""No message holds a document, whatever was read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import messages
from tasks.questions import rows, suite_files
from tasks.questions.gauntlet import Definition
from tasks.text import documents, files

LONG = "word " * 50_000


@given(st.text(max_size=2000), st.integers(10, 200))
def test_what_is_quoted_is_one_short_line(text, most):
    quoted = messages.cut(text, most)
    assert len(quoted) <= most and "\n" not in quoted


def test_what_is_short_is_quoted_whole():
    assert messages.cut("a gold of 7") == "a gold of 7" and messages.cut(7) == "7"


@pytest.mark.parametrize(
    "line",
    [
        b"\xff" * 228_000,
        LONG.encode(),
        json.dumps({LONG: 1}).encode(),
        json.dumps({"text": [LONG]}).encode(),
        b"[" * 228,
    ],
    ids=["no text", "no JSON", "another field", "no text in the field", "nested"],
)
def test_a_line_that_is_refused_is_not_printed_whole(tmp_path, line):
    (tmp_path / "x.jsonl").write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=r"x.jsonl, line 1: ") as told:
        list(documents.read_jsonl(*files.find("jsonl", str(tmp_path / "x.jsonl")), field="text"))
    assert len(str(told.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize(
    "row",
    [
        {LONG: 1},
        {"query": LONG, "choices": [LONG, LONG], "gold": LONG},
        {"query": LONG, "choices": LONG, "gold": 0},
        {"query": [LONG], "choices": ["a", "b"], "gold": 0},
        LONG,
    ],
)
def test_a_row_that_is_refused_is_not_printed_whole(tmp_path, row):
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    task = Definition("x", "x.jsonl", "multiple_choice")
    with pytest.raises(ValueError, match=r"x.jsonl, line 1: ") as told:
        rows.read(task, [str(tmp_path)])
    assert len(str(told.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("text", [f"[{LONG}", f"tasks:\n - {{name: a, file: b, type: '{LONG}'}}"])
def test_a_suite_that_is_refused_is_not_printed_whole(tmp_path, text):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError) as told:
        suite_files.load(tmp_path / "x.yaml")
    assert len(str(told.value)) < 500 + len(str(tmp_path)) and "\n" not in str(told.value)
