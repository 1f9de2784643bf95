"""Programs compiled by one command are taken by the next, and change nothing that it says."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import time

import pytest

import processes
from ladder import storage
from ladder.cli import quick


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """A cache as a person has it, not the one that tests share."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    monkeypatch.setenv("LADDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "xla"


def _fit(out, **environment):
    """law.json of five runs by the paper's method, which compiles, and what JAX said of it."""
    select = "corpus == 'rpj' and role == 'rung' and params < 1e9"
    what = ("--loss", "c4_val", "--method", "paper", "--select", select)
    done = subprocess.run(
        [*processes.LADDER, "fit", "gadre2024", *what, "--out", str(out)],
        env=os.environ | {"JAX_LOG_COMPILES": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    law = json.loads((out / "law.json").read_text())
    return {name: value for name, value in law.items() if name not in ("command", "created")}, done.stderr


def test_commands_side_by_side_share_a_cache_and_it_changes_nothing(own_cache, tmp_path):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        at_once = [law for law, _ in pool.map(_fit, [tmp_path / "one", tmp_path / "two"])]
    (folder,) = own_cache.iterdir()
    entry, simulations = sorted(folder.glob("*-cache"), key=lambda path: path.stat().st_size)
    assert simulations.stat().st_size < quick._BYTES / 100
    again, told = _fit(tmp_path / "again")
    assert "compilation cache hit" in told
    entry.write_bytes(entry.read_bytes()[:1000])  # as a full disk may leave it
    with concurrent.futures.ThreadPoolExecutor() as pool:
        without = pool.submit(_fit, tmp_path / "without", JAX_ENABLE_COMPILATION_CACHE="false")
        torn = pool.submit(_fit, tmp_path / "torn")
    assert "compilation cache hit" not in without.result()[1] and "Error" not in torn.result()[1]
    assert all(law == again for law in (*at_once, without.result()[0], torn.result()[0]))


def test_an_entry_that_a_command_was_killed_over_is_removed_and_one_that_is_written_now_is_not(tmp_path):
    for name in ("whole-cache", "whole-atime", "torn-cache", "new-cache"):
        (tmp_path / name).write_bytes(b"program")
        long_ago = time.time() - (0 if name.startswith("new") else 3600)
        os.utime(tmp_path / name, (long_ago, long_ago))
    quick._settings(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"whole-cache", "whole-atime", "new-cache"}


def test_who_set_a_cache_keeps_it_and_a_bucket_is_none(monkeypatch):
    def asked(**environment):
        with monkeypatch.context() as patch:
            patch.setattr(os, "environ", dict(environment))
            quick.quick(lambda: None)()
            return {name: value for name, value in os.environ.items() if name.startswith("JAX")}

    mine = {"JAX_COMPILATION_CACHE_DIR": "/mine"}
    assert asked(**mine) == mine
    assert asked(LADDER_CACHE="gs://bucket/cache") == {}
    assert pathlib.Path(asked(LADDER_CACHE="/here")["JAX_COMPILATION_CACHE_DIR"]).parts[:3] == ("/", "here", "xla")


def test_the_cache_is_the_users_unless_named(monkeypatch):
    for value, expected in (("/here", "/here"), ("", "~/.cache/scaling-ladder")):
        monkeypatch.setenv("LADDER_CACHE", value)
        assert storage.cache() == storage.epath.Path(expected).expanduser()
