"""Logs are read as programs write them (`files/make.py` had them do so); what is no such log is refused clearly."""

import importlib.util
import pathlib
import shutil
import sys

import numpy as np
import pytest
from etils import epath

from fitting.testbeds.logs import formats

FILES = epath.Path(pathlib.Path(__file__).parent / "files")
NEEDS_TENSORBOARD = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="event files are read with tensorboard"
)
NEEDS_WANDB = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason=".wandb files are read with wandb")


def loss_nats(step):
    """What `make.py` logged."""
    return 2 + 2 / step**0.5


def _only(found):
    (steps,) = found
    return steps


def _cells(steps, column):
    """By step, what was logged in a column."""
    there = steps.table[steps.table[column].notna()]
    return dict(zip(there[next(n for n in there if n.lower().endswith("step"))], there[column], strict=True))


@NEEDS_TENSORBOARD
def test_scalars_of_tensorboards_own_writer():
    steps = _only(formats.tensorboard(FILES / "simple", {"step", "train/loss", "eval/c4"}))
    assert steps.run == "simple" and steps.columns == ("step", "train/loss", "eval/c4") and not steps.remarks
    assert steps.table["step"].tolist() == [10, 20, 30, 40, 50, 60, 60, 70, 80, 90, 100]
    assert _cells(steps, "train/loss")[60] == pytest.approx(loss_nats(60), rel=1e-7)
    assert _cells(steps, "eval/c4") == pytest.approx({50: loss_nats(50) + 0.1, 100: loss_nats(100) + 0.1}, rel=1e-7)


@NEEDS_TENSORBOARD
def test_scalars_of_tensorflow_2_without_its_texts_and_histograms():
    steps = _only(formats.tensorboard(FILES / "tensors", {"step", "tokens", "loss_nats", "note", "weights"}))
    assert steps.columns == ("step", "tokens", "loss_nats")
    assert _cells(steps, "tokens") == {step: step * 1024 for step in range(10, 51, 10)}
    assert _cells(steps, "loss_nats") == pytest.approx({s: loss_nats(s) for s in range(10, 51, 10)}, rel=1e-7)


@NEEDS_TENSORBOARD
def test_event_files_are_read_without_tensorflow(monkeypatch):
    for module in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, module)
    formats.tensorboard(FILES / "tensors", {"loss_nats"})
    assert "tensorflow" not in sys.modules


@NEEDS_TENSORBOARD
def test_every_folder_of_event_files_is_a_run_and_so_are_those_of_one_file(tmp_path):
    for name in ("w64", "w128/tb"):
        shutil.copytree(FILES / "simple", tmp_path / name)
    (tmp_path / "w128" / "notes.txt").write_text("no event file")
    found = formats.tensorboard(epath.Path(tmp_path), {"step", "train/loss"})
    assert [steps.run for steps in found] == ["w128/tb", "w64"]
    part = sorted((tmp_path / "w64").iterdir())[1]
    steps = _only(formats.tensorboard(epath.Path(part), {"step", "train/loss"}))
    assert steps.run == "w64" and steps.table["step"].tolist() == [60, 70, 80, 90, 100]


@NEEDS_TENSORBOARD
@pytest.mark.parametrize(("lost", "zeros"), [(1, 0), (20, 0), (150, 0), (0, 50)])
def test_an_event_file_that_is_still_written_is_read_to_there_and_it_is_told(tmp_path, lost, zeros):
    whole = sorted((FILES / "simple").iterdir())[1].read_bytes()
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(whole[: len(whole) - lost] + bytes(zeros))
    steps = _only(formats.tensorboard(epath.Path(path), {"step", "train/loss"}))
    assert 1 <= len(steps.table) <= 5 and "is cut off" in steps.remarks[0]


@NEEDS_WANDB
def test_wandbs_own_file_and_its_folder():
    wanted = {"_step", "train/loss", "tokens", "eval.c4", "weights"}
    for path in (FILES / "offline", FILES / "offline" / "run-0a1b2c3d.wandb"):
        steps = _only(formats.wandb(path, wanted))
        assert (steps.run, steps.identity) == ("w64", "0a1b2c3d")
        assert {"train/loss", "tokens", "eval.c4", "_step", "_timestamp"} <= set(steps.columns)
        losses = {step: loss_nats(step) for step in range(10, 51, 10)} | {30: np.inf}
        assert _cells(steps, "train/loss") == losses
        assert _cells(steps, "eval.c4") == {step: loss_nats(step) + 0.1 for step in (20, 40)}


@NEEDS_WANDB
@pytest.mark.parametrize("zeros", [0, 50])
def test_a_wandb_file_that_is_still_written_is_read_to_there_and_it_is_told(tmp_path, zeros):
    whole = (FILES / "offline" / "run-0a1b2c3d.wandb").read_bytes()
    (tmp_path / "run.wandb").write_bytes(whole[: len(whole) // 2] + bytes(zeros))
    steps = _only(formats.wandb(epath.Path(tmp_path / "run.wandb"), {"_step", "train/loss"}))
    assert 1 <= len(steps.table) < 5 and "is cut off" in steps.remarks[0]


@NEEDS_WANDB
def test_wandbs_own_file_of_many_blocks_as_it_is_written_today(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    settings = wandb.Settings(x_disable_meta=True, x_disable_stats=True, disable_git=True, console="off")
    run = wandb.init(project="ladder", name="long", mode="offline", dir=str(tmp_path), settings=settings)
    for step in range(1, 701):
        run.log({"train/loss": loss_nats(step), "note": "x" * (90_000 if step == 300 else 50)}, step=step)
    run.finish()
    wandb.teardown()  # finishing does not wait for the file
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    steps = _only(formats.wandb(epath.Path(path), {"_step", "train/loss"}))
    assert path.stat().st_size > 5 * 32768 and steps.run == "long" and not steps.remarks
    assert _cells(steps, "train/loss") == {step: loss_nats(step) for step in range(1, 701)}


def test_an_exported_history_has_the_same_as_the_run_it_is_of():
    steps = _only(formats.wandb(FILES / "history.jsonl", {"_step", "train/loss", "eval.c4", "tokens"}))
    assert steps.run == "history"
    assert _cells(steps, "train/loss") == {step: loss_nats(step) for step in range(10, 51, 10)} | {30: np.inf}
    assert _cells(steps, "eval.c4") == {step: loss_nats(step) + 0.1 for step in (20, 40)}


def test_a_history_saved_by_pandas_has_an_index_and_empty_cells(tmp_path):
    path = epath.Path(tmp_path / "history.csv")
    path.write_text(",_step,train/loss,_timestamp,eval\n0,10,2.5,1.7,\n1,20,NaN,1.8,2.6\n")
    steps = _only(formats.wandb(path, {"_step", "train/loss", "eval"}))
    assert _cells(steps, "train/loss") == {10: 2.5, 20: np.inf} and _cells(steps, "eval") == {20: 2.6}


def test_an_exported_chart_has_a_run_a_column_whatever_their_names():
    second, wide = formats.wandb(FILES / "chart.csv", {"Step", "train/loss"})
    assert (second.run, wide.run) == ("w64 - second try", "w128")
    assert second.columns == ("Step", "train/loss", "train/loss__MIN", "train/loss__MAX")
    assert _cells(second, "train/loss") == {step: round(loss_nats(step), 6) for step in range(10, 51, 10)}
    assert _cells(wide, "train/loss") == {step: round(loss_nats(step) - 0.2, 6) for step in (20, 40, 60)}


def test_a_charts_run_has_the_metrics_it_logged(tmp_path):
    path = epath.Path(tmp_path / "chart.csv")
    path.write_text('"Step","a - loss","a - val - loss","b - loss","b - loss__MIN"\n1,2,3,4,4\n')
    a, b = formats.wandb(path, {"Step", "loss", "val - loss"})
    assert a.columns == ("Step", "loss", "val - loss") and a.table.loc[0].tolist() == [1, 2, 3]
    assert b.columns == ("Step", "loss", "loss__MIN") and b.table.loc[0].tolist() == [1, 4]


def test_a_chart_over_another_axis_has_its_steps_beside_it(tmp_path):
    path = epath.Path(tmp_path / "chart.csv")
    path.write_text(
        '"epoch","a - _step","a - _step__MIN","a - loss","a - loss__MIN"\n0.5,10,10,3.5,3.5\n1,20,20,3.25,3.2\n'
    )
    steps = _only(formats.wandb(path, {"_step", "loss"}))
    assert (
        steps.columns[:2] == ("epoch", "_step")
        and "loss" in steps.columns
        and _cells(steps, "loss") == {10: 3.5, 20: 3.25}
    )


def test_a_table_of_many_runs_names_them_in_its_column_run(tmp_path):
    for name, text in {
        "runs.csv": "run,step,loss\n007,1,3.5\nb,1,3\n007,2,3.25\n",
        "runs.jsonl": '{"run":"007","step":1,"loss":3.5}\n{"run":"b","step":1,"loss":3}\n'
        '{"run":"007","step":2,"loss":3.25}\n',
    }.items():
        (tmp_path / name).write_text(text)
        first, second = formats.plain(epath.Path(tmp_path / name), {"step", "loss"})
        assert (first.run, second.run) == ("007", "b")
        assert _cells(first, "loss") == {1: 3.5, 2: 3.25} and _cells(second, "loss") == {1: 3}


def test_json_lines_may_end_in_half_a_line(tmp_path):
    path = epath.Path(tmp_path / "log.jsonl")
    path.write_text('{"step": 1, "loss": 3.5, "lr": null}\n\n{"step": 2, "loss": NaN}\n{"step": 3, "lo')
    steps = _only(formats.plain(path, {"step", "loss"}))
    assert _cells(steps, "loss") == {1: 3.5, 2: np.inf} and "is cut off" in steps.remarks[0]
    assert steps.columns == ("step", "loss", "lr")


def test_numbers_are_read_as_they_are_written(tmp_path):
    losses = np.random.default_rng(0).uniform(2, 3, 200).tolist()
    (tmp_path / "log.csv").write_text("step,loss\n" + "".join(f"{i},{v!r}\n" for i, v in enumerate(losses)))
    read = _only(formats.plain(epath.Path(tmp_path / "log.csv"), {"loss"})).table["loss"]
    np.testing.assert_allclose(read, losses, rtol=3e-16)  # a last bit, by pandas's parser


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("logs", b"", "log: an empty file"),
        ("logs", b"  \n", "log: an empty file"),
        ("logs", b"step,loss\n", "log: no rows; columns are step, loss"),
        ("logs", b"step,loss\n1,2,3\n4\n5,6,7,8\n", "log: not a table of comma-separated values"),
        ("logs", b"step,loss\n1,2\n3,4,5\n", "log: not a table of comma-separated values"),
        ("logs", b"step,loss\n1,high\n", "log: column loss: 'high' is not a number"),
        ("logs", b'{"step": 1, "loss": "high"}\n', "log: column loss: 'high' is not a number"),
        ("logs", b'[{"step": 1, "loss": 2}]', "log: a JSON array; write one row a line"),
        ("logs", b'{"step": 1}\n[2]\n', "log: '[2]' is no row of JSON lines"),
        ("logs", b'{"step": 1\n{"step": 2}\n', "log: '{\"step\": 1' is no row of JSON lines"),
        ("logs", b"run,step,loss\na,1,2\n,2,3\n", "its column run is empty in a row"),
        ("logs", b"\x80\x81\xff\x00", "log: not a text file"),
        ("wandb", b"\x80\x81\xff\x00", "log: not a text file"),
        ("logs", b":W&B\xe1\xbe\x00", "log: a file of W&B's own, which is of kind wandb"),
        ("wandb", "EVENTS", "log: a TensorBoard event file, which is of kind tensorboard"),
        pytest.param("tensorboard", b"step,loss\n1,2\n", "log: no TensorBoard event file", marks=NEEDS_TENSORBOARD),
        pytest.param("tensorboard", b"", "log: an empty file", marks=NEEDS_TENSORBOARD),
        pytest.param("tensorboard", "BROKEN", "its record 3 is broken", marks=NEEDS_TENSORBOARD),
        pytest.param("tensorboard", "NOTHING", "without a scalar", marks=NEEDS_TENSORBOARD),
        pytest.param("wandb", b":W&B\xe1\xbe\x00", "log: nothing was logged in this run", marks=NEEDS_WANDB),
    ],
)
def test_what_is_no_such_log_is_refused_in_a_line(tmp_path, kind, content, message):
    whole = sorted((FILES / "simple").iterdir())[0].read_bytes()
    first = 16 + int.from_bytes(whole[:8], "little")
    second = first + 16 + int.from_bytes(whole[first : first + 8], "little")
    made = {
        "EVENTS": whole,
        "BROKEN": whole[: second + 12] + b"\xff" * 8 + whole[second + 20 :],
        "NOTHING": whole[:first],
    }
    (tmp_path / "log").write_bytes(made.get(content, content))
    with pytest.raises(ValueError) as error:
        formats.READERS[kind](epath.Path(tmp_path / "log"), {"step", "loss", "train/loss"})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("logs", "is a folder; give the files in it"), ("wandb", "no .wandb file"), ("tensorboard", "no event files")],
)
def test_a_folder_without_logs_is_refused(tmp_path, kind, message):
    with pytest.raises(ValueError, match=message):
        formats.READERS[kind](epath.Path(tmp_path), {"step"})


@pytest.mark.parametrize("kind", formats.READERS)
def test_a_file_that_is_not_there_is_refused(tmp_path, kind):
    if kind == "tensorboard":
        pytest.importorskip("tensorboard", reason="event files are read with tensorboard")
    with pytest.raises(ValueError, match=r"absent: no such file"):
        formats.READERS[kind](epath.Path(tmp_path / "absent"), {"step"})


@pytest.mark.parametrize(
    ("kind", "module", "path"),
    [("tensorboard", "tensorboard", "simple"), ("wandb", "wandb", "offline/run-0a1b2c3d.wandb")],
)
def test_a_library_that_is_not_installed_is_named(monkeypatch, kind, module, path):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"{module}.* is not installed: pip install 'scaling-ladder\[watch\]'"):
        formats.READERS[kind](FILES / path, {"step"})
