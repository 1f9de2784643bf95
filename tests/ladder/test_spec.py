"""A run's figures, its name, the layout of a workdir, and files that are written whole or not at all."""

import dataclasses
import json

import pytest

from ladder import spec as specs
from ladder.recipe import Cooldown
from ladder.spec import Trunk, Workdir, run_name


def test_tokens_multiplier_and_flops_follow_from_what_is_trained(spec):
    assert spec.tokens == 25 * 8 * 16
    assert spec.token_multiplier == spec.tokens / spec.params
    assert spec.flops == 6 * spec.params * spec.tokens
    assert spec.params - spec.params_non_embedding == 2 * 97 * 8


@pytest.mark.parametrize(("multiplier", "name"), [(20, "w8-m20"), (20.0, "w8-m20"), (0.25, "w8-m0.25")])
def test_a_run_is_named_for_its_size_and_multiplier(multiplier, name):
    assert run_name("w8", multiplier) == name


def test_spec_json_holds_every_setting(spec):
    tree = json.loads(specs.dump(spec))
    assert tree == json.loads(json.dumps(dataclasses.asdict(spec)))
    assert tree["hyperparameters"]["learning_rate"] == 0.03 and tree["schema_version"] == 1


POOL = [{"rate": 1.0, "records": 100, "origin": "a"}]


def _changes(value):
    """Every value that differs in one setting from a dataclass of settings."""
    others = {"norm": "rms", "dtype": "bfloat16", "head_dim": 6, "key_heads": 1, "inverse_wavelengths": (1.0,) * 4}
    others["cooldown"] = Cooldown(5)
    for field in dataclasses.fields(value):
        now = getattr(value, field.name)
        other = others.get(field.name, not now if isinstance(now, bool) else now and now * 2)
        try:
            yield dataclasses.replace(value, **{field.name: other})
        except ValueError:  # no decoder has that shape
            assert field.name in ("key_heads", "qk_norm_per_head")


def test_an_identity_changes_with_all_that_determines_the_result_and_with_nothing_else(spec):
    changed = [
        *(dataclasses.replace(spec, decoder=decoder) for decoder in _changes(spec.decoder)),
        *(dataclasses.replace(spec, hyperparameters=h) for h in _changes(spec.hyperparameters)),
        *(
            dataclasses.replace(spec, **{name: getattr(spec, name) + 1})
            for name in ("sequence_length", "steps", "seed")
        ),
    ]
    pools = [[{**POOL[0], key: value}] for key, value in (("rate", 0.5), ("records", 99), ("origin", "b"))]
    identities = [
        *(specs.identity(other, POOL) for other in (spec, *changed)),
        *(specs.identity(spec, pool) for pool in (*pools, POOL * 2)),
    ]
    cooled = [dataclasses.replace(spec.hyperparameters, cooldown=c) for c in (Cooldown(4), Cooldown(5, "linear"))]
    identities += [specs.identity(dataclasses.replace(spec, hyperparameters=h), POOL) for h in cooled]
    assert len(set(identities)) == len(identities) > 25
    renamed = dataclasses.replace(spec, run="other", role="target", size="small", schema_version=1)
    branch = dataclasses.replace(spec, trunk=Trunk("trunk", 5, 50), branches=(3,))
    assert specs.identity(renamed, POOL) == specs.identity(branch, POOL) == identities[0]


def test_runs_with_a_cosine_have_the_identities_and_the_specs_of_before_there_were_others(spec, tmp_path):
    assert specs.identity(spec, POOL) == "1844477b451d7e0c0f834489aab73913f1fab7ffe7db1563b7bfbbe195188e4e"
    tree = json.loads(specs.dump(spec))
    del tree["trunk"], tree["branches"], tree["hyperparameters"]["cooldown"]
    (tmp_path / "spec.json").write_text(json.dumps(tree))
    assert specs.load(tmp_path / "spec.json") == spec


def test_a_branch_in_spec_json_is_read_as_it_was(spec, tmp_path):
    cooled = dataclasses.replace(spec.hyperparameters, cooldown=Cooldown(5, "linear"))
    branch = dataclasses.replace(spec, hyperparameters=cooled, trunk=Trunk("trunk", 20, 50), branches=(3, 7))
    (tmp_path / "spec.json").write_bytes(specs.dump(branch))
    assert specs.load(tmp_path / "spec.json") == branch
    assert (branch.own_steps, branch.own_flops, branch.pool_steps) == (5, branch.flops / 5, 50)


def test_a_workdir_is_laid_out_as_documented():
    w = Workdir.at("gs://bucket/ladder")
    assert str(w.config) == "gs://bucket/ladder/ladder.yaml"
    assert [str(path.relative_to(w.root)) for path in (w.plan, w.spec("a"), w.checkpoints("a"), w.metrics("a"))] == [
        "plan.json",
        "runs/a/spec.json",
        "runs/a/checkpoints",
        "runs/a/metrics.jsonl",
    ]
    assert [str(path.relative_to(w.root)) for path in (w.record("a"), w.testbed, w.fit() / "law.json")] == [
        "runs/a/record.json",
        "testbed.csv",
        "fits/default/law.json",
    ]


def test_the_home_folder_is_understood():
    assert "~" not in str(Workdir.at("~/ladder").root)
