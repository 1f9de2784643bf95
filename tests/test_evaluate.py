"""Evaluation: losses as NumPy computes them, whatever the batches; records that are written once."""

import dataclasses
import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import linen as nn

from ladder import evaluate as evaluation
from ladder.config import Corpus, Evaluation
from ladder.spec import Workdir
from ladder.train import init_state, make_optimizer
from models.decoder import Decoder
from tasks import questions
from tasks.questions import Questions

ROWS = 150  # two whole batches of 64 and a ragged one


@pytest.fixture
def config():
    return types.SimpleNamespace(corpus=Corpus(kind="text"), evaluation=Evaluation(tasks=("which",)))


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
    workdir.corpus.write_text(json.dumps({"train_tokens": 4800, "validation_tokens": {"held_out": ROWS * 16}}))
    row_N = np.arange(40)
    asked = Questions(
        "which",
        0.75,
        token_RxT[:40, :12].astype(np.int32),
        np.full(40, 8),
        9 + row_N % 4,
        row_N // 4,
        row_N % 4,
        row_N // 4 % 4,
    )
    questions.save(asked, workdir.questions("which"))

    def run(params=params):
        events = []
        monkeypatch.setattr(evaluation, "final_params", lambda spec, workdir: params)
        return evaluation.evaluate(config, spec, workdir, events.append), events

    return run


def _numpy_losses(logits_BxLxV, target_BxL):
    log_normaliser_BxL = np.log(np.exp(logits_BxLxV).sum(-1))
    return log_normaliser_BxL - np.take_along_axis(logits_BxLxV, target_BxL[..., None], -1)[..., 0]


def test_sums_of_spans_are_the_hand_computed_ones():
    logits_BxLxV = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32) * 3
    token_BxT = np.random.default_rng(1).integers(0, 6, (3, 5))
    decoder = types.SimpleNamespace(apply=lambda variables, token_BxL: jnp.asarray(logits_BxLxV))
    # Token t is predicted at position t - 1: [1, 5) is all that can be scored, [2, 4) two tokens, [3, 3) none.
    sum_B = evaluation.span_loss_sums(decoder, {}, jnp.asarray(token_BxT), jnp.array([1, 2, 3]), jnp.array([5, 4, 3]))
    loss_BxL = _numpy_losses(logits_BxLxV, token_BxT[:, 1:])
    np.testing.assert_allclose(sum_B, [loss_BxL[0].sum(), loss_BxL[1, 1:3].sum(), 0], rtol=1e-5)


def test_the_recorded_loss_is_numpys_mean_over_all_tokens_of_the_ragged_set(spec, workdir, evaluated, params):
    record, _ = evaluated()
    record_RxT = np.load(workdir.validation_records("held_out")).astype(np.int32)
    loss_RxL = _numpy_losses(
        np.asarray(jax.jit(Decoder(spec.decoder).apply)({"params": params}, record_RxT[:, :-1])), record_RxT[:, 1:]
    )
    measured = record.losses["held_out"]
    assert measured.value == pytest.approx(loss_RxL.mean(), rel=1e-6)
    assert measured.stderr == pytest.approx(loss_RxL.mean(1).std(ddof=1) / math.sqrt(ROWS), rel=1e-4)
    assert 0 <= record.errors["which"].value <= 1
    assert record.chance_errors == {"which": 0.75}


def test_the_numbers_do_not_depend_on_the_batch(spec, workdir, evaluated, monkeypatch):
    one, _ = evaluated()
    workdir.record(spec.run).unlink()
    monkeypatch.setattr(evaluation, "ROWS_PER_BATCH", 7)
    other, _ = evaluated()
    assert other.losses["held_out"].value == pytest.approx(one.losses["held_out"].value, rel=1e-6)
    assert other.errors == one.errors


def test_a_record_says_what_run_it_is_of(spec, evaluated):
    record, events = evaluated()
    assert (record.run, record.role, record.model, record.corpus) == ("w8-m1", "rung", "w8", "text")
    assert (record.params, record.tokens, record.flops) == (spec.params, spec.tokens, spec.flops)
    assert record.quarantine == "" and [event.run for event in events] == ["w8-m1"]


def test_a_run_that_has_its_record_keeps_it(spec, workdir, evaluated, params):
    record, _ = evaluated()
    written = workdir.record(spec.run).read_bytes()
    again, events = evaluated(jax.tree.map(jnp.zeros_like, params))
    assert again == record and events == []
    assert workdir.record(spec.run).read_bytes() == written


def test_a_loss_that_is_not_finite_is_quarantined(spec, workdir, evaluated, params):
    record, _ = evaluated(jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    assert record.quarantine == "its loss on held_out is not finite"
    assert not record.losses and not record.errors
    assert evaluated()[0] == record


def test_a_run_that_is_not_trained_cannot_be_evaluated(config, spec, tmp_path):
    with pytest.raises(ValueError, match="not trained to its last step"):
        evaluation.evaluate(config, spec, Workdir(epath.Path(tmp_path / "empty")), print)


def test_the_record_of_a_quarantined_run_has_its_figures_and_the_reason(config, spec, workdir):
    record = evaluation.quarantine(config, spec, workdir, "it diverged")
    assert record.quarantine == "it diverged" and record.params == spec.params
    assert dataclasses.replace(record, quarantine="") != record
