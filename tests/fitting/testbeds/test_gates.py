"""A table's own numbers keep a run from the fit, wherever the table comes from; a person can still ask for it."""

import pandas as pd
import pytest

from fitting.methods import fit
from fitting.testbeds import importers
from fitting.testbeds.testbed import Measurement, RunRecord, Testbed

TABLE = (
    "# from our cluster\n# two lines\nrun,params,tokens,batch_size,warmup_steps,steps,tokens_seen,loss/web\n"
    "good,1e8,2e9,256,100,4000,2e9,3.1\nslow,1e8,2e9,256,5000,4000,2e9,3.4\nshort,1e8,2e9,256,100,4000,1e9,3.3\n"
    "lone,1e8,2e9,1,100,4000,2e9,3.2\nlost,1e8,2e9,256,100,4000,2e9,14\n"
)
VERDICTS = {
    "slow": "warm-up of 5,000 steps in a run of 4,000",
    "short": "tokens do not match: 2e+09 said, 1e+09 trained",
    "lone": "batch of 1 sequence",
    "lost": "diverged: a loss of 14 nats a token",
}


@pytest.mark.parametrize("read", [Testbed.read_csv, lambda path: importers.read("csv", path)], ids=["read", "import"])
def test_every_table_passes_the_gates(tmp_path, read):
    (tmp_path / "runs.csv").write_text(TABLE)
    testbed = read(tmp_path / "runs.csv")
    assert testbed.quarantined == VERDICTS and testbed.table["quarantine"][0] == ""


def test_a_table_that_passed_before_says_no_more_when_it_passes_again(tmp_path):
    (tmp_path / "runs.csv").write_text(TABLE)
    once = Testbed.read_csv(tmp_path / "runs.csv")
    once.write_csv(tmp_path / "again.csv")
    assert Testbed.read_csv(tmp_path / "again.csv").quarantined == VERDICTS == Testbed(once.table).quarantined


def test_a_gate_adds_to_a_reason_that_is_already_there():
    table = pd.DataFrame({"run": ["a"], "params": 1e8, "tokens": 1e9, "batch_size": 1, "quarantine": "stopped early"})
    assert Testbed(table).quarantined == {"a": "stopped early; batch of 1 sequence"}


def test_a_fit_leaves_out_what_breaks_a_gate_and_says_why(shared):
    testbed = Testbed.read_csv(shared / "cases" / "gates.csv")
    law = fit(testbed, loss="c4")
    assert {row.run: row.reason for row in law.left_out} == {
        "n20m-m20": "quarantined: warm-up of 400 steps in a run of 376",
        "n20m-m80": "quarantined: tokens do not match: 1.6e+09 said, 8e+08 trained",
        "n50m-m20": "quarantined: diverged: a loss of 13.5 nats a token",
    }
    assert len(law.loss.points) == 9
    asked = fit(testbed, loss="c4", select="role == 'rung' and not quarantine.str.contains('diverged')")
    assert len(asked.loss.points) == 11


def test_the_settings_of_a_run_are_columns_that_the_gates_see():
    record = RunRecord("a", "rung", "web", "s", 1000, 600, 20_000, 20.0, 1.2e8, {"x": Measurement(2.5)}, {}, {})
    testbed = Testbed.from_records([record], {"a": {"warmup_steps": 100, "steps": 90}})
    assert testbed.quarantined == {"a": "warm-up of 100 steps in a run of 90"}
    assert testbed.table["steps"].tolist() == [90]
