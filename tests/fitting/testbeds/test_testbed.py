"""The meeting point of training and fitting: what goes in comes out, and what is no testbed is refused clearly."""

import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitting.testbeds.testbed import Measurement, RunRecord, Testbed


def _record(run="a", **changes) -> RunRecord:
    record = {
        "run": run,
        "role": "rung",
        "corpus": "pile",
        "model": "d16",
        "params": 1000,
        "params_non_embedding": 600,
        "tokens": 20_000,
        "token_multiplier": 20.0,
        "flops": 1.2e8,
        "losses": {"code": Measurement(2.5, 0.01)},
        "errors": {"recall": Measurement(0.5, 0.03), "order": Measurement(0.7, 0.04)},
        "chance_errors": {"recall": 0.75, "order": 0.75},
        "quarantine": "",
    }
    return RunRecord(**(record | changes))


def _csv(tmp_path, text):
    path = tmp_path / "testbed.csv"
    path.write_text(text)
    return path


def test_record_survives_json(tmp_path):
    record = _record(losses={"code": Measurement(2.5)}, quarantine="loss was NaN at step 3")
    record.save(tmp_path / "record.json")
    loaded = RunRecord.load(tmp_path / "record.json")
    assert math.isnan(loaded.losses["code"].stderr)
    assert loaded.errors == record.errors and loaded.quarantine == record.quarantine and loaded.params == 1000


def test_columns_are_named_and_ordered_as_documented():
    assert list(Testbed.from_records([_record()]).table) == [
        *("run", "role", "corpus", "model", "params", "params_non_embedding", "tokens", "token_multiplier", "flops"),
        *("loss/code", "loss_stderr/code", "error/recall", "error_stderr/recall", "error/order", "error_stderr/order"),
        *("error/average", "error_stderr/average", "quarantine"),
    ]


def test_average_error_is_the_mean_over_tasks_with_its_standard_error():
    row = Testbed.from_records([_record()]).table.iloc[0]
    assert row["error/average"] == pytest.approx(0.6)
    assert row["error_stderr/average"] == pytest.approx(0.05 / 2)


def test_a_run_without_all_tasks_has_no_average():
    table = Testbed.from_records([_record("a"), _record("b", errors={"recall": Measurement(0.5, 0.1)})]).table
    assert math.isnan(table["error/average"][1]) and not math.isnan(table["error/average"][0])


@settings(max_examples=30)
@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=5), st.integers(1, 2**53))
def test_floats_and_integers_survive_the_file_to_the_last_bit(losses, params):
    records = [_record(f"r{i}", params=params, losses={"x": Measurement(v)}) for i, v in enumerate(losses)]
    testbed = Testbed.from_records(records)
    again = Testbed(_parsed(testbed.to_csv()))
    assert again.table["loss/x"].tolist() == losses
    assert again.table["params"].tolist() == [params] * len(losses)
    assert again.to_csv() == testbed.to_csv() and again.sha256 == testbed.sha256


def _parsed(text):
    import io

    import pandas as pd

    return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)


def test_names_that_look_like_numbers_or_nothing_stay_names(tmp_path):
    testbed = Testbed.from_records([_record("007"), _record("NA"), _record("1e5")])
    testbed.write_csv(tmp_path / "t.csv")
    assert Testbed.read_csv(tmp_path / "t.csv").table["run"].tolist() == ["007", "NA", "1e5"]
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_foreign_table_needs_only_run_params_and_tokens(tmp_path):
    table = Testbed.read_csv(
        _csv(tmp_path, "run,params,tokens,loss/web,note\na,1e9,2e10,2.5,hello\nb,2e9,,3,\n".replace(",,", ",4e10,"))
    ).table
    assert table["role"].tolist() == ["rung", "rung"]
    assert table["token_multiplier"].tolist() == [20.0, 20.0]
    assert table["flops"][0] == 6 * 1e9 * 2e10
    assert table["quarantine"].tolist() == ["", ""]
    assert table["note"].tolist() == ["hello", ""]


@pytest.mark.parametrize(
    "text",
    [
        "run,params,tokens\n\na,1e9,2e10\n\n\nb,2e9,4e10\n\n",
        "run,params,tokens\n,,\na,1e9,2e10\n , ,\nb,2e9,4e10\n,,\n",
        "\ufeffrun,params,tokens\r\na,1e9,2e10\r\nb,2e9,4e10\r\n",
        ' run , params,tokens \n a ,1e9 , 2e10\n"b",2e9,"4e10"\n',
        ",run,params,tokens,\n0,a,1e9,2e10,\n1,b,2e9,4e10,\n",
        "run,params,tokens\na,1e9,2e10,,\nb,2e9,4e10,\n",
    ],
    ids=["blank lines", "blank rows", "of a spreadsheet", "with blanks", "with an index", "with commas at the end"],
)
def test_what_says_nothing_in_a_table_is_left_out(tmp_path, text):
    table = Testbed.read_csv(_csv(tmp_path, text)).table
    assert table[["run", "role", "params", "tokens"]].to_numpy().tolist() == [
        ["a", "rung", 1e9, 2e10],
        ["b", "rung", 2e9, 4e10],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,params\na,1\n", "missing column tokens; columns are run, params"),
        ("run,params,tokens\n", "no runs"),
        ("", "not a table"),
        ("run,params,tokens\na,1,2\na,1,3\n", "run named twice: a"),
        ("run,params,tokens\na,0,2\n", "column params, run 'a': 0: must be positive"),
        ("run,params,tokens\na,1,-2\n", "column tokens, run 'a': -2: must be positive"),
        ("run,params,tokens\na,1,\n", "column tokens, run 'a': nan: must be positive"),
        (
            "run,params,tokens,error/x\na,1,2,43\n",
            "column error/x, run 'a': 43: an error is a fraction, 0 to 1, not percent",
        ),
        ("run,params,tokens,error_stderr/x\na,1,2,0.9\n", "0.9: the standard error of a fraction is at most 0.5"),
        ("run,params,tokens,loss_stderr/x\na,1,2,-1\n", "-1: a standard error is finite and not negative"),
        ("run,params,tokens\na,1,inf\n", "column tokens, run 'a': inf: must be positive and finite"),
        ("run,params,tokens\na,1B,2\n", "column params, run 'a': '1B' is not a number: write it out, such as 400e6"),
        ('run,params,tokens\na,"1,000,000",2\n', "'1,000,000' is not a number: write it without thousands separators"),
        ("run,params,tokens\na,1 000 000,2\n", "'1 000 000' is not a number: write it without thousands separators"),
        ("run,params,tokens\na,1.000.000,2\n", "'1.000.000' is not a number: write it without thousands separators"),
        ('run,params,tokens,loss/x\na,1,2,"2,5"\n', "'2,5' is not a number: write it without thousands separators and"),
        ("run,params,tokens\na,1,000,2\n", "line 2 has 4 cells and the header 3: write numbers without commas"),
        ("run,params,tokens,error/x\na,1,2,45%\n", "'45%' is not a number: write a fraction, such as 0.45"),
        ("run;params;tokens\na;1;2\n", "its columns are separated by ';': write commas"),
        ("run\tparams\ttokens\na\t1\t2\n", "its columns are separated by '\\t'"),
        ("# r\nrun,params,tokens\na,1,2\nrun,params,tokens\nb,1,2\n", "line 4 is the header again; remove it"),
        ("run,params,tokens,params\na,1,2,3\n", "column params is there twice"),
        ('run,params,tokens\n"a,1,2\n', "line 2: not a table of comma-separated values: unexpected end of data"),
        (
            "run,params,tokens,loss/x\na,1,2,-3\n",
            "-3: a loss must be positive and finite; it is minus a log likelihood",
        ),
        ("run,params,tokens,error/x\na,1,2,43\n", "an error is a fraction, 0 to 1, not percent: divide by 100"),
        ("run,params,tokens,loss/x\na,1,2,0\n", "column loss/x, run 'a': 0: a loss must be positive"),
        ("run,params,tokens,loss/x\na,1,2,diverged\n", "column loss/x, run 'a': 'diverged' is not a number"),
        ("run,params,tokens,error/x\na,1,2,45\n", "column error/x, run 'a': 45: an error is a fraction"),
        ("run,role,params,tokens\na,big,1,2\n", "role 'big' of run 'a': it is rung, target or checkpoint"),
    ],
)
def test_what_is_no_testbed_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        Testbed.read_csv(_csv(tmp_path, text))
    assert message in str(error.value) and "testbed.csv" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "run,params,tokens\na,{long},2\n",
        "run,params,tokens,loss/x\n{long},1,2,-3\n",
        "run,params,tokens\n{long},1,2\n{long},1,2\n",
        "run,role,params,tokens\n{long},{long},1,2\n",
        "{long}\na\n",
        "{long},{long}\n1,2\n",
    ],
)
def test_a_table_that_is_refused_is_not_printed_whole(tmp_path, text):
    path = _csv(tmp_path, text.format(long="word " * 20_000))
    with pytest.raises(ValueError) as error:
        Testbed.read_csv(path)
    assert len(str(error.value)) < 400 + len(str(path)) and "\n" not in str(error.value)


def test_a_selection_that_is_refused_is_not_printed_whole():
    for expression in ("params > " + "9" * 100_000, "word " * 50_000, "@" * 50_000):
        with pytest.raises(ValueError) as error:
            Testbed.from_records([_record()]).select(expression)
        assert len(str(error.value)) < 800


def test_no_file_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        Testbed.read_csv(tmp_path / "absent.csv")


def test_select_takes_a_pandas_query():
    testbed = Testbed.from_records([_record("a"), _record("b", token_multiplier=320.0), _record("c", role="target")])
    assert testbed.select("role == 'rung' and token_multiplier <= 100").tolist() == [True, False, False]
    assert testbed.select("`loss/code` > 2").tolist() == [True, True, True]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("token_multiplier > 1e9", "holds for none of the 1 runs"),
        ("role = 'rung'", "not a valid row selection"),
        ("size > 3", "not a valid row selection"),
        ("params +", "not a valid row selection"),
        ("@__import__('os').getcwd() == ''", "variables (@) cannot be used"),
    ],
)
def test_a_bad_selection_is_one_clear_error(expression, message):
    with pytest.raises(ValueError) as error:
        Testbed.from_records([_record()]).select(expression)
    assert message in str(error.value)


def test_a_product_of_whole_numbers_in_a_selection_does_not_overflow():
    """6ND of the largest is 2.5e23, and 64 bits hold 9.2e18: it would come out as any number."""
    sizes = [(10**8, 2 * 10**9), (7 * 10**9, 6 * 10**12), (3 * 10**9, 2 * 10**11)]
    testbed = Testbed.from_records([_record(f"r{i}", params=n, tokens=d) for i, (n, d) in enumerate(sizes)])
    assert testbed.table["params"].dtype == int
    assert testbed.select("6 * params * tokens < 5e19").tolist() == [True, False, False]
    assert testbed.select("params == 7000000000").tolist() == [False, True, False]


def test_whole_numbers_beyond_64_bits_are_floats(tmp_path):
    testbed = Testbed.read_csv(_csv(tmp_path, f"run,params,tokens,flops\na,1e9,2e10,{12 * 10**22}\nb,1e9,1e10,6\n"))
    assert testbed.table["flops"].tolist() == [1.2e23, 6.0]
    assert testbed.select("2 * flops > 1e23").tolist() == [True, False]


def test_a_column_of_numbers_that_no_schema_knows_is_one_of_numbers(tmp_path):
    text = "run,params,tokens,few,seed,note,tag,blank,ok\na,1e9,2e10,1,0.5,x,1_2,,True\nb,2e9,4e10,0,,7,3,,False\n"
    testbed = Testbed.read_csv(_csv(tmp_path, text))
    assert testbed.select("few == 1").tolist() == [True, False]
    assert testbed.select("seed < 1").tolist() == [True, False]
    assert testbed.select("note == '7' and tag == '3' and blank == ''").tolist() == [False, True]
    assert testbed.select("ok").tolist() == testbed.select("ok == True").tolist() == [True, False]
    assert Testbed(_parsed(testbed.to_csv())).to_csv() == testbed.to_csv()


def test_n_and_d_are_params_and_tokens_where_no_column_is_named_so(tmp_path):
    table = Testbed.read_csv(_csv(tmp_path, "run,N,D\na,1e9,2e10\n")).table
    assert table[["params", "tokens", "flops"]].to_numpy().tolist() == [[1e9, 2e10, 1.2e20]]
    both = Testbed.read_csv(_csv(tmp_path, "run,N,params,D\na,8e8,1e9,2e10\n")).table
    assert both["params"].tolist() == [1e9] and both["N"].tolist() == [8e8]


def test_a_table_in_parquet_is_the_same_as_in_csv(tmp_path):
    text = "run,params,tokens,loss/web,note\na,1000000000,20000000000,2.5,\nb,2000000000,40000000000,,x\n"
    as_csv = Testbed.read(_csv(tmp_path, text))
    typed = as_csv.table.astype({"params": "Int64"}).replace({"note": {"": None}})
    typed.to_parquet(tmp_path / "testbed.parquet")
    assert Testbed.read(tmp_path / "testbed.parquet").table["loss/web"].tolist()[0] == 2.5
    assert Testbed.read(tmp_path / "testbed.parquet").table["params"].tolist() == [1e9, 2e9]
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "testbed.parquet").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"torn\.parquet: not a Parquet file"):
        Testbed.read(tmp_path / "torn.parquet")
    with pytest.raises(ValueError, match=r"absent\.parquet: no such file"):
        Testbed.read(tmp_path / "absent.parquet")


def test_parquet_without_pyarrow_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="reading Parquet needs pip install pyarrow"):
        Testbed.read(tmp_path / "t.parquet")


def test_a_normalised_loss_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"-3: a loss must be positive and finite.*add the baseline back"):
        Testbed.read_csv(_csv(tmp_path, "run,params,tokens,loss/x\na,1,2,-3\n"))


def test_a_loss_is_found_without_its_kind():
    testbed = Testbed(Testbed.from_records([_record()]).table.assign(**{"bpb/arc": 0.9, "bpb/code": 0.5}))
    assert testbed.column("arc", "loss") == "bpb/arc"
    assert testbed.column("code", "loss") == "loss/code"  # nats, unless bits are asked for
    with pytest.raises(ValueError, match="no column 'loss/prose' in the testbed; it has loss/code, bpb/arc, bpb/code"):
        testbed.column("prose", "loss")


def test_columns_are_found_by_short_and_full_name():
    testbed = Testbed.from_records([_record()])
    assert testbed.column("code", "loss") == testbed.column("loss/code", "loss") == "loss/code"
    with pytest.raises(ValueError, match="no column 'loss/prose' in the testbed; it has loss/code"):
        testbed.column("prose", "loss")
    with pytest.raises(ValueError, match="rename its column 'loss' to 'loss/loss'"):
        Testbed(testbed.table.assign(loss=2.5)).column("loss", "loss")
