"""What a workdir's runs came to, as a table: their records, and their curves where they are asked for."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath

from fitting.files import write
from fitting.testbeds.curves import annealing_sums
from fitting.testbeds.testbed import Measurement, RunRecord, Testbed
from ladder import spec as specs
from ladder.config import Training
from ladder.evaluation import collect as collecting
from ladder.recipe import learning_rate
from ladder.spec import Workdir
from ladder.training.watch import Watch


@pytest.fixture
def measured(workdir, spec, tree, write_config):
    """Puts runs into a workdir, each with its record, and with rows of training where it has losses."""

    def put(losses_by_run, quarantine="", workdir=workdir):
        workdir.root.mkdir(exist_ok=True)
        write_config(tree, str(workdir.config))
        workdir.plan.write_text(json.dumps({"runs": [{"run": run, "role": "rung"} for run in losses_by_run]}))
        for run, losses in losses_by_run.items():
            own = dataclasses.replace(spec, run=run)
            write(workdir.spec(run), specs.dump(own))
            shape = {name: getattr(own, name) for name in ("params", "params_non_embedding", "tokens", "flops")}
            RunRecord(
                **shape,
                run=run,
                role=own.role,
                corpus="text",
                model=own.size,
                token_multiplier=own.token_multiplier,
                losses={"held_out": Measurement(2.5, 0.1)},
                errors={},
                chance_errors={},
                quarantine=quarantine,
            ).save(workdir.record(run))
            with Watch(Training(), own, workdir) as watch:
                for i, loss_nats in enumerate(losses):
                    watch.before(5 * i + 1, None)
                    watch.row(5 * i + 5, {"loss_nats": np.full(5, loss_nats), "grad_norm": np.ones(5)})
                watch.write()

    return put


def test_a_table_of_records_has_no_curves_unless_they_are_asked_for(measured, workdir):
    measured({"a": [3.0, 2.75]})
    collecting.collect([workdir], workdir.testbed, pytest.fail)
    assert list(Testbed.read_csv(workdir.testbed).table["run"]) == ["a"]


def test_curves_are_checkpoints_below_the_runs(measured, workdir, spec):
    measured({"a": [3.0, 2.75, 2.5, 2.25, 2.0], "b": [], "c": [3.5]})
    said = []
    collecting.collect([workdir], workdir.testbed, said.append, curves=True)
    table = Testbed.read_csv(workdir.testbed).table.set_index("run")
    assert list(table.index) == ["a", "b", "c", *(f"a@{step}" for step in (5, 10, 15, 20, 25)), "c@5"]
    assert table["role"].tolist() == ["rung"] * 3 + ["checkpoint"] * 6
    assert table["loss/train"].fillna(0).tolist() == [2, 0, 3.5, 3, 2.75, 2.5, 2.25, 2, 3.5]
    assert table["loss/held_out"]["a"] == 2.5 and np.isnan(table["loss/held_out"]["a@25"])
    assert table["tokens"]["a@25"] == table["tokens"]["a"] == spec.tokens
    for name in ("params", "params_non_embedding", "corpus", "model"):
        assert (table.loc["a@5":"a@25", name] == table[name]["a"]).all(), name
    rate_S = learning_rate(spec.hyperparameters, spec.steps, np.arange(spec.steps))
    area_S, annealing_S = annealing_sums(rate_S)
    np.testing.assert_allclose(table.loc["a@5":"a@25", "learning_rate"], rate_S[4::5], rtol=1e-9)
    np.testing.assert_allclose(table.loc["a@5":"a@25", "lr_area"], area_S[4::5], rtol=1e-9)
    np.testing.assert_allclose(table.loc["a@5":"a@25", "lr_annealing"], annealing_S[4::5], rtol=1e-9)
    assert said[0].startswith("a: 5 checkpoints, step 5 to 25") and said[-1] == "without a curve: b"


def test_a_run_that_is_not_measured_yet_has_its_curve(measured, workdir):
    measured({"a": [3.0], "b": [3.5, 3.25]})
    workdir.record("b").unlink()
    collecting.collect([workdir], workdir.testbed, lambda line: None, curves=True)
    assert list(Testbed.read_csv(workdir.testbed).table["run"]) == ["a", "a@5", "b@5", "b@10"]
    workdir.record("a").unlink()
    collecting.collect([workdir], workdir.testbed, lambda line: None, curves=True)
    assert list(Testbed.read_csv(workdir.testbed).table["run"]) == ["a@5", "b@5", "b@10"]
    for run in "ab":
        workdir.metrics(run).unlink()
    with pytest.raises(ValueError, match="no runs to collect"):
        collecting.collect([workdir], workdir.testbed, lambda line: None, curves=True)


def test_the_curves_of_many_workdirs_are_in_one_table(measured, workdir, tmp_path):
    other = Workdir(epath.Path(tmp_path / "other"))
    measured({"a": [3.0], "b": []})
    measured({"c": [3.5], "d": [3.25]}, workdir=other)
    other.record("d").unlink()
    collecting.collect([workdir, other], tmp_path / "t.csv", lambda line: None, curves=True)
    assert list(Testbed.read_csv(tmp_path / "t.csv").table["run"]) == ["a", "b", "c", "a@5", "c@5", "d@5"]


def test_the_curve_of_a_quarantined_run_is_quarantined(measured, workdir):
    measured({"a": [3.0]}, quarantine="diverged at step 9")
    collecting.collect([workdir], workdir.testbed, lambda line: None, curves=True)
    assert set(Testbed.read_csv(workdir.testbed).table["quarantine"]) == {"diverged at step 9"}
