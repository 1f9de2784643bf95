"""Rows: read as they stand in their file, or refused with task, file, line and reason."""

import hashlib
import importlib.resources.abc
import json
import sys

import pytest
import tensorflow_datasets as tfds

from tasks.questions import rows, tfds_rows
from tasks.questions.gauntlet import GAUNTLET, LANGUAGE_MODELING, MULTIPLE_CHOICE, SCHEMA, Definition


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


# As TensorFlow Datasets' own builders generate them, and what becomes of them.
PUBLISHED = {
    "hellaswag": (
        ("hellaswag", "validation"),
        {
            "activity_label": "Roof shingle removal",
            "context": "A man is sitting on a roof. He [step] starts",
            "endings": ["to fall [title] Next", "b", "c", "d"],
            "label": 3,
            "split_type": "indomain",
            "source_id": "activitynet~v_",
        },
        {
            "query": "Roof shingle removal: A man is sitting on a roof. He starts",
            "choices": ["to fall. Next", "b", "c", "d"],
            "gold": 3,
        },
    ),
    "squad": (
        ("squad/v1.1", "validation"),
        {
            "id": "1",
            "title": "t",
            "context": "p",
            "question": "q?",
            "answers": {"text": ["one", "two"], "answer_start": [0, 1]},
        },
        {"context": "Context: p\nQuestion: q?\nAnswer:", "continuation": "one"},
    ),
    "arc_easy": (
        ("ai2_arc/ARC-Easy", "test"),
        {"id": "1", "question": "q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
        {"query": "Question: q?", "choices": ["x", "y"], "gold": 1},
    ),
    "piqa": (
        ("piqa", "validation"),
        {"id": "1", "goal": "g", "sol1": "x", "sol2": "y", "label": 0},
        {"query": "Question: g", "choices": ["x", "y"], "gold": 0},
    ),
    "boolq": (
        ("bool_q", "validation"),
        {"passage": "p", "question": "is it", "answer": True, "title": "t"},
        {"query": "Passage: p\nQuestion: is it?", "choices": ["no", "yes"], "gold": 1},
    ),
    "lambada_openai": (
        ("lambada", "test"),
        {"passage": "in the end"},
        {"context": "in the", "continuation": "end"},
    ),
    "coqa": (
        ("coqa", "test"),
        {
            "source": "s",
            "story": "Once.",
            "questions": ["When?", "Who?"],
            "answers": {"input_text": ["once", "she"], "answer_start": [0, 1], "answer_end": [1, 2]},
        },
        None,
    ),
}


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a published set with TFDS's own builder, its examples in place of the download."""

    def prepare(task, count) -> str:
        (name, split), example, _ = PUBLISHED[task]
        builder = tfds.builder(name, data_dir=str(tmp_path))
        generated = {split: ((str(number), example) for number in range(count))}
        monkeypatch.setattr(type(builder), "_split_generators", lambda *_: generated)
        # TFDS 4.9.10 imports it and does not ask for it.
        monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        return f"tfds:{tmp_path}"

    return prepare


@pytest.mark.parametrize("task", [task for task in PUBLISHED if task != "coqa"])
def test_examples_of_tfdss_own_builders_become_rows(prepared, task):
    read = rows.read(GAUNTLET[task], [prepared(task, 12)])
    assert read.rows == (PUBLISHED[task][2],) * 12
    assert read.source.startswith("tfds:") and len(read.sha256) == 64
    assert {name for name in tfds_rows.READERS} == {*PUBLISHED, "hellaswag_zeroshot", "arc_challenge"}


def test_a_conversation_is_a_row_a_question_with_all_before_it(prepared):
    first, second = rows.read(GAUNTLET["coqa"], [prepared("coqa", 1)]).rows
    assert "Story: Once." in first["context"] and first["context"].endswith("Question: When?\nAnswer:")
    assert first["continuation"] == "once" and second["continuation"] == "she"
    assert "Question: When?\nAnswer: once\n" in second["context"]


def test_a_set_that_tfds_has_not_prepared_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"task 'boolq': tfds 'bool_q': nothing prepared .*`tfds build bool_q`"):
        rows.read(GAUNTLET["boolq"], [f"tfds:{tmp_path}"])
