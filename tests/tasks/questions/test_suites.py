"""Questions: true answers, choices that give nothing away, one score by every path, and signal for a bigram model."""

import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from tasks.questions import downstream, questions, scoring, suites
from tasks.text import corpora, records, vocab

BYTES = vocab.load("bytes")
ASKED = 200


@pytest.fixture(scope="module")
def corpus():
    return corpora.build("python_sources", BYTES, roots=[f"{sysconfig.get_path('stdlib')}/asyncio"], held_out=0.4)


@pytest.fixture(scope="module")
def tasks(corpus):
    return suites.build(list(suites.SUITES), corpus.validation["code"], questions=ASKED)


@pytest.fixture(scope="module", params=list(suites.SUITES))
def asked(request, tasks):
    return suites.questions(tasks[request.param])


def _context_and_answer(asked, row):
    tokens, start, end = asked.tokens_NxL[row], asked.start_N[row], asked.end_N[row]
    return BYTES.decode(tokens[:start].tolist()), BYTES.decode(tokens[start:end].tolist())


def _error(asked, loss_N):
    summary = scoring.summarise(scoring.score(questions.rows_of(asked), loss_N * (asked.end_N - asked.start_N)), 0.25)
    return 1 - summary["accuracy"].value


def test_the_gold_choice_and_no_other_is_what_the_text_says(asked, corpus):
    text = "\n\n\n".join(
        e["targets_pretokenized"].decode() for e in records.examples(corpus.validation["code"], "validation")
    )
    assert len(asked.gold_N) == ASKED * suites.CHOICES
    for row in range(len(asked.gold_N)):
        context, answer = _context_and_answer(asked, row)
        assert (context + answer in text) == (asked.choice_N[row] == asked.gold_N[row])


def test_golds_stand_in_every_place(asked):
    places = np.bincount(asked.gold_N[:: suites.CHOICES], minlength=suites.CHOICES)
    assert places.min() > ASKED / suites.CHOICES / 2


@pytest.mark.parametrize("name", ["continuation", "recall"])
def test_a_score_blind_to_the_context_errs_as_a_guess_does(name, tasks):
    asked = suites.questions(tasks[name])
    rng = np.random.default_rng(0)
    own_loss = {}
    blind_N = [
        own_loss.setdefault(_context_and_answer(asked, row)[1], rng.random()) for row in range(len(asked.gold_N))
    ]
    assert _error(asked, np.array(blind_N)) == asked.chance_error == 0.75


def test_recalled_names_are_begun_and_stand_in_the_context(tasks):
    asked = suites.questions(tasks["recall"])
    for row in np.flatnonzero(asked.choice_N == asked.gold_N):
        context, answer = _context_and_answer(asked, row)
        assert context[-1] + answer in context[:-1]


def test_wrong_orders_have_the_same_characters(tasks):
    asked = suites.questions(tasks["order"])
    answers = np.array(["".join(sorted(_context_and_answer(asked, row)[1])) for row in range(len(asked.gold_N))])
    assert (answers.reshape(ASKED, -1) == answers[:: suites.CHOICES, None]).all()


def test_a_bigram_model_answers_better_than_a_guess(corpus, tasks, tmp_path):
    written = records.cache(corpus.train, "train", tmp_path / "train", record_length=256, enough_records=4000)
    tokens = written[np.arange(len(written))].ravel()
    count_VxV = np.full((259, 259), 0.1)
    np.add.at(count_VxV, (tokens[:-1], tokens[1:]), 1)
    loss_VxV = -np.log(count_VxV / count_VxV.sum(1, keepdims=True))
    errors = []
    for task in tasks.values():
        asked = suites.questions(task)
        spans = zip(asked.tokens_NxL, asked.start_N, asked.end_N, strict=True)
        loss_N = [loss_VxV[row[start - 1 : end - 1], row[start:end]].mean() for row, start, end in spans]
        errors.append(_error(asked, np.array(loss_N)))
    assert 0.3 < np.mean(errors) < 0.7


def test_seqio_and_the_arrays_score_alike(tasks):
    for task in tasks.values():
        asked = suites.questions(task)
        loss_N = np.random.default_rng(3).random(len(asked.gold_N))
        rows = list(task.get_dataset(None, downstream.SPLIT, shuffle=False).as_numpy_iterator())
        targets = [task.postprocess_fn("", example=row, is_target=True) for row in rows]
        [metric] = task.score_metric_fns
        scored = metric(targets, -loss_N * (asked.end_N - asked.start_N))
        assert scored["accuracy"] == pytest.approx(1 - _error(asked, loss_N))


def test_questions_repeat_with_their_seed(corpus, asked):
    held_out = corpus.validation["code"]
    again, other = (
        suites.questions(suites.build([asked.name], held_out, questions=ASKED, seed=seed)[asked.name])
        for seed in (0, 1)
    )
    np.testing.assert_array_equal(again.tokens_NxL, asked.tokens_NxL)
    assert again.tokens_NxL.shape != other.tokens_NxL.shape or (again.tokens_NxL != other.tokens_NxL).any()


def test_long_rows_lose_the_start_of_their_context(tasks):
    whole = suites.questions(tasks["order"])
    short = suites.questions(tasks["order"], max_tokens=60)
    assert short.tokens_NxL.shape[1] == 60
    np.testing.assert_array_equal(short.end_N - short.start_N, whole.end_N - whole.start_N)
    for row in (0, 101, 202):
        end = whole.end_N[row]
        np.testing.assert_array_equal(short.tokens_NxL[row], whole.tokens_NxL[row, end - 60 : end])
    with pytest.raises(ValueError, match="leaves no context in 8"):
        suites.questions(tasks["continuation"], max_tokens=8)


def test_saved_questions_load_without_tensorflow(tasks, tmp_path):
    asked = suites.questions(tasks["recall"])
    questions.save(asked, tmp_path / "recall.npz")
    loaded = questions.load(tmp_path / "recall.npz")
    for name, value in vars(asked).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
    program = (
        "import sys; from tasks.questions import questions, scoring; "
        f"questions.load({str(tmp_path / 'recall.npz')!r}); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"other\.npz: holds \['a'\]"):
        questions.load(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"none\.npz: no such file"):
        questions.load(tmp_path / "none.npz")


def test_too_little_text_and_unknown_suites_are_refused(corpus):
    with pytest.raises(ValueError, match=r"'order': the held-out text .* ask for fewer or give more text"):
        suites.build(["order"], corpus.validation["foreign"], questions=10_000)
    with pytest.raises(ValueError, match=r"unknown suites \['hellaswag'\]; known: continuation, recall, order"):
        suites.build(["hellaswag"], corpus.validation["code"])
