"""A stranger's way to evaluate a model from elsewhere: what cannot be asked is refused in one line, before any work."""

import json

import jax
import jax.numpy as jnp
import pytest
import yaml
from etils import epath
from flax import linen as nn

from fitting.testbeds.testbed import RunRecord
from ladder.spec import Workdir
from models import saved
from models.decoder import Decoder
from models.saved import SavedModel

ROWS = [{"query": f"{i} is", "choices": ["even", "odd"], "gold": i % 2} for i in range(10)]


@pytest.fixture
def checkpoint(tmp_path, spec):
    """A tiny model as `ladder convert` writes it; gives its folder."""

    def write(vocabulary="ascii") -> str:
        params = nn.unbox(jax.jit(Decoder(spec.decoder).init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32)))
        model = SavedModel(spec.decoder, vocabulary, spec.sequence_length)
        saved.save(model, params["params"], epath.Path(tmp_path / "theirs"))
        return str(tmp_path / "theirs")

    return write


@pytest.fixture
def evaluate(ladder_, checkpoint, tmp_path):
    """Evaluates a checkpoint on a suite of these lines: the verb, as it is typed."""

    def run(lines=ROWS, vocabulary="ascii", **task):
        content = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        (tmp_path / "own.jsonl").write_text(content)
        tree = {"tasks": [{"name": "own", "file": "own.jsonl", "type": "multiple_choice", **task}]}
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(tree))
        suite = {"source": str(tmp_path), "tasks": str(tmp_path / "suite.yaml")}
        (tmp_path / "evaluation.yaml").write_text(yaml.safe_dump({"evaluation": {"suite": suite}}))
        where = ("--checkpoint", checkpoint(vocabulary), "--workdir", str(tmp_path / "results"))
        ladder_("evaluate", str(tmp_path / "evaluation.yaml"), *where)

    return run


def test_a_model_is_measured_and_it_is_told_where(evaluate, tmp_path, capsys):
    evaluate(shots=2)
    record = RunRecord.load(Workdir.at(str(tmp_path / "results")).record("theirs"))
    assert 0 <= record.errors["own"].value <= 1 and len(record.sources["own"]) == 64
    told = capsys.readouterr().err
    assert "evaluating own" in told and f"theirs: measured; {tmp_path}" in told


LONG = {"query": "q", "choices": ["yes", "no, by no means, not at all"], "gold": 0}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"file": "absent.jsonl"}, "task 'own': no file {folder}/absent.jsonl; put it there"),
        ({"lines": [*ROWS, '{"query": \n']}, "task 'own': {folder}/own.jsonl, line 11: Expecting value"),
        ({"lines": [ROWS[0], {"query": "q"}]}, "{folder}/own.jsonl, line 2: has no field 'choices'; it has query"),
        ({"lines": [LONG]}, "task 'own': an answer of 27 tokens leaves no context in 16 tokens"),
        ({"shots": 10}, "task 'own': {folder}/own.jsonl holds 10 rows, too few for 10 shots"),
        ({"vocabulary": ""}, "does not name its vocabulary; convert it again with --vocabulary"),
        ({"vocabulary": "{folder}/tokenizer.json"}, "has no end-of-text token to put between documents"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_work(evaluate, tmp_path, given, why):
    endless = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", **endless}))
    if "vocabulary" in given:
        given = given | {"vocabulary": given["vocabulary"].replace("{folder}", str(tmp_path))}
    with pytest.raises(SystemExit) as exit_:
        evaluate(**given)
    assert exit_.value.code.startswith("ladder: ") and "\n" not in exit_.value.code
    assert why.replace("{folder}", str(tmp_path)) in exit_.value.code
    assert not (tmp_path / "results").exists()


def test_either_a_run_or_a_checkpoint_is_named(ladder_, tmp_path):
    for named in ([], ["--run", "a", "--checkpoint", "b"]):
        with pytest.raises(SystemExit, match="say what to evaluate: either --run or --checkpoint"):
            ladder_("evaluate", "x.yaml", "--workdir", str(tmp_path), *named)
