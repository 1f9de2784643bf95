"""A design is a ladder that can be planned as it stands: within the budget, of sizes that shard, with reasons."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import yaml

from ladder import config_file, design, storage
from ladder import plan as plans
from ladder.cli import design as verb
from ladder.config import Grid

VOCAB = 128


def demo(*overrides):
    return config_file.load("demo", overrides)


@pytest.fixture(scope="module")
def chosen():
    return design.choose(demo("design.budget.flops=1e12", "design.most_runs=7"), VOCAB)


def test_the_rungs_keep_to_the_budget_and_each_of_them_brings_something(chosen):
    assert chosen.cost <= chosen.budget
    assert sum(rung.seeds for rung in chosen.rungs) <= 7
    assert all(rung.interval_without > chosen.interval for rung in chosen.rungs)
    assert chosen.targets == ("w64-m20", "w56-m50")


def test_a_design_knows_what_runs_of_a_trunk_share():
    whole = design.choose(demo("design.budget.flops=1e12", "design.most_runs=7", "recipe.schedule=wsd"), VOCAB)
    c = dataclasses.replace(
        demo("recipe.schedule=wsd"),
        sizes=whole.sizes,
        rungs=tuple(
            Grid(sizes=(rung.size,), token_multipliers=(rung.token_multiplier,), seeds=rung.seeds)
            for rung in whole.rungs
        ),
        targets=(),
    )
    assert whole.cost == pytest.approx(sum(spec.own_flops for spec in plans.plan(c, VOCAB)))
    assert whole.cost < 0.95 * sum(rung.cost for rung in whole.rungs)


def test_more_compute_narrows_the_interval_along_the_curve(chosen):
    cost, interval = np.array([(one.cost, one.interval) for one in chosen.curve]).T
    assert len(cost) >= 3 and (np.diff(cost) > 0).all() and (np.diff(interval) < 0).all()


def test_what_is_written_can_be_planned_as_it_stands_and_is_what_was_chosen(tmp_path, capsys):
    out, svg = tmp_path / "chosen.yaml", tmp_path / "curve.svg"
    budget = {"budget_flops": 1e12, "overrides": ("model.vocab_size=128", "seed=3")}
    verb.design("demo", **budget, out=str(out), svg=str(svg), json=True)
    told = json.loads(capsys.readouterr().out)
    with warnings.catch_warnings(action="error"):
        specs = plans.plan(config_file.load(str(out)), VOCAB)
    rungs = [spec for spec in specs if spec.role == "rung"]
    assert sum(spec.flops for spec in rungs) == pytest.approx(told["cost"]) and told["cost"] <= 1e12
    assert sorted(spec.params for spec in rungs) == sorted(
        rung["params"] for rung in told["rungs"] for _ in range(rung["seeds"])
    )
    assert [spec.run for spec in specs if spec.role == "target"] == told["targets"]
    assert out.read_text().startswith("# Written by `ladder design`") and yaml.safe_load(out.read_text())["seed"] == 3
    assert svg.read_text().startswith("<svg")


def test_a_design_in_the_config_is_read_and_the_command_line_overrides_it(tmp_path, capsys):
    tree = yaml.safe_load(storage.place("configs/demo.yaml").read_text())
    del tree["rungs"]
    tree["model"]["vocab_size"] = VOCAB
    tree["design"] = {"target": "w64-m20", "budget": {"target_share": 0.05}}
    path = tmp_path / "ladder.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError, match="`ladder design CONFIG --out FILE` chooses them"):
        plans.plan(config_file.load(str(path)), VOCAB)
    costs = []
    for more in ({}, {"budget_share": 0.1}):
        verb.design(str(path), **more, json=True)
        told = json.loads(capsys.readouterr().out)
        assert told["targets"] == ["w64-m20"] and told["cost"] <= told["budget"]
        costs.append(told["budget"])
    assert costs[1] == pytest.approx(2 * costs[0])


def test_seeds_are_runs_of_their_own():
    config = demo("rungs=[{sizes: [w16], token_multipliers: [20], seeds: 3}]", "seed=5")
    rungs = [spec for spec in plans.plan(config, VOCAB) if spec.role == "rung"]
    assert [(spec.run, spec.seed) for spec in rungs] == [("w16-m20", 5), ("w16-m20-s1", 6), ("w16-m20-s2", 7)]


def test_sizes_shard_over_the_mesh():
    """Of heads of 8 features over two devices, and of the stream over four: widths are multiples of 16."""
    mesh = ("training.mesh={fsdp: 4, tensor: 2}", "model.ffn_multiple=16", "design.target=w64-m20")
    found = design.choose(demo("design.budget.flops=1e12", *mesh), VOCAB)
    rungs = {rung.size for rung in found.rungs}
    assert rungs and all(found.sizes[name].width % 16 == found.sizes[name].heads % 2 == 0 for name in rungs)


def test_a_cost_in_chip_hours_is_what_the_machines_take():
    config = demo("machines={v5e: 8}", "design.budget.flops=1")
    price = {spec.run: verb._price(config, "chip-hours", spec) for spec in plans.plan(config, VOCAB)}
    dollars = verb._price(config, "dollars", plans.plan(config, VOCAB)[0])
    assert price["w64-m20"] > price["w16-m20"] > 0 and dollars == pytest.approx(1.2 * price["w16-m20"], rel=0.5)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("design.budget.flops=1e10",), r"too small for a law: the smallest that works is 2\.\d+e\+11, w16-m20"),
        (("design.budget.flops=9e12",), "the target w56-m50 is inside the ladder"),
        (("design.budget.flops=1e12", "design.target=w48-m20"), "no run is named 'w48-m20'"),
        (
            ("design.budget.flops=1e12", "training.mesh.tensor=3"),
            "sizes.w64 does not shard: heads 8 over",
        ),
        (("design={}",), "there is no budget"),
        (("design.budget.flops=1e12", "targets=[]"), "there is no target"),
        (("design.budget.flops=1e12", "design.token_multipliers=[20]"), "token multipliers that differ"),
    ],
)
def test_what_cannot_be_designed_is_refused(overrides, why):
    with pytest.raises(ValueError, match=why):
        design.choose(demo(*overrides), VOCAB)


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        ("{flops: -1}", r"\.flops: -1 must be more than 0"),
        ("{target_share: 0}", r"\.target_share: 0 must be more than 0"),
        ("{flops: 1e12, dollars: 3}", ": flops and dollars are given; a design has one budget"),
    ],
    ids=["negative", "nothing", "two"],
)
def test_a_budget_is_one_positive_number(budget, why):
    with pytest.raises(ValueError, match=rf"design\.budget{why}"):
        demo(f"design.budget={budget}")
