"""The typed tree: what it reads, what it overrides, and what it refuses with one error that names file and key."""

import dataclasses

import pytest
import yaml

from ladder import config_file
from ladder import plan as plans
from ladder.config import Training
from models.config import PAPER
from tasks.text import published


@pytest.fixture
def load(tree, write_config):
    return lambda *overrides: config_file.load(write_config(tree), overrides)


def _at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def test_the_demo_is_a_valid_ladder(request):
    config = config_file.load(str(request.config.rootpath / "configs" / "demo.yaml"))
    assert plans.plan(config, 259)


@pytest.mark.parametrize("corpus", ["c4", "redpajama", "refinedweb"])
@pytest.mark.parametrize("pod", ["v4", "v5e", "v5p", "v6e"])
def test_every_corpus_on_every_pod_is_the_papers_ladder(request, corpus, pod):
    path = request.config.rootpath / "configs" / f"{corpus}.yaml"
    config = config_file.load(str(path), [f"base=pods/{pod}.yaml"])
    specs = plans.plan(config, plans.vocab_size(config))
    for spec in specs:
        assert dataclasses.replace(spec.decoder, dtype="float32") == PAPER[spec.size]
    assert [(s.run, round(s.tokens / 1e9)) for s in specs if s.role == "target"] == [
        ("open_lm_1b-m640", 922),
        ("open_lm_7b-m20", 138),
    ]
    assert config.corpus.vocabulary == "EleutherAI/gpt-neox-20b" and config.corpus.cache.endswith(corpus)


def test_a_config_says_only_how_it_differs_from_its_base(tree, write_config):
    write_config(tree, "below.yaml")
    own = {"base": "below.yaml", "name": "above", "model": {"sequence_length": 32}, "targets": []}
    config = config_file.load(write_config(own, "above.yaml"), ["seed=3"])
    expected = {**tree, "name": "above", "seed": 3, "targets": [], "model": {**tree["model"], "sequence_length": 32}}
    assert config == config_file.load(write_config(expected, "whole.yaml"))
    write_config({**tree, "name": "other"}, "other.yaml")
    assert config_file.load(write_config({"base": "below.yaml"}, "above.yaml"), ["base=other.yaml"]).name == "other"


def test_a_base_that_is_missing_or_its_own_is_refused(tree, write_config):
    with pytest.raises(ValueError, match=r"no such config: .*nowhere\.yaml"):
        config_file.load(write_config({"base": "nowhere.yaml"}))
    write_config({"base": "b.yaml"}, "a.yaml")
    with pytest.raises(ValueError, match=r"is based on this file"):
        config_file.load(write_config({"base": "a.yaml"}, "b.yaml"))


def test_a_config_comes_back_from_its_dump(load, write_config, tmp_path):
    config = load("recipe.learning_rate_scale=1.25", "fit.error=null")
    (tmp_path / "dumped.yaml").write_text(config_file.dump(config))
    assert config_file.load(str(tmp_path / "dumped.yaml")) == config


@pytest.mark.parametrize(
    "parent",
    [(), ("sizes", "w4"), ("rungs", 0), ("targets", 0)]
    + [(section,) for section in ("model", "recipe", "corpus", "evaluation", "training", "fit")],
    ids=lambda path: ".".join(map(str, path)) or "top",
)
def test_an_unknown_key_is_refused_at_every_level(tree, write_config, parent):
    _at(tree, parent)["wdith"] = 1
    path = write_config(tree)
    with pytest.raises(ValueError, match="unknown key") as refusal:
        config_file.load(path)
    assert path in str(refusal.value) and ".".join(map(str, (*parent, "wdith"))) in str(refusal.value)


@pytest.mark.parametrize("missing", ["name", "sizes", "rungs", "recipe", "fit"])
def test_a_missing_key_is_refused(tree, write_config, missing):
    del tree[missing]
    with pytest.raises(ValueError, match=rf"tiny\.yaml: {missing}: "):
        config_file.load(write_config(tree))


@pytest.mark.parametrize(
    "override",
    [
        "seed=one",
        "seed=1.5",
        "seed=true",
        "name=3",
        "sizes.w4.width='8'",
        "sizes.w4.width=null",
        "model.dtype=float16",
        "model.qk_norm=1",
        "rungs=w4",
        "rungs.0.sizes=w4",
        "rungs.0.token_multipliers=20",
        "rungs.0.token_multipliers.0=twenty",
        "corpus.options=path",
        "corpus.epochs=2.5",
        "evaluation.tasks=recall",
        "fit.loss=3",
    ],
)
def test_a_wrong_type_is_refused(load, override):
    key = override.partition("=")[0]
    with pytest.raises(ValueError, match=rf"tiny\.yaml: {key}: "):
        load(override)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=-1", "seed"),
        ("seed=4294967296", "seed"),
        ("rungs=[]", "rungs"),
        ("rungs.0.sizes=[]", "rungs.0"),
        ("targets.0.token_multipliers=[]", "targets.0"),
        ("rungs.0.sizes=[w5]", "rungs.0.sizes"),
        ("targets.0.sizes=[w5]", "targets.0.sizes"),
        ("rungs.0.token_multipliers=[0]", "rungs.0.token_multipliers"),
        ("rungs.0.token_multipliers=[-20]", "rungs.0.token_multipliers"),
        ("rungs.0.token_multipliers=[.nan]", "rungs.0.token_multipliers"),
        ("rungs.0.token_multipliers=[.inf]", "rungs.0.token_multipliers"),
        ("recipe.name=gadre", "recipe.name"),
        ("recipe.learning_rate_scale=0", "recipe.learning_rate_scale"),
        ("recipe.learning_rate_scale=.nan", "recipe.learning_rate_scale"),
        ("model.sequence_length=0", "model.sequence_length"),
        ("corpus.epochs=0", "corpus.epochs"),
        ("evaluation.sequences=0", "evaluation.sequences"),
        ("evaluation.questions=-1", "evaluation.questions"),
        ("evaluation.validation={own: {kind: text, sequences: 0}}", "evaluation.validation.own.sequences"),
        ("evaluation.paper_validation={source: /sets, sequences: -1}", "evaluation.paper_validation.sequences"),
        ("training.checkpoint_every_steps=0", "training.checkpoint_every_steps"),
        ("training.log_every_steps=0", "training.log_every_steps"),
        ("training.log_every_steps=30", "training.checkpoint_every_steps"),
        ("training.cores_per_run=-1", "training.cores_per_run"),
        ("fit.level=1", "fit.level"),
        ("rungs.0.token_multipliers=[1e308]", "rungs.0.token_multipliers.0: 1e\\+308 must be at most"),
        ("rungs.0.batch_scales=[1e308]", "rungs.0.batch_scales"),
        ("rungs.0.seeds=1000000", "rungs.0: these are [0-9,]+,000,000 runs, and a ladder has 10,000 at most"),
        ("model.rope_theta=.inf", "model.rope_theta: inf is not a finite number"),
        ("model.vocab_size=.nan", "model.vocab_size"),
        ("design={budget: {flops: .nan}}", "design.budget.flops: nan is not a finite number"),
        ("design={budget: {flops: -1}}", "design.budget.flops: -1 must be more than 0"),
        ("design={budget: {flops: 1e9, dollars: 1}}", "design.budget: flops and dollars are given"),
    ],
)
def test_an_impossible_value_is_refused(load, override, key):
    with pytest.raises(ValueError, match=rf"tiny\.yaml: {key}"):
        load(override)


@pytest.mark.parametrize("name", ["../w4", "w 4", "a/b", "", "w4\n"])
def test_a_size_whose_name_is_unsafe_as_a_folder_is_refused(tree, write_config, name):
    tree["sizes"] = {name: tree["sizes"]["w4"], **tree["sizes"]}
    with pytest.raises(ValueError, match="names a folder"):
        config_file.load(write_config(tree))


def test_overrides_reach_nested_keys_and_lists_and_the_last_one_wins(load):
    config = load(
        "seed=1", "seed=2", "sizes.w4.layers=3", "rungs.1.token_multipliers.0=40", "rungs.0.sizes=[w6, w8]",
        "corpus.options.held_out=0.2",
    )  # fmt: skip
    assert (config.seed, config.sizes["w4"].layers) == (2, 3)
    assert config.rungs[1].token_multipliers == (40,)
    assert config.rungs[0].sizes == ("w6", "w8")
    assert config.corpus.options["held_out"] == 0.2


def test_an_override_makes_the_sections_it_needs(tree, write_config):
    del tree["evaluation"]
    assert config_file.load(write_config(tree), ["evaluation.sequences=7"]).evaluation.sequences == 7


@pytest.mark.parametrize("number", ["1e-3", "1E3", "2.5e+1", "1.e4", "3"])
def test_numbers_may_be_written_as_everybody_does(load, number):
    assert load(f"recipe.learning_rate_scale={number}").recipe.learning_rate_scale == float(number)


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("seed", "path.to.key=value"),
        ("=1", "path.to.key=value"),
        (".seed=1", "path.to.key=value"),
        ("model.=1", "path.to.key=value"),
        ("name.low=1", "nothing below name"),
        ("name.low.lower=1", "nothing below"),
        ("rungs.2.sizes=[w4]", "2 must be one of 0 to 1"),
        ("rungs.first=1", "first must be one of 0 to 1"),
        ("evaluation.tasks=[recall", "not YAML"),
        ("modle.dtype=float32", "modle: unknown key"),
    ],
)
def test_a_malformed_override_is_refused_by_name(load, override, why):
    with pytest.raises(ValueError, match=why):
        load(override)


def test_a_folder_is_no_config_not_even_one_called_as_a_config_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "mine").mkdir()
    assert config_file.load("demo").name == "demo"
    with pytest.raises(ValueError, match="no such config: mine"):
        config_file.load("mine")


def test_a_missing_file_and_what_is_no_mapping_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no such config"):
        config_file.load(str(tmp_path / "absent.yaml"))
    for content, why in (
        (b"sizes: [", "not YAML"),
        (b"- a\n- b\n", "mapping"),
        (b"", "mapping"),
        (b"\xff", "not a text"),
    ):
        (tmp_path / "bad.yaml").write_bytes(content)
        with pytest.raises(ValueError, match=rf"bad\.yaml.*{why}"):
            config_file.load(str(tmp_path / "bad.yaml"))


def test_several_problems_are_named_at_once(load):
    with pytest.raises(ValueError) as refusal:
        load("seed=x", "model.layers=3")
    assert "seed: " in str(refusal.value) and "model.layers: unknown key" in str(refusal.value)


def test_the_dump_is_yaml_that_holds_the_defaults(load):
    tree = yaml.safe_load(config_file.dump(load()))
    assert tree["seed"] == 0 and tree["corpus"]["epochs"] == 1


@pytest.mark.parametrize(
    ("sequences", "at_once", "parts"),
    [(7, 0, 1), (7, 8, 1), (16, 8, 2), (20, 8, 4), (30, 8, 5), (19, 8, 19), (32, 9, 4)],
)
def test_a_batch_is_taken_in_the_fewest_equal_parts_of_at_most_so_many_sequences(sequences, at_once, parts):
    assert Training(sequences_at_once=at_once).for_batch(sequences).accumulation_steps == parts


def test_an_evaluation_stands_in_a_ladders_file_or_alone_and_names_the_papers_sets(tree, write_config):
    tree["evaluation"] = {"paper_validation": {"source": "gs://b/val", "sequences": 9}, "sequences": 7}
    whole = write_config(tree)
    alone = write_config({"evaluation": tree["evaluation"]}, "alone.yaml")
    evaluation = config_file.load(whole).evaluation
    assert config_file.load_evaluation(whole) == config_file.load_evaluation(alone) == evaluation
    sets = config_file.load_evaluation(alone).validation_sets
    assert list(sets) == list(published.PAPER) and {s.sequences for s in sets.values()} == {9}
    few = config_file.load_evaluation(alone, ["evaluation.paper_validation.sets=[paloma_ptb, de-en]"])
    assert list(few.validation_sets) == ["paloma_ptb", "de-en"]
    for path in (whole, alone):
        with pytest.raises(ValueError, match=r"paper_validation\.sets: there is no pile; there are c4_val, "):
            config_file.load_evaluation(path, ["evaluation.paper_validation.sets=[pile]"])
    with pytest.raises(ValueError, match=r"alone\.yaml: evaluation.*: unknown key"):
        config_file.load_evaluation(alone, ["evaluation.suit=x"])


def test_a_config_that_is_refused_is_not_printed_whole(tree, write_config):
    long = "word " * 50_000
    path = write_config(tree)
    overrides = [long, f"name=[{long}", f"{long}=1", f"seed={long}", f"rungs={[{'size': i} for i in range(5000)]}"]
    for override in overrides:
        with pytest.raises(ValueError) as told:
            config_file.load(path, [override])
        assert len(str(told.value)) < 2500 + len(path), override[:40]
