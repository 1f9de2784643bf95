"""A frozen prediction is scored as it was made, or not at all."""

import dataclasses
import json
import math

import pandas as pd
import pytest

from fitting.artifacts import frozen
from fitting.prediction import predict
from fitting.testbeds.testbed import Testbed
from synthetic_law import synthetic_law

PARAMS, TOKENS = 2e6, 4e7
LATER = "2100-01-01T00:00:00+00:00"


@pytest.fixture
def dated():
    law = synthetic_law()
    return frozen.freeze(law, "ab" * 32, predict(law, PARAMS, TOKENS, "big"), command="ladder predict")


def table(**cells):
    row = {"run": "big", "role": "target", "params": PARAMS, "tokens": TOKENS, "loss/code": 1.3, "error/average": 0.1}
    return Testbed(pd.DataFrame([row | {name.replace("__", "/"): value for name, value in cells.items()}]))


def test_a_frozen_prediction_survives_its_file_and_is_scored_as_it_was_made(dated, tmp_path):
    frozen.save(dated, tmp_path / "prediction.json")
    scored = frozen.score(frozen.load(tmp_path / "prediction.json"), table(measured=LATER), "big")
    made = predict(synthetic_law(), PARAMS, TOKENS, "big")
    assert repr(scored.prediction) == repr(dataclasses.replace(made, measured_loss=1.3, measured_error=0.1))
    assert (scored.measured, scored.frozen, scored.digest) == (LATER, dated.frozen, dated.digest)


def test_whole_numbers_of_parameters_and_tokens_are_frozen_as_they_are_read(tmp_path):
    law = synthetic_law()
    frozen.save(frozen.freeze(law, "ab" * 32, predict(law, 2_000_000, 40_000_000)), tmp_path / "prediction.json")
    assert frozen.load(tmp_path / "prediction.json").prediction.params == 2e6


def test_what_is_frozen_is_not_frozen_again(dated, tmp_path):
    frozen.save(dated, tmp_path / "prediction.json")
    with pytest.raises(ValueError, match="already frozen"):
        frozen.save(dated, tmp_path / "prediction.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw["prediction"].update(loss=1.3),
        lambda raw: raw["prediction"].update(loss_interval=[0.1, 9.0]),
        lambda raw: raw.update(frozen="2020-01-01T00:00:00+00:00"),
        lambda raw: raw.update(law_sha256="cd" * 32),
        lambda raw: raw.update(known_runs=[]),
    ],
    ids=["loss", "interval", "date", "law", "runs"],
)
def test_an_edit_is_seen(dated, tmp_path, change):
    path = tmp_path / "prediction.json"
    frozen.save(dated, path)
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="changed since it was frozen"):
        frozen.load(path)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"measured": "2020-01-01T00:00:00+00:00"}, "was measured at 2020-01-01T00:00:00.*, before the prediction"),
        ({"measured": "yesterday"}, "'yesterday' is no ISO 8601 time"),
        ({"run": "other"}, "has no run 'big'; it has other"),
        ({"params": 3e6}, r"is of a run of 2e\+06 params, but big has 3e\+06"),
        ({"tokens": 5e7}, r"is of a run of 4e\+07 tokens, but big has 5e\+07"),
        ({"loss__code": math.nan}, "has no loss/code yet"),
        ({"quarantine": "diverged"}, "big is quarantined: diverged"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_scored_is_refused(dated, cells, message):
    with pytest.raises(ValueError, match=message):
        frozen.score(dated, table(**cells), "big")


def test_a_prediction_of_one_run_does_not_score_another(dated):
    with pytest.raises(ValueError, match="is of big, not of small"):
        frozen.score(dated, table(run="small"), "small")


@pytest.mark.parametrize("run", [synthetic_law().predictions[0].run, synthetic_law().loss.points[0].run])
def test_a_run_that_the_law_knew_cannot_be_predicted(run):
    law = synthetic_law()
    with pytest.raises(ValueError, match="measured before the law was fitted"):
        frozen.freeze(law, "ab" * 32, predict(law, PARAMS, TOKENS, run))
    unnamed = frozen.freeze(law, "ab" * 32, predict(law, PARAMS, TOKENS))
    with pytest.raises(ValueError, match="measured before the law was fitted"):
        frozen.score(unnamed, table(run=run), run)


def test_a_table_may_be_silent_on_dates_and_on_errors(dated):
    scored = frozen.score(dated, table(error__average=math.nan), "big")
    assert scored.measured == "" and scored.prediction.measured_loss == 1.3
    assert math.isnan(scored.prediction.measured_error)


def test_a_prediction_of_n_without_embeddings_is_scored_against_that_count():
    law = dataclasses.replace(synthetic_law(), params_column="params_non_embedding")
    dated = frozen.freeze(law, "ab" * 32, predict(law, PARAMS, TOKENS))
    scored = frozen.score(dated, table(params=3 * PARAMS, params_non_embedding=PARAMS), "big")
    assert scored.params_column == "params_non_embedding" and scored.prediction.measured_loss == 1.3
    with pytest.raises(ValueError, match=r"of a run of 2e\+06 params_non_embedding, but big has 1e\+06"):
        frozen.score(dated, table(params=PARAMS, params_non_embedding=PARAMS / 2), "big")
    with pytest.raises(ValueError, match="params_non_embedding: no such column"):
        frozen.score(dated, table(), "big")


def test_a_prediction_frozen_before_n_had_a_column_is_of_all_parameters(dated):
    columns = {part: column for part, column in dated.columns.items() if part != "params"}
    assert frozen.score(dataclasses.replace(dated, columns=columns), table(), "big").params_column == "params"


def test_the_sizes_of_the_runs_that_were_known_are_those_to_compare_with(dated):
    known = dated.known_runs[0]
    both = Testbed(pd.concat([table().table, table(run=known, role="rung", params=1e4, tokens=1e5).table]))
    asked, ladder = dated.sizes(both)
    assert asked == {"params": PARAMS, "tokens": TOKENS} and ladder == {"params": [1e4], "tokens": [1e5]}


def test_a_run_of_other_data_than_was_told_is_refused(dated):
    prediction = dataclasses.replace(dated.prediction, columns={"unique_tokens": 1e7})
    told = frozen.freeze(synthetic_law(), "ab" * 32, prediction)
    assert frozen.score(told, table(unique_tokens=1e7), "big").prediction.measured_loss == 1.3
    with pytest.raises(ValueError, match="of 1e\\+07 unique_tokens, but big has 2e\\+07"):
        frozen.score(told, table(unique_tokens=2e7), "big")
