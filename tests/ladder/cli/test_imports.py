"""`ladder import`: published testbeds and logs under one verb, and one line where they are mixed up."""

import pytest

from fitting.testbeds.testbed import Testbed

LOG = "step,loss\n1,3.5\n2,3.25\n"
MAPPED = ("--column", "loss/train=loss", "--params", "411e6")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(LOG)
    (tmp_path / "b.csv").write_text(LOG.replace("2,", "3,"))
    (tmp_path / "runs.csv").write_text("run,params,tokens,batch_size,loss/web\nr,1e8,2e9,1,3.1\n")
    (tmp_path / "runs.yaml").write_text("columns: {loss/train: loss}\ntokens_per_step: 9\nruns: {x: {params: 1e6}}\n")
    return tmp_path


def test_a_testbed_is_imported_with_its_broken_records_told(ladder_, here, capsys):
    ladder_("import", "csv", "runs.csv", "--out", "t.csv")
    assert Testbed.read_csv(here / "t.csv").table["quarantine"].tolist() == ["batch of 1 sequence"]
    assert capsys.readouterr().err == "quarantined: r, batch of 1 sequence\n1 runs: t.csv\n"


def test_logs_are_imported_and_what_was_done_is_told(ladder_, here, capsys):
    options = ("--tokens-per-step", "4194304", "--smooth", "loss/train=1e7", "--corpus", "c4")
    ladder_("import", "logs", "a.csv", "b.csv", *MAPPED, *options, "--out", "t.csv")
    table = Testbed.read_csv(here / "t.csv").table
    assert table["run"].tolist() == ["a", "a@1", "a@2", "b", "b@1", "b@3"]
    assert table["loss/train"][2] == 3.375 and (table["corpus"] == "c4").all() and (table["params"] == 411e6).all()
    *told, last = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in told] == ["a", "b"] and last == "2 runs and 4 checkpoints: t.csv"
    ladder_("import", "logs", "a.csv", "b.csv", *MAPPED, *options, "--run", "both", "--out", "t.csv")
    assert Testbed.read_csv(here / "t.csv").table["run"].tolist() == ["both", "both@1", "both@2", "both@3"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("csv", "a.csv", "runs.csv"), "csv is one file or folder, but 2 are given"),
        (
            ("csv", "runs.csv", "--params", "1e9"),
            "--params is of logs (wandb, tensorboard, logs), and csv is a table of",
        ),
        (("gadre2024", "x", "--column", "a=b"), "--column is of logs (wandb, tensorboard, logs), and gadre2024 is a"),
        (("logs", *MAPPED), "FILES are missing"),
        (("logs", "a.csv", "--column", "loss/train=loss"), "--params is missing"),
        (("logs", "a.csv", "--params", "1e9"), "no column is a loss or an error; say which is"),
        (("logs", "a.csv", *MAPPED), "--tokens-per-step 4194304"),
        (("logs", "a.csv", *MAPPED, "--tokens-per-step", "-1"), "tokens_per_step: "),
        (
            ("logs", "a.csv", "--params", "1e9", "--column", "loss"),
            "--column loss: write NAME=VALUE, such as loss/train=",
        ),
        (("logs", "a.csv", *MAPPED, "--column", "loss/train=x"), "--column loss/train: given twice, as loss and as x"),
        (("logs", "a.csv", *MAPPED, "--smooth", "loss/train"), "--smooth loss/train: write NAME=VALUE"),
        (("logs", "a.csv", *MAPPED, "--runs", "runs.yaml"), "--column belongs into runs.yaml, where --runs is given"),
        (("logs", "a.csv", "--runs", "runs.yaml"), "no run 'x' in the files, and it names none; runs are a"),
        (("logs", "--runs", "absent.yaml"), "absent.yaml: no such file"),
        (("logs", "absent.csv", *MAPPED), "absent.csv: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_imported_is_refused_in_one_line(ladder_, here, arguments, why):
    with pytest.raises(SystemExit) as exit_:
        ladder_("import", *arguments, "--out", "t.csv")
    assert exit_.value.code.startswith("ladder: ") and why in exit_.value.code and "\n" not in exit_.value.code
    assert not (here / "t.csv").exists()


def test_every_kind_that_can_be_imported_is_one_of_the_command_line():
    import typing

    from fitting.testbeds import importers
    from fitting.testbeds.logs import formats
    from ladder.cli import imports

    annotated = typing.get_type_hints(imports.import_)["kind"]
    assert {*typing.get_args(annotated)} == {*importers.KINDS, *formats.READERS}
