"""gs:// as the place of everything, against a local server of its API whose requests fail, break off and come late."""

import contextlib
import json
import pathlib
import subprocess
import sys
import urllib.request

import fake_gcs
import jax
import numpy as np
import processes
import pytest
from etils import epath

from ladder import storage
from ladder.spec import Workdir

FAULT_RATE = 0.03


@contextlib.contextmanager
def _server(fault_rate):
    command = [sys.executable, fake_gcs.__file__, "0", str(fault_rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _faults(address):
    request = urllib.request.Request(f"{address}/faults", headers={fake_gcs.NO_FAULT: "1"})
    return json.load(urllib.request.urlopen(request))


# Jobs, each in a process of its own, whose clients are told where to go before they start.


def copy_corpus(workdir, to):
    for path in pathlib.Path(workdir.train_records).rglob("*"):
        if path.is_file():
            (to.train_records / path.relative_to(workdir.train_records)).write_bytes(path.read_bytes())


def copy_results(spec, workdir, to):
    from ladder.checkpoint import Checkpoints
    from ladder.spec import write

    write(to.metrics(spec.run), workdir.metrics(spec.run).read_bytes())
    step, state = processes.newest(spec, workdir)
    with Checkpoints(to.checkpoints(spec.run)) as checkpoints:
        checkpoints.save(step, state)


def write_and_read(workdir):
    from ladder.spec import write

    rng = np.random.default_rng(0)
    for size in (0, 1, 300_000, 12_000_000):  # the last comes in pieces
        content = rng.bytes(size)
        path = workdir.root / "folder" / f"{size}.bin"
        for _ in range(3):
            write(path, content)
        assert path.read_bytes() == content
    assert sorted(p.name for p in (workdir.root / "folder").iterdir()) == sorted(
        f"{size}.bin" for size in (0, 1, 300_000, 12_000_000)
    )
    path.unlink()
    assert not path.exists()


def refused(workdir, out):
    with pytest.raises(ValueError) as told:
        storage.refuse_closed(workdir.root)
    pathlib.Path(out).write_text(str(told.value))


def ladder(command, out):
    from ladder import cli

    sys.argv = ["ladder", *command]
    with contextlib.redirect_stderr(open(out, "w")), pytest.raises(SystemExit) as left:
        cli.main()
    pathlib.Path(out).write_text(str(left.value.code))


def read_corpus(path):
    from tasks import documents

    assert documents.files("text", path) == [f"{path}/a.txt", f"{path}/inner/b.txt"]
    assert documents.files("text", f"{path}/*.txt") == [f"{path}/a.txt"]
    assert list(documents.text(documents.files("text", path), in_pieces=False)) == [b"a", b"b"]


def write_corpus(path):
    for name in ("a", "inner/b"):
        (epath.Path(path) / f"{name}.txt").write_text(name[-1])


def test_a_run_in_a_bucket_that_fails_and_is_killed_ends_as_one_on_a_disk(spec, workdir, tmp_path, train_here):
    there, back = Workdir.at("gs://bucket/ladder"), Workdir.at(str(tmp_path / "back"))
    with _server(FAULT_RATE) as address:
        told = {"environment": fake_gcs.environment(address)}
        processes.run(copy_corpus, workdir, there, **told)
        with processes.Together(processes.train, spec, there, 15, **told) as together:
            assert together.exit_codes() == [-9]
        processes.run(processes.train, spec, there, **told)
        processes.run(copy_results, spec, there, back, **told)
        faults = _faults(address)
    assert set(faults) == set(fake_gcs.KINDS) and sum(faults.values()) > 10
    train_here(spec, workdir)
    (step, state), (expected_step, expected) = (processes.newest(spec, w) for w in (back, workdir))
    assert step == expected_step == 25
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    losses, expected = (
        [json.loads(line)["loss_nats"] for line in w.metrics(spec.run).read_text().splitlines()]
        for w in (back, workdir)
    )
    assert losses == expected


def test_files_are_written_and_read_whole_however_often_a_request_fails():
    with _server(0.3) as address:
        processes.run(write_and_read, Workdir.at("gs://bucket/ladder"), environment=fake_gcs.environment(address))
        assert sum(_faults(address).values()) > 3


def test_a_corpus_is_found_and_read_in_a_bucket():
    with _server(0) as address:
        for job in (write_corpus, read_corpus):
            processes.run(job, "gs://bucket/text", environment=fake_gcs.environment(address))


def test_a_bucket_that_says_no_is_one_clear_line(tmp_path, tree, write_config):
    out = str(tmp_path / "out")
    command = ["train", write_config(tree), "--run", "w4-m10", "--workdir", "gs://closed/ladder"]
    with _server(0) as address:
        processes.run(ladder, command, out, environment=fake_gcs.environment(address))
    assert pathlib.Path(out).read_text() == (
        "ladder: no permission on gs://closed: somebody@example.com does not have storage.objects.get access; "
        f"{storage.REMEDY}"
    )


@pytest.mark.parametrize(
    "error, told",
    [
        (OSError("Forbidden: https://x/upload/storage/v1/b/mine/o\nme does not have storage.objects.create access"),
         "no permission on gs://mine: me does not have storage.objects.create access; grant"),
        (ValueError("PERMISSION_DENIED: Error reading gs://mine/a/b: HTTP response code: 403"),
         "no permission on gs://mine: PERMISSION_DENIED: Error reading"),
        (RuntimeError("Anonymous caller does not have storage.objects.list access, 401"), "no permission: caller does"),
        (ValueError("401 steps are too many"), None),
        (FileNotFoundError("gs://mine/403"), None),
    ],
    ids=["gcsfs", "tensorstore", "nobody logged in", "a number", "a name"],
)  # fmt: skip
def test_what_a_bucket_says_no_to_is_told_from_other_errors(error, told):
    assert (storage.refusal(error) or "").startswith(told or "") and bool(storage.refusal(error)) == bool(told)
