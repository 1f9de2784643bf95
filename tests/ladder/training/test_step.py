"""One step of training: the same numbers however the model is laid over devices, compiled once, no logits gathered."""

import dataclasses
import functools
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh as DeviceMesh

import decoders
from decoders import attend_causally
from ladder.config import Mesh, Training
from ladder.recipe import Hyperparameters
from ladder.spec import RunSpec
from ladder.training import mesh as meshes
from ladder.training.step import Program, TrainState, init_state, make_optimizer, train_step
from models import decoder, layers, splash
from models.config import DecoderConfig
from models.decoder import WIDE, Decoder, attend
from models.execution import HERE, REMAT, Execution
from models.lookup import look_up

VOCABULARY = 256
SPEC = RunSpec(
    run="w16-m1",
    role="rung",
    size="w16",
    decoder=DecoderConfig(width=16, layers=2, heads=4, vocab_size=VOCABULARY, ffn_multiple=8),
    sequence_length=32,
    steps=10,
    hyperparameters=Hyperparameters(
        batch_size=16, learning_rate=0.01, final_learning_rate=0.001, warmup_steps=2, weight_decay=0.033
    ),
    seed=0,
)
BATCH_BxT = np.random.default_rng(0).integers(0, VOCABULARY, (16, 33)).astype(np.int32)
ALONE = Training(mesh=Mesh(data=1))

# Every policy of rematerialisation with and without scanned layers, and every two of all other choices together: each
# axis of the mesh whole or split, all of the logits at once or some, the batch whole or in parts.
PAIRWISE = (
    Training(mesh=Mesh(data=2, slices=2), remat="none", loss_chunk_tokens=8),
    Training(mesh=Mesh(data=1, fsdp=2, tensor=4), remat="none", scan_layers=True, accumulation_steps=2),
    Training(mesh=Mesh(data=2, fsdp=2, tensor=2, slices=2), remat="full", accumulation_steps=2),
    Training(mesh=Mesh(data=1), remat="full", scan_layers=True, loss_chunk_tokens=16),
    Training(mesh=Mesh(data=1, fsdp=8), remat="attended", loss_chunk_tokens=8, accumulation_steps=2),
    Training(mesh=Mesh(data=2, tensor=2, slices=2), remat="attended", scan_layers=True),
    Training(mesh=Mesh(data=1, tensor=4), remat="mixed", accumulation_steps=2),
    Training(mesh=Mesh(data=4, fsdp=2, slices=2), remat="mixed", scan_layers=True, loss_chunk_tokens=16),
    Training(mesh=Mesh(data=1, fsdp=2, tensor=2), remat="mixed+attended", loss_chunk_tokens=16),
    Training(mesh=Mesh(data=8, slices=2), remat="mixed+attended", scan_layers=True, accumulation_steps=2),
)

# These begin as they would in a run that is new, with blocks apart and in stacks, on meshes with every axis split or
# two; all others as one that goes on: most of the time to make a first state is that to compile it.
BEGIN = PAIRWISE[1:3]

ON_EIGHT = """
import json, pickle, sys
sys.path[:0] = sys.argv[1:]
import test_step as t
for training in pickle.load(sys.stdin.buffer):
    print(json.dumps(t.two_steps(training)), flush=True)
"""


def size(mesh: Mesh) -> int:
    return mesh.data * mesh.fsdp * mesh.tensor


def every_mesh() -> list[Training]:
    """Every shape of mesh over 1, 2, 4 and 8 devices, each with another way to compute the same."""
    shapes = [
        (data, fsdp, devices // (data * fsdp))
        for devices in (1, 2, 4, 8)
        for data in (1, 2, 4, 8)
        for fsdp in (1, 2, 4, 8)
        if devices % (data * fsdp) == 0 and devices // (data * fsdp) <= 4
    ]
    ways = [
        {"scan_layers": True, "remat": "full"},
        {"scan_layers": True, "remat": "attended", "loss_chunk_tokens": 8},
        {"remat": "mixed+attended", "accumulation_steps": 2},
        {"scan_layers": True, "loss_chunk_tokens": 16, "accumulation_steps": 2},
    ]
    made = []
    for i, (data, fsdp, tensor) in enumerate(shapes):
        slices = 2 if data % 2 == 0 else 1
        made.append(Training(mesh=Mesh(data=data, fsdp=fsdp, tensor=tensor, slices=slices), **ways[i % len(ways)]))
    return made


def on_mesh(training: Training) -> Program:
    return Program(training, SPEC, meshes.of(training.mesh, jax.devices()[: size(training.mesh)]))


@functools.cache
def saved() -> TrainState:
    """The state before the first step, as it lies on disk."""
    return jax.device_get(on_mesh(ALONE).init())


def begun(program: Program) -> TrainState:
    """The same, as a run that goes on gets it."""
    sharding = jax.tree.map(lambda leaf: leaf.sharding, program.abstract_on_disk)
    return program.loaded(jax.device_put(saved(), sharding))


def two_steps(training: Training) -> dict:
    """Loss and gradient norm of two steps, the moment that is the first gradient, compilations, widest gathers."""
    program = on_mesh(training)
    batch = jax.device_put(BATCH_BxT, program.batch_sharding)
    state, first = program.step(program.init() if training in BEGIN else begun(program), batch)
    moments = layers.unstacked(jax.device_get(state.opt_state))[1][0].mu
    state, second = program.step(state, batch)
    text = program.step.lower(program.abstract, program.abstract_batch).compile().as_text()
    return {
        "training": dataclasses.asdict(training),
        "metrics": [[float(m["loss_nats"]), float(m["grad_norm"])] for m in (first, second)],
        "gradient": [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(moments)],
        "compilations": program.step._cache_size(),
        "gathers": [line for line in text.splitlines() if " all-gather(" in line],
        "holds_all_logits": "16,32,256]" in text or "512,256]" in text,
    }


def on_eight(trainings: Sequence[Training]) -> list[dict]:
    """What `two_steps` gives of each, in a process with eight devices."""
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT, os.path.dirname(__file__), os.path.dirname(decoders.__file__)],
        input=pickle.dumps(trainings),
        env={**os.environ, "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True,
        check=False,
    )
    assert not done.returncode, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return on_eight([ALONE, *PAIRWISE])


def assert_the_same(rows: Sequence[dict], alone: dict) -> None:
    for row in rows:
        how = str(row["training"])
        np.testing.assert_allclose(row["metrics"], alone["metrics"], rtol=2e-6, err_msg=how)
        for mine, one in zip(row["gradient"], alone["gradient"], strict=True):
            np.testing.assert_allclose(mine, one, rtol=0, atol=1e-5 * np.abs(one).max(), err_msg=how)
        assert row["compilations"] == 1
        assert not [line for line in row["gathers"] if _has_logits(line)], how


def test_a_pairwise_choice_of_meshes_and_layouts_gives_the_losses_and_the_gradients_of_one(rows):
    alone, *others = rows
    assert len(others) == len(PAIRWISE) and {size(training.mesh) for training in PAIRWISE} == {1, 2, 4, 8}
    assert_the_same(others, alone)


def test_the_choice_is_pairwise():
    def choices(t: Training) -> tuple:
        split = (t.mesh.data > 1, t.mesh.fsdp > 1, t.mesh.tensor > 1)
        return t.remat, t.scan_layers, *split, t.loss_chunk_tokens > 0, t.accumulation_steps > 1

    for one, other in itertools.combinations(zip(*map(choices, PAIRWISE), strict=True), 2):
        assert set(zip(one, other, strict=True)) == set(itertools.product(set(one), set(other)))
    assert {training.remat for training in PAIRWISE} == set(REMAT)


@pytest.mark.slow
def test_every_mesh_of_1_2_4_and_8_devices_gives_the_losses_and_the_gradients_of_one():
    alone, *others = on_eight([ALONE, *every_mesh()])
    assert len(others) == 1 + 3 + 6 + 9
    assert_the_same(others, alone)


def _has_logits(gather: str) -> bool:
    # Logits are the only arrays with a row of the vocabulary for every token.
    shape = gather.split(" = ")[1].split("[")[1].split("]")[0].split(",")
    return str(VOCABULARY) in shape and np.prod([int(n) for n in shape]) > VOCABULARY * SPEC.decoder.width


def test_a_gather_of_the_logits_would_be_seen():
    assert _has_logits("  %all-gather.1 = f32[16,32,256]{2,1,0} all-gather(%x), dimensions={0}")
    assert not _has_logits("  %all-gather.2 = f32[16,256]{1,0} all-gather(%w), dimensions={0}")


@pytest.mark.slow
def test_scanned_and_rematerialised_blocks_compute_what_plain_ones_do():
    ways = [Training(mesh=Mesh(data=1), scan_layers=scan, remat=remat) for remat in REMAT for scan in (False, True)]
    alone, *others = on_eight([ALONE, *ways])
    for row in others:
        np.testing.assert_allclose(row["metrics"], alone["metrics"], rtol=1e-6, err_msg=str(row["training"]))


def test_stacks_hold_every_block_in_order_and_come_apart_again():
    tree = {"embedding": 1.0, **{f"block_{i}": {"gain": jnp.full(3, i)} for i in range(12)}}
    both = layers.stacked({"params": tree, "moments": (tree,)})
    np.testing.assert_array_equal(both["moments"][0]["blocks"]["gain"][:, 0], np.arange(12))
    assert both["params"]["embedding"] == 1.0 and "block_0" not in both["params"]
    jax.tree.map(np.testing.assert_array_equal, layers.unstacked(both), {"params": tree, "moments": (tree,)})


def test_a_run_goes_on_in_another_layout_as_if_it_had_begun_in_it(workdir, train_here, losses_of, spec):
    spec = dataclasses.replace(spec, decoder=dataclasses.replace(spec.decoder, layers=2))
    train_here(spec, workdir, stop_at=15, scan_layers=True)
    train_here(spec, workdir)
    assert len(losses_of(workdir, spec)) == 5
    other = dataclasses.replace(spec, run="unrolled")
    train_here(other, workdir)
    np.testing.assert_allclose(losses_of(workdir, spec), losses_of(workdir, other), rtol=1e-5)


def test_chunks_never_make_all_the_logits(rows):
    of_one_device = [row for row in rows if size(Mesh(**row["training"]["mesh"])) == 1]
    assert {(row["training"]["loss_chunk_tokens"] > 0, row["holds_all_logits"]) for row in of_one_device} == {
        (False, True),
        (True, False),
    }


@pytest.mark.parametrize("groups", [4, 2])
def test_splash_attention_is_the_written_out_one(groups):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, h, 128, 24)), jnp.float32) for h in (4, groups, groups))
    visible_BxLxM = jnp.tril(jnp.ones((1, 128, 128), bool))
    weight = jnp.asarray(rng.normal(size=(2, 4, 128, 24)), jnp.float32)

    def both(attention):
        return jax.value_and_grad(lambda *qkv: (attention(*qkv) * weight).sum(), argnums=(0, 1, 2))(q, k, v)

    kernel = both(lambda *qkv: splash.attend(*qkv, interpret=True))
    written_out = both(lambda *qkv: attend(*qkv, visible_BxLxM))
    for mine, expected in zip(jax.tree.leaves(kernel), jax.tree.leaves(written_out), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_splash_attention_refuses_sequences_that_are_not_whole_lanes():
    with pytest.raises(ValueError, match="multiple of 128 tokens, not 64"):
        splash.attend(*(jnp.zeros((1, 1, 64, 8)) for _ in range(3)))


@pytest.mark.parametrize("width", [16, WIDE])
def test_a_kernel_s_layout_changes_no_logit_and_in_bfloat16_errs_no_more(width, monkeypatch):
    monkeypatch.setattr(decoder, "WIDE", 16 * WIDE // width)  # what is done from WIDE on is done from 16 on, or is not
    token_BxL = BATCH_BxT[:2, :-1]
    kernel = Execution(attend=attend_causally, platform="tpu")
    variables = jax.jit(Decoder(SPEC.decoder).init)(jax.random.key(0), token_BxL)
    bfloat16 = dataclasses.replace(SPEC.decoder, dtype="bfloat16")

    def slopes(c: DecoderConfig, execution: Execution = HERE) -> jax.Array:
        def score(variables):
            return jnp.square(Decoder(c, execution).apply(variables, token_BxL)).mean()

        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(jax.grad(score)(variables))])

    for of in (lambda *how: Decoder(*how).apply(variables, token_BxL), slopes):
        exact = of(SPEC.decoder)
        np.testing.assert_allclose(of(SPEC.decoder, kernel), exact, atol=1e-5)
        rounded, by_kernel = (
            jnp.sqrt(jnp.square(of(*how) - exact).mean()) for how in ((bfloat16,), (bfloat16, kernel))
        )
        assert 0 < by_kernel < 1.1 * rounded


@pytest.mark.parametrize("loss_chunk", [0, 8])
def test_a_step_made_for_a_gpu_is_the_step(loss_chunk):
    optimizer = make_optimizer(SPEC.hyperparameters, SPEC.steps)
    state = nn.unbox(jax.jit(lambda: init_state(SPEC, optimizer))())

    def first_moments(execution: Execution):
        decoder = Decoder(SPEC.decoder, execution)
        step = jax.jit(functools.partial(train_step, decoder, optimizer, 0.1, loss_chunk=loss_chunk))
        after, metrics = step(state, BATCH_BxT)
        return metrics, after.opt_state[1][0].mu

    for_gpu = first_moments(Execution(attend=attend_causally, look_up=look_up, platform="gpu"))
    for mine, expected in zip(jax.tree.leaves(for_gpu), jax.tree.leaves(first_moments(HERE)), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=2e-6, atol=1e-5 * np.abs(expected).max())


def test_bfloat16_steps_follow_float32_ones_with_float32_parameters(rows):
    spec = dataclasses.replace(SPEC, decoder=dataclasses.replace(SPEC.decoder, dtype="bfloat16"))
    program = Program(Training(scan_layers=True), spec, meshes.make())
    state, metrics = program.step(program.init(), BATCH_BxT)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert float(metrics["loss_nats"]) == pytest.approx(rows[0]["metrics"][0][0], rel=1e-3)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (Training(accumulation_steps=3), "w16-m1: a batch of 16 sequences does not split over 1 devices in 3 parts"),
        (Training(mesh=Mesh(fsdp=2)), "needs 2 devices, there are 1"),
        (Training(mesh=Mesh(slices=2)), "2 slices cannot share a data axis of 1"),
    ],
)
def test_what_does_not_divide_is_refused(training, message):
    with pytest.raises(ValueError, match=message):
        Program(training, SPEC, meshes.of(training.mesh))


def test_a_width_that_does_not_split_is_refused_with_its_name():
    spec = dataclasses.replace(SPEC, decoder=dataclasses.replace(SPEC.decoder, width=20, heads=1))
    mesh = jax.sharding.AbstractMesh((1, 8, 1), meshes.AXES)
    with pytest.raises(ValueError, match=r"w16-m1: params\.\S+ \(.*20.*\) does not split over fsdp=8"):
        Program(Training(mesh=Mesh(fsdp=8)), spec, mesh)


def test_the_mesh_axes_are_those_of_the_table():
    assert isinstance(meshes.make(), DeviceMesh)
    assert {axis for _, axes in meshes.RULES for axis in np.atleast_1d(axes) if axis} == set(meshes.AXES)
