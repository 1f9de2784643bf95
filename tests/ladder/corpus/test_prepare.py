"""A workdir: claimed by one config, refused to others, its corpus whole or not there."""

import json
import pathlib
import re

import numpy as np
import pytest
from etils import epath

from ladder import spec as specs_
from ladder.corpus import prepare as preparing
from ladder.corpus.prepare import prepare
from ladder.evaluation import record as runs
from ladder.spec import Workdir
from ladder.training.data import Batches
from tasks.store import Records
from tasks.text import corpora, documents, files, vocab
from tasks.text import records as token_records


@pytest.fixture
def at(tmp_path):
    return Workdir.at(str(tmp_path / "w"))


def _say(line):
    del line


def _files(workdir):
    root = pathlib.Path(workdir.root)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def prepared(ladder, at):
    config, specs = ladder()
    prepare(config, specs, at, _say, _say)
    return at


def test_a_prepared_workdir_holds_config_plan_specs_and_corpus(prepared, ladder):
    _, specs = ladder()
    assert _files(prepared) == {
        "ladder.yaml",
        "plan.json",
        *(f"runs/{spec.run}/spec.json" for spec in specs),
        "corpus/corpus.json",
        "corpus/train/mixture.json",
        "corpus/train/text/origin.json",
        "corpus/train/text/00000-of-00001.npy",
        "corpus/train/text/records.json",
        "corpus/validation/held_out.npy",
        "corpus/tasks/recall.npz",
    }
    summary = json.loads(prepared.corpus.read_text())
    train = Records(prepared.train_records / "text")
    assert train.width == 17
    assert summary["train_tokens"] == {"text": len(train) * 16} and summary["train_rates"] == {"text": 1.0}
    assert len(train) * 16 >= max(spec.tokens for spec in specs)
    assert summary["validation_tokens"] == {"held_out": 70 * 16}
    assert np.load(prepared.validation_records("held_out")).shape == (70, 17)


def test_preparing_again_changes_nothing(prepared, ladder, monkeypatch):
    contents = {name: (prepared.root / name).read_bytes() for name in _files(prepared)}
    monkeypatch.setattr(preparing, "_write_corpus", lambda *_: pytest.fail("the corpus is there"))
    prepare(*ladder(), prepared, _say, _say)
    assert {name: (prepared.root / name).read_bytes() for name in _files(prepared)} == contents


def test_another_config_is_refused_with_the_keys_that_differ_and_leaves_the_workdir_alone(prepared, ladder):
    before = prepared.config.read_bytes()
    with pytest.raises(ValueError) as refusal:
        prepare(
            *ladder("seed=1", "sizes.w12.layers=2", "training.log_every_steps=2", "fit.level=0.5"), prepared, _say, _say
        )
    message = str(refusal.value)
    assert "seed is 0 there and 1 here" in message
    assert "sizes.w12.layers is 1 there and 2 here" in message
    assert "training" not in message and "fit" not in message
    assert prepared.config.read_bytes() == before


def test_how_runs_are_carried_out_and_read_may_change(prepared, ladder):
    prepare(*ladder("training.cores_per_run=1", "training.log_every_steps=2", "fit.error=null"), prepared, _say, _say)
    assert "cores_per_run: 1" in prepared.config.read_text()


def test_rungs_and_targets_may_be_added_moved_and_taken_away_where_the_runs_that_stay_are_the_same(prepared, ladder):
    before = {run: prepared.spec(run).read_bytes() for run in ("w4-m10", "w4-m30", "w8-m10")}
    records = {path: path.stat().st_mtime_ns for path in pathlib.Path(prepared.train_records).rglob("*.npy")}
    changed = ladder(
        "rungs.0.sizes=[w4, w6, w10, w12]", "rungs.1.token_multipliers=[30, 12]", "targets.0.sizes=[w8]", "name=more"
    )
    prepare(*changed, prepared, _say, _say)
    planned = {row["run"]: row["role"] for row in json.loads(prepared.plan.read_text())["runs"]}
    assert planned["w4-m12"] == planned["w12-m10"] == "rung" and planned["w8-m10"] == "target"
    assert prepared.spec("w4-m10").read_bytes() == before["w4-m10"]
    assert prepared.spec("w8-m10").read_text() == before["w8-m10"].decode().replace("rung", "target")
    prepare(*ladder("rungs.1.token_multipliers=[12]"), prepared, _say, _say)
    assert "w4-m30" not in prepared.plan.read_text()
    assert prepared.spec("w4-m30").read_bytes() == before["w4-m30"]
    assert {path: path.stat().st_mtime_ns for path in records} == records


def test_what_is_measured_of_a_corpus_stays_as_it_is(prepared, ladder):
    for override in ("evaluation.sequences=60", "evaluation.questions=30", "corpus.seed=1", "corpus.epochs=2"):
        with pytest.raises(ValueError, match=re.escape(override.partition("=")[0])):
            prepare(*ladder(override), prepared, _say, _say)


def test_a_plan_that_a_changed_recipe_made_is_refused(prepared, ladder):
    spec = prepared.spec("w4-m10")
    spec.write_text(spec.read_text().replace('"steps": ', '"steps": 1'))
    with pytest.raises(ValueError, match=r"w4-m10/spec\.json was planned by another version"):
        prepare(*ladder(), prepared, _say, _say)


def test_a_corpus_that_is_too_small_says_how_small_and_repetition_must_be_asked_for(ladder, at, tmp_path):
    (tmp_path / "short").mkdir()
    for i in range(30):
        (tmp_path / "short" / f"{i}.txt").write_text(f"{i} little text of little use, again and again " * 20)
    short = [f"corpus.options.path={tmp_path / 'short'}", "evaluation.tasks=[]", "fit.error=null"]
    with pytest.raises(ValueError, match=r"the corpus has [\d,]+ tokens and \S+ trains on [\d,]+") as refusal:
        prepare(*ladder(*short), at, _say, _say)
    asked = str(refusal.value).rpartition("--set ")[2]
    assert asked.startswith("corpus.epochs=")
    epochs = int(asked.partition("=")[2])
    with pytest.raises(ValueError, match="ask for repetition"):
        prepare(*ladder(*short, f"corpus.epochs={epochs - 1}"), at, _say, _say)
    prepare(*ladder(*short, asked), at, _say, _say)
    assert at.config.exists()


def test_a_missing_corpus_is_refused_and_leaves_the_workdir_free_for_the_right_one(ladder, at, tmp_path):
    with pytest.raises(ValueError, match=r"no file at .*absent"):
        prepare(*ladder(f"corpus.options.path={tmp_path / 'absent'}"), at, _say, _say)
    with pytest.raises(ValueError, match="unknown corpus kind 'txt'"):
        prepare(*ladder("corpus.kind=txt"), at, _say, _say)
    with pytest.raises(ValueError, match="argument: 'path'"):
        prepare(*ladder("corpus.options={pth: here}"), at, _say, _say)
    assert not at.config.exists() and not at.corpus.exists()
    prepare(*ladder(), at, _say, _say)


def test_a_kill_while_the_corpus_is_written_leaves_no_corpus_json_and_the_next_command_builds_it(
    ladder, at, monkeypatch
):
    from tasks.questions import questions

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(questions, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(*ladder(), at, _say, _say)
    assert Records(at.train_records / "text") and not at.corpus.exists() and not at.config.exists()
    prepare(*ladder(), at, _say, _say)
    assert at.questions("recall").exists() and at.corpus.exists()


def test_the_corpus_of_a_config_that_claimed_nothing_is_not_taken_over(ladder, at, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(preparing.config_file, "dump", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(*ladder(), at, _say, _say)
    first_5xT = Records(at.train_records / "text")[np.arange(5)]
    other = tmp_path / "other"
    other.mkdir()
    for i in range(30):
        (other / f"{i}.txt").write_text(f"other words {i} " * 800)
    prepare(
        *ladder(f"corpus.options.path={other}", "evaluation.tasks=[]", "fit.error=null", "corpus.epochs=100"),
        at,
        _say,
        _say,
    )
    assert not np.array_equal(Records(at.train_records / "text")[np.arange(5)], first_5xT)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["fit.loss=code"], "fit.loss: 'code' is not measured; there are loss/held_out"),
        (["fit.error=error/order"], "fit.error: 'error/order' is not measured; there are error/recall, error/average"),
        (["evaluation.tasks=[]"], "fit.error: 'error/average' is not measured; there are no tasks"),
    ],
)
def test_a_fit_of_what_is_not_measured_is_refused_before_the_training(ladder, at, overrides, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        prepare(*ladder(*overrides), at, _say, _say)
    prepare(*ladder(*overrides, "fit.loss=held_out", "fit.error=null"), at, _say, _say)


@pytest.fixture
def mixture(tree, text):
    """The tiny ladder on two parts, one of which is soon read through."""
    (text.parent / "few").mkdir(exist_ok=True)
    for i in range(30):
        (text.parent / "few" / f"{i}.txt").write_text(f"few words, {i} times; " * 30)
    part = lambda rate, path: {"rate": rate, "kind": "text", "options": {"path": str(path)}}  # noqa: E731
    tree["corpus"] = {
        "kind": "mixture",
        "options": {"parts": {"many": part(3, text), "few": part(1, text.parent / "few")}},
    }
    tree["fit"] = {"loss": "loss/many"}
    tree["evaluation"]["tasks"] = []
    return tree


def test_a_mixture_is_a_folder_a_part_and_its_repetition_is_counted_by_part(ladder, at, mixture):
    config, specs = ladder(tree=mixture)
    with pytest.raises(ValueError, match=r"the corpus's part few has [\d,]+ tokens and \S+ trains on ") as refusal:
        prepare(config, specs, at, _say, _say)
    config, specs = ladder(str(refusal.value).rpartition("--set ")[2], tree=mixture)
    prepare(config, specs, at, _say, _say)
    summary = json.loads(at.corpus.read_text())
    assert summary["train_rates"] == {"few": 0.25, "many": 0.75}
    assert set(summary["validation_tokens"]) == {"many", "few"}
    few = Records(at.train_records / "few")
    few_rows = {row.tobytes() for row in few[np.arange(len(few))].astype(np.int32)}
    read = Batches(at.train_records, 4000, 0)(0)
    assert np.mean([row.tobytes() in few_rows for row in read]) == pytest.approx(0.25, abs=0.03)


def test_ladders_share_a_cache_and_need_no_records_of_their_own(ladder, at, tmp_path):
    shared = f"corpus.cache={tmp_path / 'shared'}"
    prepare(*ladder(shared), at, _say, _say)
    files = {str(path): path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")}
    assert not (at.train_records / "text").exists()
    other = Workdir.at(str(tmp_path / "other"))
    prepare(*ladder(shared, "seed=1", "evaluation.questions=30"), other, _say, _say)
    assert {str(path): path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*")} == files
    whole = Records(tmp_path / "shared" / "text")
    assert json.loads(other.corpus.read_text())["train_tokens"] == {"text": len(whole) * 16}
    np.testing.assert_array_equal(Batches(other.train_records, 8, 0)(3), Batches(at.train_records, 8, 0)(3))


END = "|"


@pytest.fixture
def folders(tree, tmp_path, monkeypatch):
    """The tiny ladder on three folders of lines, in shards of which a few are the pool."""
    monkeypatch.setattr(files, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(documents, "SAMPLE_SHARD_BYTES", 8000)
    for folder in ("arxiv", "books", "code"):
        (tmp_path / "corpus" / folder).mkdir(parents=True)
        lines = (json.dumps({"text": f"{folder} {number}: {number**7}; " * 3}) for number in range(1000))
        (tmp_path / "corpus" / folder / "all.jsonl").write_text("\n".join(lines))
    tree["corpus"] = {"kind": "jsonl", "options": {"path": str(tmp_path / "corpus")}, "pool_tokens": 30_000}
    tree["evaluation"] |= {"tasks": [], "sequences": 20}
    tree["fit"] = {"loss": "loss/held_out"}
    tree["targets"] = []
    return tree


def _texts(workdir):
    records = Records(workdir.train_records / "jsonl")
    return "".join(END if token == 1 else chr(token - 3) for token in records[np.arange(len(records))].ravel().tolist())


def test_the_pool_is_a_fair_sample_that_ladders_share_and_holds_no_held_out_text(ladder, at, folders, tmp_path):
    said = []
    config, specs = ladder(tree=folders)
    prepare(config, specs, at, said.append, _say)
    text = _texts(at)
    counts = [text.count(f"{folder} ") for folder in ("arxiv", "books", "code")]
    assert len(text) >= 30_000 and min(counts) > max(counts) / 2 > 50
    assert any("a fair sample of it" in line for line in said)
    shares = {row["run"]: row["pool_share"] for row in json.loads(at.plan.read_text())["runs"]}
    for spec in specs:
        sequences = max(30_000 // 16, spec.records)
        assert shares[spec.run] == spec.tokens / (sequences * 16)
    (task,) = corpora.build("jsonl", vocab.load("bytes"), **folders["corpus"]["options"]).validation.values()
    held_out = {example["targets_pretokenized"].decode() for example in token_records.examples(task, "validation")}
    assert len(held_out) > 100 and not held_out & set(text.split(END))
    other = Workdir.at(str(tmp_path / "other"))
    prepare(*ladder("rungs.0.sizes=[w4]", tree=folders), other, _say, _say)
    for path in pathlib.Path(at.train_records / "jsonl").iterdir():
        assert path.read_bytes() == (other.train_records / "jsonl" / path.name).read_bytes()


def test_a_larger_target_adds_records_and_changes_no_byte_of_what_smaller_runs_read(ladder, at, folders, tmp_path):
    larger = "targets=[{sizes: [w12], token_multipliers: [15]}]"
    config, specs = ladder(tree=folders)
    _, (*_, target) = ladder(larger, tree=folders)
    assert target.tokens > 3 * 30_000 > 3 * specs[0].tokens
    prepare(config, specs, at, _say, _say)
    before = {path: path.read_bytes() for path in pathlib.Path(at.train_records / "jsonl").glob("*.npy")}
    read = [Batches(at.train_records, s.hyperparameters.batch_size, s.seed, s.steps)(s.steps - 1) for s in specs]
    identities = [runs.identity(spec, at) for spec in specs]
    prepare(*ladder(larger, tree=folders), at, _say, _say)
    assert len(Records(at.train_records / "jsonl")) >= target.records
    assert {path: path.read_bytes() for path in before} == before
    fresh = Workdir.at(str(tmp_path / "fresh"))
    prepare(*ladder(larger, tree=folders), fresh, _say, _say)
    for workdir in (at, fresh):
        for spec, expected in zip(specs, read, strict=True):
            batches = Batches(workdir.train_records, spec.hyperparameters.batch_size, spec.seed, spec.steps)
            np.testing.assert_array_equal(batches(spec.steps - 1), expected)
        assert [runs.identity(spec, workdir) for spec in specs] == identities
        assert len(set(identities)) == len(specs) and "" not in identities
    assert runs.identity(target, at) == runs.identity(target, fresh)


def test_a_corpus_that_has_changed_is_refused_with_what_differs(ladder, at, folders, tmp_path):
    prepare(*ladder(tree=folders), at, _say, _say)
    changed = tmp_path / "corpus" / "code" / "all.jsonl"
    text = changed.read_text()
    changed.write_text(text.replace("code 17:", "code 71:"))
    with pytest.raises(ValueError, match=r"code/all\.jsonl: changed; put it back as it was"):
        prepare(*ladder(tree=folders), at, _say, _say)
    changed.write_text(text)
    prepare(*ladder(tree=folders), at, _say, _say)
    (tmp_path / "corpus" / "news.jsonl").write_text('{"text": "new"}')
    with pytest.raises(ValueError, match=r"news\.jsonl: new; put it back"):
        prepare(*ladder(tree=folders), at, _say, _say)
    # Its records are there; a corpus that is gone is not missed.
    (tmp_path / "corpus").rename(tmp_path / "gone")
    prepare(*ladder(tree=folders), at, _say, _say)


def test_a_tokenizer_that_was_trained_anew_at_its_path_is_refused(ladder, at, folders, tmp_path):
    path = tmp_path / "tokenizer.json"
    folders["corpus"]["vocabulary"] = str(path)
    for size in (300, 280):
        path.unlink(missing_ok=True)
        preparing.train_tokenizer(ladder(tree=folders)[0], size, epath.Path(path))
        if size == 300:
            prepare(*ladder(tree=folders), at, _say, _say)
    with pytest.raises(ValueError, match=r"vocabulary_sha256 is .* there and .* here; put it back"):
        prepare(*ladder(tree=folders), at, _say, _say)


def test_a_table_that_is_smaller_than_the_vocabulary_is_refused_before_the_training(ladder, at, monkeypatch):
    monkeypatch.setattr(preparing, "_write_corpus", lambda *_: pytest.fail("nothing is to be read"))
    why = r"model\.vocab_size is 258 and the vocabulary bytes has 259 ids; set model\.vocab_size=259, or leave it out"
    with pytest.raises(ValueError, match=why):
        prepare(*ladder("model.vocab_size=258"), at, _say, _say)
    with pytest.raises(ValueError, match=why):  # also where the table is rounded up
        prepare(*ladder("model.vocab_size=258", "model.vocab_multiple=64"), at, _say, _say)
    assert not at.config.exists()


def test_a_longer_run_of_a_size_becomes_the_trunk_of_those_that_are_there(at, ladder, tree):
    shorter = tree | {"rungs": [{"sizes": ["w4"], "token_multipliers": [10, 20]}], "targets": []}
    prepare(*ladder("recipe.schedule=wsd", tree=shorter), at, _say, _say)
    longer = shorter | {"rungs": [{"sizes": ["w4"], "token_multipliers": [10, 20, 40]}]}
    config, specs = ladder("recipe.schedule=wsd", tree=longer)
    prepare(config, specs, at, _say, _say)
    assert [specs_.load(at.spec(spec.run)) for spec in specs] == list(specs)
    assert {spec.run: spec.trunk and spec.trunk.run for spec in specs} == {
        "w4-m10": "w4-m40",
        "w4-m20": "w4-m40",
        "w4-m40": None,
    }


def test_a_longer_run_that_needs_a_larger_pool_is_no_trunk_for_those_that_are_there(at, ladder, tree):
    shorter = tree | {"rungs": [{"sizes": ["w4"], "token_multipliers": [20]}], "targets": []}
    how = ("recipe.schedule=wsd", "corpus.pool_tokens=50_000")
    prepare(*ladder(*how, tree=shorter), at, _say, _say)
    longer = shorter | {"rungs": [{"sizes": ["w4"], "token_multipliers": [20, 40]}]}
    with pytest.raises(ValueError, match=r"w4-m20 was planned to read from another pool than with the trunk w4-m40"):
        prepare(*ladder(*how, tree=longer), at, _say, _say)
