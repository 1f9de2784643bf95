"""What tests share: generated text, a ladder small enough to train in seconds, where the shared fixtures lie."""

import copy
import json
import os
import pathlib
import shutil
import sys
import tempfile
import types

# Before JAX is imported: tests must not depend on what the machine has plugged in, and what many of them compile, in
# this process or in others, is compiled once, without LLVM's optimisation or MLIR's fusion: of what runs for moments
# that is most of the time, and none of what is asserted.
os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has the flags and the cache of the process that started it
    quick = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ladder_tests_")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import numpy as np
import pytest
import yaml
from etils import epath

from ladder import config_file
from ladder import plan as plans
from ladder.config import Training
from ladder.events import Trained
from ladder.recipe import Hyperparameters
from ladder.spec import RunSpec, Workdir
from ladder.training.pool import Part, write_mixture
from models.config import DecoderConfig
from tasks import store

# A machine that does other things too is slow now and then, which proves nothing.
hypothesis.settings.register_profile("no time limits", deadline=None)
hypothesis.settings.load_profile("no time limits")

REPOSITORY = pathlib.Path(__file__).parents[1]
BYTES_SIZE = 259


def pytest_unconfigure():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config, log):
    """Unless told otherwise, gives a worker neighbouring tests, which share fixtures, and evens out at the end."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of fixtures made by the peers' own code; tests that need it are skipped where it is absent."""
    folder = pathlib.Path(os.environ.get("LADDER_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared fixtures at {folder}; name their folder in LADDER_SHARED")
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> pathlib.Path:
    """A folder of text with something to learn: made-up names that come back within a few words."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefgh"), rng.integers(5, 8))) for _ in range(60)]
    for i in range(60):
        own = rng.choice(names, 4)
        lines = [f"let {a} be the {b} of {a}; then {b} is {a}\n" for a, b in rng.choice(own, (60, 2))]
        (folder / f"{i}.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def tiny_tree(text) -> dict:
    """A tiny ladder as its YAML says it."""
    return {
        "name": "tiny",
        "sizes": {f"w{width}": {"width": width, "layers": 1, "heads": 1} for width in (4, 6, 8, 10, 12)},
        "model": {"sequence_length": 16, "ffn_multiple": 8},
        "rungs": [
            {"sizes": ["w4", "w6", "w8", "w10"], "token_multipliers": [10]},
            {"sizes": ["w4"], "token_multipliers": [30]},
        ],
        "targets": [{"sizes": ["w12"], "token_multipliers": [10]}],
        "recipe": {"name": "tiny"},
        "corpus": {"kind": "text", "options": {"path": str(text)}},
        "evaluation": {"sequences": 70, "tasks": ["recall"], "questions": 40},
        "training": {"checkpoint_every_steps": 100, "log_every_steps": 50},
        "fit": {"loss": "loss/held_out", "error": "error/average"},
    }


@pytest.fixture
def tree(tiny_tree) -> dict:
    """The tiny ladder, for a test to change."""
    return copy.deepcopy(tiny_tree)


@pytest.fixture
def write_config(tmp_path):
    """Writes a tree as YAML and gives its path."""

    def write(tree: dict, name: str = "tiny.yaml") -> str:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return str(path)

    return write


@pytest.fixture
def ladder(tree, write_config):
    """Plans a tree, with overrides: (config, specs)."""

    def planned(*overrides: str, tree: dict = tree):
        config = config_file.load(write_config(tree), overrides)
        return config, plans.plan(config, BYTES_SIZE)

    return planned


@pytest.fixture
def ladder_(monkeypatch):
    """Runs the console script in this process, to its exit."""

    def run(*arguments: str) -> None:
        from ladder.cli import main

        monkeypatch.setattr(sys, "argv", ["ladder", *arguments])
        main.main()

    return run


@pytest.fixture(scope="session")
def token_RxT() -> np.ndarray:
    """Records of tokens in which each follows from the one before, so that a step or two of training shows."""
    start_R = np.random.default_rng(0).integers(0, 97, 300)
    return ((start_R[:, None] + 7 * np.arange(17)) % 97).astype(np.uint16)


@pytest.fixture
def workdir(tmp_path, token_RxT) -> Workdir:
    """A workdir with records to train on, made without TensorFlow."""
    made = Workdir(epath.Path(tmp_path / "workdir"))
    store.write(made.train_records / "text", token_RxT)
    write_mixture(made.train_records, [Part(1.0, "text")])
    return made


@pytest.fixture
def spec() -> RunSpec:
    """25 steps of 8 sequences of 16 tokens, for a decoder of one block."""
    return RunSpec(
        run="w8-m1",
        role="rung",
        size="w8",
        decoder=DecoderConfig(width=8, layers=1, heads=1, vocab_size=97, ffn_multiple=8),
        sequence_length=16,
        steps=25,
        hyperparameters=Hyperparameters(
            batch_size=8, learning_rate=0.03, final_learning_rate=0.0003, warmup_steps=3, weight_decay=0.033
        ),
        seed=0,
    )


@pytest.fixture
def train_here():
    """Trains in this process; `stop_at` breaks off in the report of that step, as a kill would between two saves.

    `at` names what else is done in the reports of which steps; the rest are more settings of `Training`.
    """
    from ladder.training import train

    def run(spec, workdir, *, log_every_steps=5, checkpoint_every_steps=10, stop_at=None, at=None, **more) -> list:
        events = []

        def report(event):
            if not isinstance(event, Trained):
                return
            events.append(event)
            if at and event.step in at:
                at[event.step]()
            if event.step == stop_at:
                raise KeyboardInterrupt

        training = Training(log_every_steps=log_every_steps, checkpoint_every_steps=checkpoint_every_steps, **more)
        try:
            train.train(types.SimpleNamespace(training=training), spec, workdir, report)
        except KeyboardInterrupt:
            assert stop_at
        return events

    return run


@pytest.fixture
def losses_of():
    """The losses in a run's metrics.jsonl."""

    def losses(workdir, spec) -> list[float]:
        return [json.loads(line)["loss_nats"] for line in workdir.metrics(spec.run).read_text().splitlines()]

    return losses
