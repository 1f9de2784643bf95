"""Published testbeds come in whole, their broken records marked; what is no such testbed is refused clearly."""

import json

import pandas as pd
import pytest

import gadre2024
from fitting.testbeds import importers
from fitting.testbeds.importers.gadre2024 import _GADRE_SUBSET
from fitting.testbeds.testbed import Testbed


def test_gadre2024_has_104_models_with_8_losses_and_46_errors():
    table = gadre2024.everything().table
    assert len(table) == 104 and (table["role"] == "target").sum() == 6
    assert [name for name in table if name.startswith("loss/")] == [f"loss/{name}" for name in gadre2024.SETS]
    assert sum(name.startswith("error/") for name in table) == 46 + 2
    assert (table["flops"] == 6.0 * table["params"] * table["tokens"]).all()


def test_gadre2024_gives_the_numbers_of_its_files():
    row = gadre2024.everything().table.set_index("run").loc["rpj-open_lm_7b-1.0"]
    assert row["loss/c4_val"] == pytest.approx(2.424993, abs=1e-6)
    assert row["error/arc_easy"] == 1 - 0.6809764504432678
    assert row["error/average_17"] == pytest.approx(0.471637, abs=1e-6)
    assert 0.004 < row["loss_stderr/c4_val"] < 0.006


def test_gadre2024_marks_its_broken_records_and_no_others():
    table = gadre2024.everything().table
    marked = table[table["quarantine"] != ""].set_index("run")["quarantine"]
    assert len(marked) == 11
    assert marked["rpj-d=512_l=8_h=4-0.25"] == "warm-up of 400 steps in a run of 376"
    assert marked["rpj-open_lm_7b-1.0"].startswith("batch of 1 sequence; tokens do not match")
    assert marked["rw_original-d=576_l=24_h=8-4.0"].startswith("tokens do not match: 1.229e+10 said, 6.147e+09")
    paper = Testbed.read_csv(importers.shipped("gadre2024")).table["run"]
    assert set(paper) & set(marked.index) == {f"{corpus}-open_lm_7b-1.0" for corpus in gadre2024.CORPORA}


def test_the_table_that_comes_with_the_package_is_part_of_the_published_one():
    shipped = Testbed.read_csv(importers.shipped("gadre2024")).table
    published = gadre2024.everything().table.set_index("run").loc[shipped["run"]].reset_index()
    assert shipped.groupby(["corpus", "role"]).size().tolist() == [6, 2] * 3
    for column in shipped.columns.drop("quarantine"):
        assert shipped[column].tolist() == published[column].tolist(), column


def test_nothing_else_comes_with_the_package():
    assert importers.shipped("gadre2025") is None and importers.shipped("../testbed") is None


def test_olmo_ladder_has_runs_checkpoints_and_two_targets(shared):
    table = importers.read("olmo-ladder", shared / "testbeds" / "olmo_ladder2024" / "ladder-runs").table
    by_run = table.set_index("run")
    assert set(table["run"][table["role"] == "target"]) == {"7B-4T", "13B-5T"}
    assert by_run["tokens"]["13B-5T"] == 5000088518656 and by_run["tokens"]["7B-4T"] == 3945065873408
    assert by_run["params_non_embedding"]["190M-1xC"] == 190354176
    assert by_run["params"]["13B-5T"] == 13202396160 + 100352 * 5120
    # Published by the paper's own code, means of the last five checkpoints.
    assert 1 - by_run["error/mmlu_avg_test"]["13B-5T"] == pytest.approx(0.5161402368605137, abs=1e-9)
    assert 1 - by_run["error/hellaswag_val"]["13B-5T"] == pytest.approx(0.831905996799469, abs=1e-9)
    checkpoints = table[(table["role"] == "checkpoint") & table["run"].str.startswith("190M-2xC@")]
    assert len(checkpoints) == 73 - 8  # 10 % of 73, rounded up, are skipped
    assert by_run["loss/c4_en"]["190M-2xC"] == by_run["loss/c4_en"]["190M-2xC@14533"]


def test_chinchilla_keeps_240_of_245_points(shared):
    table = importers.read("chinchilla", shared / "testbeds" / "chinchilla2022" / "points.csv").table
    assert len(table) == 245 and (table["quarantine"] == "").sum() == 240
    assert table.nlargest(5, "loss/massivetext")["quarantine"].str.contains("Besiroglu").all()


def test_datablations_keeps_unique_tokens(shared):
    table = importers.read("datablations", shared / "testbeds" / "datablations2023" / "points.csv").table
    assert len(table) == 182 and (table["unique_tokens"] <= table["tokens"]).all()


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("chinchila", {}, "kind 'chinchila' is unknown; kinds are gadre2024"),
        ("gadre2024", {"x.json": "{}"}, "no models/*.json; give the exp_data folder"),
        ("gadre2024", {"models/x.json": "{"}, "models/x.json: not valid JSON"),
        ("olmo-ladder", {"x.csv": "a,b\n1,2\n"}, "no runs such as 190M-1xC.csv"),
        ("chinchilla", {"x.csv": "N,D\n1,2\n"}, "is a folder; give the CSV file"),
    ],
)
def test_what_is_not_that_testbed_is_refused(tmp_path, kind, files, message):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as error:
        importers.read(kind, tmp_path)
    assert message in str(error.value)


def test_missing_files_and_columns_are_named(tmp_path):
    (tmp_path / "points.csv").write_text("N,D\n1,2\n")
    with pytest.raises(ValueError, match="missing column loss; columns are N, D"):
        importers.read("chinchilla", tmp_path / "points.csv")
    with pytest.raises(ValueError, match="no such file or folder"):
        importers.read("chinchilla", tmp_path / "absent.csv")


def test_a_gadre_record_without_its_evaluations_is_one_clear_error(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "rpj-x.json").write_text(json.dumps({"name": "rpj-x"}))
    with pytest.raises(ValueError, match=r"evaluation_rpj-x_heavy.json: no such file"):
        importers.read("gadre2024", tmp_path)


SUBSET = _GADRE_SUBSET


@pytest.fixture
def own_run(tmp_path):
    """Writes a run of one's own in the layout of Gadre et al. 2024, changed; gives the folder."""

    def write(name="own", *, tasks=("hellaswag", "piqa"), changes=None, without=()):
        model = {
            "name": name,
            "dataset_name": "web",
            "hyperparameters": {
                **{"model": "m/x.json", "params": 10**8, "params_no_embed": 8 * 10**7, "tokens": 2 * 10**9},
                **{"global_bs": 512, "warmup": 100},
            },
            "open_lm_args": ["--train-num-samples", "1000000000", "--epochs", "2"],
            "results": [{"val_data": ["s/c4_val/x.tar"], "loss": 3.1, "loss_tokens_lower_95": 3.0,
                         "loss_tokens_upper_95": 3.2}],
        }  # fmt: skip
        for *way, last in without:
            tree = model
            for key in way:
                tree = tree[key]
            del tree[last]
        model |= changes or {}
        evaluation = {"eval_metrics": {"icl": {task: 0.25 + 0.01 * i for i, task in enumerate(tasks)}}}
        for path, tree in {f"models/{name}": model, f"evals/evaluation_{name}_heavy": evaluation}.items():
            (tmp_path / f"{path}.json").parent.mkdir(exist_ok=True)
            (tmp_path / f"{path}.json").write_text(json.dumps(tree))
        return tmp_path

    return write


def test_a_run_of_ones_own_in_that_layout_is_imported_as_far_as_it_goes(own_run):
    gone = [("open_lm_args",), ("hyperparameters", "warmup"), ("results", 0, "loss_tokens_lower_95")]
    own_run("bare", without=[*gone, ("hyperparameters", "params_no_embed"), ("hyperparameters", "global_bs")])
    table = importers.read("gadre2024", own_run()).table.set_index("run")
    assert table["loss/c4_val"].tolist() == [3.1, 3.1] and table["error/hellaswag"].tolist() == [0.75, 0.75]
    assert table["error/average"].tolist() == [0.745, 0.745] and "error/average_17" not in table
    assert table["loss_stderr/c4_val"]["own"] == pytest.approx(0.2 / 3.92) and pd.isna(table["steps"]["bare"])
    assert table["quarantine"].tolist() == ["", ""]


def test_averages_are_of_runs_that_have_all_of_their_tasks(own_run):
    own_run("a", tasks=SUBSET)
    own_run("b", tasks=SUBSET)
    own_run("few", tasks=SUBSET[:5])
    table = importers.read("gadre2024", own_run("more", tasks=(*SUBSET, "mine"))).table.set_index("run")
    whole = pytest.approx(0.67)
    for average in ("error/average", "error/average_17"):
        assert table[average].drop("few").tolist() == [whole] * 3 and pd.isna(table[average]["few"])


@pytest.mark.parametrize(
    ("without", "changes", "message"),
    [
        ([("name",)], {}, "own.json: no key name"),
        ([("results",)], {}, "own.json: no key results"),
        ([("hyperparameters", "params")], {}, "own.json: no key hyperparameters.params"),
        ([("results", 0, "loss")], {}, "own.json: no key results.0.loss"),
        ([("results", 0, "val_data")], {}, "own.json: no key results.0.val_data"),
        ([], {"hyperparameters": 7}, "own.json: no key hyperparameters.tokens"),
        (
            [],
            {"results": [{"val_data": ["a/b/c"], "loss": "low"}]},
            'results.0.loss: expected a number but found "low"',
        ),
        ([], {"results": 5}, "own.json: results: expected a list"),
    ],
)
def test_what_a_run_of_ones_own_must_have_is_refused_by_file_and_key(own_run, without, changes, message):
    with pytest.raises(ValueError) as error:
        importers.read("gadre2024", own_run(without=without, changes=changes))
    assert message in str(error.value) and "\n" not in str(error.value)


MEASURED = "eval/c4_en-validation/CrossEntropyLoss,eval/downstream/arc_rc_5shot_acc"
OLMO = f"_step,batch_size_in_tokens,learning_rate_peak,{MEASURED}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("530M-1xC", f"{OLMO}\n1,1000,1e-3,3,0.5\n", "530M-1xC.csv: how many parameters 530M has is not known"),
        ("190M-1xC", "_step,x\n1,2\n", "190M-1xC.csv: missing column batch_size_in_tokens"),
        ("190M-1xC", "batch_size_in_tokens,x\n1,2\n", "190M-1xC.csv: missing column _step"),
        ("190M-1xC", f"{OLMO}\n", "190M-1xC.csv: no rows"),
        ("190M-1xC", f"{OLMO}\n1,1000,1e-3,low,0.5\n", "Loss: 'low' is not a number"),
        ("190M-1xC", f"{OLMO}\n1,many,1e-3,3,0.5\n", "column batch_size_in_tokens: 'many' is not a number"),
    ],
)
def test_a_log_of_ones_own_that_cannot_be_read_is_refused_by_file_and_column(tmp_path, name, text, message):
    (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(ValueError) as error:
        importers.read("olmo-ladder", tmp_path)
    assert message in str(error.value) and f"{name}.csv" in str(error.value)


def test_a_log_of_other_tasks_is_imported_without_what_it_lacks(tmp_path):
    rows = "".join(f"{step},1000,1e-3,{4 - step / 100},{step / 100}\n" for step in range(1, 31))
    (tmp_path / "190M-1xC.csv").write_text(f"{OLMO}\n{rows}".replace("learning_rate_peak", "x"))
    table = importers.read("olmo-ladder", tmp_path).table
    assert table["error/arc"][0] == pytest.approx(1 - 0.28) and "error/mmlu_avg_val" not in table


def test_an_error_of_the_table_names_the_file(tmp_path):
    (tmp_path / "points.csv").write_text("N,D,loss\n0,2,3\n")
    with pytest.raises(ValueError, match=r"points.csv: column params, run 'chinchilla-000': 0: must be positive"):
        importers.read("chinchilla", tmp_path / "points.csv")
