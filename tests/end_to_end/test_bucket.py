"""A whole ladder in a bucket whose requests fail, killed on the way, against the same one on a disk left alone."""

import os
import subprocess
import time

import pytest

import fake_gcs
import processes
from results import same_results

FAULT_RATE = 0.02


def _tree(tiny_tree, root, text):
    """Runs of 17 to 78 steps: each step asks the bucket for its records."""
    sizes = {f"w{width}": {"width": width, "layers": 1, "heads": 1} for width in (2, 4, 6, 8)}
    return tiny_tree | {
        "sizes": sizes,
        "model": {"sequence_length": 64, "ffn_multiple": 8},
        "rungs": [
            {"sizes": ["w2", "w4", "w6"], "token_multipliers": [1]},
            {"sizes": ["w2", "w4"], "token_multipliers": [2]},
        ],
        "targets": [{"sizes": ["w8"], "token_multipliers": [1]}],
        "corpus": {"kind": "text", "options": {"path": text}, "cache": f"{root}/corpora/text"},
        "training": {"checkpoint_every_steps": 20, "log_every_steps": 10},
    }


def _killed(command, environment, address, name, log):
    """Starts the command and kills it when the bucket holds an object of that name, or one that begins so."""
    with log.open("w") as told, subprocess.Popen(command, env=environment, stderr=told) as process:
        while not any(there.startswith(name) for there in fake_gcs.names(address, "bucket")):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        process.kill()


@pytest.mark.slow
def test_a_ladder_in_a_bucket_that_fails_and_is_killed_ends_as_one_on_a_disk(tiny_tree, text, write_config, tmp_path):
    disk, there = tmp_path / "disk", tmp_path / "there"
    # Of one text: what lies in a bucket is told by another hash, and so gives runs another identity.
    on_disk = write_config(_tree(tiny_tree, disk, "gs://bucket/text"), "disk.yaml")
    in_bucket = write_config(_tree(tiny_tree, "gs://bucket", "gs://bucket/text"), "bucket.yaml")
    with fake_gcs.serving(FAULT_RATE) as address:
        fake_gcs.upload(address, "bucket", "text", text)
        environment = os.environ | fake_gcs.environment(address)
        alone = [*processes.LADDER, "run", on_disk, "--workdir", str(disk / "ladder")]
        subprocess.run(alone, env=environment, check=True, capture_output=True)
        command = [*processes.LADDER, "run", in_bucket, "--workdir", "gs://bucket/ladder"]
        for name in ("corpora/text/", "ladder/runs/w6-m1/checkpoints/20", "ladder/runs/w4-m1/record", "ladder/testbed"):
            _killed(command, environment, address, name, tmp_path / "stderr")
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "warning: gs://" not in done.stderr  # no checkpoint was taken to be damaged
        assert sum(fake_gcs.faults(address).values()) > 20
        fake_gcs.download(address, "bucket", there)
    same_results(there / "ladder", disk / "ladder")
    reports = [{p.name for p in (root / "ladder/fits/default").rglob("*") if p.is_file()} for root in (there, disk)]
    assert reports[0] == reports[1]
    assert "w8-m1" in (there / "ladder/fits/default/report.html").read_text()
    assert {p.name for p in (there / "corpora/text/text").iterdir()} == {
        p.name for p in (disk / "corpora/text/text").iterdir()
    }
