"""A trained model is found in a converted folder and in a workdir's run alike."""

import jax
import numpy as np
import pytest
from etils import epath

from fitting.files import write
from ladder import config_file
from ladder import spec as specs
from ladder.evaluation import trained
from ladder.spec import Workdir
from ladder.training.train import final_params
from models import saved


@pytest.fixture
def run(spec, workdir, ladder, train_here) -> epath.Path:
    """A trained run, and the config that names its vocabulary."""
    config, _ = ladder()
    write(workdir.spec(spec.run), specs.dump(spec))
    write(workdir.config, config_file.dump(config))
    train_here(spec, workdir)
    return workdir.spec(spec.run).parent


def test_a_run_and_the_folder_saved_from_it_hold_the_same_model(run, spec, workdir, tmp_path):
    model, params = trained.load(str(run))
    assert (model.decoder, model.vocabulary, model.sequence_length) == (spec.decoder, "bytes", spec.sequence_length)
    jax.tree.map(np.testing.assert_array_equal, params, final_params(spec, workdir))
    saved.save(model, params, epath.Path(tmp_path / "model"))
    again, params_again = trained.load(str(tmp_path / "model"))
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, params_again, params)


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"neither model\.json nor spec\.json"):
        trained.load(str(tmp_path))


def test_a_spec_that_cannot_be_read_is_refused(tmp_path):
    path = Workdir(epath.Path(tmp_path)).spec("w8-m1")
    write(path, "{}")
    with pytest.raises(ValueError, match=r"spec\.json is no spec\.json"):
        specs.load(path)
