"""What HLO says of time and communication: counted by hand on a small program, and on one that XLA made."""

import functools
import re
import textwrap

import jax
import jax.numpy as jnp
import pytest

from ladder.pods import hlo

PROGRAM = """\
    HloModule jit_step, entry_computation_layout={(f32[8,128]{1,0})->f32[8,128]{1,0}}

    %add (x: f32[], y: f32[]) -> f32[] {
      %x = f32[] parameter(0)
      %y = f32[] parameter(1)
      ROOT %sum = f32[] add(%x, %y), CYCLES(7)
    }

    %async_collective_fusion.1 (p: bf16[8,128]) -> bf16[64,128] {
      %p = bf16[8,128]{1,0} parameter(0)
      %all-gather.1 = bf16[64,128]{1,0} all-gather(%p), channel_id=1, dimensions={0}
      ROOT %convolution.1 = bf16[64,128]{1,0} convolution(%all-gather.1, %p), CYCLES(5000)
    }

    %async_collective_fusion.2 (p: bf16[8,128]) -> bf16[64,128] {
      %p.1 = bf16[8,128]{1,0} parameter(0)
      ROOT %all-gather.2 = bf16[64,128]{1,0} all-gather(%p.1), channel_id=1, dimensions={0}
    }

    %all-reduce-scatter.3 (p: f32[64,128]) -> f32[8,128] {
      %p.2 = f32[64,128]{1,0} parameter(0)
      %all-reduce.9 = f32[64,128]{1,0} all-reduce(%p.2), channel_id=2, to_apply=%add
      ROOT %dynamic-slice.1 = f32[8,128]{1,0} dynamic-slice(%all-reduce.9), dynamic_slice_sizes={8,128}
    }

    %body (carry: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
      %carry = (s32[], f32[8,128]{1,0}) parameter(0)
      %fusion.1 = bf16[64,128]{1,0:T(8,128)(2,1)} fusion(%carry), calls=%async_collective_fusion.1, CYCLES(1000)
      %fusion.2 = bf16[64,128]{1,0} fusion(%fusion.1), kind=kLoop, calls=%async_collective_fusion.2, CYCLES(200)
      %splash_mha_fwd.1 = (f32[8,128]{1,0}, f32[8]{0}) custom-call(%fusion.2), custom_call_target="tpu_custom_call"
      ROOT %fusion.3 = (s32[], f32[8,128]{1,0}) fusion(%fusion.2), kind=kCustom, calls=%all-reduce-scatter.3, CYCLES(-1)
    }

    %condition (carry.1: (s32[], f32[8,128])) -> pred[] {
      %carry.1 = (s32[], f32[8,128]{1,0}) parameter(0)
      %counter = s32[] get-tuple-element(%carry.1), index=0
      %constant.5 = s32[]{:T(128)} constant(24)
      ROOT %compare.1 = pred[] compare(%counter, %constant.5), direction=LT
    }

    ENTRY %main (x.1: f32[8,128]) -> f32[8,128] {
      %x.1 = f32[8,128]{1,0} parameter(0)
      %while.1 = (s32[], f32[8,128]{1,0}) while(%x.1), condition=%condition, body=%body
      %all-reduce-start.1 = (f32[8,128]{1,0}, f32[4]{0}) all-reduce-start(%x.1, %x.1), channel_id=3, to_apply=%add
      %permute.1 = (f32[8,128]{1,0}, f32[8,128]{1,0}, u32[], u32[]) collective-permute-start(%x.1), channel_id=4
      %all-reduce-done.1 = f32[8,128]{1,0} all-reduce-done(%all-reduce-start.1)
      ROOT %copy.1 = f32[8,128]{1,0} copy(%all-reduce-done.1), CYCLES(30)
    }
    """
PROGRAM = re.sub(
    r"CYCLES\((-?\d+)\)", r'backend_config={"window_config":{"estimated_cycles":"\1"}}', textwrap.dedent(PROGRAM)
)


def test_cycles_are_summed_over_what_is_executed_and_loops_count_their_trips():
    assert hlo.cycles(PROGRAM) == 24 * (1000 + 200) + 30


def test_a_loop_whose_trips_the_compiler_knows_counts_them():
    known = PROGRAM.replace(
        "condition=%condition, body=%body", 'condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    )
    assert hlo.cycles(known) == 3 * (1000 + 200) + 30


def test_collectives_are_counted_once_a_channel_by_kind_and_bytes():
    assert hlo.collectives(PROGRAM) == {
        "all-gather": {"count": 24, "bytes": 24 * 64 * 128 * 2},
        "reduce-scatter": {"count": 24, "bytes": 24 * 64 * 128 * 4},
        "all-reduce": {"count": 1, "bytes": 8 * 128 * 4 + 4 * 4},
        "collective-permute": {"count": 1, "bytes": 8 * 128 * 4},
    }


def test_kernels_are_counted_by_name():
    assert hlo.kernel_calls(PROGRAM, "splash_mha_fwd") == 24
    assert hlo.kernel_calls(PROGRAM, "splash_mha_dq") == 0


@pytest.mark.parametrize("trips", [3, 17])
def test_the_trips_of_a_scan_are_read_from_what_xla_compiled(trips):
    def scan(x):
        return jax.lax.scan(lambda x, _: (jnp.sin(x) @ x, None), x, None, length=trips)[0]

    text = jax.jit(scan).lower(jax.ShapeDtypeStruct((16, 16), jnp.float32)).compile().as_text()
    assert max(i.times for i in hlo.instructions(text)) == trips


def test_a_program_of_one_device_communicates_nothing():
    text = jax.jit(functools.partial(jnp.sum, axis=0)).lower(jnp.ones((4, 4))).compile().as_text()
    assert hlo.collectives(text) == {} and hlo.cycles(text) == 0
