"""The Ray engine without a cluster: which slice a run is given, what is refused, how the dead are told apart."""

import dataclasses
import types

import pytest

pytest.importorskip("ray")

from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from ladder.config import Training
from ladder.engines import ray as engine
from ladder.pods.cloud import GENERATIONS, Slice

CONFIG = types.SimpleNamespace(training=Training())


def _node(topology, pod_type, alive=True):
    return {"Alive": alive, "Labels": {"ray.io/tpu-topology": topology, "ray.io/tpu-pod-type": pod_type}}


def _with_batch(spec, batch_size, run="a"):
    hyperparameters = dataclasses.replace(spec.hyperparameters, batch_size=batch_size)
    return dataclasses.replace(spec, run=run, hyperparameters=hyperparameters)


def test_the_kinds_of_slices_of_a_cluster_are_read_from_its_living_hosts():
    nodes = [_node("2x2x2", "v4-16"), _node("2x2x2", "v4-16"), _node("4x4", "v5litepod-16"), _node("2x2", "v6e-4")]
    nodes += [_node("4x4x4", "v5p-128", alive=False), {"Alive": True, "Labels": {}}, {"Alive": True}]
    assert list(map(str, engine.kinds(nodes))) == ["v6e:2x2", "v4:2x2x2", "v5e:4x4"]


def test_every_generation_has_a_name_that_ray_knows():
    from ray.util import accelerators

    known = {value for name, value in vars(accelerators).items() if name.startswith("GOOGLE_TPU")}
    assert {engine.accelerator(generation) for generation in GENERATIONS} <= known


def test_a_run_is_given_the_smallest_slice_over_which_it_splits(spec):
    there = [Slice.of("v6e:2x2"), Slice.of("v6e:4x4")]
    specs = [_with_batch(spec, 8, "small"), _with_batch(spec, 16, "large")]
    assert engine.assigned(CONFIG, specs, there, {}) == {"small": there[0], "large": there[0]}
    assert engine.assigned(CONFIG, specs, there, {"large": there[1]}) == {"small": there[0], "large": there[1]}
    assert engine.assigned(CONFIG, specs[1:], there[1:], {}) == {"large": there[1]}


def test_a_batch_that_splits_over_no_slice_is_refused(spec):
    with pytest.raises(
        ValueError, match=r"1 of 2 runs do not split over any slice .* v4:2x2x2: b: a batch of 6 .* are b"
    ):
        engine.assigned(CONFIG, [_with_batch(spec, 8), _with_batch(spec, 6, "b")], [Slice.of("v4:2x2x2")], {})


def test_a_slice_that_the_cluster_has_not_is_refused_by_name(spec):
    with pytest.raises(ValueError, match=r"has no slice v5p:2x2x4, it has v4:2x2x2; asked for by w8-m1"):
        engine.assigned(CONFIG, [spec], [Slice.of("v4:2x2x2")], {spec.run: Slice.of("v5p:2x2x4")})


def test_a_cluster_without_slices_is_refused(spec):
    with pytest.raises(ValueError, match="has no TPU slices"):
        engine.assigned(CONFIG, [spec], [], {})


class _UserError(Exception):
    def __init__(self, error):
        super().__init__("a traceback")
        self._base_exc = error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (WorkerGroupError("", {1: RuntimeError("The actor died because its node has died.")}), "taken away"),
        (WorkerGroupError("", {0: RuntimeError("Worker unexpectedly exits with a connection error code 2")}), "lost"),
        (WorkerGroupError("", {1: _UserError(ArithmeticError("no such number"))}), "failed"),
        (WorkerGroupError("", {1: _UserError(ValueError("no text"))}), "refused"),
        (WorkerGroupError("", {1: _UserError(RuntimeError("Connection closed by peer"))}), "lost"),
        (ControllerError(RuntimeError("WorkerGroupStartupTimeoutError")), "taken away"),
        (RuntimeError("left without a word"), "lost"),
    ],
)
def test_how_the_processes_of_a_slice_died_is_told_by_its_kind(error, why):
    assert engine.how_it_died("a", error).why == why
