"""A trained model wherever it lies: a folder that `ladder convert` wrote, or a run of a workdir."""

from typing import Any

from ladder import config_file, storage
from ladder import spec as specs
from ladder.spec import Workdir
from models import saved
from models.saved import SavedModel


def load(folder: str) -> tuple[SavedModel, Any]:
    """Gives a model and its parameters.

    Args:
      folder: what `ladder convert` wrote, or `<workdir>/runs/<run>`, local or gs://.

    Raises:
      ValueError: if it is neither, or the run is not trained to its end.
    """
    path = storage.place(folder)
    if (path / saved.FILE).exists():
        return saved.load(path)
    workdir = Workdir(path.parent.parent)
    if not workdir.spec(path.name).exists():
        raise ValueError(
            f"{folder} holds no model: it has neither {saved.FILE} nor spec.json; "
            "give a folder that `ladder convert` wrote, or <workdir>/runs/<run>"
        )
    from ladder.training.train import final_params

    spec, config = specs.load(workdir.spec(path.name)), config_file.load(str(workdir.config))
    provenance = {"run": spec.run, "ladder": config.name, "step": str(spec.steps)}
    model = SavedModel(spec.decoder, config.corpus.vocabulary, spec.sequence_length, provenance)
    return model, final_params(spec, workdir)
