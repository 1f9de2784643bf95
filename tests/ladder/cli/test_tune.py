"""`ladder tune`: a recipe out of a sweep, its check at a larger size, and what it refuses; and one sweep trained."""

import json
import math

import pytest

from fitting.testbeds.testbed import Measurement, RunRecord
from ladder import config_file
from ladder import plan as plans
from ladder import spec as specs_
from ladder.cli import runs
from ladder.cli.arguments import planned
from ladder.evaluation import tuning

BEST, N, D = 0.006, 3000.0, 60000.0  # rate at N and D
EXPONENT, OF_TOKENS = -0.5, 0.2


def best_rate(params, tokens):
    return BEST * (params / N) ** EXPONENT * (tokens / D) ** OF_TOKENS


def record(spec, loss):
    quarantine = "" if math.isfinite(loss) else f"{spec.run} diverged at step 3"
    losses = {"held_out": Measurement(loss)} if not quarantine else {}
    sizes = (spec.params, spec.params_non_embedding, spec.tokens, spec.token_multiplier, spec.flops)
    return RunRecord(spec.run, spec.role, "text", spec.size, *sizes, losses, {}, {}, quarantine)


@pytest.fixture
def swept(monkeypatch):
    """In place of training: every run's loss lies in a valley over the best rate. Gives the runs of each call."""
    calls = []

    def carry_out(config, overrides, w, engine, address, retries):
        c, specs = planned(config, overrides)
        for spec in specs:
            off = math.log(spec.hyperparameters.learning_rate / best_rate(spec.params, spec.tokens))
            loss = 4 * (1 + 0.03 * off**2) if off < 2 else math.nan
            for path in (w.spec(spec.run), w.record(spec.run)):
                path.parent.mkdir(parents=True, exist_ok=True)
            w.spec(spec.run).write_bytes(specs_.dump(spec))
            record(spec, loss).save(w.record(spec.run))
        calls.append(specs)
        return c, specs

    monkeypatch.setattr(runs, "carry_out", carry_out)
    return calls


@pytest.fixture
def long(tree, write_config):
    """The tiny ladder with multipliers at which its batches are larger than one sequence."""
    return write_config(tree | {"rungs": [{"sizes": ["w4", "w6"], "token_multipliers": [100]}], "targets": []})


def test_a_sweep_becomes_a_config_whose_recipe_is_the_law_and_is_checked_at_a_larger_size(
    long, tmp_path, swept, ladder_, capsys
):
    w = tmp_path / "w"
    grid = [
        "--sizes",
        "w4",
        "w6",
        "w8",
        "--token-multipliers",
        "100",
        "400",
        "--rates",
        "0.1",
        "0.2",
        "0.4",
        "0.8",
        "1.6",
    ]
    ladder_("tune", long, "--workdir", str(w), *grid, "--confirm", "w12", "--json")
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert len(told["valleys"]) == 6 and told["laws"]["learning_rate"]["params_exponent"] == pytest.approx(
        -0.5, abs=0.01
    )
    assert told["confirmed"]["holds"] and "the law's" in err and "is better than its neighbours" in err
    assert [spec.run for spec in swept[1] if spec.role == "target"] == list(told["confirmed"]["runs"])
    tuned, asked = config_file.load(str(w / "tuned.yaml")), config_file.load(long)
    assert tuned.rungs == asked.rungs and tuned.recipe.name == asked.recipe.name
    for spec in plans.plan(tuned, 256):
        h = spec.hyperparameters
        assert h.learning_rate == pytest.approx(best_rate(spec.params, 100 * spec.params), rel=0.02)
        assert h.final_learning_rate == pytest.approx(0.01 * h.learning_rate)
    assert (w / "tuned.yaml").read_text().startswith("# Tuned by ladder tune")


def test_a_grid_whose_best_is_at_its_edge_says_to_widen_it_and_leaves_no_recipe(long, tmp_path, swept, ladder_):
    grid = ["--sizes", "w4", "w6", "--rates", "0.5", "1", "2", "--token-multipliers", "100", "400"]
    with pytest.raises(SystemExit) as left:
        ladder_("tune", long, "--workdir", str(tmp_path / "w"), *grid)
    assert "w4-m100" in str(left.value.code) and "widen the grid that way" in str(left.value.code)
    assert not (tmp_path / "w/tuned.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sizes", "w4", "w5"), "no size is named 'w5'; there are w4, w6"),
        (("--sizes", "w4", "--rates", "0.1", "0.2", "0.4", "0.8"), "two sizes at least"),
        (
            ("--sizes", "w4", "w6", "--confirm", "w6"),
            "--confirm w6: a law is checked at a size that it was not tuned on",
        ),
        (("--sizes", "w4", "w6", "--rates", "0.1", "0.2", "-1"), "-1.0 must be more than 0"),
        (("--sizes", "w4", "w6", "--out", "/"), "/ is a folder: name a file"),
    ],
)
def test_what_cannot_be_tuned_is_refused(long, tmp_path, swept, ladder_, arguments, words):
    with pytest.raises(SystemExit) as left:
        ladder_("tune", long, "--workdir", str(tmp_path / "w"), "--token-multipliers", "100", "400", *arguments)
    assert words in str(left.value.code)


def test_a_law_that_does_not_hold_at_the_larger_size_is_said(ladder, tmp_path):
    _, specs = ladder("targets=[{sizes: [w12], token_multipliers: [100], learning_rate_scales: [0.5, 1, 2]}]")
    targets = [spec for spec in specs if spec.role == "target"]
    w = specs_.Workdir.at(str(tmp_path / "w"))
    for spec, loss in zip(targets, (3.0, 3.2, math.nan), strict=True):
        w.spec(spec.run).parent.mkdir(parents=True)
        w.spec(spec.run).write_bytes(specs_.dump(spec))
        record(spec, loss).save(w.record(spec.run))
    confirmed = tuning.confirm(w, targets, targets[1], "loss/held_out", 0.003)
    assert not confirmed.holds and "worse than the best of its neighbours" in confirmed.words
    assert "diverged" in confirmed.words
    assert tuning.confirm(w, targets, targets[1], "loss/held_out", 0.05).holds  # that much is noise


@pytest.mark.slow
def test_a_sweep_is_trained_taken_up_again_and_widened(tree, write_config, tmp_path, ladder_, capsys):
    config, w = write_config(tree | {"targets": []}), str(tmp_path / "w")
    command = ["tune", config, "--workdir", w, "--sizes", "w4", "w8", "--token-multipliers", "30", "--rates"]
    with pytest.raises(SystemExit, match="widen the grid"):
        ladder_(*command, "0.02", "0.04", "0.08")
    before = (tmp_path / "w/runs/w4-m30-lr0.08/record.json").stat().st_mtime_ns
    ladder_(*command, "0.02", "0.08", "0.3", "1", "3", "9", "30")
    assert (tmp_path / "w/runs/w4-m30-lr0.08/record.json").stat().st_mtime_ns == before
    assert config_file.load(str(tmp_path / "w/tuned.yaml")).recipe.learning_rate.tokens_exponent == 0
