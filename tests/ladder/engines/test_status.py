"""A ladder watched from outside: every state from files alone, a hang told from a run at work, nothing disturbed."""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

import fake_gcs
from ladder.engines import forecast, page, schedule, status
from ladder.engines.schedule import Given, Schedule
from ladder.spec import Workdir
from workdirs import Made

# Tells which heavy modules it has loaded.
COMMAND = """
import sys
from ladder.cli.main import main
main()
print(*{"jax", "tensorflow", "ray"} & set(sys.modules), file=sys.stderr)
"""


# Of schema_version 1; others may be added.
LADDER_KEYS = {
    "schema_version",
    "name",
    "looked",
    "runs",
    "flops",
    "flops_done",
    "seconds_left",
    "dollars",
    "goodput",
    "law",
}
RUN_KEYS = {"run", "role", "token_multiplier", "state", "note", "step", "steps", "first_step", "progress", "loss_nats"}
RUN_KEYS |= {"tokens_per_second", "seconds_left", "attempts", "steps_redone", "held_seconds", "dollars", "goodput"}


@pytest.fixture
def made(ladder, tmp_path):
    config, specs = ladder("fit.error=null")  # one law is enough to watch
    return Made(tmp_path / "W", config, specs, time.time())


def _runs(made):
    return {run.run: run for run in status.look(made.workdir).status.runs}


def test_every_state_is_told_with_who_or_why(made):
    a, b, c, d, e, f = made.specs
    made.record(a, ago=50)
    made.record(b, ago=50, quarantine="b diverged at step 3")
    made.rows(c, 100, ago=20)
    made.lease(c, since_ago=300, host="tpu-c")
    made.rows(d, 100, ago=400)
    made.lease(d, since_ago=900, heard_ago=300, host="tpu-d")
    made.attempts(e, (90, 80, "failed", {"message": "Traceback:\n  file\nKeyError: 'x'\n"}))
    told = {name: (run.state, run.note) for name, run in _runs(made).items()}
    assert told == {
        a.run: ("finished", ""),
        b.run: ("quarantined", "b diverged at step 3"),
        c.run: ("running", "tpu-c, work"),
        d.run: ("stale", "tpu-d, work, not heard of for 0:05:00"),
        e.run: ("failed", "failed: KeyError: 'x'"),
        f.run: ("waiting", ""),
    }


def test_progress_speed_time_left_attempts_and_goodput_are_those_of_the_files(made):
    spec = max(made.specs, key=lambda spec: spec.steps)
    made.rows(spec, 100, ago=10, step_seconds=0.5, goodput=0.8)
    made.attempts(spec, (400, 300, "taken away", {"steps_redone": 7}))
    made.lease(spec, since_ago=200)
    look = status.look(made.workdir)
    run = next(run for run in look.status.runs if run.run == spec.run)
    assert (run.step, run.steps, run.progress) == (100, spec.steps, 100 / spec.steps)
    assert run.loss_nats == pytest.approx(2.03) and run.seconds_left == pytest.approx((spec.steps - 100) * 0.5)
    assert run.tokens_per_second == spec.hyperparameters.batch_size * spec.sequence_length / 0.5
    assert (run.attempts, run.steps_redone) == (2, 7) and run.held_seconds == pytest.approx(300, abs=3)
    whole = look.status
    assert whole.goodput == pytest.approx(0.8) and whole.flops == pytest.approx(sum(s.flops for s in made.specs))
    assert whole.flops_done == pytest.approx(spec.flops * 100 / spec.steps)
    left_flops = whole.flops - whole.flops_done
    assert whole.seconds_left == pytest.approx(left_flops / (6 * spec.params * run.tokens_per_second))


@pytest.mark.parametrize(
    ("since_ago", "told_ago", "is_hung"),
    [(600, None, False), (1000, None, True), (600, 350, False), (1200, 400, True), (100, 2000, False)],
    ids=["starting", "no first row", "between rows", "rows have stopped", "rows of an attempt before"],
)
def test_a_hang_is_a_process_that_lives_and_whose_run_tells_nothing(made, since_ago, told_ago, is_hung):
    """Windows are 50 steps of 0.5 s, of a run of the same FLOPs before the first row: 75 s beside 900, and 300, s."""
    spec, other = made.specs[0], made.specs[1]
    made.rows(other, 100, ago=10, step_seconds=0.5 * other.flops / other.steps / (spec.flops / spec.steps))
    made.lease(spec, since_ago=since_ago)
    if told_ago:
        made.rows(spec, 50, ago=told_ago, step_seconds=0.5)
    run = _runs(made)[spec.run]
    assert run.state == ("hung" if is_hung else "running")
    assert ("it lives, and has told nothing for" in run.note) == is_hung


def test_a_run_that_is_measured_may_be_silent_for_longer(made):
    spec = made.specs[0]
    made.rows(spec, spec.steps, ago=2000)
    made.lease(spec, since_ago=2500)
    assert (_runs(made)[spec.run].state, _runs(made)[spec.run].note) == ("running", "tpu-a, work: measuring")
    made.rows(spec, spec.steps, ago=5000)
    made.lease(spec, since_ago=5500)
    assert _runs(made)[spec.run].state == "hung"


def test_a_workdir_of_an_older_version_has_neither_leases_nor_attempts(made):
    a, b, c, *_ = made.specs
    made.rows(a, a.steps, ago=40)
    made.record(a, ago=30)
    made.rows(b, 50, ago=20)
    made.rows(c, 50, ago=5000)
    runs = _runs(made)
    assert [runs[spec.run].state for spec in (a, b, c)] == ["finished", "running", "waiting"]
    assert runs[a.run].attempts == 1 and runs[a.run].held_seconds == pytest.approx(a.steps * 0.5 / 0.8 + 10, abs=2)


def test_what_is_being_written_at_the_moment_is_not_read(made):
    spec = made.specs[0]
    made.rows(spec, 100, ago=5)
    made.attempts(spec, (90, 80, "taken away"))
    made.lease(spec, since_ago=50)
    whole = _runs(made)[spec.run]
    metrics, attempts = made.workdir.metrics(spec.run), made.workdir.attempts(spec.run)
    metrics.write_text(metrics.read_text() + '{"step": 150, "tok')
    attempts.write_text(attempts.read_text() + '{"host": "tp')
    (metrics.parent / ".record.json.99.tmp").write_text("{")
    cut = _runs(made)[spec.run]
    assert (cut.step, cut.attempts, cut.state) == (whole.step, whole.attempts, "running")
    ours = made.workdir.lease(spec.run).read_text()
    for half in ("", '{"holder": "tp', "[]", ours.replace("+00:00", "?")):
        made.workdir.lease(spec.run).write_text(half)
        assert _runs(made)[spec.run].state == "waiting"


def test_what_is_damaged_is_refused_by_name(made):
    made.attempts(made.specs[0], (90, 80, "taken away"))
    path = made.workdir.attempts(made.specs[0].run)
    path.write_text("x\n" + path.read_text())
    with pytest.raises(ValueError, match=r"attempts.jsonl, line 1: not valid JSON; remove that line"):
        status.look(made.workdir)
    metrics = made.workdir.metrics(made.specs[1].run)
    metrics.write_text('{"step": 1, "tokens": 2, "loss_nats": 3.0}\n')
    made.workdir.attempts(made.specs[0].run).unlink()
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: no row of a run, .*; remove that line"):
        status.look(made.workdir)
    with pytest.raises(ValueError, match="is no workdir: it has no plan"):
        status.look(Workdir(made.workdir.root / "nowhere"))


def _schedule(specs):
    given = [Given(s.run, "v5p:2x2x1", 4, 0, float(i), 1.0, 16.8, True) for i, s in enumerate(specs)]
    return Schedule({"v5p": 4}, 4, 6.0, 100.8, 0.9, 5.5, 6.0, 0.9, tuple(given))


def test_cost_is_the_time_that_slices_were_held_at_their_price(made):
    schedule.keep(_schedule(made.specs), made.workdir)
    spec = made.specs[0]
    made.attempts(spec, (7300, 3700, "taken away"), (3600, 1800, "finished"))
    run = _runs(made)[spec.run]
    assert run.held_seconds == pytest.approx(5400) and run.dollars == pytest.approx(1.5 * 4 * 4.2)
    assert status.look(made.workdir).status.dollars == pytest.approx(1.5 * 4 * 4.2)


def test_looking_changes_no_file_and_json_has_the_same_keys_whatever_is_known(made, ladder_, capsys):
    def everything():
        return {
            str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in pathlib.Path(made.workdir.root).rglob("*")
            if path.is_file()
        }

    def keys(tree):
        match tree:
            case dict():
                return {key: keys(value) for key, value in tree.items() if key not in ("predictions", "measured")}
            case list():
                return keys(tree[0]) if tree else None
        return None

    before = everything()
    ladder_("status", str(made.workdir.root), "--json")
    shown = json.loads(capsys.readouterr().out)
    assert everything() == before
    for spec, loss in zip(made.specs, (3.0, 2.8, 2.6, 2.5, 2.4, 2.3), strict=True):
        made.rows(spec, spec.steps, ago=100)
        made.record(spec, loss, ago=90 - 10 * made.specs.index(spec))
    before = everything()
    ladder_("status", str(made.workdir.root), "--json", "--watch")  # nothing is left to wait for
    done = json.loads(capsys.readouterr().out)
    assert everything() == before
    assert keys(shown["runs"]) == keys(done["runs"]) and shown.keys() == done.keys() == LADDER_KEYS
    assert shown["runs"][0].keys() == RUN_KEYS
    assert (shown["schema_version"], shown["law"]["history"]) == (1, [])
    ladder_("status", str(made.workdir.root))
    told = capsys.readouterr().err
    assert "6 of 6 runs" in told and "the law of 5 rungs" in told and "measured 2.3000" in told


def test_the_law_is_refitted_as_rungs_land_and_ends_as_the_ladders_own(made):
    from fitting.methods import fit
    from fitting.prediction import predict
    from fitting.testbeds.testbed import Testbed
    from ladder.evaluation import collect

    *rungs, target = made.specs
    ask = forecast.Forecaster(made.workdir)
    assert ask(status.look(made.workdir)).problem == "no rung has landed yet"
    made.record(rungs[-1], 3.0, ago=100)
    assert "1 runs cannot fit the 5 parameters" in ask(status.look(made.workdir)).problem
    losses = (3.0, 2.8, 2.6, 2.5, 2.4)
    for order, (spec, loss) in enumerate(zip(reversed(rungs), losses, strict=True)):
        made.record(spec, loss, ago=100 - order)
    said = ask(status.look(made.workdir))
    assert [at.runs for at in said.history] == sorted({at.runs for at in said.history}) and said.history[-1].runs == 5
    assert said.measured == {} and ask(status.look(made.workdir)).history[0] is said.history[0]  # not fitted again

    records = [status.look(made.workdir).seen[spec.run].record for spec in rungs]
    settings = {spec.run: collect.settings(made.workdir, spec.run) for spec in rungs}
    law = fit(Testbed.from_records(records, settings), loss="loss/held_out")
    own = predict(law, target.params, target.tokens)
    last = said.history[-1].predictions[target.run]
    assert (last["loss"], last["loss_interval"]) == (own.loss, own.loss_interval)
    made.record(target, 2.25, ago=1)
    assert ask(status.look(made.workdir)).measured == {target.run: 2.25}


def test_a_history_has_no_more_refits_than_asked_for_the_newest_among_them():
    assert [forecast._counts(rungs, 12) for rungs in (0, 1, 2, 5)] == [[], [1], [2], [3, 4, 5]]
    counts = forecast._counts(33, 12)
    assert len(counts) <= 12 and counts[-1] == 33 and min(counts) >= 3


def test_the_page_stands_alone_refreshes_itself_while_something_goes_on_and_holds_nothing_that_is_code(made, ladder_):
    for spec in made.specs[:5]:
        made.rows(spec, spec.steps, ago=200)
        made.record(spec, 3 - 0.1 * made.specs.index(spec), ago=100)
        made.attempts(spec, (900, 800, "taken away"), (700, 100, "finished"), host="<script>x</script>")
    made.lease(made.specs[5], since_ago=60)
    schedule.keep(_schedule(made.specs), made.workdir)
    look = status.look(made.workdir)
    text = page.render(look, forecast.Forecaster(made.workdir)(look), made.workdir, refresh_seconds=10)
    assert '<meta http-equiv="refresh" content="10">' in text and "<script>" not in text
    assert text.count("<svg") == 4 and 'data-run="w4-m10"' in text  # machines, forecast, curves, schedule
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    ladder_("status", str(made.workdir.root), "--html", "--every", "0")
    assert 'http-equiv="refresh"' not in made.workdir.status_page.read_text()


def test_a_workdir_in_a_bucket_is_read_as_one_on_a_disk_and_left_as_it_was(made):
    spec = made.specs[0]
    made.rows(spec, 100, ago=0)
    made.lease(spec, since_ago=50)
    made.record(made.specs[1], ago=10)
    with fake_gcs.serving(0.0) as address:
        fake_gcs.upload(address, "bucket", "W", pathlib.Path(made.workdir.root))
        before = fake_gcs.names(address, "bucket")
        command = [sys.executable, "-c", COMMAND, "status", "gs://bucket/W", "--json"]
        environment = os.environ | fake_gcs.environment(address)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert fake_gcs.names(address, "bucket") == before and not done.stderr.split()
    there, here = json.loads(done.stdout), status.as_data(status.look(made.workdir).status)
    for name in ("run", "state", "note", "step", "loss_nats", "attempts"):
        assert [run[name] for run in there["runs"]] == [run[name] for run in here["runs"]]
    assert there["flops_done"] == here["flops_done"]


def test_states_cover_what_a_watch_ends_at(made):
    whole = status.look(made.workdir).status
    assert not whole.is_at_rest
    rest = tuple(dataclasses.replace(run, state="finished") for run in whole.runs)
    assert dataclasses.replace(whole, runs=rest).is_at_rest


def test_of_a_branch_its_own_steps_count_and_what_it_shares_is_counted_once(ladder, tree, tmp_path):
    tree |= {"rungs": [{"sizes": ["w4"], "token_multipliers": [20, 80]}], "targets": []}
    config, specs = ladder("recipe.schedule=wsd", tree=tree)
    made, (branch, trunk) = Made(tmp_path / "W", config, specs, time.time()), specs
    whole = status.look(made.workdir).status
    assert whole.flops == pytest.approx(trunk.flops + branch.own_flops)
    assert [(run.step, run.progress) for run in whole.runs] == [(branch.first_step, 0), (0, 0)]
    made.record(trunk, ago=100)
    half = branch.first_step + branch.own_steps // 2
    made.rows(branch, half, ago=10, every=half)
    row = json.loads(made.workdir.metrics(branch.run).read_text()) | {"first_step": branch.first_step}
    made.workdir.metrics(branch.run).write_text(json.dumps(row))
    whole = status.look(made.workdir).status
    assert whole.runs[0].progress == pytest.approx(0.5, abs=0.01)
    assert whole.flops_done == pytest.approx(
        trunk.flops + branch.own_flops * (half - branch.first_step) / branch.own_steps
    )
    assert whole.goodput == pytest.approx(0.8)


def test_a_plan_of_before_there_were_trunks_is_read(made):
    plan = json.loads(made.workdir.plan.read_text())
    for row in plan["runs"]:
        del row["own_flops"], row["trunk"], row["first_step"]
    made.workdir.plan.write_text(json.dumps(plan))
    assert status.look(made.workdir).status.flops == pytest.approx(sum(spec.flops for spec in made.specs))
