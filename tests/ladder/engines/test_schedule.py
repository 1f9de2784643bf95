"""A ladder on its config's machines: hours and prices by hand, refusals, and what a plan shows of it."""

import dataclasses
import json
import pathlib

import pytest
from etils import epath

from ladder import config_file
from ladder import plan as plans
from ladder.config import Mesh, Training
from ladder.engines import schedule
from ladder.pods import precompiled
from ladder.pods.topology import Topology
from ladder.spec import Workdir

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LADDER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(ladder):
    """Six tiny runs with batches of eight, and a pod of v5e with four chips."""
    config, specs = ladder()
    eight = [
        dataclasses.replace(s, hyperparameters=dataclasses.replace(s.hyperparameters, batch_size=8)) for s in specs
    ]
    return dataclasses.replace(config, machines={"v5e": 4}), eight


def _compiled(config, spec, topology, seconds, fits=True):
    """As if `ladder precompile` had found that a step takes so long."""
    where = Topology.of(topology)
    path = precompiled.file(config.training.on(where.chips), spec, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"topology": topology, "slices": 1, "chips": where.chips, "fits": fits, "estimated_step_seconds": seconds}
    path.write_text(json.dumps(found))


def test_hours_are_those_of_the_compiled_step_and_five_minutes_and_dollars_their_price(tiny):
    config, specs = tiny
    config = dataclasses.replace(config, machines={"v5e:1x1": 2})
    for spec in specs[:-1]:
        _compiled(config, spec, "v5e:1x1", 2.0)
    said = schedule.plan(config, specs)
    for spec in specs[:-1]:
        given = said.of(spec.run)
        assert given.compiled and given.hours == pytest.approx((2 * spec.steps + 300) / 3600)
        assert given.dollars == pytest.approx(1.2 * given.hours)
    assert not said.of(specs[-1].run).compiled
    rungs = [said.of(spec.run) for spec in specs if spec.role == "rung"]
    assert said.of(specs[-1].run).start_hours == pytest.approx(max(given.end_hours for given in rungs))
    assert said.hours == pytest.approx(max(given.end_hours for given in said.runs))
    assert said.dollars == pytest.approx(sum(given.dollars for given in said.runs))
    assert said.least_hours <= said.hours <= said.in_turn_hours and said.in_turn_used <= said.used <= 1


def test_a_slice_on_which_the_compiled_step_does_not_fit_is_not_given(tiny):
    config, specs = tiny
    for spec in specs:
        _compiled(config, spec, "v5e:1x1", None, fits=False)
    assert {given.slice for given in schedule.plan(config, specs).runs} == {"v5e:2x2"}


def test_no_machines_no_schedule(ladder):
    assert schedule.plan(*ladder()) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"machines": {"v5e:16x16": 1}},
            "machines: w4-m10 can be carried out on none of them: v5e:16x16: .* not split",
        ),
        ({"machines": {"v7": 4}}, "machines: no TPU 'v7'"),
        ({"machines": {"tpu7x:2x2x1": 1}}, "nothing is known of its chips"),
        ({"machines": {"v5e": 4}, "mesh": Mesh(slices=2)}, "each run is given one slice; leave out"),
    ],
    ids=str,
)
def test_what_no_machine_can_carry_out_is_refused(tiny, changes, why):
    config, specs = tiny
    training = dataclasses.replace(config.training, mesh=changes.pop("mesh", Mesh()))
    with pytest.raises(ValueError, match=why):
        schedule.plan(dataclasses.replace(config, training=training, **changes), specs)


def test_parameters_are_split_over_no_more_devices_than_a_slice_has():
    training = Training(mesh=Mesh(fsdp=16, tensor=2))
    assert [training.on(devices).mesh.fsdp for devices in (1, 4, 8, 32, 64)] == [1, 2, 4, 16, 16]
    fixed = Training(mesh=Mesh(data=2, fsdp=16))
    assert fixed.on(4) is fixed


def test_a_worker_takes_the_runs_that_are_meant_for_its_slice_and_all_where_none_are(tiny):
    config, specs = tiny
    said = schedule.plan(config, specs)
    on = {devices: schedule.meant_for(said, specs, devices) for devices in (1, 4, 8)}
    assert on[8] == [] and sorted(s.run for s in (*on[1], *on[4])) == sorted(s.run for s in specs)
    assert all(said.of(spec.run).chips == devices for devices in (1, 4) for spec in on[devices])
    assert schedule.meant_for(None, specs, 8) == list(specs)


def test_schedule_json_is_read_as_it_was_written_and_goes_with_the_machines(tiny, tmp_path):
    workdir, said = Workdir(epath.Path(tmp_path / "W")), schedule.plan(*tiny)
    schedule.keep(said, workdir)
    assert schedule.load(workdir.schedule) == said
    schedule.keep(None, workdir)
    schedule.keep(None, workdir)
    assert not workdir.schedule.exists()


def test_a_plan_shows_slices_hours_prices_and_draws_them(tree, write_config, ladder_, capsys, tmp_path):
    path, svg = write_config({**tree, "machines": {"v5e": 4}}), tmp_path / "plan.svg"
    ladder_("plan", path, "--json", "--svg", str(svg))
    shown = json.loads(capsys.readouterr().out)
    assert all(row["given"].keys() >= {"slice", "chips", "start_hours", "hours", "dollars"} for row in shown["runs"])
    totals = shown["totals"]["schedule"]
    assert totals["chips"] == 4 and totals["machines"] == {"v5e": 4} and totals["used"] <= 1
    drawn = svg.read_text()
    assert all(f'data-run="{row["run"]}"' in drawn for row in shown["runs"])
    ladder_("plan", path)
    told = capsys.readouterr().err
    assert "v5e:1x1" in told and "on 4 chips: " in told and "on demand" in told
    with pytest.raises(SystemExit, match="there is no schedule to draw"):
        ladder_("plan", path, "--set", "machines={}", "--svg", str(svg))
    ladder_("plan", write_config(tree), "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["totals"]["schedule"] is None and shown["runs"][0]["given"] is None


def test_the_papers_ladder_uses_85_percent_of_a_pod_and_more_than_one_run_after_another():
    path = str(ROOT / "configs" / "pods" / "v5p.yaml")
    one_way = "training.mesh.fsdp=4"  # to split: JAX is asked once a size
    config = config_file.load(path, ["machines.v5p=64", one_way])
    with pytest.warns(UserWarning, match="not planned"):
        specs = plans.plan(config, plans.vocab_size(config))
    said = schedule.plan(config, specs)
    assert said.used >= 0.85 and said.used > said.in_turn_used and said.hours < said.in_turn_hours
    assert len({given.slice for given in said.runs}) > 1


def test_a_branch_is_given_the_hours_of_its_own_steps_from_when_its_trunk_has_come_to_it(ladder, tree):
    tree |= {"rungs": [{"sizes": ["w4"], "token_multipliers": [20, 80]}], "targets": [], "machines": {"v5e:1x1": 2}}
    config, (branch, trunk) = ladder("recipe.schedule=wsd", tree=tree)
    for spec in (branch, trunk):
        _compiled(config, spec, "v5e:1x1", 2.0)
    said = schedule.plan(config, (branch, trunk))
    given, before = said.of(branch.run), said.of(trunk.run)
    assert given.hours == pytest.approx((2 * branch.own_steps + 300) / 3600)
    assert before.hours == pytest.approx((2 * trunk.steps + 300) / 3600)
    assert given.start_hours == pytest.approx(before.hours * branch.first_step / trunk.steps)
    assert precompiled.chip_hours(config.training, [branch])[branch.run] == {
        "v5e:1x1": pytest.approx(2 * branch.own_steps / 3600)
    }
