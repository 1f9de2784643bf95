"""One attention for each machine, and what is lowered for it: nothing of another's."""

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax._src.cudnn import fused_attention_stablehlo

from ladder.training import execution
from ladder.training import mesh as meshes
from ladder.training.step import init_state, make_optimizer, train_step
from models import cudnn, splash
from models.config import DecoderConfig
from models.decoder import Decoder
from models.execution import Execution
from models.lookup import look_up

CONFIG = DecoderConfig(width=256, layers=1, heads=4, vocab_size=512, ffn_multiple=8, dtype="bfloat16")
TPU = SimpleNamespace(platform="tpu", device_kind="TPU v5p")
H100 = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3", compute_capability="9.0")
V100 = SimpleNamespace(platform="gpu", device_kind="NVIDIA V100-SXM2-16GB", compute_capability="7.0")
AMD = SimpleNamespace(platform="gpu", device_kind="AMD Instinct MI300X", compute_capability="gfx942")
CPU = SimpleNamespace(platform="cpu", device_kind="cpu")


def mesh_of(device, tensor: int = 1):
    return SimpleNamespace(devices=np.array([device] * tensor, object), shape={"tensor": tensor})


@pytest.mark.parametrize(
    ("device", "changes", "length", "tensor", "expected"),
    [
        (TPU, {}, 2048, 1, "splash"),
        (TPU, {}, None, 1, "splash"),
        (TPU, {"dtype": "float32"}, 2048, 2, "splash"),
        (TPU, {}, 64, 1, "plain"),
        (TPU, {}, 2048, 8, "plain"),
        (H100, {}, 2048, 1, "cudnn"),
        (H100, {}, 17, 2, "cudnn"),
        (H100, {}, 2048, 8, "plain"),
        (H100, {"dtype": "float32"}, 2048, 1, "plain"),
        (H100, {"heads": 1}, 2048, 1, "plain"),  # of width 256
        (H100, {"head_dim": 12}, 2048, 1, "plain"),
        (V100, {}, 2048, 1, "plain"),
        (AMD, {}, 2048, 1, "plain"),
        (CPU, {}, 2048, 1, "plain"),
    ],
)
def test_each_machine_takes_the_fastest_that_it_has(device, changes, length, tensor, expected):
    c = dataclasses.replace(CONFIG, **changes)
    assert execution.attention("auto", c, mesh_of(device, tensor), "run", length) == expected
    assert execution.attention("plain", c, mesh_of(device, tensor), "run", length) == "plain"


@pytest.mark.parametrize(
    ("asked", "device", "length"),
    [("splash", CPU, 2048), ("splash", H100, 2048), ("splash", TPU, 64), ("cudnn", TPU, 2048), ("cudnn", V100, 2048)],
)
def test_a_kernel_that_is_not_the_machine_s_is_refused(asked, device, length):
    what = (
        f"run: training.attention={asked} is not for .* sequences of {length} .* {device.device_kind}; set it to auto"
    )
    with pytest.raises(ValueError, match=what):
        execution.attention(asked, CONFIG, mesh_of(device), "run", length)


def test_a_kernel_that_is_asked_for_is_taken_where_heads_split():
    assert execution.attention("splash", CONFIG, mesh_of(TPU), "run", 2048) == "splash"
    assert execution.attention("cudnn", CONFIG, mesh_of(H100), "run", 17) == "cudnn"
    with pytest.raises(ValueError, match="run: 4 heads do not split over tensor=8"):
        execution.attention("splash", CONFIG, mesh_of(TPU, 8), "run", 2048)


def test_a_cpu_needs_nothing_of_its_own():
    assert execution.on(meshes.make(), "plain") == Execution()


@pytest.fixture
def lowered(monkeypatch, spec):
    """The step of one block on 128 tokens, lowered for a platform that is not here."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    spec = dataclasses.replace(spec, decoder=CONFIG, sequence_length=128)
    optimizer = make_optimizer(spec.hyperparameters, spec.steps)

    def lower(platform: str, how: Execution) -> str:
        step = functools.partial(train_step, Decoder(CONFIG, how), optimizer, 1e-4, loss_chunk=64)
        state = nn.unbox(jax.eval_shape(lambda: init_state(spec, optimizer)))
        batch_BxT = jax.ShapeDtypeStruct((2, 129), jnp.int32)
        return jax.jit(step).trace(state, batch_BxT).lower(lowering_platforms=(platform,)).as_text()

    return lower


def products_of_a_turn(text: str) -> list[str]:
    """Products by a matrix of a head's width, 64, on both sides."""
    return [line for line in text.splitlines() if "dot_general" in line and "tensor<64x64xbf16>)" in line]


def test_a_step_for_nvidia_attends_by_cudnn_and_pays_for_nothing_of_a_tpu(lowered):
    text = lowered("cuda", Execution(attend=cudnn.attend, look_up=look_up, platform="gpu"))
    assert text.count("@__cudnn$fmhaSoftmax(") == text.count("@__cudnn$fmhaSoftmaxBackward(") == 1
    assert "optimization_barrier" not in text and not products_of_a_turn(text)
    # One scatter, of no two gradients to one row; and no scores.
    assert text.count('"stablehlo.scatter"(') == text.count("unique_indices = true") == 1
    assert "2x4x128x128xf32" not in text


def test_a_step_for_a_tpu_attends_by_splash_and_keeps_its_own(lowered):
    text = lowered("tpu", Execution(attend=splash.attend, platform="tpu"))
    assert "tpu_custom_call" in text and "optimization_barrier" in text and products_of_a_turn(text)
    assert "cudnn" not in text and "stablehlo.sort" not in text
