"""Downstream tasks in seqio's own Evaluator: it hands scores to the metric, and the accuracies are the fixtures'."""

import json

import numpy as np
import pytest
import seqio

from tasks.questions import downstream, rows
from tasks.questions.gauntlet import LANGUAGE_MODELING, MULTIPLE_CHOICE, Definition
from tasks.text import vocab

BYTES = vocab.load("bytes")


@pytest.fixture
def evaluate(tmp_path):
    """Evaluates rows of a task as `seqio.Evaluator` does: its metrics, the model's scores given."""
    tasks = []

    def run(given, type_, score_fn, **options):
        (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
        task = Definition("own", "own.jsonl", type_, **options)
        read = rows.read(task, [str(tmp_path)])
        built = downstream.build(task, read, BYTES, 99)
        seqio.TaskRegistry.add_provider(built.name, built)
        tasks.append(built.name)
        evaluator = seqio.Evaluator(built.name, seqio.EncDecFeatureConverter(pack=False), eval_split=downstream.SPLIT)
        metrics, _ = evaluator.evaluate(compute_metrics=True, score_fn=score_fn)
        return metrics.result()[built.name]

    yield run
    for name in tasks:
        seqio.TaskRegistry.remove(name)


def test_multiple_choice_takes_summed_log_likelihoods(evaluate):
    given = [{"query": f"q{i}", "choices": ["a", "bb", "cc"], "gold": i % 3} for i in range(6)]

    def score_fn(dataset):
        # By the mean a token: 1 for a, 0.5 for bb, 1 for cc, so that bb is always the answer.
        return [
            (int(i), {"a": -1.0, "bb": -1.0, "cc": -2.0}[BYTES.decode(e["decoder_target_tokens"].tolist())])
            for i, e in dataset.as_numpy_iterator()
        ]

    metrics = evaluate(given, MULTIPLE_CHOICE, score_fn)
    assert metrics["accuracy"] == pytest.approx(1 / 3) and metrics["accuracy_above_chance"] == pytest.approx(0)
    assert metrics["loss"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert {f"{name}_stderr" for name in ("accuracy", "loss", "bits_per_byte", "margin", "probability")} < set(metrics)


def test_language_modelling_takes_what_a_greedy_reader_writes_beside_the_scores(evaluate):
    given = [{"context": f"q{i}", "continuation": "yes", "category": "ab"[i > 3]} for i in range(6)]

    def score_fn(dataset):
        scores = [(int(i), -3.0) for i, _ in dataset.as_numpy_iterator()]
        # As a model on several hosts may give them.
        return scores[::-1], {"greedy": [i == 0 for i, _ in scores[::-1]]}

    metrics = evaluate(given, LANGUAGE_MODELING, score_fn, categorised=True)
    assert metrics["accuracy"] == pytest.approx((1 / 4 + 0) / 2) and metrics["loss"] == 1.0
    assert "margin" not in metrics


def test_a_long_context_loses_its_start_and_the_answer_stays(tmp_path):
    row = {"query": "0123456789" * 20, "choices": ["yes", "no"], "gold": 0}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n")
    task = Definition("own", "own.jsonl", MULTIPLE_CHOICE)
    built = downstream.build(task, rows.read(task, [str(tmp_path)]), BYTES, 50)
    examples = list(built.get_dataset(None, downstream.SPLIT, shuffle=False).as_numpy_iterator())
    assert [len(e["inputs"]) + len(e["targets"]) for e in examples] == [50, 50]
    assert BYTES.decode(examples[0]["inputs"].tolist()).endswith("56789")
    np.testing.assert_array_equal([e["bytes"] for e in examples], [3, 2])
