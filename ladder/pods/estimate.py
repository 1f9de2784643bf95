"""What a run's step takes on a slice, counted on the back of an envelope: for plans, before anything is compiled.

Time is that of products at the chip's peak, of activations through its memory, of the attention kernels and of the
links; memory is that of parameters, moments and what the backward pass needs. The constants were fitted to what the
compiler said of the paper's ladder on v4, v5e, v5p and v6e (`docs/pods.md`), from 11M to 6.9B parameters on 4 to 256
chips: all of its times lie within a third, all of its bytes within a quarter. Needs no JAX.
"""

import dataclasses

from ladder.config import Training
from ladder.pods.cloud import Slice
from ladder.pods.topology import CHIPS, GIB
from ladder.spec import RunSpec

HBM_BYTES_PER_SECOND = {"v4": 1228e9, "v5e": 819e9, "v5p": 2765e9, "v6e": 1640e9}  # cloud.google.com/tpu/docs
LANES = 128  # a head is padded to so many
PEAK_OVER_PRODUCTS = 1.2
KERNEL_EFFICIENCY = 0.5  # as in `ladder.pods.precompile`
BLOCK_BYTES = 98  # through memory, of each feature of the stream and of the heads, a block and a token
LOGIT_BYTES = 66  # of each logit of a token
UPDATE_BYTES = 70  # of each parameter that a chip has, a step
GATHERED_BYTES, REDUCED_BYTES = 7, 58  # over the links, of each parameter: a part of the batch; a step, of a chip's own
# By policy: the share of the forward pass that is computed twice, the attention kernels' products, each of S x d FLOPs
# a token, and the activations of the stream's width that each block keeps.
REMAT = {
    "none": (0.0, 9, 20),
    "mixed+attended": (0.7, 9, 4),
    "mixed": (0.8, 9, 3),
    "attended": (0.9, 11, 2),
    "full": (1.0, 11, 1),
}
SAFETY = 0.85  # of the memory, beyond which an estimate does not say that a run fits


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of one step: its time, and the memory a chip."""

    step_seconds: float
    hbm_bytes_per_chip: float
    fits: bool


def estimate(training: Training, spec: RunSpec, where: Slice) -> Estimate:
    """Estimates a run's step on a slice over which it splits.

    Raises:
      ValueError: nothing is known of such chips.
    """
    if where.generation not in CHIPS:
        raise ValueError(f"{where}: nothing is known of its chips; take one of {', '.join(CHIPS)}")
    chip, c, n = CHIPS[where.generation], spec.decoder, spec.params
    m, batch_size, length = training.mesh, spec.hyperparameters.batch_size, spec.sequence_length
    rows = batch_size * m.tensor / where.devices
    parts = training.for_batch(max(1, round(rows))).accumulation_steps
    tokens = batch_size * length / where.chips
    again, kernel_products, kept = REMAT[training.remat]
    heads = c.heads * -(-c.head_width // LANES) * LANES
    own = n / (m.fsdp * m.tensor)

    products = (6 + 2 * again) * (spec.params_non_embedding + c.vocab_size * c.width) * tokens
    through = tokens * (BLOCK_BYTES * c.layers * (c.width + heads) + LOGIT_BYTES * c.vocab_size) + UPDATE_BYTES * own
    kernels = kernel_products * tokens * length * c.heads * c.head_width * c.layers / KERNEL_EFFICIENCY
    links = (GATHERED_BYTES * parts * n + REDUCED_BYTES * own) if where.chips > 1 else 0.0
    step_seconds = (
        (PEAK_OVER_PRODUCTS * products + kernels) / chip.peak_flops
        + through / HBM_BYTES_PER_SECOND[where.generation]
        + links / chip.ici_bytes_per_second
    )

    at_once = rows / parts * length / m.tensor
    logits = rows / parts * (training.loss_chunk_tokens or length) * c.vocab_size * 4 / m.tensor
    stream = at_once * c.width * (2 * kept * c.layers + 3)
    hbm_bytes = (12 + 5) * own + stream + logits + 3 * 4 * n / c.layers / m.tensor
    return Estimate(step_seconds, hbm_bytes, hbm_bytes < SAFETY * chip.hbm_gib * GIB)
