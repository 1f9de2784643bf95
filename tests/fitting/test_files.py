"""Artifacts: exact, strict, never half-written."""

import dataclasses
import json
import math

import pytest
from etils import epath

from fitting import files
from fitting.artifacts import fitted
from synthetic_law import synthetic_law


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "fits" / "law.json"
    fitted.save(synthetic_law(), path)
    return path


def test_a_law_survives_its_file_exactly(path, tmp_path):
    loaded = fitted.load(path)
    assert loaded.loss.theta_draws == synthetic_law().loss.theta_draws
    assert loaded.predictions[0] == synthetic_law().predictions[0]
    fitted.save(loaded, path)
    fitted.save(fitted.load(path), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_whole_number_in_a_float_s_place_is_written_as_it_is_written_once_read(tmp_path):
    law = synthetic_law()
    whole = dataclasses.replace(law.predictions[0], tokens=20, measured_loss=2)
    fitted.save(dataclasses.replace(law, predictions=(whole,)), tmp_path / "law.json")
    fitted.save(fitted.load(tmp_path / "law.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "law.json").read_bytes()


def test_unknown_numbers_are_null_and_come_back_as_nan(tmp_path):
    law = synthetic_law()
    projection = dataclasses.replace(law.predictions[0], measured_loss=math.nan)
    fitted.save(dataclasses.replace(law, predictions=(projection,), error=None), tmp_path / "law.json")
    assert json.loads((tmp_path / "law.json").read_text())["predictions"][0]["measured_loss"] is None
    loaded = fitted.load(tmp_path / "law.json")
    assert math.isnan(loaded.predictions[0].measured_loss) and loaded.error is None


def test_a_person_can_read_the_file_and_no_text_in_it_is_changed(tmp_path):
    select = "run in [\n 1, 2 ] or run in [ 3,  4 ]"
    fitted.save(dataclasses.replace(synthetic_law(), select=select), tmp_path / "law.json")
    assert fitted.load(tmp_path / "law.json").select == select
    assert len((tmp_path / "law.json").read_text().splitlines()) < 1500


def test_nothing_is_left_beside_a_written_file_and_a_failed_write_leaves_the_old_one(path):
    before = path.read_bytes()
    with pytest.raises(ValueError):
        fitted.save(dataclasses.replace(synthetic_law(), level=math.inf), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["law.json"]


@pytest.mark.parametrize(
    ("version", "lacks"), [(3, ("params_column", "tasks", "others")), (4, ("tasks", "others")), (5, ("others",))]
)
def test_a_file_of_before_is_read_with_the_default_of_what_it_lacks(path, version, lacks):
    raw, whole = json.loads(path.read_text()), fitted.load(path)
    for name in lacks:
        del raw[name]
    path.write_text(json.dumps(raw | {"schema_version": version}))
    assert repr(fitted.load(path)) == repr(whole) and fitted.load(path).others == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(schema_version=99), "schema_version is 99 but this program reads FittedLaw version 6"),
        (lambda raw: raw.pop("schema_version"), "schema_version is None"),
        (lambda raw: raw.pop("level"), "FittedLaw: missing key level"),
        (lambda raw: raw.update(levle=0.9), "FittedLaw: unknown key levle"),
        (lambda raw: raw["loss"]["points"][2].pop("run"), "FittedLaw.loss.points[2]: missing key run"),
        (lambda raw: raw["loss"].update(noise="1 %"), 'FittedLaw.loss.noise: expected a number but found "1 %"'),
        (lambda raw: raw.update(seed=1.5), "FittedLaw.seed: expected a whole number but found 1.5"),
        (lambda raw: raw.update(seed=True), "FittedLaw.seed: expected a whole number but found true"),
        (lambda raw: raw["loss"]["theta"].update(E=[1]), "FittedLaw.loss.theta.E: expected a number"),
        (
            lambda raw: raw["predictions"][0].update(loss_interval=[1, 2, 3]),
            "loss_interval: expected 2 values but found 3",
        ),
    ],
)
def test_a_file_that_is_not_what_was_saved_is_refused(path, change, message):
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError) as error:
        fitted.load(path)
    assert message in str(error.value) and str(path) in str(error.value)


def test_half_a_file_is_refused(path):
    path.write_text(path.read_text()[:1000])
    with pytest.raises(ValueError, match="not valid JSON"):
        fitted.load(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="expected a FittedLaw"):
        fitted.load(path)


def test_text_is_written_whole_into_folders_that_do_not_exist_yet(tmp_path):
    files.write(tmp_path / "a" / "b" / "c.txt", "whole")
    assert files.read_text(tmp_path / "a" / "b" / "c.txt") == "whole"


def test_writing_replaces_whole_files_and_leaves_nothing_beside(tmp_path):
    path = epath.Path(tmp_path / "new" / "file.txt")
    files.write(path, "one")
    files.write(path, b"two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path, monkeypatch):
    path = epath.Path(tmp_path / "file.txt")
    files.write(path, "old")

    def cut(self, content):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "write_bytes", cut)
    with pytest.raises(OSError, match="disk full"):
        files.write(path, "new")
    assert path.read_text() == "old"


def test_a_folder_in_a_file_s_place_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "law.json").mkdir()
    with pytest.raises(ValueError, match=r"law\.json is a folder: name a file"):
        files.write(tmp_path / "law.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["law.json"]
