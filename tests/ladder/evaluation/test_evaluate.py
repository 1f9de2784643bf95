"""Evaluation: losses as NumPy computes them, whatever the batches; records that are written once."""

import dataclasses
import json
import math
import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from etils import epath
from flax import linen as nn

import processes
from fitting.testbeds.testbed import RunRecord
from ladder.config import Corpus, Evaluation, Suite, Training, ValidationSet
from ladder.evaluation import evaluate as evaluation
from ladder.evaluation import record as records
from ladder.evaluation import scorer
from ladder.spec import Workdir
from ladder.training.step import init_state, make_optimizer
from models import saved
from models.decoder import Decoder
from models.saved import SavedModel
from tasks.questions import questions
from tasks.questions.questions import Questions

ROWS = 150  # two whole batches of 64 and a ragged one


@pytest.fixture
def config():
    return types.SimpleNamespace(
        corpus=Corpus(kind="text", vocabulary="ascii"), evaluation=Evaluation(tasks=("which",)), training=Training()
    )


@pytest.fixture
def params(spec):
    optimizer = make_optimizer(spec.hyperparameters, spec.steps)
    return jax.jit(lambda: nn.unbox(init_state(spec, optimizer)))().params


@pytest.fixture
def evaluated(config, spec, workdir, token_RxT, params, monkeypatch):
    """Evaluates `params`, or others, on a workdir that holds a validation set and a task: (record, events)."""
    records_RxT = token_RxT[:ROWS]
    workdir.validation_records("held_out").parent.mkdir(parents=True)
    np.save(workdir.validation_records("held_out"), records_RxT)
    summary = {"validation_tokens": {"held_out": ROWS * 16}, "validation_bytes_per_token": {"held_out": 2.0}}
    workdir.corpus.write_text(json.dumps(summary))
    row_N = np.arange(40)
    asked = Questions(
        "which",
        0.75,
        token_RxT[:40, :12].astype(np.int32),
        np.full(40, 8),
        9 + row_N % 4,
        1 + row_N % 4,
        row_N // 4,
        row_N % 4,
        row_N // 4 % 4,
    )
    questions.save(asked, workdir.questions("which"))

    def run(params=params, config=config):
        events = []
        monkeypatch.setattr(evaluation, "final_params", lambda *_: params)
        return evaluation.evaluate(config, spec, workdir, events.append), events

    return run


def _numpy_losses(logits_BxLxV, target_BxL):
    log_normaliser_BxL = np.log(np.exp(logits_BxLxV).sum(-1))
    return log_normaliser_BxL - np.take_along_axis(logits_BxLxV, target_BxL[..., None], -1)[..., 0]


def test_the_recorded_loss_is_numpys_mean_over_all_tokens_of_the_ragged_set(spec, workdir, evaluated, params):
    record, _ = evaluated()
    record_RxT = np.load(workdir.validation_records("held_out")).astype(np.int32)
    loss_RxL = _numpy_losses(
        np.asarray(jax.jit(Decoder(spec.decoder).apply)({"params": params}, record_RxT[:, :-1])), record_RxT[:, 1:]
    )
    measured = record.losses["held_out"]
    assert measured.value == pytest.approx(loss_RxL.mean(), rel=1e-6)
    assert measured.stderr == pytest.approx(loss_RxL.mean(1).std(ddof=1) / math.sqrt(ROWS), rel=1e-4)
    scores = record.scores["held_out"]
    assert scores["bits_per_byte"].value == pytest.approx(measured.value / math.log(2) / 2)
    assert scores["loss_over_tokens"].value == pytest.approx(measured.value)
    assert scores["loss_over_tokens"].stderr == pytest.approx(loss_RxL.std(ddof=1) / math.sqrt(loss_RxL.size), rel=1e-4)
    rng = np.random.default_rng(5)
    redrawn = [rng.choice(loss_RxL.mean(1), ROWS).mean() for _ in range(4000)]
    for over, (lower, upper) in {
        "sequences": np.quantile(redrawn, [0.025, 0.975]),
        "tokens": measured.value + 1.96 * scores["loss_over_tokens"].stderr * np.array([-1, 1]),
    }.items():
        assert scores[f"loss_{over}_lower_95"].value == pytest.approx(lower, abs=measured.stderr / 10)
        assert scores[f"loss_{over}_upper_95"].value == pytest.approx(upper, abs=measured.stderr / 10)
    width_nats = scores["loss_tokens_upper_95"].value - scores["loss_tokens_lower_95"].value
    width_bits = scores["bits_per_byte_tokens_upper_95"].value - scores["bits_per_byte_tokens_lower_95"].value
    assert width_bits == pytest.approx(width_nats / math.log(2) / 2)
    assert record.errors["which"].value == pytest.approx(1 - record.scores["which"]["accuracy"].value)
    assert record.chance_errors == {"which": 0.75}


def test_the_numbers_do_not_depend_on_the_batch(spec, workdir, evaluated, monkeypatch):
    one, _ = evaluated()
    workdir.record(spec.run).unlink()
    monkeypatch.setattr(scorer.Scorer.__init__, "__defaults__", (112,))
    other, _ = evaluated()
    assert other.losses["held_out"].value == pytest.approx(one.losses["held_out"].value, rel=1e-6)
    assert other.errors["which"].value == one.errors["which"].value


def test_a_record_says_what_run_it_is_of(spec, evaluated):
    record, events = evaluated()
    assert (record.run, record.role, record.model, record.corpus) == ("w8-m1", "rung", "w8", "text")
    assert (record.params, record.tokens, record.flops) == (spec.params, spec.tokens, spec.flops)
    assert record.quarantine == "" and {event.run for event in events} == {"w8-m1"}


def test_a_run_that_has_its_record_keeps_it(spec, workdir, evaluated, params):
    record, _ = evaluated()
    written = workdir.record(spec.run).read_bytes()
    again, events = evaluated(jax.tree.map(jnp.zeros_like, params))
    assert again == record and events == []
    assert workdir.record(spec.run).read_bytes() == written


ROWS_OF_A_SUITE = [{"query": f"{i} is", "choices": ["even", "odd"], "gold": i % 2} for i in range(10)]


@pytest.fixture
def suite(tmp_path):
    """A suite of one task, whose bytes the tiny model has ids for."""
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS_OF_A_SUITE))
    tree = {"tasks": [{"name": "odd", "file": "odd.jsonl", "type": "multiple_choice", "shots": 2}]}
    (tmp_path / "suite.yaml").write_text(json.dumps(tree))
    return Suite(source=str(tmp_path), tasks=str(tmp_path / "suite.yaml"))


def _with(config, **evaluation):
    changed = dataclasses.replace(config.evaluation, **evaluation)
    return types.SimpleNamespace(corpus=config.corpus, evaluation=changed, training=config.training)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_tasks_added_later_join_the_record_and_their_answers_can_be_kept(config, spec, workdir, evaluated, suite, kind):
    before, _ = evaluated()
    after, events = evaluated(config=_with(config, suite=suite, examples=kind))
    assert {event.what for event in events} == {"odd"}
    assert after == RunRecord.load(workdir.record(spec.run))
    assert (
        dataclasses.replace(
            after,
            errors={"which": after.errors["which"]},
            chance_errors={"which": after.chance_errors["which"]},
            scores={name: after.scores[name] for name in before.scores},
            sources={name: after.sources[name] for name in before.sources},
        )
        == before
    )
    assert after.chance_errors["odd"] == 0.5 and len(after.sources["odd"]) == 64
    assert set(after.scores["odd"]) == {
        *("accuracy", "accuracy_above_chance", "loss", "bits_per_byte", "margin", "probability")
    }
    path = workdir.examples(spec.run, "odd", kind)
    table = pd.read_parquet(path) if kind == "parquet" else pd.read_json(path, lines=True)
    assert len(table) == 10 and table["gold"].tolist() == [0, 1] * 5
    assert table["correct"].mean() == pytest.approx(after.scores["odd"]["accuracy"].value)
    assert table["loss"].mean() == pytest.approx(after.scores["odd"]["loss"].value)
    assert [losses[gold] for losses, gold in zip(table["choice_losses"], table["gold"], strict=True)] == pytest.approx(
        table["loss"].tolist()
    )


def evaluate_until(what, config, spec, workdir, params):
    """Evaluates in a process of its own, which is killed when it is told of that task."""
    evaluation.final_params = lambda *_: params

    def report(event):
        if event.what == what:
            os.kill(os.getpid(), signal.SIGKILL)

    evaluation.evaluate(config, spec, workdir, report)


def test_a_kill_costs_only_the_task_that_was_being_scored(config, spec, workdir, evaluated, suite, params):
    config = _with(config, suite=suite)
    uninterrupted, _ = evaluated(config=config)
    workdir.record(spec.run).unlink()
    given = jax.device_get(params)
    with processes.Together(evaluate_until, "odd", config, spec, workdir, given) as together:
        assert together.exit_codes(400) == [-signal.SIGKILL]
    assert not workdir.record(spec.run).exists() and workdir.partial_record(spec.run).exists()
    record, events = evaluated(config=config)
    assert {event.what for event in events} == {"odd"} and record == uninterrupted
    assert not workdir.partial_record(spec.run).exists()
    assert records.is_finished(config, spec, workdir)


@pytest.fixture
def saved_model(tmp_path, spec, params):
    """The tiny model as `ladder convert` writes models of other programs."""

    def save(name="theirs", vocabulary="ascii", params=params):
        model = SavedModel(spec.decoder, vocabulary, spec.sequence_length, {"program": "open_lm"})
        saved.save(model, params, epath.Path(tmp_path / name))
        return str(tmp_path / name)

    return save


def test_a_model_from_elsewhere_is_measured_as_a_run_is(
    config, spec, workdir, evaluated, suite, saved_model, tmp_path, params
):
    (tmp_path / "words.jsonl").write_text("".join(json.dumps({"text": f"{n} words " * 9}) + "\n" for n in range(9)))
    words = ValidationSet(kind="jsonl", options={"path": str(tmp_path / "words.jsonl")})
    asked = Evaluation(suite=suite, validation={"words": words}, examples="jsonl", tasks=("recall",))
    results, events = Workdir.at(str(tmp_path / "results")), []
    record = evaluation.evaluate_checkpoint(asked, saved_model(), results, events.append)
    assert record == RunRecord.load(results.record("theirs")) and record.params == spec.params
    assert {event.what for event in events} == {"words", "odd"}
    as_a_run, _ = evaluated(config=_with(config, suite=suite))
    assert record.scores["odd"] == as_a_run.scores["odd"] and record.sources["odd"] == as_a_run.sources["odd"]
    assert record.losses["words"].value > 0 and "bits_per_byte" in record.scores["words"]
    assert len(pd.read_json(results.examples("theirs", "odd", "jsonl"), lines=True)) == 10

    again = evaluation.evaluate_checkpoint(asked, str(tmp_path / "theirs"), results, lambda _: pytest.fail("measured"))
    assert again == record
    results.record("theirs").rename(results.partial_record("theirs"))  # as a kill leaves it before the last step
    assert evaluation.evaluate_checkpoint(asked, str(tmp_path / "theirs"), results, print) == record
    assert RunRecord.load(results.record("theirs")) == record and not results.partial_record("theirs").exists()
    unnamed = saved_model("unnamed", vocabulary="")
    with pytest.raises(ValueError, match="does not name its vocabulary; convert it again with --vocabulary"):
        evaluation.evaluate_checkpoint(asked, unnamed, results, print)
    with pytest.raises(ValueError, match="asks for nothing that a checkpoint can be measured on"):
        evaluation.evaluate_checkpoint(Evaluation(tasks=("recall",)), str(tmp_path / "theirs"), results, print)
    results.record("theirs").write_text(results.record("theirs").read_text().replace("open_lm", "transformers"))
    with pytest.raises(ValueError, match="is of another model"):
        evaluation.evaluate_checkpoint(asked, str(tmp_path / "theirs"), results, print)


def test_a_loss_that_is_not_finite_is_quarantined(spec, workdir, evaluated, params):
    record, _ = evaluated(jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    assert record.quarantine == "its loss on held_out is not finite"
    assert not record.losses and not record.errors
    assert evaluated()[0] == record


def test_a_run_that_is_not_trained_cannot_be_evaluated(config, spec, workdir, evaluated):
    with pytest.raises(ValueError, match="not trained to its last step"):
        evaluation.evaluate(config, spec, workdir, print)


def test_the_record_of_a_quarantined_run_has_its_figures_and_the_reason(config, spec, workdir):
    record = records.quarantine(config, spec, workdir, "it diverged")
    assert record.quarantine == "it diverged" and record.params == spec.params
    assert dataclasses.replace(record, quarantine="") != record
