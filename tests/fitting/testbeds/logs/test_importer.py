"""A log becomes checkpoints and a final row, and what was done to make them is told; what cannot be told is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.testbeds.curves import annealing_sums
from fitting.testbeds.logs import importer
from fitting.testbeds.logs import log as logs
from fitting.testbeds.testbed import Testbed

LOG = {"columns": {"loss/train": "loss"}, "params": 1e6}


@pytest.fixture
def read(tmp_path):
    """Reads a log of these rows, as JSON lines: (table by run, the lines that were said)."""

    def read(rows, kind="logs", run="a", **settings):
        path = tmp_path / f"{run}.jsonl"
        path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        said = []
        table = importer.read(kind, [path], logs.make(**(LOG | settings)), said.append).table
        return table.set_index("run"), said

    return read


def _steps(*steps, **more):
    return [{"step": step, "loss": 4 - step / 100, **more} for step in steps]


def test_a_log_has_a_row_a_step_and_a_final_one(read):
    table, said = read(_steps(10, 20, 30), tokens_per_step=1000, corpus="c4", model="w64", params_non_embedding=8e5)
    assert list(table.index) == ["a", "a@10", "a@20", "a@30"]
    assert table["role"].tolist() == ["rung", *["checkpoint"] * 3]
    assert table["tokens"].tolist() == [30_000, 10_000, 20_000, 30_000]
    assert table["loss/train"].tolist() == [3.7, 3.9, 3.8, 3.7]
    assert (table["params"] == 1_000_000).all() and (table["params_non_embedding"] == 800_000).all()
    assert (table["corpus"] == "c4").all() and (table["model"] == "w64").all()
    assert table["token_multiplier"].tolist() == [0.03, 0.01, 0.02, 0.03] and not table["quarantine"].any()
    assert said == ["a: 3 checkpoints, step 10 to 30, 3e+04 tokens (step × 1,000)"]


def test_what_is_read_survives_its_file(read, tmp_path):
    table, _ = read(_steps(10, 20), tokens_per_step=1000, corpus="c4")
    testbed = Testbed(table.reset_index())
    testbed.write_csv(tmp_path / "t.csv")
    assert Testbed.read_csv(tmp_path / "t.csv").sha256 == testbed.sha256


def test_a_column_of_tokens_counts_them_and_where_there_are_no_steps_it_names_the_rows(read):
    rows = [{"step": step, "tokens": 7 * step, "loss": 3.0} for step in (1, 2, 5)]
    table, said = read(rows)
    assert table["tokens"].to_dict() == {"a": 35, "a@1": 7, "a@2": 14, "a@5": 35} and "35 tokens (tokens)" in said[0]
    table, _ = read([{"tokens": row["tokens"], "loss": 3.0} for row in rows])
    assert list(table.index) == ["a", "a@7", "a@14", "a@35"]
    table, _ = read(rows, tokens_per_step=100)
    assert table["tokens"]["a"] == 500


def test_optimizer_steps_come_before_wandbs_count_of_calls(read):
    rows = [{"_step": 3 * i, "trainer/global_step": 10 * i, "loss": 3.0} for i in (1, 2)]
    assert list(read(rows, tokens_per_step=1)[0].index) == ["a", "a@10", "a@20"]
    columns = {"loss/train": "loss", "step": "_step"}
    assert list(read(rows, tokens_per_step=1, columns=columns)[0].index) == ["a", "a@3", "a@6"]


def test_what_was_logged_again_after_a_resume_counts(read):
    rows = [*_steps(10, 20, 30, 40), {"step": 30, "loss": 2.5}, {"step": 40, "loss": 2.25}, {"step": 50, "loss": 2.0}]
    table, said = read(rows, tokens_per_step=1)
    assert table["loss/train"].to_dict() == {"a": 2, "a@10": 3.9, "a@20": 3.8, "a@30": 2.5, "a@40": 2.25, "a@50": 2}
    assert "logged more than once, so that the last counts: 2 of 30 to 40" in said[0]


def test_columns_that_are_logged_apart_are_one_row(read):
    rows = [{"step": 1, "loss": 3.0}, {"step": 1, "eval": 3.1}, {"step": 2, "loss": 2.9, "eval": None}]
    table, said = read(rows, tokens_per_step=1, columns={"loss/train": "loss", "loss/c4": "eval"})
    assert table["loss/c4"]["a@1"] == 3.1 and table["loss/train"]["a@1"] == 3.0 and "more than once" not in said[0]
    assert np.isnan(table["loss/c4"]["a@2"])


@settings(max_examples=30)
@given(st.permutations(range(1, 9)))
def test_rows_may_come_in_any_order(tmp_path_factory, order):
    path = tmp_path_factory.mktemp("log") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _steps(*order)))
    said = []
    table = importer.read("logs", [path], logs.make(**LOG, tokens_per_step=3), said.append).table
    assert table["tokens"].tolist() == [24, *range(3, 25, 3)]
    assert table["loss/train"].tolist() == [3.92, *(4 - step / 100 for step in range(1, 9))]
    assert ("rows are sorted" in said[0]) == (list(order) != sorted(order))


def test_rows_without_a_measurement_or_before_the_first_token_are_left_out(read):
    rows = [*_steps(0, 10, 20), {"step": 30, "lr": 1e-3}, {"loss": 3.0}]
    table, said = read(rows, tokens_per_step=1)
    assert list(table.index) == ["a", "a@10", "a@20"]
    assert table["tokens"]["a"] == 30  # the run went on, whatever was measured
    for told in ("without step: 1", "before the first token: 1", "without a loss or an error: 1"):
        assert f"left out, {told}" in said[0]


def test_the_final_row_has_what_was_measured_at_the_end_or_just_before(read):
    rows = [{"step": step, "loss": 3.0} for step in (500, 900, 1000)]
    rows += [{"step": 995, "late": 2.5}, {"step": 900, "early": 2.75}]
    columns = {"loss/train": "loss", "loss/late": "late", "loss/early": "early"}
    table, said = read(rows, tokens_per_step=1, columns=columns)
    assert table["loss/late"]["a"] == 2.5 and np.isnan(table["loss/early"]["a"])
    assert "loss/early ends at 900, 90.0% of the tokens, so the final row has none" in said[0]


def test_a_gap_is_told_and_regular_or_growing_steps_are_none(read):
    assert "nothing was logged from 40 to 200" in read(_steps(10, 20, 30, 40, 200, 210, 220), tokens_per_step=1)[1][0]
    for steps in ((1, 2, 4, 8, 16, 32, 64), (10, 11, 110, 111, 210, 211, 310), (10, 20)):
        assert "nothing was logged" not in read(_steps(*steps), tokens_per_step=1)[1][0]


@settings(max_examples=50)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=30, unique=True), st.integers(1, 300), st.data())
def test_smoothing_is_the_mean_of_the_last_so_many_tokens(tmp_path_factory, steps, window, data):
    path = tmp_path_factory.mktemp("log") / "a.jsonl"
    losses = {step: data.draw(st.floats(1, 10)) for step in sorted(steps)}
    rows = [{"step": step, "loss": loss, "eval": 3.0} for step, loss in losses.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = logs.make(
        columns={"loss/train": "loss", "loss/c4": "eval"},
        params=1e6,
        tokens_per_step=10,
        smooth={"loss/train": 10 * window},
    )
    said = []
    table = importer.read("logs", [path], made, said.append).table.set_index("run")
    for step in losses:
        mean = np.mean([loss for at, loss in losses.items() if step - window < at <= step])
        assert table["loss/train"][f"a@{step}"] == pytest.approx(mean, rel=1e-12)
    assert table["loss/train"]["a"] == table["loss/train"].iloc[-1] and (table["loss/c4"] == 3).all()
    assert (table["smoothed"] == f"loss/train over {10 * window:.4g} tokens").all()
    rows = np.median([sum(step - window < at <= step for at in losses) for step in losses])
    assert f"loss/train is the mean over the last {10 * window:.4g} tokens, {rows:,.0f} rows in the median" in said[0]


def test_a_loss_that_is_no_finite_number_quarantines_its_run(read):
    rows = [*_steps(10), {"step": 20, "loss": float("nan")}, *_steps(30)]
    table, _ = read(rows, tokens_per_step=1)
    assert list(table.index) == ["a", "a@10", "a@30"]
    assert (table["quarantine"] == "diverged: loss/train is no finite number at 20").all()
    table, _ = read([*_steps(10), {"step": 20, "loss": "Infinity"}], tokens_per_step=1)
    assert np.isnan(table["loss/train"]["a"]) and table["quarantine"]["a"].startswith("diverged")


def test_a_run_is_judged_by_its_end(read):
    table, _ = read([{"step": 1, "loss": 14.0}, {"step": 2, "loss": 3.0}], tokens_per_step=1)
    assert not table["quarantine"].any()
    table, _ = read(_steps(1, 2), tokens_per_step=1, settings={"batch_size": 1})
    assert (table["quarantine"] == "batch of 1 sequence").all()


def test_an_error_may_be_one_minus_an_accuracy(read):
    columns = {"error/arc": "1-arc", "error/piqa": "1-piqa", "bpb/c4": "bits"}
    table, _ = read([{"step": 1, "arc": 0.75, "1-piqa": 0.125, "bits": 1.5}], tokens_per_step=1, columns=columns)
    assert table.loc["a@1", ["error/arc", "error/piqa", "bpb/c4"]].tolist() == [0.25, 0.125, 1.5]


def test_a_logged_learning_rate_is_summed_for_the_annealing_law(read):
    rate_S = 1e-3 * np.concatenate([np.linspace(0, 1, 11)[1:], np.ones(20), np.linspace(1, 0, 21)[1:]])
    columns = {"loss/train": "loss", "learning_rate": "lr"}
    rows = [{"step": step, "loss": 3.0, "lr": rate_S[step - 1]} for step in (1, 10, 20, 30, 50)]
    table, said = read(rows, tokens_per_step=1, columns=columns)
    area_S, annealing_S = annealing_sums(rate_S)
    for step in (1, 10, 20, 30, 50):
        assert table["lr_area"][f"a@{step}"] == pytest.approx(area_S[step - 1])
        assert table["lr_annealing"][f"a@{step}"] == pytest.approx(annealing_S[step - 1])
    assert "the learning rate is taken for a line between logged steps" in said[0]


def test_a_row_without_its_tokens_has_those_of_the_step_before(read):
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "tokens": 200, "loss": 3.0}, {"step": 3, "loss": 2.9}]
    table, said = read(rows)
    assert table["tokens"].to_dict() == {"a": 200, "a@2": 200, "a@3": 200}
    assert "without tokens, so that the step before counts: 2" in said[0]


ROW = [{"step": 1, "loss": 3.0, "val_loss": 3.1}, {"step": 2, "loss": 2.9, "val_loss": 3.0}]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (ROW, {}, "a: step counts steps, so say how many tokens one is (--tokens-per-step 4194304), or which column "),
        (
            [{"epoch": 1, "loss": 3.0}],
            {},
            "a: no column of steps or tokens: say which is (--column step=NAME, or tokens",
        ),
        (
            [{"epoch": 1, "loss": 3.0}],
            {"tokens_per_step": 9},
            "a: no column of steps: say which is (--column step=NAME)",
        ),
        ([{"epoch": 1, "loss": 3.0}], {}, "; columns are epoch, loss"),
        (
            ROW,
            {"tokens_per_step": 9, "columns": {"loss/c4": "vall_loss"}},
            "a: no column 'vall_loss' in its log; near it are val_loss, loss",
        ),
        (
            ROW,
            {"tokens_per_step": 9, "columns": {"loss/c4": "zzz"}},
            "a: no column 'zzz' in its log; columns are step, loss, val_loss",
        ),
        (ROW, {"tokens_per_step": 9, "columns": {"error/x": "1-zzz"}}, "a: no column 'zzz' in its log"),
        (ROW, {"columns": {"loss/c4": "loss", "step": "zzz"}}, "a: no column 'zzz' in its log"),
        (
            [{"step": 10, "tokens": 100, "loss": 3.0}, {"step": 20, "tokens": 50, "loss": 2.9}],
            {},
            "a: tokens falls from 100 at step 10 to 50 at 20, as a count that began again after a resume",
        ),
        (
            [{"step": 10, "tokens": 100, "loss": 3.0}, {"step": 20, "tokens": 100, "loss": 2.9}],
            {},
            "a: tokens is 100 at every step, so no count of all tokens so far",
        ),
        ([{"step": 1.5, "loss": 3.0}], {"tokens_per_step": 9}, "a: step is 1.5 in a row: no count"),
        ([{"step": None, "loss": 3.0}], {"tokens_per_step": 9}, "a: no row has a number in step"),
        ([{"step": 0, "loss": 3.0}], {"tokens_per_step": 9}, "a: no row is after the first token"),
        ([{"step": 1, "tokens": "Infinity", "loss": 3.0}], {}, "a: tokens is no finite number in a row"),
        ([{"step": 1, "loss": None}], {"tokens_per_step": 9}, "a: nothing was logged in loss"),
        ([{"step": 1, "loss": "NaN"}], {"tokens_per_step": 9}, "a: nothing was logged in loss"),
        (
            [{"step": 1, "loss": -3.0}],
            {"tokens_per_step": 9},
            "column loss/train, run 'a': -3: a loss must be positive",
        ),
    ],
)
def test_what_cannot_be_told_is_refused_in_a_line(read, rows, settings, message):
    with pytest.raises(ValueError) as error:
        read(rows, **settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": None}, "params: "),
        ({"params": -1}, "params: "),
        ({"columns": {}}, "no column is a loss or an error"),
        ({"columns": {"learning_rate": "lr"}}, "no column is a loss or an error"),
        ({"columns": {"train": "loss"}}, "column 'train' is unknown; it is step, tokens, loss/<set>"),
        ({"columns": {"loss/": "loss"}}, "column 'loss/' is unknown"),
        ({"columns": {"loss/train": "loss", "tokens": "t"}, "tokens_per_step": 9}, "not both"),
        ({"smooth": {"loss/val": 1e9}}, "smooth: 'loss/val' is not among the columns loss/train"),
        ({"smooth": {"loss/train": 0}}, "smooth.loss/train: "),
        ({"param": 1e6}, "unknown key param; keys are columns, params, "),
        ({"settings": {"widht": 64}}, "settings: 'widht' is none that can be given; there are unique_tokens, width"),
        ({"role": "checkpoint"}, "role: "),
    ],
)
def test_a_log_that_is_wrongly_described_is_refused_in_a_line(settings, message):
    with pytest.raises(ValueError) as error:
        logs.make("here: ", **(LOG | settings))
    assert str(error.value).startswith(f"here: {message}") or message in str(error.value)
    assert "\n" not in str(error.value)


def _write(folder, **texts):
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


YAML = """
columns: {loss/train: loss}
tokens_per_step: 1000
corpus: c4
runs:
  small: {files: logs/small.csv, params: 411e6, smooth: {loss/train: 2e3}}
  big:
    files: [logs/big1.csv, logs/big2.csv]
    params: 1.4e9
    role: target
    columns: {loss/val: eval}
    settings: {unique_tokens: 1e9}
"""


def test_a_yaml_describes_many_runs(tmp_path):
    _write(
        tmp_path,
        logs__small_csv="step,loss\n1,3.5\n2,3.25\n",
        logs__big1_csv="step,loss,eval\n1,3.0,\n2,2.75,3.0\n",
        logs__big2_csv="step,loss,eval\n2,2.5,2.75\n3,2.25,2.5\n",
    )
    (tmp_path / "runs.yaml").write_text(YAML)
    said = []
    table = importer.read("logs", [], logs.load(tmp_path / "runs.yaml"), said.append).table.set_index("run")
    assert list(table.index) == ["small", "small@1", "small@2", "big", "big@1", "big@2", "big@3"]
    assert table["params"]["small"] == 411_000_000 and table["params"]["big@3"] == 1_400_000_000
    assert table["role"]["small"] == "rung" and table["role"]["big"] == "target" and (table["corpus"] == "c4").all()
    assert table["loss/train"]["small"] == 3.375 and table["loss/val"]["big@2"] == 2.75
    assert table["unique_tokens"]["big"] == 1e9 and np.isnan(table["unique_tokens"]["small"])
    assert [line.partition(":")[0] for line in said] == ["small", "big"]


def test_files_of_many_runs_are_described_by_name(tmp_path):
    _write(tmp_path, chart_csv='"Step","a - loss","b - loss","c - loss"\n1,3,2,4\n2,2.5,1.5,\n')
    (tmp_path / "runs.yaml").write_text(
        "columns: {loss/train: loss}\ntokens_per_step: 10\nruns: {b: {params: 2e6}, a: {params: 1e6}}\n"
    )
    said = []
    described = logs.load(tmp_path / "runs.yaml")
    table = importer.read("wandb", [tmp_path / "chart.csv"], described, said.append).table.set_index("run")
    assert table["params"][["a", "b@2"]].tolist() == [1_000_000, 2_000_000] and table["loss/train"]["b"] == 1.5
    assert said[0] == "not asked for, so not in the table: c"
    with pytest.raises(ValueError, match=r"no run 'd' in the files, and it names none; runs are a, b, c"):
        importer.read("wandb", [tmp_path / "chart.csv"], {"d": logs.make(**LOG)})


def test_charts_of_many_metrics_are_of_the_same_runs(tmp_path):
    _write(tmp_path, train_csv='"Step","a - loss","b - loss"\n1,3,2\n', val_csv='"Step","a - eval","b - eval"\n1,4,5\n')
    made = logs.make(columns={"loss/train": "loss", "loss/val": "eval"}, params=1e6, tokens_per_step=10)
    table = importer.read("wandb", [tmp_path / "train.csv", tmp_path / "val.csv"], made).table.set_index("run")
    assert table.loc["b@1", ["loss/train", "loss/val"]].tolist() == [2, 5]


def test_parts_of_one_run_are_joined_when_that_is_said_and_two_runs_of_one_name_refused(tmp_path):
    _write(tmp_path, x__log_csv="step,loss\n1,3\n2,2.5\n", y__log_csv="step,loss\n2,2.25\n3,2\n")
    paths, made = [tmp_path / "x" / "log.csv", tmp_path / "y" / "log.csv"], logs.make(**LOG, tokens_per_step=1)
    table = importer.read("logs", paths, made, run="big").table.set_index("run")
    assert table["loss/train"].to_dict() == {"big": 2, "big@1": 3, "big@2": 2.25, "big@3": 2}
    with pytest.raises(ValueError, match=r"two runs are named 'log': .*x/log.csv and .*y/log.csv"):
        importer.read("logs", paths, made)
    _write(tmp_path, many_csv="run,step,loss\na,1,3\nb,1,2\n")
    assert list(importer.read("logs", [tmp_path / "many.csv"], made, run="b").table["run"]) == ["b", "b@1"]
    with pytest.raises(ValueError, match="no run 'big' in a file of many; runs are a, b"):
        importer.read("logs", [tmp_path / "many.csv"], made, run="big")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "runs.yaml: not YAML"),
        ("a: 1", "runs.yaml: it must have a mapping `runs`"),
        ("runs: {}", "runs.yaml: it must have a mapping `runs`"),
        ("runs: {a: {columns: {loss/train: loss}}}", "runs.yaml: run a: params is missing"),
        ("runs: {a: {params: many, columns: {loss/train: loss}}}", "runs.yaml: run a: params: "),
        (
            "runs:\n  a: {params: 1e6}\n  a: {params: 2e6}",
            "runs.yaml: not YAML: 'a' is there twice, at line 2 and below",
        ),
        ("runs: {a: 3}", "runs.yaml: run a: it must be a mapping"),
        ("runs: {a: {params: 1e6, columns: [loss]}}", "runs.yaml: run a: columns: "),
        ("colums: {}\nruns: {a: {params: 1e6, columns: {loss/train: x}}}", "runs.yaml: run a: unknown key colums"),
    ],
)
def test_a_yaml_that_does_not_describe_runs_is_refused_in_a_line(tmp_path, text, message):
    (tmp_path / "runs.yaml").write_text(text)
    with pytest.raises(ValueError) as error:
        logs.load(tmp_path / "runs.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_kind_that_is_none_is_refused():
    with pytest.raises(ValueError, match="kind 'mlflow' is unknown; kinds of logs are wandb, tensorboard, logs"):
        importer.read("mlflow", ["x"], logs.make(**LOG))
