"""A step estimated on the back of an envelope: near what the compiler found, and what does not fit is known."""

import dataclasses
import pathlib

import pytest

from ladder import config_file
from ladder import plan as plans
from ladder.config import Mesh
from ladder.pods.cloud import Slice
from ladder.pods.estimate import estimate
from ladder.pods.topology import GIB

ROOT = pathlib.Path(__file__).parents[3]
SIZES = {"6.9B": "open_lm_7b-m20", "1.4B": "open_lm_1b-m20", "411M": "d=1024_l=24_h=8-m20"}


@pytest.fixture(scope="module")
def paper():
    config = config_file.load(str(ROOT / "configs" / "gadre2024.yaml"))
    with pytest.warns(UserWarning, match="not planned"):
        return config, plans.plan(config, plans.vocab_size(config))


def _compiled():
    """Rows of the table of docs/pods.md, of one slice each."""
    for line in (ROOT / "docs" / "pods.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if cells[0] in SIZES and len(cells) == 11 and " x " not in cells[1]:
            yield cells


def _of(paper, size, topology, batch, fsdp, remat):
    config, specs = paper
    spec = plans.find(specs, SIZES[size])
    spec = dataclasses.replace(spec, hyperparameters=dataclasses.replace(spec.hyperparameters, batch_size=int(batch)))
    training = dataclasses.replace(config.training, remat=remat, mesh=Mesh(fsdp=int(fsdp)))
    return estimate(training, spec, Slice.of(topology))


def test_it_is_within_a_third_of_the_compilers_time_and_a_quarter_of_its_memory(paper):
    rows = list(_compiled())
    assert len(rows) == 15
    for size, topology, batch, fsdp, remat, memory, seconds, *_ in rows:
        said = _of(paper, size, topology, batch, fsdp, remat)
        assert said.fits
        assert 0.67 < said.step_seconds / float(seconds) < 1.33, (size, topology)
        assert 0.75 < said.hbm_bytes_per_chip / (float(memory.split()[0]) * GIB) < 1.25, (size, topology)


def test_more_chips_take_less_time_and_memory_and_too_few_do_not_fit(paper):
    said = [
        _of(paper, "6.9B", f"v5e:{shape}", 1024, fsdp, "full")
        for shape, fsdp in (("2x2", 4), ("8x8", 64), ("16x16", 256))
    ]
    assert [one.fits for one in said] == [False, True, True]
    assert said[0].step_seconds > said[1].step_seconds > said[2].step_seconds
    assert said[0].hbm_bytes_per_chip > said[1].hbm_bytes_per_chip > said[2].hbm_bytes_per_chip


def test_chips_of_which_nothing_is_known_are_refused(paper):
    with pytest.raises(ValueError, match="tpu7x:4x4x4: nothing is known of its chips; take one of v4, v5e, v5p, v6e"):
        _of(paper, "6.9B", "tpu7x:4x4x4", 1024, 16, "full")
