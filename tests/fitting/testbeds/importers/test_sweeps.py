"""Testbeds of sweeps come in as their authors' repositories hold them; the small files here are laid out as those."""

import json
import lzma
import pickle

import numpy as np
import pandas as pd
import pytest
from etils import epath

from fitting.methods import fit
from fitting.testbeds import importers
from fitting.testbeds.importers import porian

TASKS = ("arc:challenge", "arc:easy", "piqa")


@pytest.fixture
def gemstones(tmp_path):
    """Two shapes, two checkpoints each, of which one was not evaluated; `main` is the last step."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    steps = [(256, 23, 2385), (256, 23, 83475), (512, 11, 2385), (512, 11, 4770)]
    for name, shift in (("fineweb_edu", 0.0), ("fineweb_dclm", 0.25)):
        lines = [
            {
                "step": step,
                "final_loss": 3 + shift + 100 / step,
                "run_name": f"Gemstone-{w}x{d}",
                "width": w,
                "depth": d,
            }
            | {"tokens": step * 2**22, "params_active_precise": w * w * d * 30, "num_nodes": None}
            for w, d, step in steps
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}_losses_combined.jsonl").write_text(text)
    index = ["Gemstone-256x23-step_00002385", "Gemstone-256x23-main", "Gemstone-512x11-step_00002385"]
    pd.DataFrame(0.25, index, TASKS).assign(piqa=[0.5, 0.75, 0.5]).to_parquet(folder / "light_eval_df.parquet")
    pd.DataFrame(0.01, index, TASKS).assign(piqa=0.02).to_parquet(folder / "light_eval_df_err.parquet")
    return tmp_path


def test_gemstones_has_every_checkpoint_with_losses_errors_and_their_sampling_errors(gemstones):
    table = importers.read("gemstones", gemstones).table.set_index("run")
    assert list(table.index) == ["256x23@2385", "256x23@83475", "512x11@2385", "512x11@4770"]
    row = table.loc["256x23@83475"]
    assert row["params"] == 256 * 256 * 23 * 30 and row["tokens"] == 83475 * 2048 * 2048
    assert row["loss/fineweb_edu"] == 3 + 100 / 83475 and row["loss/dclm"] == 3.25 + 100 / 83475
    assert row["error/arc_challenge"] == 0.75 and row["error/piqa"] == 0.25 and row["error_stderr/piqa"] == 0.02
    assert row["error/average"] == pytest.approx((0.75 + 0.75 + 0.25) / 3)
    assert row["error_stderr/average"] == pytest.approx(np.sqrt(0.01**2 + 0.01**2 + 0.02**2) / 3)
    assert np.isnan(table["error/average"]["512x11@4770"]) and row["width"] == 256 and row["depth"] == 23


def test_a_gemstones_file_that_is_no_such_says_where(gemstones):
    broken = gemstones / "benchmarks" / "fineweb_dclm_losses_combined.jsonl"
    broken.write_text(broken.read_text().replace('"step"', '"steps"', 1))
    with pytest.raises(
        ValueError, match=r"fineweb_dclm_losses_combined\.jsonl: line 1: not a checkpoint's loss: 'step'"
    ):
        importers.read("gemstones", gemstones)


def _column_names(frame):
    """Names as they were before pandas 3 had a type for them."""
    return frame.set_axis(pd.Index(list(frame.columns), dtype=object), axis=1)


def _summary():
    """Two settings of validation losses and one of the reproduction of Kaplan et al."""
    rows = []
    for hparams, decay, count, val in (
        ("base", "kaplan", "kaplan", "train"),
        ("base", "chinchilla", "standard", "val"),
        ("tuned", "const", "standard", "val"),
    ):
        budgets = {
            "flops": [1e16, 2e16],
            "orig_n": [np.array([5e6, 1e7]), np.array([5e6])],
            "orig_t": [np.array([1e16 / 3e7, 1e16 / 6e7]), np.array([2e16 / 3e7])],
            "orig_loss": [np.array([4.5, 4.4]), np.array([4.3])],
        }
        data = _column_names(pd.DataFrame(budgets))
        setting = {"dataset": "rw", "hparams": hparams, "warmup": "short", "decay": decay, "param_count": count}
        rows.append(setting | {"val": val, "data": data})
    return _column_names(pd.DataFrame(rows).astype(object))


def _write(path, what):
    with lzma.open(path, "wb") as file:
        pickle.dump(what, file, protocol=4)


def test_porian_has_every_setting_of_validation_losses(tmp_path):
    (tmp_path / "data").mkdir()
    _write(tmp_path / "data" / "summary_df.pickle.xz", _summary())
    for path in (tmp_path, tmp_path / "data", tmp_path / "data" / "summary_df.pickle.xz"):
        testbed = importers.read("porian", path)
    assert len(testbed.table) == 6
    tuned = testbed.table[testbed.select("hparams == 'tuned'")].set_index("run")
    assert list(tuned.index) == [f"rw-tuned-short-const-{x}" for x in ("5M-1e+16", "10M-1e+16", "5M-2e+16")]
    assert tuned["loss/refinedweb"].tolist() == [4.5, 4.4, 4.3] and set(tuned["corpus"]) == {"refinedweb"}
    assert tuned["flops"].tolist() == [1e16, 1e16, 2e16]
    assert (6 * tuned["params"] * tuned["tokens"]).tolist() == pytest.approx(tuned["flops"].tolist())


class _Runs:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (_Runs(), "it holds builtins.print, which is no part of a table"),
        (pd.DataFrame({"x": [_Runs()]}), "it holds builtins.print, which is no part of a table"),
        (epath.Path, "which is no part of a table"),
        ({"a": 1}, "not a table, but dict"),
    ],
)
def test_a_pickle_that_is_more_than_a_table_is_refused_before_it_runs(tmp_path, capfd, what, message):
    what = _column_names(what) if isinstance(what, pd.DataFrame) else what
    _write(tmp_path / "summary_df.pickle.xz", what)
    with pytest.raises(ValueError) as error:
        porian.read_frame(tmp_path / "summary_df.pickle.xz")
    assert message in str(error.value) and "summary_df.pickle.xz" in str(error.value)
    assert "this ran" not in capfd.readouterr().out


def test_a_damaged_pickle_is_one_clear_error(tmp_path):
    _write(tmp_path / "whole", _summary())
    whole = lzma.decompress((tmp_path / "whole").read_bytes())
    (tmp_path / "torn").write_bytes(lzma.compress(whole[: len(whole) // 2]))
    (tmp_path / "plain").write_bytes(whole)
    with pytest.raises(ValueError, match="torn: not a pickled table"):
        porian.read_frame(tmp_path / "torn")
    with pytest.raises(ValueError, match="plain: not compressed by xz"):
        porian.read_frame(tmp_path / "plain")
    with pytest.raises(ValueError, match="not a summary of the paper's experiments: no 'param_count'"):
        _write(tmp_path / "other", _column_names(pd.DataFrame({"x": [1.0]})))
        importers.read("porian", tmp_path / "other")


@pytest.mark.parametrize("layout", ["clone", "folder", "files"])
def test_farseer_is_read_from_a_clone_its_folder_or_its_files(tmp_path, layout):
    inside = {"clone": "benchmark/dataset/farseer_scaling_law", "folder": "farseer_scaling_law", "files": "."}[layout]
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    names = "farseer.{}.parquet" if layout == "files" else "{}-00000-of-00001.parquet"
    rungs = pd.DataFrame({"group": "all_data", "N": [1e8, 1e8, 2e8], "D": [2e9, 2e9, 4e9], "loss": [0.7, 0.71, 0.65]})
    rungs.to_parquet(folder / names.format("train"))
    rungs.iloc[2:].assign(N=1e10, loss=0.45).to_parquet(folder / names.format("test"))
    table = importers.read("farseer", tmp_path).table
    assert table["run"].tolist() == ["100M-2B", "100M-2B-2", "200M-4B", "10000M-4B"]
    assert table["role"].tolist() == ["rung"] * 3 + ["target"] and table["bpb/val"].tolist() == [0.7, 0.71, 0.65, 0.45]
    assert (table["params"] == table["params_non_embedding"]).all()


def test_steplaw_is_a_sweep_of_which_the_best_of_each_size_is_fitted(tmp_path):
    sweep = [(n, d, lr, bs) for n in (1e8, 2e8, 4e8) for d in (2e9, 8e9) for lr in (1e-3, 2e-3) for bs in (64.0, 128.0)]
    runs = pd.DataFrame(sweep, columns=["non_embedding_param_size", "data_size", "lr", "bsz"])
    loss = 1.5 + 1e3 / runs["non_embedding_param_size"] ** 0.4 + 1e3 / runs["data_size"] ** 0.35
    runs["lm_loss"] = loss + 100 * (runs["lr"] - 1e-3) + (runs["bsz"] - 64) / 1000
    runs.to_parquet(tmp_path / "lr_bsz.train.parquet")
    runs.assign(non_embedding_param_size=1e9, lm_loss=2.0).iloc[:1].to_parquet(tmp_path / "lr_bsz.test.parquet")
    testbed = importers.read("steplaw", tmp_path)
    assert testbed.table["run"][0] == "100M-2B-lr0.001-b64" and len(testbed.table) == 25
    assert testbed.table["batch_size"].tolist()[:2] == [64, 128]
    law = fit(testbed, loss="train", best_of_size=True)
    assert len(law.loss.points) == 6 and all(point.run.endswith("lr0.001-b64") for point in law.loss.points)


def test_half_a_benchmark_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"no benchmark/dataset/farseer_scaling_law/train.*give a clone of github\.com/Planar"
    ):
        importers.read("farseer", tmp_path)


def test_marin_isoflops_are_told_apart_by_corpus_and_runs_without_a_loss_are_left_out(tmp_path):
    raw = tmp_path / "data" / "isoflops" / "extract" / "marin_202603" / "raw"
    raw.mkdir(parents=True)
    header = '"Name","parameter_count","throughput/total_tokens","eval/paloma/macro_loss","model.hidden_dim"\n'
    (raw / "isoflop-dclm.csv").write_text(header + '"a","156508160","4304928768","3.83","512"\n"b","2e8","","","640"\n')
    (raw / "isoflop-comma.csv").write_text(header + '"c","156508160","4304928768","3.97","512"\n')
    table = importers.read("marin-isoflops", tmp_path).table
    assert table[["run", "corpus", "params", "loss/paloma_macro", "width"]].to_numpy().tolist() == [
        ["c", "comma", 156508160, 3.97, 512],
        ["a", "dclm", 156508160, 3.83, 512],
    ]
    assert importers.read("marin-isoflops", raw / "isoflop-dclm.csv").table["run"].tolist() == ["a"]
    with pytest.raises(ValueError, match=r"no isoflop-<corpus>\.csv"):
        importers.read("marin-isoflops", tmp_path / "data")
