"""Records become a table whose broken runs are marked, and damage is one line that says what to do."""

import dataclasses
import json

import pytest

from fitting.files import write
from fitting.testbeds.testbed import Measurement, RunRecord, Testbed
from ladder import plan as plans
from ladder.evaluation import collect as collecting
from ladder.spec import dump


@pytest.fixture
def measured(spec, workdir):
    """A workdir of two measured runs, the second of which ends within its warm-up: their specs."""
    cut = dataclasses.replace(
        spec, run="w8-m0.5", hyperparameters=dataclasses.replace(spec.hyperparameters, warmup_steps=26)
    )
    for s in (spec, cut):
        sizes = (s.params, s.params_non_embedding, s.tokens, s.token_multiplier, s.flops)
        write(workdir.spec(s.run), dump(s))
        RunRecord(s.run, s.role, "text", s.size, *sizes, {"code": Measurement(2.5)}, {}, {}).save(workdir.record(s.run))
    write(workdir.plan, json.dumps(plans.as_table([spec, cut])))
    return spec, cut


def test_a_run_of_ours_that_breaks_a_gate_is_told_and_marked(workdir, measured):
    said = []
    collecting.collect([workdir], workdir.testbed, said.append)
    assert said == ["quarantined: w8-m0.5, warm-up of 26 steps in a run of 25"]
    assert Testbed.read_csv(workdir.testbed).quarantined == {"w8-m0.5": "warm-up of 26 steps in a run of 25"}


def test_a_batch_of_one_sequence_that_a_recipe_chose_is_no_slip(workdir, measured):
    one = dataclasses.replace(measured[0].hyperparameters, batch_size=1)
    write(workdir.spec(measured[0].run), dump(dataclasses.replace(measured[0], hyperparameters=one)))
    collecting.collect([workdir], workdir.testbed, lambda line: None)
    assert Testbed.read_csv(workdir.testbed).table["quarantine"][0] == ""


def test_a_record_is_collected_without_the_spec_that_made_it(workdir, measured):
    workdir.spec(measured[1].run).unlink()
    collecting.collect([workdir], workdir.testbed, lambda line: None)
    assert Testbed.read_csv(workdir.testbed).quarantined == {}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ('{"runs": [{"ru', "plan.json: not valid JSON .*; remove it, and `ladder run` writes it again"),
        ("[]", "plan.json is damaged: it is no JSON object; remove it"),
        ("{}", "plan.json is damaged: it lacks runs; remove it"),
        ('{"runs": {"a": 1}}', "plan.json is damaged: its runs are no list; remove it"),
        ('{"runs": [{"run": "a"}]}', "plan.json is damaged: {'run': 'a'} is no planned run; remove it"),
    ],
)
def test_a_damaged_plan_is_one_line_with_the_remedy(workdir, measured, damage, said):
    workdir.plan.write_text(damage)
    with pytest.raises(ValueError, match=said):
        collecting.collect([workdir], workdir.testbed, lambda line: None)


@pytest.mark.parametrize("damage", ['{"run": "w8', "[]", '{"run": "w8-m1", "schema_version": 1}'])
def test_a_damaged_record_is_one_line_with_the_remedy(workdir, measured, damage):
    workdir.record(measured[0].run).write_text(damage)
    with pytest.raises(
        ValueError, match=r"w8-m1/record.json: .*; remove it, and `ladder evaluate` measures the run again"
    ):
        collecting.collect([workdir], workdir.testbed, lambda line: None)


def test_a_damaged_spec_is_one_line_with_the_remedy(workdir, measured):
    workdir.spec(measured[0].run).write_text('{"run": "' + "x" * 10_000)
    with pytest.raises(ValueError, match=r"w8-m1/spec.json is no spec.json: .*; remove it, and `ladder run`") as told:
        collecting.collect([workdir], workdir.testbed, lambda line: None)
    assert len(str(told.value)) < 1000 and "\n" not in str(told.value)
