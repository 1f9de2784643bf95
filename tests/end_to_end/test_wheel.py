"""The wheel is whole: installed away from the repository, the commands find all that they ship with."""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys

import numpy
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALL = (
    "rungs=[{sizes: [w16, w24, w32], token_multipliers: [1]}, {sizes: [w16], token_multipliers: [3]}]",
    *("sizes.w16.layers=1", "sizes.w24.layers=1", "sizes.w32.layers=1", "targets=[]", "training.cores_per_run=0"),
    *("evaluation.sequences=8", "evaluation.tasks=[]", "fit.error=null"),
    f"corpus.options.roots=[{pathlib.Path(numpy.__file__).parent}]",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds what the wheel installs, and nothing of the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


@pytest.fixture
def ladder_in_an_empty_folder(installed, tmp_path):
    def run(*arguments):
        script = "import ladder.cli.main as m; print(m.__file__); m.main()"
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.stdout.startswith(str(installed))
        assert not done.returncode, done.stderr
        return done.stderr

    return run


def test_shipped_configs_are_planned_by_name(ladder_in_an_empty_folder):
    assert "w64-m20" in ladder_in_an_empty_folder("plan", "demo")
    assert "6.89B" in ladder_in_an_empty_folder("plan", "c4")
    assert "6.89B" in ladder_in_an_empty_folder("plan", "pods/v6e")


def test_a_shipped_ladder_runs_to_its_report(ladder_in_an_empty_folder, tmp_path):
    changes = [word for change in SMALL for word in ("--set", change)]
    assert "report.html" in ladder_in_an_empty_folder("run", "demo", "--workdir", str(tmp_path / "w"), *changes)
    assert (tmp_path / "w" / "fits" / "default" / "report.html").stat().st_size > 100_000


def test_the_metadata_is_complete(installed):
    (found,) = importlib.metadata.distributions(path=[str(installed)])
    told = found.metadata
    assert told["Description-Content-Type"] == "text/markdown" and "ladder run" in found.read_text("METADATA")
    for field in ("Summary", "License", "License-File", "Keywords", "Classifier", "Project-URL"):
        assert told[field], field
