"""Compiling for a TPU without one: topologies, what fits, what a run costs, what is refused."""

import dataclasses
import importlib.util
import json
import pickle
import subprocess
import sys

import pytest

from ladder.config import Mesh, Training
from ladder.pods import fit as search
from ladder.pods import precompile as compiler
from ladder.pods import precompiled
from ladder.pods.topology import GIB, Topology
from models.config import DecoderConfig

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed; pip install 'scaling-ladder[tpu]'"
)
TRAINING = Training(scan_layers=True, remat="full", attention="splash")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of a test's own."""
    monkeypatch.setenv("LADDER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pod_spec(spec):
    """A run that a kernel can attend for."""
    decoder = DecoderConfig(width=256, layers=2, heads=2, vocab_size=512, ffn_multiple=8, dtype="bfloat16")
    return dataclasses.replace(spec, decoder=decoder, sequence_length=256)


@pytest.fixture
def found(pod_spec):
    """Writes what a compilation might have found."""

    def write(topology: Topology, training: Training = TRAINING, **changes) -> None:
        report = {
            "topology": str(topology.slice),
            "slices": topology.slices,
            "chips": topology.chips,
            "accelerator": topology.slice.accelerator_type,
            "mesh": {"data": topology.chips, "fsdp": 1, "tensor": 1},
            "remat": "full",
            "batch_size": 8,
            "accumulation_steps": 1,
            "fits": True,
            "hbm_bytes_per_chip": 3 * GIB,
            "hbm_limit_bytes": 16 * GIB,
            **dict.fromkeys(("hbm_parameter_bytes", "hbm_optimizer_bytes", "hbm_temporary_bytes"), GIB),
            "estimated_kernel_seconds": 4.0,
            "estimated_communication_seconds": 2.0,
            "collectives": {},
            "estimated_step_seconds": 36.0,
            "estimated_xla_seconds": 30.0,
            "estimated_mfu": 0.5,
            "estimated_xla_mfu": 0.6,
            "estimated_tokens_per_second": 1e6,
        } | changes
        path = precompiled.file(training, pod_spec, topology)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report))

    return write


def test_slices_have_the_clouds_names_and_counts():
    names = {"v4:4x4x4": "v4-128", "v5e:16x16": "v5litepod-256", "v5p:4x4x8": "v5p-256", "v6e:16x16": "v6e-256"}
    assert {name: Topology.of(name).slice.accelerator_type for name in names} == names
    two = Topology.of("v5e:16x16", 2)
    assert (two.chips, two.hosts, str(two)) == (512, 128, "v5e:16x16 x 2")
    assert (Topology.of("v5p:4x4x8").chips, Topology.of("v5p:4x4x8").chip.dollars_per_hour) == (128, 4.20)


@pytest.mark.parametrize(
    ("name", "known"),
    [("v5p:3x3x3", "v5p:4x4x8"), ("v5e", "v5e:16x16"), ("v9:2x2", "v6e"), ("", "v4"), ("tpu7x:2x2x1", "v5p")],
)
def test_a_topology_that_does_not_exist_is_refused_with_those_that_do(name, known):
    with pytest.raises(ValueError, match=f"topology '{name}'.* {known}"):
        Topology.of(name)


def test_the_whole_runs_price_follows_from_a_steps_time(found, pod_spec):
    found(Topology.of("v5e:4x4"))
    (report,) = precompiled.known(TRAINING, dataclasses.replace(pod_spec, steps=100))
    assert report["chip_hours"] == pytest.approx(100 * 36 / 3600 * 16)
    assert report["dollars"] == pytest.approx(16 * 1.20)
    assert report["days"] == pytest.approx(1 / 24)


def test_what_was_found_of_another_step_is_not_this_ones(found, pod_spec):
    found(Topology.of("v5e:4x4"))
    assert precompiled.known(dataclasses.replace(TRAINING, log_every_steps=7), pod_spec)
    assert not precompiled.known(dataclasses.replace(TRAINING, remat="none"), pod_spec)
    h = dataclasses.replace(pod_spec.hyperparameters, batch_size=32)
    assert not precompiled.known(TRAINING, dataclasses.replace(pod_spec, hyperparameters=h))


def test_what_was_found_is_given_again_without_compiling(found, pod_spec, monkeypatch):
    monkeypatch.setattr(compiler, "Program", None)
    found(Topology.of("v5e:4x4"))
    assert compiler.precompile(TRAINING, pod_spec, Topology.of("v5e:4x4"))["estimated_step_seconds"] == 36


def test_a_report_tells_people_what_it_tells_programs(found, pod_spec):
    found(Topology.of("v5e:4x4"))
    told = "\n".join(precompiled.as_lines(compiler.precompile(TRAINING, pod_spec, Topology.of("v5e:4x4"))))
    for words in ("w8-m1 on v5e:4x4 (v5litepod-16, 16 chips)", "3.0 of 16 GiB", "36.000 s: XLA 30.000", "$5 on demand"):
        assert words in told
    found(Topology.of("v5e:4x4"), fits=False)
    told = precompiled.as_lines(compiler.precompile(TRAINING, pod_spec, Topology.of("v5e:4x4")))
    assert told[1:] == ["  does not fit: 3.0 of 16 GiB a chip"]


def test_the_plan_shows_chip_hours_where_they_are_known(found, pod_spec):
    found(Topology.of("v5e:4x4"))
    found(Topology.of("v4:2x2x1", 1), fits=False)
    hours = precompiled.chip_hours(TRAINING, [pod_spec])
    assert hours == {pod_spec.run: {"v5e:4x4": pytest.approx(25 * 36 / 3600 * 16)}}


def test_an_overflow_is_read_from_the_compilers_words_and_answered_with_advice(pod_spec):
    words = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
        "Used 35.96G of 31.25G hbm. Exceeded hbm capacity by 4.71G."
    )
    needed = compiler.hbm_overflow_bytes(words)
    assert needed == pytest.approx(35.96 * GIB) == compiler.hbm_overflow_bytes(words, argument_bytes=GIB)
    others = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (109.72G) exceeds "
        "available HBM (15.75G)."
    )
    assert compiler.hbm_overflow_bytes(others, argument_bytes=GIB) == pytest.approx(110.72 * GIB)
    assert compiler.hbm_overflow_bytes("INTERNAL: Mosaic failed to compile") is None
    h = dataclasses.replace(pod_spec.hyperparameters, batch_size=1024)
    spec = dataclasses.replace(pod_spec, hyperparameters=h)
    training = Training(remat="full", mesh=Mesh(data=4, fsdp=16))
    advice = compiler._advice(training, spec, Topology.of("v4:4x4x4"), needed)
    assert advice == (
        "w8-m1 needs 36.0 GiB a chip, 4.0 more than v4 has; set training.loss_chunk_tokens=512, then "
        "training.accumulation_steps=2, then training.mesh.fsdp=64, or take a larger topology"
    )


def test_the_search_takes_the_fastest_of_each_policys_first_that_fits(pod_spec, monkeypatch):
    h = dataclasses.replace(pod_spec.hyperparameters, batch_size=64)
    spec = dataclasses.replace(pod_spec, hyperparameters=h)
    tried, seconds = [], {"none": 3.0, "mixed+attended": 2.0, "attended": 2.5, "full": 2.6}

    def compiled(training, spec, topology):
        tried.append((training.remat, training.accumulation_steps, training.mesh.data, training.mesh.fsdp))
        fits = training.accumulation_steps >= {"none": 4, "mixed+attended": 2}.get(training.remat, 1)
        found = {"fits": fits, "hbm_bytes_per_chip": (1 if fits else 20) * GIB, "hbm_limit_bytes": 16 * GIB}
        return found | {"estimated_step_seconds": seconds[training.remat] if fits else None, "remat": training.remat}

    monkeypatch.setattr(search, "precompile", compiled)
    training = dataclasses.replace(TRAINING, mesh=Mesh(fsdp=4))
    best = search.fit(training, spec, Topology.of("v5e:4x4"), lambda line: None)
    assert best["remat"] == "mixed+attended"
    none = [("none", parts, 16 // fsdp, fsdp) for parts in (1, 2) for fsdp in (4, 16)] + [("none", 4, 4, 4)]
    mixed = [("mixed+attended", 1, 4, 4), ("mixed+attended", 1, 1, 16), ("mixed+attended", 2, 4, 4)]
    assert tried == [*none, *mixed, ("attended", 1, 4, 4), ("full", 1, 4, 4)]

    monkeypatch.setattr(search, "precompile", lambda *_: {**best, "fits": False, "hbm_bytes_per_chip": 20 * GIB})
    with pytest.raises(ValueError, match=r"does not fit v5e:4x4 in any way; the closest needs 20\.0 GiB"):
        search.fit(training, spec, Topology.of("v5e:4x4"), lambda line: None)
    ragged = dataclasses.replace(spec, hyperparameters=dataclasses.replace(h, batch_size=24))
    with pytest.raises(ValueError, match="a batch of 24 sequences does not split over 16 chips"):
        search.fit(training, ragged, Topology.of("v5e:4x4"), lambda line: None)


def test_without_libtpu_the_verb_says_what_to_install(pod_spec, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs libtpu"):
        compiler.precompile(TRAINING, pod_spec, Topology.of("v5e:2x2"))


@needs_libtpu
def test_a_step_is_compiled_for_a_slice_and_told_in_full(pod_spec, tmp_path):
    code = (
        "import json, pickle, sys; from ladder.pods import precompile as p; "
        "print(json.dumps(p.precompile(*pickle.load(sys.stdin.buffer))))"
    )
    given = pickle.dumps((dataclasses.replace(TRAINING, mesh=Mesh(fsdp=4)), pod_spec, Topology.of("v5e:2x2")))
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True, timeout=600)
    report = json.loads(done.stdout)
    assert report["fits"] and 0 < report["hbm_bytes_per_chip"] < report["hbm_limit_bytes"] == 16 * GIB
    assert report["hbm_optimizer_bytes"] == pytest.approx(2 * report["hbm_parameter_bytes"], rel=0.01)
    assert 0 < report["estimated_xla_seconds"] < report["estimated_step_seconds"]
    assert report["estimated_kernel_seconds"] > 0 and 0 < report["estimated_mfu"] < 1
    assert report["collectives"]["all-gather"]["bytes"] > 0 and report["compile_seconds"] > 0
