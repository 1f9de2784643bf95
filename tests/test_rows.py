"""Rows: read as they stand in their file, or refused with task, file, line and reason."""

import hashlib
import json

import numpy as np
import pytest

from tasks import rows, tfds_rows
from tasks.gauntlet import GAUNTLET, LANGUAGE_MODELING, MULTIPLE_CHOICE, SCHEMA, Definition


@pytest.fixture
def read(tmp_path):
    """Reads lines as a task of that type."""

    def of(lines, type_=MULTIPLE_CHOICE, **options):
        content = lines if isinstance(lines, bytes) else "".join(json.dumps(line) + "\n" for line in lines).encode()
        (tmp_path / "own.jsonl").write_bytes(content)
        return rows.read(Definition("own", "own.jsonl", type_, **options), [str(tmp_path)])

    return of


ROW = {"query": " q ", "choices": ["a", " b"], "gold": 1, "unused": 3}


def test_texts_are_stripped_and_lists_are_not(read, tmp_path):
    loaded = read([ROW])
    assert loaded.rows == ({"query": "q", "choices": ["a", " b"], "gold": 1},)
    assert loaded.source == str(tmp_path / "own.jsonl")
    assert loaded.sha256 == hashlib.sha256((tmp_path / "own.jsonl").read_bytes()).hexdigest()


def test_a_template_fills_the_types_fields_from_any_columns(read):
    raw = {"country": "Chad", "first": "N'Djamena", "second": 7, "options": ["x", "y"], "right": 0, "continent": "af"}
    template = {"query": "Capital of {country} {in braces}?", "choices": ("{first}", "{second}"), "gold": "{right}"}
    loaded = read([raw] * 2, template=template | {"category": "{continent}"}, categorised=True)
    expected = {"query": "Capital of Chad {in braces}?", "choices": ["N'Djamena", "7"], "gold": 0, "category": "af"}
    assert loaded.rows[0] == expected
    assert read([raw], template=template | {"choices": "{options}"}).rows[0]["choices"] == ["x", "y"]


@pytest.mark.parametrize(
    ("lines", "type_", "why"),
    [
        (b'{"query": \n', MULTIPLE_CHOICE, "line 1: Expecting value"),
        (b'\n{"context": "\xff"}', LANGUAGE_MODELING, "line 2: 'utf-8' codec can't decode"),
        ([[1]], MULTIPLE_CHOICE, "line 1: holds list, not a JSON object"),
        ([ROW, {"query": "q", "gold": 0}], MULTIPLE_CHOICE, "line 2: has no field 'choices'; it has query, gold"),
        ([ROW | {"choices": "ab"}], MULTIPLE_CHOICE, "line 1: field 'choices' must hold two texts or more"),
        ([ROW | {"choices": ["a", ""]}], MULTIPLE_CHOICE, "line 1: an answer is empty"),
        ([ROW | {"gold": 2}], MULTIPLE_CHOICE, "line 1: field 'gold' holds 2; it must be from 0 to 1"),
        ([ROW | {"gold": True}], MULTIPLE_CHOICE, "field 'gold' holds True"),
        ([ROW | {"query": 1}], MULTIPLE_CHOICE, "field 'query' holds int, not text"),
        ([{"context_options": ["a"], "continuation": "c", "gold": 0}], SCHEMA, "'context_options' must hold two"),
    ],
)
def test_a_malformed_line_is_named_with_its_file_and_reason(read, lines, type_, why):
    with pytest.raises(ValueError, match=r"task 'own': \S+own\.jsonl, line \d: ") as refusal:
        read(lines, type_)
    assert why in str(refusal.value)


def test_fewer_rows_than_shots_are_refused_whatever_the_category(read):
    read([ROW] * 3, shots=2)
    with pytest.raises(ValueError, match=r"holds 2 rows, too few for 2 shots beside each question"):
        read([ROW] * 2, shots=2)
    with pytest.raises(ValueError, match=r"2 rows of category 'b', too few for 2 shots"):
        read([ROW | {"category": c} for c in "aaabb"], shots=2, categorised=True)
    with pytest.raises(ValueError, match="holds no rows"):
        read([])


def test_a_missing_file_says_where_it_was_looked_for_and_where_to_get_it(tmp_path):
    with pytest.raises(
        ValueError, match=r"task 'mmlu': no file \S+world_knowledge/mmlu\.jsonl; get it from .*llm-foundry"
    ):
        rows.find(GAUNTLET["mmlu"], [str(tmp_path)])
    with pytest.raises(ValueError, match=r"task 'squad': no file .* or add 'tfds' to the suite's sources"):
        rows.find(GAUNTLET["squad"], [str(tmp_path)])
    with pytest.raises(ValueError, match=r"task 'own': no file .*own\.jsonl; put it there"):
        rows.find(Definition("own", "own.jsonl", SCHEMA), [str(tmp_path)])
    with pytest.raises(ValueError, match=r"task 'mmlu': TensorFlow Datasets does not have it; get it from"):
        rows.find(GAUNTLET["mmlu"], ["tfds"])
    assert rows.find(GAUNTLET["squad"], [str(tmp_path), "tfds:/data"]) == "tfds:/data"


def test_llm_foundrys_checkout_is_a_source_as_it_is(tmp_path):
    path = tmp_path / "local_data" / "commonsense_reasoning" / "copa.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(ROW) + "\n")
    assert rows.find(GAUNTLET["copa"], [str(tmp_path)]) == str(path)


def test_every_file_that_is_present_is_read_whole(shared):
    present = 0
    for task in GAUNTLET.values():
        if (shared / "icl" / task.file).exists():
            assert len(rows.read(task, [str(shared / "icl")]).rows) == task.rows
            present += 1
    assert present == 38


EXAMPLES = {
    "hellaswag": {
        "activity_label": b"Roof shingle removal",
        "context": b"A man is sitting on a roof. He [step] starts",
        "endings": np.array([b"to fall [title] Next", b"b", b"c", b"d"], object),
        "label": 3,
    },
    "squad": {"context": b"p", "question": b"q?", "answers": {"text": np.array([b"one", b"two"], object)}},
    "coqa": {
        "story": b"Once.",
        "questions": np.array([b"When?", b"Who?"], object),
        "answers": {"input_text": np.array([b"once", b"she"], object)},
    },
    "arc_easy": {"question": b"q?", "choices": {"text": np.array([b"x", b"y"], object)}, "answerKey": 1},
    "piqa": {"goal": b"g", "sol1": b"x", "sol2": b"y", "label": 0},
    "boolq": {"passage": b"p", "question": b"is it", "answer": True},
    "lambada_openai": {"passage": b"in the end"},
}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (
            "hellaswag",
            {
                "query": "Roof shingle removal: A man is sitting on a roof. He starts",
                "choices": ["to fall. Next", "b", "c", "d"],
                "gold": 3,
            },
        ),
        ("squad", {"context": "Context: p\nQuestion: q?\nAnswer:", "continuation": "one"}),
        ("arc_easy", {"query": "Question: q?", "choices": ["x", "y"], "gold": 1}),
        ("piqa", {"query": "Question: g", "choices": ["x", "y"], "gold": 0}),
        ("boolq", {"query": "Passage: p\nQuestion: is it?", "choices": ["no", "yes"], "gold": 1}),
        ("lambada_openai", {"context": "in the", "continuation": "end"}),
    ],
)
def test_tfds_examples_become_rows(monkeypatch, task, expected):
    monkeypatch.setattr(tfds_rows, "_raw", lambda *_: iter([EXAMPLES[task]] * 20))
    read = rows.read(GAUNTLET[task], ["tfds"])
    assert read.rows[0] == expected and len(read.rows) == 20
    assert read.source == "tfds" and len(read.sha256) == 64


def test_a_conversation_is_a_row_a_question_with_all_before_it(monkeypatch):
    monkeypatch.setattr(tfds_rows, "_raw", lambda *_: iter([EXAMPLES["coqa"]]))
    first, second = rows.read(GAUNTLET["coqa"], ["tfds"]).rows
    assert "Story: Once." in first["context"] and first["context"].endswith("Question: When?\nAnswer:")
    assert first["continuation"] == "once" and second["continuation"] == "she"
    assert "Question: When?\nAnswer: once\n" in second["context"]


def test_a_set_that_tfds_has_not_prepared_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"task 'boolq': tfds 'bool_q': nothing prepared .*`tfds build bool_q`"):
        rows.read(GAUNTLET["boolq"], [f"tfds:{tmp_path}"])
