"""Named, frozen recipes: (N, D) → batch, learning rate, warm-up, weight decay."""

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

CooldownShape = Literal["1-sqrt", "linear"]
TRUNK_MULTIPLIER = 80  # M of the run whose batch and rate a trunk has
WARMUP_MULTIPLIER = 20  # M of the run whose warm-up it has, in tokens
LEAST_COOLDOWN_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Cooldown:
    """How a run at a constant rate ends: over its last `steps` the rate falls to the final one, by a `shape`."""

    steps: int
    shape: CooldownShape = "1-sqrt"


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Everything the optimiser is told.

    The learning rate climbs linearly to `learning_rate` over `warmup_steps` and falls by a half cosine to
    `final_learning_rate`; with a `cooldown` it stays there until that begins. Weight decay is decoupled and falls on
    every parameter, as open_lm's does. `batch_size` is in sequences.
    """

    batch_size: int
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float
    z_loss: float = 1e-4
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    cooldown: Cooldown | None = None

    @property
    def ramp_steps(self) -> int:
        """Of the warm-up and of the cooldown, where there is one: no run may be shorter."""
        return self.warmup_steps + (self.cooldown.steps if self.cooldown else 0)

    def scaled(self, factor: float) -> "Hyperparameters":
        """The same with every learning rate times `factor`."""
        return dataclasses.replace(
            self,
            learning_rate=self.learning_rate * factor,
            final_learning_rate=self.final_learning_rate * factor,
        )


def gadre2024(params: int, tokens: float, sequence_length: int) -> Hyperparameters:
    """The published ladder's table (Gadre et al. 2024, Table 2 and the released runs), read as steps in N."""
    del tokens, sequence_length
    steps = ((50e6, 64, 100), (200e6, 512, 400), (1e9, 512, 2000), (3e9, 256, 5000), (math.inf, 2048, 5000))
    batch_size, warmup_steps = next(own for below, *own in steps if params < below)
    large = params >= 3e9
    return Hyperparameters(
        batch_size=batch_size,
        learning_rate=3e-4 if large else 3e-3,
        final_learning_rate=3e-5,
        warmup_steps=warmup_steps,
        weight_decay=0.33 if large else 0.033,
    )


def tiny(params: int, tokens: float, sequence_length: int) -> Hyperparameters:
    """For models of 10^4 to 10^6 parameters on characters.

    The batch grows with D, so that every run takes about 4000 steps: the first few hundred teach a model to look one
    character back, and where they are a larger share of a smaller run, they bend the law. The learning rate falls with
    N by a power, as in Li et al. 2025 (Step Law); its constants are a sweep's over widths 24 to 80 on Python sources.
    With batches of 64 to 2000 tokens gradients are noisy: a long warm-up and a long memory of their squares (beta2)
    take 1 to 2 % off the loss of the smallest models, and a third off its scatter between seeds.
    """
    batch_size = max(1, round(tokens / (4000 * sequence_length)))
    if batch_size > 8:
        batch_size = 4 * round(batch_size / 4)  # splits into parts of the same few sequences
    steps = tokens / (batch_size * sequence_length)
    learning_rate = 0.0115 * (params / 25_000) ** -0.2
    return Hyperparameters(
        batch_size=batch_size,
        learning_rate=learning_rate,
        final_learning_rate=0.01 * learning_rate,
        warmup_steps=max(1, round(0.2 * steps)),
        weight_decay=0.033,
        beta2=0.99,
    )


RECIPES: dict[str, Callable[[int, float, int], Hyperparameters]] = {"gadre2024": gadre2024, "tiny": tiny}


def warmup_stable_decay(
    recipe: Callable[[int, float, int], Hyperparameters],
    params: int,
    tokens: float,
    sequence_length: int,
    cooldown: float,
    shape: CooldownShape,
) -> Hyperparameters:
    """A recipe with a warm-up, a constant rate and a cooldown in place of the cosine (Hägele et al. 2024).

    Runs of one size differ in nothing but where they cool down, and share their steps until then. Whatever D, batch and
    rate are those that the recipe has at M = 80, in the middle of the usual 20 to 320, and the warm-up takes as many
    tokens as at M = 20, so that the shortest are past it.

    Args:
      recipe: one of `RECIPES`.
      params, tokens, sequence_length: its arguments.
      cooldown: the share of the run's steps that it takes; `LEAST_COOLDOWN_STEPS` where those would be fewer.
      shape: of its fall.
    """
    h = recipe(params, TRUNK_MULTIPLIER * params, sequence_length)
    short = recipe(params, WARMUP_MULTIPLIER * params, sequence_length)
    warmup_steps = max(1, round(short.warmup_steps * short.batch_size / h.batch_size))
    steps = round(tokens / (h.batch_size * sequence_length))
    cooldown_steps = max(LEAST_COOLDOWN_STEPS, round(cooldown * steps))
    return dataclasses.replace(h, warmup_steps=warmup_steps, cooldown=Cooldown(cooldown_steps, shape))
