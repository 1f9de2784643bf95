"""The scorer: llm-foundry's losses for every fixture, whatever the batches and the devices, compiled a few times."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from decoders import attend_causally
from ladder.evaluation import scorer
from ladder.evaluation.scorer import Scorer
from ladder.training import execution
from ladder.training import mesh as meshes
from models.config import DecoderConfig
from models.convert.open_lm import as_params, read_weights
from models.decoder import Decoder
from models.execution import Execution
from models.loss import token_losses
from tasks.questions import scoring
from tasks.questions.questions import Question

CONFIG = DecoderConfig(width=16, layers=2, heads=2, vocab_size=64, ffn_multiple=8)
MANY_TOKENS = 2**13


@pytest.fixture(scope="module")
def params():
    return nn.unbox(jax.jit(Decoder(CONFIG).init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32)))["params"]


@pytest.fixture(scope="module")
def questions():
    """Of one to four choices, with shared contexts, with contexts of their own, short and long, equal choices too."""
    rng = np.random.default_rng(0)
    draw = lambda low, high: rng.integers(0, 64, rng.integers(low, high)).astype(np.int32)  # noqa: E731
    made = []
    for i in range(24):
        choices = 3 if i % 4 else 1
        if i % 3:
            contexts = (draw(1, 90),) * choices
            answers = tuple(draw(1, 12) for _ in range(choices))
        else:
            common = draw(0, 60)
            contexts = tuple(np.concatenate([common, draw(1, 9)]) for _ in range(choices))
            answers = (draw(1, 12),) * choices
        if choices > 1 and i % 5 == 0:
            contexts, answers = (*contexts[:-1], contexts[0]), (*answers[:-1], answers[0])
        made.append(Question(contexts, answers, tuple(map(len, answers)), gold=0))
    return made


def _plain(params, question):
    """Loss sums and greediness of each choice, one sequence a choice and nothing shared."""
    told = []
    for context, answer in zip(question.contexts, question.answers, strict=True):
        token_1xT = np.concatenate([context, answer])[None]
        padded_1xT = np.pad(token_1xT, ((0, 0), (0, 128 - token_1xT.shape[1])))  # compiled once
        logits = _logits(params, padded_1xT[:, :-1])
        loss_1xL, _ = token_losses(logits, padded_1xT[:, 1:])
        span = slice(len(context) - 1, token_1xT.shape[1] - 1)
        greedy = np.asarray(logits.argmax(-1))[0, span] == answer
        told.append((float(loss_1xL[0, span].sum()), bool(greedy.all())))
    return told


@jax.jit
def _logits(params, token_BxL):
    return Decoder(CONFIG).apply({"params": params}, token_BxL)


def _score(params, questions, **options):
    return Scorer(CONFIG, params, meshes.make(), **options)(questions)


def test_sums_are_those_of_one_sequence_a_choice(params, questions):
    scored = _score(params, questions)
    plain = [row for question in questions for row in _plain(params, question)]
    np.testing.assert_allclose(scored.loss_sum_N, [loss for loss, _ in plain], rtol=2e-6)
    np.testing.assert_array_equal(scored.greedy_N, [greedy for _, greedy in plain])
    assert scored.rows.tokens_N.tolist() == [len(a) for question in questions for a in question.answers]


def test_a_kernel_scores_padded_and_shared_contexts_alike(params, questions, monkeypatch):
    plain = _score(params, questions)
    seen = []

    def attend(*qkv):
        seen.append(qkv[0].shape)
        return attend_causally(*qkv)

    monkeypatch.setattr(execution, "on", lambda mesh, taken: Execution(attend=attend, length_multiple=32))
    scored = _score(params, questions)
    np.testing.assert_allclose(scored.loss_sum_N, plain.loss_sum_N, rtol=2e-6)
    np.testing.assert_array_equal(scored.greedy_N, plain.greedy_N)
    assert seen and all(length % 32 == 0 for _, _, length, _ in seen)


def test_equal_choices_have_equal_losses_to_the_last_bit(params, questions):
    scored = _score(params, questions)
    for index, question in enumerate(questions):
        losses = scored.loss_sum_N[scored.rows.question_N == index]
        assert len(losses) == len(question.answers)
        if len(losses) > 1 and index % 5 == 0:
            assert losses[0] == losses[-1]


def test_the_numbers_do_not_depend_on_the_batch(params, questions):
    one, other = (_score(params, questions, tokens_per_device=tokens) for tokens in (800, MANY_TOKENS))
    np.testing.assert_allclose(one.loss_sum_N, other.loss_sum_N, rtol=2e-6)
    np.testing.assert_allclose(one.square_sum_N, other.square_sum_N, rtol=4e-6)
    np.testing.assert_array_equal(one.greedy_N, other.greedy_N)


def test_each_shape_is_compiled_once_however_many_tasks(params, questions):
    one = Scorer(CONFIG, params, meshes.make(), tokens_per_device=MANY_TOKENS)
    told = []
    first = one(questions, told.append)
    compiled = one._token_losses._cache_size()
    assert compiled <= 3 and told[-1] == len(questions)
    again = one(questions[::-1])
    assert one._token_losses._cache_size() == compiled
    np.testing.assert_allclose(np.sort(again.loss_sum_N), np.sort(first.loss_sum_N), rtol=2e-6)


def test_a_question_that_cannot_be_made_stops_the_scoring(params, questions):
    def broken():
        yield questions[0]
        raise ValueError("line 2 is malformed")

    with pytest.raises(ValueError, match="line 2 is malformed"):
        _score(params, broken())


EIGHT_DEVICES = """
import sys, pickle, jax
from ladder.training import mesh
from ladder.evaluation import scorer
assert jax.device_count() == 8
config, params, questions = pickle.load(sys.stdin.buffer)
scored = scorer.Scorer(config, params, mesh.make())(questions)
pickle.dump(scored, sys.stdout.buffer)
"""


def test_eight_devices_give_the_numbers_of_one(params, questions):
    import os
    import pickle

    given = pickle.dumps((CONFIG, jax.device_get(params), questions))
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT_DEVICES], input=given, env=environment, capture_output=True, check=True
    )
    eight, one = pickle.loads(done.stdout), _score(params, questions)
    np.testing.assert_allclose(eight.loss_sum_N, one.loss_sum_N, rtol=2e-6)
    np.testing.assert_array_equal(eight.greedy_N, one.greedy_N)


@pytest.mark.parametrize("length", [1, 16, 17, 24, 33, 48, 49, 97, 1025, 2048])
def test_shapes_are_few_and_hold_what_they_must(length):
    power = scorer._bucket(length, 16)
    halves = scorer._bucket(length, 16, halves=True)
    assert length <= halves <= power and power.bit_count() == 1 and halves.bit_count() <= 2
    assert power < 2 * max(length, 16) and halves < 1.5 * max(length, 16)


@pytest.fixture(scope="module")
def fixture_model(shared):
    """The fixtures' model, and how they ask it."""
    parity = shared / "parity" / "icl"
    model = json.loads((parity / "model" / "model_config.json").read_text())
    config = DecoderConfig(
        width=model["hidden_dim"], layers=model["n_layers"], heads=model["n_heads"], vocab_size=model["vocab_size"]
    )
    weights = as_params(read_weights(parity / "model" / "epoch_1.pt"), config)
    return Scorer(config, jax.tree.map(jnp.asarray, weights), meshes.make())


def _as_question(example):
    """A fixture's example, from its token ids."""
    ids = [np.array(example["prefix_ids"] + choice["suffix_ids"], np.int32) for choice in example["choices"]]
    ends = [choice["n_ctx"] for choice in example["choices"]]
    return Question(
        contexts=tuple(tokens[:end] for tokens, end in zip(ids, ends, strict=True)),
        answers=tuple(tokens[end:] for tokens, end in zip(ids, ends, strict=True)),
        answer_bytes=tuple(choice["n_cont"] for choice in example["choices"]),
        gold=example.get("gold", 0),
    )


FIXTURES = ("copa", "winograd", "lambada_openai_small", "bigbench_operators_first60", "arc_easy_first100")


@pytest.fixture(params=FIXTURES)
def fixture(shared, request):
    return json.loads((shared / "parity" / "icl" / f"{request.param}.json").read_text())


def assert_llm_foundrys(scorer, examples):
    """That losses, answers and accuracy are those of the examples."""
    scored = scorer([_as_question(example) for example in examples])
    scores = scoring.score(scored.rows, scored.loss_sum_N, scored.greedy_N)
    choices = [choice for example in examples for choice in example["choices"]]
    means = scored.loss_sum_N / scored.rows.tokens_N
    np.testing.assert_allclose(means, [choice["mean_ce"] for choice in choices], atol=2e-5, rtol=0)
    if "exact" in choices[0]:
        right = [choice["exact"] for choice in choices]
        np.testing.assert_array_equal(scored.greedy_N, right)
        assert [tokens.tolist() for tokens in scored.likeliest_N] == [choice["greedy"] for choice in choices]
    else:
        right = [example["correct"] for example in examples]
        assert scores.answer_Q.tolist() == [example["pred"] for example in examples]
    accuracy = scoring.summarise(scores, 0.25)["accuracy"].value
    assert accuracy == pytest.approx(np.mean(right), abs=1e-7)
    return accuracy


def test_losses_and_answers_are_llm_foundrys(fixture, fixture_model):
    assert_llm_foundrys(fixture_model, fixture["examples"][:8])


@pytest.mark.slow
def test_losses_answers_and_accuracy_of_all_examples_are_llm_foundrys(fixture, fixture_model):
    accuracy = assert_llm_foundrys(fixture_model, fixture["examples"])
    assert accuracy == pytest.approx(fixture["accuracy"], abs=1e-7)
