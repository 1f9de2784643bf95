"""The device mesh: refused where it does not fit, and the same numbers on one device and on eight."""

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from etils import epath

from ladder.spec import Workdir
from ladder.training import mesh as meshes

ON_EIGHT = """
import dataclasses, pickle, sys
import jax
from ladder.engines import local
from ladder.training import train
from ladder.config import Training
from ladder.training import mesh as meshes

spec, workdir = pickle.load(sys.stdin.buffer)
assert len(jax.devices()) == 8
class Config:
    training = Training(checkpoint_every_steps=5, log_every_steps=1)
train.train(Config, spec, workdir, lambda event: None)
print(jax.tree.leaves(train.final_params(spec, workdir))[0].sharding.num_devices)

twelve = dataclasses.replace(spec.hyperparameters, batch_size=12)
ragged = dataclasses.replace(spec, run="ragged", hyperparameters=twelve)
for refused in (lambda: train.train(Config, ragged, workdir, print), lambda: meshes.make((2, 2, 1))):
    try:
        refused()
    except ValueError as e:
        print(e)
"""


def test_all_devices_split_the_batch_by_default():
    assert dict(meshes.make().shape) == {"data": 1, "fsdp": 1, "tensor": 1}


def test_a_mesh_that_does_not_fit_the_devices_is_refused():
    with pytest.raises(ValueError, match="needs 2 devices, there are 1"):
        meshes.make((1, 2, 1))


def test_eight_devices_train_as_one_does_and_refuse_what_does_not_divide(
    spec, workdir, tmp_path, train_here, losses_of
):
    spec = dataclasses.replace(spec, steps=6)
    other = Workdir(epath.Path(tmp_path / "eight"))
    shutil.copytree(workdir.train_records, other.train_records)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ON_EIGHT)],
        input=pickle.dumps((spec, other)),
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert not done.returncode, done.stderr.decode()
    sharded_over, batch_refusal, mesh_refusal = done.stdout.decode().splitlines()
    assert sharded_over == "8"
    assert batch_refusal == "ragged: a batch of 12 sequences does not split over 8 devices"
    assert "needs 4 devices, there are 8" in mesh_refusal

    train_here(spec, workdir, log_every_steps=1)
    np.testing.assert_allclose(losses_of(other, spec), losses_of(workdir, spec), rtol=1e-6)
