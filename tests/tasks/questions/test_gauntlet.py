"""The gauntlet is what the published runs were scored on; suites' files say the same in two languages."""

import collections
import csv
import json

import pytest
import yaml

from tasks.questions import suite_files
from tasks.questions.gauntlet import GAUNTLET, LANGUAGE_MODELING, MULTIPLE_CHOICE, SCHEMA, SUBSET17


def test_the_46_tasks_are_31_multiple_choice_13_language_modelling_and_2_schemas():
    types = collections.Counter(task.type for task in GAUNTLET.values())
    assert types == {MULTIPLE_CHOICE: 31, LANGUAGE_MODELING: 13, SCHEMA: 2}
    assert len(SUBSET17) == 17 and set(SUBSET17) < set(GAUNTLET)


def test_the_published_suite_read_from_its_yaml_is_the_gauntlet(shared):
    loaded = suite_files.load(shared / "testbeds" / "gadre2024" / "heavy.yaml")
    assert list(loaded) == list(GAUNTLET)
    for name, task in loaded.items():
        for attribute in ("file", "type", "shots", "delimiter", "categorised", "example_delimiter", "preamble", "seed"):
            assert getattr(task, attribute) == getattr(GAUNTLET[name], attribute)


def test_chance_and_counts_are_the_published_ones(shared):
    chance = {}
    with (shared / "testbeds" / "gadre2024" / "eval_metadata.csv").open() as file:
        for row in csv.DictReader(file):
            chance[row["Eval Task"]] = float(row["Random baseline"]) / 100
    for name, task in GAUNTLET.items():
        assert task.chance_accuracy == chance[name]
    # The paper's constants for guessing.
    assert 1 - sum(GAUNTLET[name].chance_accuracy for name in SUBSET17) / 17 == pytest.approx(0.808824, abs=1e-6)
    assert 1 - sum(task.chance_accuracy for task in GAUNTLET.values()) / 46 == pytest.approx(0.75)
    for entry in json.loads((shared / "parity" / "icl" / "coverage.json").read_text()):
        if entry["present"]:
            task = GAUNTLET[entry["label"]]
            assert (task.rows, task.type, task.shots) == (entry["n"], entry["type"], entry["shots"])
            assert task.categorised == bool(entry["categories"])
            assert {1 / choices for choices in entry["choices"]} <= {task.chance_accuracy}


@pytest.fixture
def suite(tmp_path):
    def write(tree) -> str:
        path = tmp_path / "suite.yaml"
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
        return str(path)

    return write


def test_an_own_suite_and_llm_foundrys_list_of_shots(suite):
    own = {"name": "capitals", "file": "c.jsonl", "type": "schema", "shots": 2, "template": {"gold": "{right}"}}
    [task] = suite_files.load(suite({"tasks": [own]})).values()
    assert (task.shots, task.template, task.chance_accuracy) == (2, {"gold": "{right}"}, None)
    foundry = {"label": "copa", "dataset_uri": "eval/local_data/a/copa.jsonl", "icl_task_type": "multiple_choice"}
    several = suite_files.load(suite({"icl_tasks": [foundry | {"num_fewshot": [0, 5]}]}))
    assert [(name, task.shots, task.file) for name, task in several.items()] == [
        ("copa_0-shot", 0, "a/copa.jsonl"),
        ("copa_5-shot", 5, "a/copa.jsonl"),
    ]


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ("a: [", "is not YAML"),
        ({"tasks": []}, "needs a list of tasks"),
        ({"tasks": [{"name": "a", "file": "f", "type": "generation"}]}, "'a': type 'generation' cannot be asked"),
        ({"tasks": [{"name": "a", "file": "f", "type": "schema", "shot": 1}]}, "'a': unknown key 'shot'"),
        ({"tasks": [{"name": "a", "file": "f", "type": "schema", "shots": "1"}]}, "shots is '1'; it must be int"),
        ({"tasks": [{"name": "a/b", "file": "f", "type": "schema"}]}, "use letters, digits"),
        ({"tasks": [{"file": "f", "type": "schema"}]}, "'number 1': needs text for name"),
        (
            {"tasks": [{"name": "a", "file": "f", "type": "schema", "template": {"query": "{q}"}}]},
            "template has query; a schema has category, context_options, continuation, gold",
        ),
        ({"tasks": [{"name": "a", "file": "f", "type": "schema"}] * 2}, "'a': is there twice"),
        ({"icl_tasks": [{"label": "gsm", "dataset_uri": "g", "icl_task_type": "generation"}]}, "'gsm': type"),
        ({"icl_tasks": [{"label": "gsm", "cot_delimiter": "x"}]}, "unknown key 'cot_delimiter'"),
    ],
)
def test_a_suite_that_cannot_be_asked_is_refused(suite, tree, why):
    with pytest.raises(ValueError, match=r"suite\.yaml") as refusal:
        suite_files.load(suite(tree))
    assert why in str(refusal.value)
