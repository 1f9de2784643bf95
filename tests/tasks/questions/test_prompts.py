"""Prompts: llm-foundry's token ids, spans and draws for every fixture, and refusals of what cannot be asked."""

import hashlib
import itertools
import json
import random
import types

import pytest

from tasks.questions import prompts, rows
from tasks.questions.gauntlet import GAUNTLET, LANGUAGE_MODELING, MULTIPLE_CHOICE, SCHEMA, Definition
from tasks.text import vocab

FIXTURES = ("arc_easy_first100", "bigbench_operators_first60", "copa", "lambada_openai_small", "winograd")


@pytest.fixture(scope="module")
def parity(shared):
    return shared / "parity" / "icl"


@pytest.fixture(scope="module")
def neox(parity):
    return vocab.load(str(parity / "tokenizer_neox" / "tokenizer.json"))


def _ids(question):
    return [[*a.tolist(), *b.tolist()] for a, b in zip(question.contexts, question.answers, strict=True)]


def _spans(question):
    return [[len(a), len(b)] for a, b in zip(question.contexts, question.answers, strict=True)]


def _bytes_task(type_, shots=0, **options):
    return Definition("own", "own.jsonl", type_, shots, **options)


@pytest.mark.parametrize("name", FIXTURES)
def test_every_token_and_span_is_llm_foundrys(name, parity):
    fixture = json.loads((parity / f"{name}.json").read_text())
    c = fixture["config"]
    task = Definition(name, c["data_file"], c["icl_task_type"], c["num_fewshot"], c["continuation_delimiter"])
    read = rows.read(task, [str(parity)])
    assert read.sha256 == c["sha256"]
    tokenizer = vocab.load(str(parity / c["tokenizer"] / "tokenizer.json"))
    asked = list(prompts.ask(task, read.rows, tokenizer, c["max_seq_len"]))
    assert len(asked) == fixture["n"]
    for question, example in zip(asked, fixture["examples"], strict=True):
        assert _ids(question) == [example["prefix_ids"] + choice["suffix_ids"] for choice in example["choices"]]
        assert _spans(question) == [[choice["n_ctx"], choice["n_cont"]] for choice in example["choices"]]
        assert question.gold == example.get("gold", 0)


@pytest.mark.parametrize("name", ["arc_easy", "boolq", "copa", "jeopardy", "lambada_openai", "winograd"])
def test_prompts_of_the_published_tokenizer_have_the_fixtures_hashes(name, parity, neox, shared):
    fixture = json.loads((parity / "prompts_neox" / f"{name}.json").read_text())
    task = GAUNTLET[name]
    read = rows.read(task, [str(shared / "icl")])
    assert read.sha256 == fixture["config"]["sha256"]
    for part in fixture["sets"]:
        own = [row for row in read.rows if part["category"] in (None, row.get("category"))]
        assert len(own) == part["n"]
        asked = itertools.islice(prompts.ask(task, own, neox, 2048), len(part["examples"]))
        rng = random.Random(task.seed)
        for question, example in zip(asked, part["examples"], strict=True):
            assert prompts.shots(len(own), task.shots, example["idx"], rng) == example["fewshot"]
            assert _spans(question) == example["spans"]
            assert hashlib.sha256(json.dumps(_ids(question)).encode()).hexdigest() == example["sha256"]


def test_contexts_are_cut_where_llm_foundry_cuts_them(parity, neox, shared):
    coverage = {entry["label"]: entry for entry in json.loads((parity / "coverage.json").read_text())}
    for name in ("logi_qa", "pubmed_qa_labeled", "bigbench_understanding_fables", "bigbench_logical_deduction"):
        task, present = GAUNTLET[name], coverage[name]
        read = rows.read(task, [str(shared / "icl")])
        first20 = list(itertools.islice(prompts.ask(task, read.rows, neox, 2048), 20))
        whole = itertools.islice(prompts.ask(task, read.rows, neox, 10**6), 20)
        cut = [_ids(a) != _ids(b) for a, b in zip(first20, whole, strict=True)]
        assert sum(cut) == present["trimmed_of_first20"] > 0
        assert all(
            len(ids) == 2048 for question, long in zip(first20, cut, strict=True) if long for ids in _ids(question)
        )


def test_shots_of_each_type_are_written_out():
    bytes_ = vocab.load("bytes")
    given = {
        MULTIPLE_CHOICE: [{"query": f"q{i}", "choices": ["no", " yes"], "gold": 1} for i in range(2)],
        LANGUAGE_MODELING: [{"context": f"q{i}", "continuation": "yes"} for i in range(2)],
        SCHEMA: [{"context_options": [f"a{i} ", f"b{i} "], "continuation": "yes", "gold": 1} for i in range(2)],
    }
    texts = {
        type_: [
            [bytes_.decode(ids) for ids in _ids(question)]
            for question in prompts.ask(_bytes_task(type_, 1, delimiter="\nA: "), two, bytes_, 99)
        ]
        for type_, two in given.items()
    }
    # A space leads an answer only where " a" is one token, which it is not in bytes.
    assert texts[MULTIPLE_CHOICE][0] == ["q1\nA:  yes\nq0\nA:no", "q1\nA:  yes\nq0\nA: yes"]
    assert texts[LANGUAGE_MODELING][1] == ["q0\nA: yes\nq1\nA:yes"]
    assert texts[SCHEMA][0] == ["b1 \nA: yes\na0 \nA:yes", "b1 \nA: yes\nb0 \nA:yes"]
    [zero_shot, _] = prompts.ask(_bytes_task(SCHEMA, delimiter="\nA: "), given[SCHEMA], bytes_, 99)
    assert [bytes_.decode(ids) for ids in _ids(zero_shot)] == ["a0 yes", "b0 yes"]


def test_categories_draw_from_their_own_rows_with_the_same_seed():
    bytes_ = vocab.load("bytes")
    given = [{"context": f"{c}{i}", "continuation": "x", "category": c} for i in range(6) for c in "ba"]
    asked = list(prompts.ask(_bytes_task(LANGUAGE_MODELING, 3, categorised=True), given, bytes_, 99))
    assert [question.category for question in asked] == ["a"] * 6 + ["b"] * 6
    of_a, of_b = ([bytes_.decode(question.contexts[0]) for question in part] for part in (asked[:6], asked[6:]))
    assert all("b" not in text for text in of_a) and [text.replace("a", "b") for text in of_a] == of_b


def test_what_cannot_be_asked_is_refused():
    bytes_ = vocab.load("bytes")
    ask = lambda context, answer, max_tokens=9: list(  # noqa: E731
        prompts.ask(_bytes_task(LANGUAGE_MODELING), [{"context": context, "continuation": answer}], bytes_, max_tokens)
    )
    [question] = ask("0123456789", "12345678")
    assert _spans(question) == [[1, 8]]
    with pytest.raises(ValueError, match="an answer of 9 tokens leaves no context in 9 tokens"):
        ask("0123456789", "123456789")
    with pytest.raises(ValueError, match="no context comes before the answer 'yes'"):
        ask("", "yes")
    endless = types.SimpleNamespace(eos_id=None)
    with pytest.raises(ValueError, match="'own': the tokenizer has no end-of-text token"):
        list(prompts.ask(_bytes_task(LANGUAGE_MODELING), [], endless, 9))
