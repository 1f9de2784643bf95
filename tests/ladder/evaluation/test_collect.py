"""Collecting: one row a run, whichever workdirs hold it; runs and data that do not compare are refused."""

import dataclasses
import json

import pytest
from etils import epath

from fitting.testbeds.testbed import Measurement, RunRecord, Testbed
from ladder.evaluation.collect import collect
from ladder.spec import Workdir


def _record(run, identity="", loss=2.0, source="s", role="rung"):
    params, tokens = 1000, 20_000
    measured = {"losses": {"held_out": Measurement(loss)}, "sources": {"held_out": source} if source else {}}
    return RunRecord(
        run, role, "text", "w4", params, 900, tokens, 20.0, 6.0 * params * tokens, errors={}, chance_errors={},
        identity=identity, **measured,
    )  # fmt: skip


@pytest.fixture
def written(tmp_path):
    """Writes workdirs of these records, whose plans say that they are rungs."""

    def write(name, *records, roles=None):
        workdir = Workdir.at(str(tmp_path / name))
        rows = [{"run": record.run, "role": (roles or {}).get(record.run, "rung")} for record in records]
        workdir.root.mkdir()
        workdir.plan.write_text(json.dumps({"runs": rows}))
        for record in records:
            record.save(workdir.record(record.run))
        return workdir

    return write


@pytest.fixture
def collected(tmp_path):
    """Collects workdirs: (runs and roles in the table, what was said)."""

    def run(*workdirs):
        said = []
        collect(workdirs, epath.Path(tmp_path / "out.csv"), said.append)
        table = Testbed.read_csv(tmp_path / "out.csv").table
        return dict(zip(table["run"], table["role"], strict=True)), said

    return run


def test_records_of_several_workdirs_are_one_table_in_which_the_same_run_counts_once(written, collected):
    a = written("a", _record("w4-m20", "1"), _record("w6-m20", "2"))
    b = written("b", _record("w4-m20", "1"), _record("small-m20", "2"), _record("w8-m20", "3"))
    runs, said = collected(a, b)
    assert list(runs) == ["w4-m20", "w6-m20", "w8-m20"]
    assert said == [
        f"w4-m20 of {b.root} is w4-m20 of {a.root} and counts once",
        f"small-m20 of {b.root} is w6-m20 of {a.root} and counts once",
    ]


def test_two_runs_of_one_name_are_refused(written, collected):
    a, b = written("a", _record("w4-m20", "1")), written("b", _record("w4-m20", "2"))
    with pytest.raises(ValueError, match=r"w4-m20 of \S+b is another run than that of \S+a: .* tables of their own"):
        collected(a, b)
    c, d = written("c", _record("w4-m20", loss=2.5)), written("d", _record("w4-m20"))
    for other in (a, d):
        with pytest.raises(ValueError, match=r"w4-m20 of .* is another run"):
            collected(c, other)


def test_a_record_from_before_there_were_identities_is_read_and_counts_once(written, collected):
    a = written("a", _record("w4-m20"))
    old = json.loads(a.record("w4-m20").read_text())
    del old["identity"]
    a.record("w4-m20").write_text(json.dumps(old | {"schema_version": 1}))
    assert RunRecord.load(a.record("w4-m20")).identity == ""
    assert list(collected(a, written("b", _record("w4-m20")))[0]) == ["w4-m20"]


def test_losses_on_other_data_under_one_name_are_refused(written, collected):
    a, b = written("a", _record("w4-m20", "1")), written("b", _record("w6-m20", "2", source="t"))
    with pytest.raises(ValueError, match=r"held_out is other data in \S+b than in \S+a"):
        collected(a, b)
    assert len(collected(a, written("c", _record("w8-m20", "3", source="")))[0]) == 2


def test_a_run_is_what_the_plan_says_now(written, collected):
    record = dataclasses.replace(_record("w4-m20", "1"), role="target")
    assert collected(written("a", record, roles={"w4-m20": "rung"}))[0] == {"w4-m20": "rung"}


def test_the_command_writes_the_first_workdirs_table_unless_told_where(written, ladder_, tmp_path):
    a, b = written("a", _record("w4-m20", "1")), written("b", _record("w6-m20", "2"))
    ladder_("collect", str(a.root), str(b.root))
    assert len(Testbed.read_csv(a.testbed).table) == 2 and not b.testbed.exists()
    ladder_("collect", str(a.root), "--out", str(tmp_path / "one.csv"))
    assert len(Testbed.read_csv(tmp_path / "one.csv").table) == 1
    with pytest.raises(SystemExit, match=r"ladder: .*no workdir"):
        ladder_("collect", str(a.root), str(tmp_path / "absent"))
