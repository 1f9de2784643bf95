"""The plan: exact tokens, exact parameters, one name a run, the table that `plan --json` prints."""

import dataclasses
import math

import jax
import pytest

from ladder import plan as plans
from ladder.config import Recipe
from ladder.recipe import RECIPES
from ladder.training.step import init_state, make_optimizer
from models import accounting

COLUMNS = {
    "run",
    "role",
    "params",
    "params_non_embedding",
    "tokens",
    "flops",
    "steps",
    "batch_size",
    "learning_rate",
    "pool_share",
}


def test_every_size_meets_every_multiplier_rungs_first(ladder):
    _, specs = ladder()
    assert [(s.run, s.role) for s in specs] == [
        ("w4-m10", "rung"),
        ("w6-m10", "rung"),
        ("w8-m10", "rung"),
        ("w10-m10", "rung"),
        ("w4-m30", "rung"),
        ("w12-m10", "target"),
    ]


def test_steps_times_batch_times_length_are_the_recorded_tokens(ladder):
    config, specs = ladder()
    for row, spec in zip(plans.as_table(specs)["runs"], specs, strict=True):
        assert row["steps"] * row["batch_size"] * config.model.sequence_length == row["tokens"]
        asked = float(spec.run.partition("-m")[2]) * spec.params
        assert abs(row["tokens"] - asked) <= row["batch_size"] * config.model.sequence_length / 2


def test_the_recorded_parameters_are_those_that_exist(ladder):
    _, specs = ladder("sizes.w12.layers=2", "sizes.w12.heads=3")
    for spec in (specs[0], specs[-1]):
        state = jax.eval_shape(lambda s=spec: init_state(s, make_optimizer(s.hyperparameters, s.steps)))
        assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == spec.params


def test_the_table_has_the_documented_columns_and_totals(ladder):
    _, specs = ladder()
    table = plans.as_table(specs)
    assert all(row.keys() >= COLUMNS for row in table["runs"])
    rungs = [row for row in table["runs"] if row["role"] == "rung"]
    target = table["runs"][-1]
    assert all(row["flops"] == accounting.training_flops(row["params"], row["tokens"]) for row in table["runs"])
    assert table["totals"]["runs"] == len(specs)
    assert table["totals"]["ladder_tokens"] == sum(row["tokens"] for row in rungs)
    assert table["totals"]["ladder_flops"] == sum(row["flops"] for row in rungs)
    assert table["totals"]["target_flops"] == target["flops"]
    assert table["totals"]["ladder_share_of_smallest_target"] == pytest.approx(
        sum(row["flops"] for row in rungs) / target["flops"]
    )


def test_a_plan_says_how_often_each_run_sees_its_pool_where_that_is_known(ladder):
    config, specs = ladder("corpus.pool_tokens=50000", "corpus.epochs=3")
    shares = {
        row["run"]: row["pool_share"] for row in plans.as_table(specs, None, plans.pool_shares(config, specs))["runs"]
    }
    assert {spec.run for spec in specs if spec.tokens > 150_000} == {run for run, share in shares.items() if share == 3}
    assert all(shares[spec.run] == spec.tokens / 50_000 for spec in specs if spec.tokens <= 150_000)
    config, specs = ladder("corpus.cache=gs://bucket/records")
    assert {row["pool_share"] for row in plans.as_table(specs, None, plans.pool_shares(config, specs))["runs"]} == {
        None
    }


def test_a_ladder_without_targets_has_no_share(ladder):
    assert plans.as_table(ladder("targets=[]")[1])["totals"]["ladder_share_of_smallest_target"] is None


def test_the_demo_costs_at_most_a_third_of_either_target_and_has_the_papers_shape(request):
    from ladder import config_file
    from tasks.text import vocab

    demo = config_file.load(str(request.config.rootpath / "configs" / "demo.yaml"))
    specs = plans.plan(demo, vocab.size(demo.corpus.vocabulary))
    totals = plans.as_table(specs)["totals"]
    assert totals["ladder_share_of_smallest_target"] <= 1 / 3
    multipliers = {}
    for spec in specs:
        if spec.role == "rung":
            multipliers.setdefault(round(spec.token_multiplier), []).append(spec)
    assert len(multipliers[20]) >= 4
    assert min(specs, key=lambda s: s.params).size in {s.size for s in multipliers[320]}
    assert sorted(round(s.token_multiplier) > 20 for s in specs if s.role == "target") == [False, True]


def test_the_learning_rate_scale_reaches_every_run(ladder):
    _, once = ladder()
    _, twice = ladder("recipe.learning_rate_scale=2")
    for a, b in zip(once, twice, strict=True):
        assert b.hyperparameters == a.hyperparameters.scaled(2)


def test_a_rung_that_would_end_within_its_warm_up_is_not_planned_and_named(request):
    from ladder import config_file

    paper = config_file.load(str(request.config.rootpath / "configs" / "gadre2024.yaml"))
    with pytest.warns(UserWarning) as told:
        specs = plans.plan(paper, plans.vocab_size(paper))
    (said,) = (str(warning.message) for warning in told)
    assert "d=512_l=8_h=4-m5 (376 steps, warm-up 400), d=1024_l=24_h=8-m5 (1,963 steps, warm-up 2,000)" in said
    assert {"d=96_l=8_h=4-m5", "d=576_l=24_h=8-m5", "d=512_l=8_h=4-m10"} <= {spec.run for spec in specs}
    assert all(spec.hyperparameters.warmup_steps <= spec.steps for spec in specs) and len(specs) == 33


def test_a_target_that_would_end_within_its_warm_up_is_planned_with_a_warning(ladder, recipe_of_long_warm_ups):
    with pytest.warns(
        UserWarning, match=r"a target would end within its warm-up: w12-m10 \(5,002 steps, warm-up 8,000\)"
    ):
        _, specs = ladder("recipe.name=long", "rungs.0.token_multipliers=[1000]", "rungs.1.token_multipliers=[2000]")
    assert specs[-1].run == "w12-m10"


def test_a_ladder_all_of_whose_rungs_would_end_within_their_warm_up_is_refused(ladder, recipe_of_long_warm_ups):
    with pytest.raises(ValueError, match="every rung would end within its warm-up: w4-m10"):
        ladder("recipe.name=long")


@pytest.fixture
def recipe_of_long_warm_ups(monkeypatch):
    def long(params, tokens, sequence_length):
        return dataclasses.replace(RECIPES["tiny"](params, 1e3, sequence_length), warmup_steps=8000)

    monkeypatch.setitem(RECIPES, "long", long)


@pytest.mark.parametrize("section", ["rungs", "targets"])
def test_a_run_named_twice_is_refused(ladder, section):
    with pytest.raises(ValueError, match="w8-m10 is planned twice"):
        ladder(f"{section}.0.sizes=[w8, w8]", f"{section}.0.token_multipliers=[10]")


def test_a_multiplier_that_rounds_to_the_same_name_is_refused(ladder):
    with pytest.raises(ValueError, match="planned twice"):
        ladder("rungs.1.token_multipliers=[30, 30.000000001]")


def test_sizes_that_do_not_grow_are_refused(ladder):
    with pytest.raises(ValueError, match="sizes do not grow: w6 has no more parameters than w4"):
        ladder("sizes.w6.width=4")


def test_a_run_of_less_than_one_step_is_refused(ladder):
    with pytest.raises(ValueError, match=r"w4-m0\.001.*less than one batch"):
        ladder("rungs.1.token_multipliers=[0.001]")


@pytest.mark.parametrize("override", ["sizes.w6.heads=4", "sizes.w6.width=0", "sizes.w6.layers=-1", "sizes.w6.heads=0"])
def test_a_shape_that_cannot_be_is_refused_naming_its_size(ladder, override):
    with pytest.raises(ValueError, match=r"sizes\.w6: "):
        ladder(override)


def test_a_run_that_is_not_planned_is_refused_with_those_that_are(ladder):
    _, specs = ladder()
    assert plans.find(specs, "w8-m10").size == "w8"
    with pytest.raises(ValueError, match=r"no run is named 'w8'; there are w4-m10, .*w12-m10"):
        plans.find(specs, "w8")


def test_the_models_options_reach_the_decoder(ladder):
    options = {"norm": "rms", "qk_norm_per_head": True, "tied_embeddings": True, "dtype": "bfloat16"}
    sets = [f"model.{name}={value}" for name, value in options.items()]
    _, specs = ladder(*sets, "sizes.w12.heads=3", "sizes.w12.key_heads=1")
    assert all(getattr(spec.decoder, name) == value for spec in specs for name, value in options.items())
    assert [spec.decoder.key_heads for spec in specs] == [None] * 5 + [1]


def test_tables_are_padded_to_a_multiple(ladder):
    config, specs = ladder("model.vocab_multiple=256")
    assert {spec.decoder.vocab_size for spec in specs} == {512}
    assert plans.decoder(config, "w8", 50_277).vocab_size == 50_432


SWEEP = "rungs=[{sizes: [w4, w6], token_multipliers: [100], learning_rate_scales: [0.5, 1], batch_scales: [1, 2]}]"
LAW = (
    "recipe.learning_rate={value: 0.01, params: 1000, tokens: 100000, params_exponent: -0.5, tokens_exponent: 0.2, "
    "params_range: [2000, 6000], tokens_range: [20000, 1000000], multipliers_range: [10, 100], "
    "covariance: [[0.01, 0, 0], [0, 0, 0], [0, 0, 0]]}"
)


def test_a_sweep_meets_every_rate_and_batch_and_its_names_say_which(ladder):
    _, plain = ladder("rungs=[{sizes: [w4], token_multipliers: [100]}]", "targets=[]")
    _, specs = ladder(SWEEP, "targets=[]")
    assert [spec.run for spec in specs[:4]] == ["w4-m100-lr0.5", "w4-m100", "w4-m100-lr0.5-b2", "w4-m100-b2"]
    half, whole, _, twice = (spec.hyperparameters for spec in specs[:4])
    assert whole == plain[0].hyperparameters
    assert half == whole.scaled(0.5) and twice == whole.with_batch(2 * whole.batch_size)
    assert specs[3].tokens == pytest.approx(specs[1].tokens, rel=0.01)


def test_factors_that_round_to_one_run_are_refused(ladder):
    with pytest.raises(ValueError, match=r"w4-m10-b1\.1 is the same run as w4-m10: leave one of its factors out"):
        ladder("rungs=[{sizes: [w4], token_multipliers: [10], batch_scales: [1, 1.1]}]", "targets=[]")


def test_a_tuned_recipe_sets_the_peak_and_a_rung_beyond_it_is_marked(ladder):
    with pytest.warns(
        UserWarning, match=r"extrapolated, beyond what recipe tiny was tuned on: .*w12-m10 \(N by a factor"
    ):
        config, specs = ladder(LAW)
    by_name = {row["run"]: row for row in plans.as_table(specs, recipe=config.recipe)["runs"]}
    spec = specs[0]
    rate = 0.01 * (spec.params / 1000) ** -0.5 * (10 * spec.params / 1e5) ** 0.2
    h = spec.hyperparameters
    assert h.learning_rate == pytest.approx(rate) and h.final_learning_rate == pytest.approx(0.01 * rate)
    low, high = by_name[spec.run]["learning_rate_interval"]
    assert low < h.learning_rate < high and high / low == pytest.approx(math.exp(2 * 0.196), rel=0.01)
    assert by_name["w12-m10"]["extrapolated"] and not by_name["w4-m10"]["extrapolated"]
    assert {row["extrapolated"] for row in plans.as_table(specs)["runs"]} == {""}


def test_a_recipe_without_embeddings_is_given_them_off(ladder):
    with pytest.warns(UserWarning, match="beyond what recipe steplaw2025 was tuned on"):
        config, _ = ladder()
        tuned = dataclasses.replace(config, recipe=Recipe(name="steplaw2025"))
        built = plans.decoder(tuned, "w12", 256)
        h = plans.recommended(tuned.recipe, built, 1e9, 16)
        with pytest.raises(ValueError, match="every rung would end within its warm-up"):
            plans.plan(tuned, 256)
    assert h.learning_rate == pytest.approx(1.79 * accounting.params_non_embedding(built) ** -0.713 * 1e9**0.307)


def _doublings(tree, cooldown):
    """One size of some 1,900 parameters at M = 20, 40, ..., 640, and a target of the same size."""
    return tree | {
        "rungs": [{"sizes": ["w4"], "token_multipliers": [20 * 2**k for k in range(6)]}],
        "targets": [{"sizes": ["w4"], "token_multipliers": [1280]}],
        "recipe": {"name": "tiny", "schedule": "wsd", "cooldown": cooldown},
    }


def _together_flops(specs):
    return sum(spec.own_flops for spec in plans.with_trunks(specs))


@pytest.mark.parametrize(("cooldown", "saved"), [(0.2, 0.394), (0.1, 0.443)])
def test_five_doublings_on_one_trunk_cost_the_longest_and_the_cooldowns_of_the_others(ladder, tree, cooldown, saved):
    _, specs = ladder(tree=_doublings(tree, cooldown))
    *branches, trunk, target = specs
    steps = [spec.steps for spec in branches]
    assert trunk.trunk is None and trunk.own_flops == trunk.flops
    assert [spec.trunk.run for spec in branches] == [trunk.run] * 5
    cooldowns = [max(100, round(cooldown * s)) for s in steps]
    assert [spec.first_step for spec in branches] == [s - c for s, c in zip(steps, cooldowns, strict=True)]
    assert trunk.branches == tuple(spec.first_step for spec in branches)
    assert all(spec.pool_records == trunk.records for spec in branches)
    assert target.trunk is None and target.branches == ()  # of no rung: its steps come after it is foretold
    # 20, 40, ..., 640 times N tokens are 63 of the first; of the branches' 31 only the cooldowns are trained.
    first = branches[0].flops
    assert _together_flops(specs[:-1]) == pytest.approx(first * (32 + cooldown * 31), rel=1e-3)
    assert 1 - _together_flops(specs[:-1]) / sum(spec.flops for spec in specs[:-1]) == pytest.approx(saved, abs=2e-3)
    totals = plans.as_table(specs)["totals"]
    assert totals["ladder_flops"] == _together_flops(specs[:-1])
    assert totals["ladder_flops_alone"] == sum(spec.flops for spec in specs[:-1])


def test_of_some_of_the_runs_the_longest_is_the_trunk(ladder, tree):
    _, specs = ladder(tree=_doublings(tree, 0.2))
    two = plans.with_trunks(specs[:2])
    assert two[0].trunk.run == two[1].run and two[1].branches == (two[0].first_step,)
    assert _together_flops(specs[:2]) == two[1].flops + two[0].flops * (two[0].own_steps / two[0].steps)
    assert _together_flops(specs[:1]) == specs[0].flops


def test_with_a_cosine_every_run_is_alone(ladder):
    _, specs = ladder()
    assert all(spec.trunk is None and not spec.branches for spec in specs)
    assert _together_flops(specs) == sum(spec.flops for spec in specs)


def test_a_rung_that_would_cool_down_within_its_warmup_is_left_out(ladder, tree):
    tree = _doublings(tree, 0.2)
    tree["rungs"][0]["token_multipliers"] = [4.5, 20]
    with pytest.warns(UserWarning, match=r"not planned.*w4-m4\.5 \(.* steps, warm-up .* and cooldown 1"):
        _, specs = ladder(tree=tree)
    assert [spec.run for spec in specs] == ["w4-m20", "w4-m1280"]
