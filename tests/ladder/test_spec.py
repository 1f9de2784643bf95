"""A run's figures, its name, the layout of a workdir, and files that are written whole or not at all."""

import dataclasses
import json

import pytest

from ladder import spec as specs
from ladder.spec import Workdir, run_name


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
    assert len(set(identities)) == len(identities) > 25
    renamed = dataclasses.replace(spec, run="other", role="target", size="small", schema_version=1)
    assert specs.identity(renamed, POOL) == identities[0]


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
