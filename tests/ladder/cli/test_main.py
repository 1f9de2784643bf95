"""The verbs: help that is enough, JSON alone on stdout, one line where something is refused, light imports."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import processes
from fitting.artifacts import fitted
from fitting.methods import fit
from fitting.testbeds.testbed import Testbed
from ladder.spec import Workdir

VERBS = (
    "run",
    "plan",
    "train",
    "evaluate",
    "collect",
    "import",
    "fit",
    "predict",
    "score",
    "advise",
    "compare",
    "report",
)
ROW = {"run", "role", "params", "params_non_embedding", "tokens", "flops", "steps", "batch_size", "learning_rate"}


@pytest.fixture
def testbed_csv(tmp_path):
    """A testbed that follows L = 1.2 + (80 M^0.16 + 120 M^-0.16) C^-0.16 with a little noise."""
    rows = ["run,role,params,tokens,loss/code,error/average"]
    shapes = [(n, 20) for n in (2e4, 4e4, 8e4, 1.6e5, 3.2e5)] + [(2e4, 80), (2e4, 320), (2e6, 20), (1e6, 240)]
    for i, (params, multiplier) in enumerate(shapes):
        tokens = params * multiplier
        compute = 6 * params * tokens
        loss = 1.2 + (80 * multiplier**0.16 + 120 * multiplier**-0.16) * compute**-0.16 / 3
        loss *= 1 + 0.001 * math.cos(7 * i)
        error = 0.75 - 0.9 * math.exp(-0.8 * loss)
        rows.append(f"r{i},{'target' if params >= 1e6 else 'rung'},{params:.0f},{tokens:.0f},{loss!r},{error!r}")
    path = tmp_path / "testbed.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


COMMANDS = """
import json, sys
from ladder.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["ladder", *arguments]
    try:
        main.main()
    except SystemExit as left:
        if left.code:
            raise
print("\\nMODULES", *sys.modules)
"""


@pytest.fixture(scope="session")
def imported_by():
    """Which modules commands, one after another, have loaded when they end, in a process of their own."""

    def run(*commands: tuple[str, ...]) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(commands)], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return set(done.stdout.rpartition("MODULES")[2].split())

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(ladder_, capsys, verb):
    with pytest.raises(SystemExit) as exit_:
        ladder_(verb, "--help")
    assert not exit_.value.code
    shown = capsys.readouterr().out
    assert f"ladder {verb}" in shown and len(shown.splitlines()) > 6


def test_the_program_lists_its_verbs(ladder_, capsys):
    with pytest.raises(SystemExit):
        ladder_("--help")
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_plan_prints_json_alone_on_stdout(ladder_, tree, write_config, capsys):
    ladder_("plan", write_config(tree), "--json", "--set", "seed=3", "--set", "rungs.1.token_multipliers=[30,40]")
    shown = json.loads(capsys.readouterr().out)
    assert all(row.keys() >= ROW for row in shown["runs"])
    assert [row["run"] for row in shown["runs"]][-3:] == ["w4-m30", "w4-m40", "w12-m10"]
    assert shown["totals"]["runs"] == 7


def test_plan_shows_a_person_a_table_and_leaves_stdout_empty(ladder_, tree, write_config, capsys, monkeypatch):
    ladder_("plan", write_config(tree))
    shown = capsys.readouterr()
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("plan", "absent.yaml"), "no such config: absent.yaml"),
        (("plan", "CONFIG", "--set", "sede=1"), "sede: unknown key"),
        (("plan", "CONFIG", "--set", "sizes.w6.width=2"), "sizes do not grow"),
        (("train", "CONFIG", "--run", "w5", "--workdir", "W"), "no run is named 'w5'"),
        (("evaluate", "CONFIG", "--run", "w4-m10", "--workdir", "W", "--set", "seed=x"), "seed: "),
        (("collect", "W"), "W is no workdir"),
        (("fit", "absent.csv", "--loss", "code", "--out", "W"), "absent.csv"),
        (("fit", "TESTBED", "--loss", "prose", "--out", "W"), "loss/code"),
        (("fit", "TESTBED", "--loss", "code", "--select", "params < 3e4", "--out", "W"), ""),
        (("fit", "TESTBED", "--loss", "code", "--select", "rle == 1", "--out", "W"), "rle"),
        (("predict", "absent.json", "--params", "1e9", "--tokens", "2e10"), "absent.json"),
        (("score", "absent.json", "TESTBED", "--run", "r7"), "absent.json"),
        (("advise", "absent.json", "--budget-flops", "1e21"), "absent.json"),
        (("report", "W"), "law.json"),
        (("fit", "TESTBED", "--loss", "code", "--seed", "-1", "--out", "W"), "seed is -1: it must be zero or more"),
        (("fit", "TESTBED", "--loss", "code", "--resamples", "-1", "--out", "W"), "resamples is -1: it must be zero"),
        (("fit", "TESTBED", "--loss", "code", "--out", "TESTBED"), "there is a file where a folder should be"),
        (("train", "CONFIG", "--run", "w4-m10", "--workdir", "CONFIG"), "there is a file where a folder should be"),
        (("design", "CONFIG", "--budget-flops", "nan"), "design.budget.flops: nan is not a finite number"),
        (("design", "CONFIG", "--budget-flops", "1e9", "--target", "🎉: ["), "no run is named '🎉: ['"),
        (("design", "CONFIG", "--budget-flops", "1e9", "--target", "null"), "no run is named 'null'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_refused_gets_one_line_and_exit_code_1(
    ladder_, tree, write_config, testbed_csv, tmp_path, monkeypatch, arguments, why
):
    config = write_config(tree)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        ladder_(*({"CONFIG": config, "TESTBED": str(testbed_csv)}.get(a, a) for a in arguments))
    assert isinstance(exit_.value.code, str)  # which Python prints on stderr, with exit code 1
    assert exit_.value.code.startswith("ladder: ") and why in exit_.value.code
    assert "\n" not in exit_.value.code
    assert not (tmp_path / "W").exists()


def test_a_workdir_that_cannot_be_written_is_refused_in_one_line(ladder_, tree, write_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit_:
        ladder_("train", write_config(tree), "--run", "w4-m10", "--workdir", str(tmp_path / "file" / "W"))
    assert isinstance(exit_.value.code, str) and "\n" not in exit_.value.code


def test_training_without_its_extra_says_what_to_install(ladder_, tree, write_config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ladder.corpus.prepare", None)  # as if an import of it failed
    with pytest.raises(SystemExit, match=r"not installed.*scaling-ladder\[train\]"):
        ladder_("train", write_config(tree), "--run", "w4-m10", "--workdir", str(tmp_path / "W"))


def test_a_law_is_fitted_told_to_predict_and_reported(ladder_, testbed_csv, tmp_path, capsys):
    out = tmp_path / "fits" / "one"
    ladder_("fit", str(testbed_csv), "--loss", "code", "--error", "average", "--out", str(out))
    assert capsys.readouterr().out == ""
    law = fitted.load(out / "law.json")
    assert [prediction.run for prediction in law.predictions] == ["r7", "r8"]
    assert law.command.startswith("ladder fit ")

    ladder_("predict", str(out / "law.json"), "--params", "2e6", "--tokens", "4e7", "--json")
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert shown.keys() >= {"loss", "loss_interval", "error", "error_interval"}
    assert shown["loss_interval"][0] < shown["loss"] < shown["loss_interval"][1]
    assert shown["loss"] == pytest.approx(law.predictions[0].loss)
    assert shown["error_interval"][0] < shown["error"] < shown["error_interval"][1]

    ladder_("report", str(out))
    assert (out / "report.html").exists() and (out / "report.md").exists()


def test_a_fit_is_printed_as_json_without_intervals_where_none_are_asked_for(ladder_, testbed_csv, tmp_path, capsys):
    options = ("--method", "best", "--resamples", "0", "--best-of-size", "--json")
    ladder_("fit", str(testbed_csv), "--loss", "code", "--out", str(tmp_path), *options)
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    law = fitted.load(tmp_path / "law.json")
    assert shown["method"] == "best" and shown["loss"]["theta"] == dict(law.loss.theta) and shown["error"] is None
    assert shown["loss"]["unit"] == "nats per token" and shown["loss"]["runs"] == len(law.loss.points)
    assert [p["loss"] for p in shown["predictions"]] == [p.loss for p in law.predictions]
    assert all(p["loss_interval"] == [None, None] for p in shown["predictions"])
    ladder_("predict", str(tmp_path), "--params", "4e6", "--tokens", "8e7")
    assert "nan" not in capsys.readouterr().err
    ladder_("advise", str(tmp_path / "law.json"), "--budget-flops", "1e16")
    assert "nan" not in capsys.readouterr().err


def test_a_prediction_is_frozen_and_scored_once_its_run_is_measured(ladder_, testbed_csv, tmp_path, capsys):
    """The run is in a workdir, so that its record tells when it was measured."""
    law, prediction, w = tmp_path / "law.json", tmp_path / "prediction.json", Workdir.at(str(tmp_path / "W"))
    fitted.save(fit(Testbed.read_csv(testbed_csv), loss="code", select="role == 'rung'"), law)
    frozen = ("predict", str(law), "--params", "4e6", "--tokens", "8e7", "--run", "big", "--freeze", str(prediction))
    ladder_(*frozen, "--json")
    digest = json.loads(prediction.read_text())["digest"]
    shown = capsys.readouterr()
    assert digest in shown.err and json.loads(shown.out)["params"] == 4e6

    w.root.mkdir()
    w.testbed.write_text("run,params,tokens,loss/code\nbig,4e6,8e7,2.0\n")
    ladder_("score", str(prediction), str(w.testbed), "--run", "big", "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["loss"]["measured"] == 2.0 and shown["measured"] is None and shown["digest"] == digest
    assert shown["loss"]["relative_error"] == pytest.approx(shown["loss"]["predicted"] / 2 - 1)

    record = w.record("big")
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    os.utime(record, (4e9, 4e9))
    ladder_("score", str(prediction), str(w.testbed), "--run", "big")
    assert "measured 2096-10-02" in capsys.readouterr().err
    os.utime(record, (1e9, 1e9))
    with pytest.raises(SystemExit, match=r"was measured at 2001-09-09.*, before the prediction was frozen"):
        ladder_("score", str(prediction), str(w.testbed), "--run", "big")
    with pytest.raises(SystemExit, match="already frozen"):
        ladder_(*frozen)


def test_advice_is_told_to_people_and_to_programs(ladder_, testbed_csv, tmp_path, capsys):
    fitted.save(fit(Testbed.read_csv(testbed_csv), loss="code"), tmp_path / "law.json")
    arguments = ("advise", str(tmp_path / "law.json"), "--budget-flops", "1e16", "--served-tokens", "1e10")
    ladder_(*arguments, "--json")
    shown = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert shown["inference_aware"]["lifetime_flops"] < shown["compute_optimal"]["lifetime_flops"]
    ladder_(*arguments)
    shown = capsys.readouterr()
    assert shown.out == ""
    for said in ("compute-optimal", "inference-aware", "over-training", "most per FLOP"):
        assert said in shown.err


def test_a_law_of_n_without_embeddings_says_so_and_a_slip_of_units_is_told(ladder_, shared, tmp_path, capsys):
    table, law, prediction = (
        shared / "cases" / "without_embeddings.csv",
        tmp_path / "law.json",
        tmp_path / "frozen.json",
    )
    fitting = ("fit", str(table), "--loss", "c4", "--params-column", "params_non_embedding", "--out", str(tmp_path))
    ladder_(*fitting)
    n = "N is params_non_embedding: parameters without embeddings"
    assert n in capsys.readouterr().err and fitted.load(law).params_column == "params_non_embedding"

    ladder_("predict", str(law), "--params", "7", "--tokens", "2e12")
    told = capsys.readouterr().err
    assert "warning: params is 7, 14,000 times less" in told and "7e+06 or 7e+09 meant?" in told and n in told
    sizes = ("--params", "6406298452", "--tokens", "552e9")
    ladder_("predict", str(law), *sizes, "--run", "big", "--freeze", str(prediction), "--json")
    shown = capsys.readouterr()
    assert json.loads(shown.out)["params_column"] == "params_non_embedding" and "warning" not in shown.err

    ladder_("advise", str(law), "--budget-flops", "1e21", "--json")
    assert json.loads(capsys.readouterr().out)["params_column"] == "params_non_embedding"
    ladder_("advise", str(law), "--budget-flops", "1e27", "--served-tokens", "20")
    told = capsys.readouterr().err
    assert n in told and "warning: flops is 1e+27" in told and "warning: served_tokens is 20" in told

    measured = table.read_text().replace("22852800000000000000000,,", "22852800000000000000000,2.1,0.7")
    (tmp_path / "measured.csv").write_text(measured)
    ladder_("score", str(prediction), str(tmp_path / "measured.csv"), "--run", "big")
    assert n in capsys.readouterr().err


def test_a_prediction_so_far_off_that_it_has_no_interval_is_still_json(ladder_, shared, tmp_path, capsys):
    ladder_("fit", str(shared / "cases" / "gates.csv"), "--loss", "c4", "--error", "avg", "--out", str(tmp_path))
    capsys.readouterr()
    ladder_("predict", str(tmp_path / "law.json"), "--params", "1e-9", "--tokens", "1e-9", "--json")
    assert json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["loss"]


def test_the_papers_method_is_a_choice(ladder_, testbed_csv, tmp_path):
    ladder_("fit", str(testbed_csv), "--loss", "code", "--method", "paper", "--out", str(tmp_path / "paper"))
    assert fitted.load(tmp_path / "paper" / "law.json").method == "paper"


def test_nothing_that_stands_on_a_fitted_law_loads_tensorflow(testbed_csv, tmp_path, imported_by):
    law, heavy = str(tmp_path / "law.json"), {"tensorflow", "seqio", "orbax", "flax"}
    loaded = imported_by(
        ("fit", str(testbed_csv), "--loss", "code", "--out", str(tmp_path)),
        ("predict", law, "--params", "1e9", "--tokens", "2e10"),
    )
    assert not loaded & (heavy | {"jax"})
    assert not imported_by(("advise", law, "--budget-flops", "1e16"), ("report", str(tmp_path))) & heavy
    assert (tmp_path / "report.html").exists()
    assert not imported_by(("--help",)) & (heavy | {"jax", "pandas", "matplotlib"})


def test_stdout_stays_json_where_it_is_piped(tree, write_config):
    done = subprocess.run(
        [*processes.LADDER, "plan", write_config(tree), "--json"],
        capture_output=True,
        env=os.environ,
        timeout=600,
        check=True,
    )
    assert json.loads(done.stdout)["runs"]


def test_losses_fitted_together_are_told_predicted_and_advised_together(ladder_, tmp_path, capsys):
    rng = np.random.default_rng(0)
    web = rng.uniform(0.1, 0.9, 12)
    table = pd.DataFrame({"run": [f"m{i}" for i in range(12)], "params": 1e8, "tokens": 1e10})
    table = table.assign(role=["rung"] * 11 + ["target"], proportion_web=web, proportion_code=1 - web)
    for name, K in (("web", (0.2, 1.5)), ("code", (1.1, 0.3))):
        table[f"loss/{name}"] = 2 + K[0] ** web * K[1] ** (1 - web) + 0.001 * rng.standard_normal(12)
    table.to_csv(tmp_path / "mixed.csv", index=False)
    fitting = ("fit", str(tmp_path / "mixed.csv"), "--loss", "web,code", "--out", str(tmp_path), "--resamples", "20")
    ladder_(*fitting, "--law", "mixture", "--method", "best", "--json")
    assert [*json.loads(capsys.readouterr().out)["others"]] == ["loss/code"]
    given = ("--given", "proportion_web=0.5", "proportion_code=0.5")
    ladder_("predict", str(tmp_path), "--params", "1e8", "--tokens", "1e10", *given, "--json")
    shown = json.loads(capsys.readouterr().out)
    assert shown["loss"] == pytest.approx(2 + (0.2 * 1.5) ** 0.5, abs=0.01)
    assert shown["others"]["loss/code"]["loss"] == pytest.approx(2 + (1.1 * 0.3) ** 0.5, abs=0.01)
    ladder_("predict", str(tmp_path), "--params", "1e8", "--tokens", "1e10", *given, "--nearby", "--json")
    near = json.loads(capsys.readouterr().out)
    assert near["loss"] != shown["loss"] and near["loss"] == pytest.approx(shown["loss"], abs=0.003)
    assert np.ptp(near["loss_interval"]) < np.ptp(shown["loss_interval"])
    assert near["others"]["loss/code"]["loss"] != shown["others"]["loss/code"]["loss"]
    ladder_("advise", str(tmp_path), "--json")
    advice = json.loads(capsys.readouterr().out)
    assert advice["target"] == "mean" and sum(s["value"] for s in advice["settings"]) == pytest.approx(1)
    ladder_("advise", str(tmp_path), "--target", "code")
    assert "at the edge of what was tried" in capsys.readouterr().err
    ladder_("report", str(tmp_path))
    assert "### Further losses" in (tmp_path / "report.md").read_text()
    assert "Further losses" in (tmp_path / "report.html").read_text()
