"""Places that a person names, and files of ours that are damaged: read, or refused in one line before all else."""

import json
import re

import pytest
import yaml
from etils import epath

from ladder import config_file, storage

PLACES = ("gs:/bucket/x", "gs:bucket/x", "gs:///x", "s3://bucket/x", "hdfs://host/x", "https://host/x", "s3:/x")
COMMANDS = (
    ("run", "CONFIG", "--workdir", "PLACE"),
    ("train", "CONFIG", "--run", "w4-m10", "--workdir", "PLACE"),
    ("evaluate", "CONFIG", "--run", "w4-m10", "--workdir", "PLACE"),
    ("evaluate", "CONFIG", "--checkpoint", "PLACE", "--workdir", "W"),
    ("generate", "--checkpoint", "PLACE", "--prompt", "a"),
    ("collect", "PLACE"),
    ("plan", "PLACE"),
    ("plan", "CONFIG", "--set", "base=PLACE"),
    ("import", "csv", "PLACE", "--out", "W"),
    ("import", "csv", "TABLE", "--out", "PLACE"),
    ("fit", "PLACE", "--loss", "c4", "--out", "W"),
    ("fit", "TABLE", "--loss", "c4", "--out", "PLACE"),
    ("predict", "PLACE", "--params", "1", "--tokens", "1"),
    ("predict", "LAW", "--params", "1", "--tokens", "1", "--freeze", "PLACE"),
    ("score", "PLACE", "TABLE", "--run", "a"),
    ("advise", "PLACE", "--budget-flops", "1e20"),
    ("report", "PLACE"),
    ("tokenizer", "CONFIG", "--size", "300", "--out", "PLACE"),
    ("convert", "hugging-face", "--checkpoint", "PLACE", "--out", "W"),
    ("convert", "hugging-face", "--checkpoint", "W", "--out", "PLACE"),
    ("convert", "from-hugging-face", "PLACE", "--out", "W"),
    ("convert", "open-lm", "x.pt", "--out", "PLACE"),
)


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_cannot_be_is_refused(place):
    with pytest.raises(ValueError, match="gs://bucket/path"):
        storage.place(place)


@pytest.mark.parametrize("place", ["a/b", "/a", "gs://bucket", "gs://bucket/a", "c:v2/x", "C:/x", "notes: today"])
def test_other_places_are_taken_as_they_are(place):
    assert storage.place(place) == epath.Path(place)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_path_of_the_command_line_is_refused_before_anything_is_written(
    ladder_, tree, write_config, tmp_path, monkeypatch, command
):
    config = write_config(tree)
    (tmp_path / "t.csv").write_text("run,params,tokens,loss/c4\na,1e8,2e9,3\n")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    named = {"CONFIG": config, "TABLE": "t.csv", "PLACE": "gs:/bucket/x", "base=PLACE": "base=gs:/bucket/x"}
    with pytest.raises(SystemExit, match=r"^ladder: .*gs:/bucket/x: a bucket's path is written gs://bucket/path$"):
        ladder_(*(named.get(word, word) for word in command))
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("corpus.cache", "s3://b/x"),
        ("corpus.options.path", "gs:/b/*.txt"),
        ("corpus.vocabulary", "hdfs://b/tokenizer.json"),
        ("evaluation.suite", {"source": ["icl", "s3://b/icl"]}),
        ("evaluation.validation", {"x": {"kind": "jsonl", "options": {"path": "s3://b/x"}}}),
        ("evaluation.paper_validation", {"source": "gs:/b"}),
    ],
)
def test_every_path_of_a_config_is_refused_with_its_key(tree, write_config, key, value):
    with pytest.raises(ValueError, match=rf"tiny.yaml: {re.escape(key)}.*: (gs|s3|hdfs):/.*gs://bucket/path"):
        config_file.load(write_config(tree), [f"{key}={yaml.safe_dump(value, default_flow_style=True)}"])


def test_tensorflow_datasets_in_a_folder_of_their_own_are_a_place(tree, write_config):
    assert config_file.load(write_config(tree), ["evaluation.suite.source=tfds:/data"]).evaluation.suite


ROW = {"step": 50, "tokens": 800, "loss_nats": 3.0}


def test_a_last_row_that_was_cut_is_left_out(tmp_path):
    path = epath.Path(tmp_path / "metrics.jsonl")
    whole = "".join(json.dumps({**ROW, "step": step}) + "\n" for step in (50, 100, 150))
    for end in range(len(whole) - len(whole.splitlines()[-1]), len(whole) - 1):
        path.write_text(whole[:end])
        assert [row["step"] for row in storage.read_rows(path)] == [50, 100]
    path.write_text(whole)
    assert len(storage.read_rows(path)) == 3


@pytest.mark.parametrize("damage", ['{"step": 5', "[]", '{"step": 50}', "12"])
def test_another_damaged_row_is_refused_with_its_line(tmp_path, damage):
    path = epath.Path(tmp_path / "metrics.jsonl")
    path.write_text(f"{json.dumps(ROW)}\n{damage}\n{json.dumps(ROW)}\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: .*; remove that line"):
        storage.read_rows(path)


def test_what_a_person_is_told_is_no_document():
    assert len(storage.told(ValueError("x" * 228_000))) <= 2000
    assert storage.told(ValueError("w8-m1 is not planned")) == "w8-m1 is not planned"
