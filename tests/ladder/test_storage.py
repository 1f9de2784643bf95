"""gs:// as the place of everything, against a local server of its API whose requests fail, break off and come late."""

import contextlib
import io
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

import fake_gcs
import processes
from ladder import storage
from ladder.spec import Workdir

FAULT_RATE = 0.05


# Jobs, each in a process of its own, whose clients are told where to go before they start.


def write_and_read(workdir):
    from fitting.files import write

    rng = np.random.default_rng(0)
    for size in (0, 1, 300_000, 12_000_000):  # the last comes in pieces
        content = rng.bytes(size)
        path = workdir.root / "folder" / f"{size}.bin"
        for _ in range(2):
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


def ladder(commands, out):
    """Writes down what each command ends with."""
    from ladder.cli import main

    told = []
    for command in commands:
        sys.argv = ["ladder", *command]
        with contextlib.redirect_stderr(io.StringIO()), pytest.raises(SystemExit) as left:
            main.main()
        told.append(str(left.value.code))
    pathlib.Path(out).write_text(json.dumps(told))


def save_and_load_model(folder):
    from models import saved
    from models.config import DecoderConfig

    model = saved.SavedModel(DecoderConfig(width=8, layers=1, heads=1, vocab_size=97), "bytes", 16)
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), saved.abstract_params(model.decoder))
    saved.save(model, params, epath.Path(folder))
    there, loaded = saved.load(epath.Path(folder))
    assert there == model
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert sorted(path.name for path in epath.Path(folder).iterdir()) == ["model.json", "params"]


def restore_around_damage(folder):
    from ladder.training.checkpoint import Checkpoints

    state = {"weight": jnp.arange(1000.0)}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    for _ in range(2):
        with Checkpoints(epath.Path(folder)) as checkpoints:
            for step in (10, 20)[checkpoints.latest_step() == 10 :]:
                checkpoints.save(step, state)
        for path in (epath.Path(folder) / "20" / "default" / "d").iterdir():
            path.write_bytes(path.read_bytes()[:-20])
        with Checkpoints(epath.Path(folder)) as checkpoints, pytest.warns(UserWarning, match="going on from step 10"):
            step, restored = checkpoints.restore_newest(abstract)
        np.testing.assert_array_equal(restored["weight"], state["weight"])
        assert step == 10
    assert sorted(path.name for path in epath.Path(folder).iterdir()) == ["10", "20.damaged", "20.damaged2"]


def read_corpus(path):
    from tasks.text import documents, files

    assert [file.path for file in files.find("text", path)] == [f"{path}/a.txt", f"{path}/inner/b.txt"]
    assert [file.path for file in files.find("text", f"{path}/*.txt")] == [f"{path}/a.txt"]
    (read,) = documents.text(path).whole().values()
    assert list(read()) == [b"a", b"b"]


def write_corpus(path):
    for name in ("a", "inner/b"):
        (epath.Path(path) / f"{name}.txt").write_text(name[-1])


def test_a_run_in_a_bucket_that_fails_and_is_killed_ends_as_one_on_a_disk(
    spec, workdir, tmp_path, train_here, losses_of
):
    there, back = Workdir.at("gs://bucket/ladder"), Workdir.at(str(tmp_path / "back/ladder"))
    with fake_gcs.serving(FAULT_RATE) as address:
        fake_gcs.upload(address, "bucket", "ladder", pathlib.Path(workdir.root))
        told = {"environment": fake_gcs.environment(address)}
        with processes.Together(processes.train, spec, there, 15, **told) as together:
            assert together.exit_codes() == [-9]
        processes.run(processes.train, spec, there, **told)
        fake_gcs.download(address, "bucket", tmp_path / "back")
        faults = fake_gcs.faults(address)
    assert set(faults) == set(fake_gcs.KINDS) and sum(faults.values()) > 10
    train_here(spec, workdir)
    (step, state), (expected_step, expected) = (processes.newest(spec, w) for w in (back, workdir))
    assert step == expected_step == 25
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert losses_of(back, spec) == losses_of(workdir, spec)


def test_files_are_written_and_read_whole_however_often_a_request_fails():
    with fake_gcs.serving(0.3) as address:
        processes.run(write_and_read, Workdir.at("gs://bucket/ladder"), environment=fake_gcs.environment(address))
        assert sum(fake_gcs.faults(address).values()) > 3


def test_a_corpus_is_found_and_read_in_a_bucket():
    with fake_gcs.serving(0) as address:
        for job in (write_corpus, read_corpus):
            processes.run(job, "gs://bucket/text", environment=fake_gcs.environment(address))


def test_a_model_is_saved_in_a_bucket_and_a_damaged_checkpoint_moved_aside():
    with fake_gcs.serving(0) as address:
        told = {"environment": fake_gcs.environment(address)}
        processes.run(save_and_load_model, "gs://bucket/models/small", **told)
        processes.run(restore_around_damage, "gs://bucket/checkpoints", **told)


def test_whatever_is_asked_of_a_bucket_that_says_no_or_is_not_there_ends_in_one_clear_line(
    tmp_path, tree, write_config
):
    out, config = tmp_path / "out", write_config(tree)
    run = ["--run", "w4-m10"]
    commands = [
        [
            ["run", config, "--workdir", f"gs://{bucket}/ladder"],
            ["train", config, *run, "--workdir", f"gs://{bucket}/ladder"],
            ["evaluate", config, *run, "--workdir", f"gs://{bucket}/ladder"],
            ["cache", config, "--set", f"corpus.cache=gs://{bucket}/corpora"],
            ["collect", f"gs://{bucket}/ladder"],
            ["fit", "gadre2024", "--loss", "loss/c4_val", "--out", f"gs://{bucket}/fit"],
            ["report", f"gs://{bucket}/ladder"],
            ["plan", f"gs://{bucket}/ladder.yaml"],
        ]
        for bucket in ("closed", "absent")
    ]
    with fake_gcs.serving(0) as address:
        processes.run(ladder, commands[0] + commands[1], str(out), environment=fake_gcs.environment(address))
    told = json.loads(out.read_text())
    closed, absent = told[:8], told[8:]
    assert set(closed) == {
        "ladder: no permission on gs://closed: somebody@example.com does not have storage.objects.get access; "
        f"{storage.REMEDY}"
    }
    assert set(absent[:-1]) == {"ladder: there is no bucket gs://absent; make it, or name another"}
    assert absent[-1].startswith("ladder: no such config: gs://absent/ladder.yaml; ")


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
