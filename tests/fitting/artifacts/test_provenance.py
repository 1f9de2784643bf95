"""What made a number is recorded: libraries, this program, and its commit where there is one."""

import importlib.metadata
import shutil
import subprocess

import pytest

from fitting.artifacts import provenance


def test_the_libraries_are_those_that_are_installed():
    found = provenance.versions()
    assert {name: found[name] for name in provenance.LIBRARIES} == {
        name: importlib.metadata.version(name) for name in provenance.LIBRARIES
    }
    assert found["python"].startswith("3.")


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_a_commit_is_told_and_whether_files_differ_from_it(tmp_path):
    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    assert provenance.commit(tmp_path) == ""
    git("init", "-q")
    assert provenance.commit(tmp_path) == ""
    (tmp_path / "a.py").write_text("1\n")
    git("add", "a.py")
    git("commit", "-q", "-m", "one")
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert provenance.commit(tmp_path) == head.strip()
    (tmp_path / "a.py").write_text("2\n")
    assert provenance.commit(tmp_path) == head.strip() + "+"
