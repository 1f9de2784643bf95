"""Named, frozen recipes: (N, D) → batch, learning rate, warm-up, weight decay."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import pydantic

from fitting.laws.elementary import cos, maximum, minimum, sqrt, where

CooldownShape = Literal["1-sqrt", "linear"]
TRUNK_MULTIPLIER = 80  # M of the run whose batch and rate a trunk has
WARMUP_MULTIPLIER = 20  # M of the run whose warm-up it has, in tokens
LEAST_COOLDOWN_STEPS = 100
ROUNDING = 1.02  # a run's tokens are whole batches, so that its D is not quite the one that was tuned at


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

    def with_batch(self, batch_size: int) -> "Hyperparameters":
        """The same with another batch, and a warm-up and a cooldown of about as many tokens."""
        times = self.batch_size / batch_size
        cooldown = self.cooldown
        if cooldown:
            cooldown = dataclasses.replace(cooldown, steps=max(LEAST_COOLDOWN_STEPS, round(cooldown.steps * times)))
        warmup_steps = max(1, round(self.warmup_steps * times))
        return dataclasses.replace(self, batch_size=batch_size, warmup_steps=warmup_steps, cooldown=cooldown)


def learning_rate(h: Hyperparameters, steps: int, step: Any) -> Any:
    """Of steps counted from 0: linear warm-up, then half a cosine (open_lm's scheduler). Traceable.

    With a cooldown the rate is constant until that begins (Hägele et al. 2024, arXiv 2405.18392).
    """
    warmup = h.learning_rate * (step + 1) / h.warmup_steps
    height = _cosine(h, steps, step) if h.cooldown is None else _cooldown(h.cooldown, steps, step)
    after = h.final_learning_rate + height * (h.learning_rate - h.final_learning_rate)
    return where(step < h.warmup_steps, warmup, after)


def _cosine(h: Hyperparameters, steps: int, step: Any) -> Any:
    share = (step - h.warmup_steps) / max(1, steps - h.warmup_steps)
    return 0.5 * (1 + cos(math.pi * share))


def _cooldown(cooldown: Cooldown, steps: int, step: Any) -> Any:
    share = minimum(maximum((step - (steps - cooldown.steps)) / cooldown.steps, 0.0), 1.0)
    return 1 - (sqrt(share) if cooldown.shape == "1-sqrt" else share)


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config={"extra": "forbid", "strict": True})
class PowerLaw:
    """A hyperparameter as a power of N and of D: value (N / params)^params_exponent (D / tokens)^tokens_exponent.

    Attributes:
      value: at `params` and `tokens`.
      params, tokens: N and D amid the runs that it was tuned on.
      params_exponent, tokens_exponent: of N and of D.
      params_range, tokens_range, multipliers_range: N, D and D / N of those runs, least and most.
      covariance: of ln(value) and the two exponents; empty where it is not known.
    """

    value: float
    params: float
    tokens: float
    params_exponent: float
    tokens_exponent: float = 0.0
    params_range: tuple[float, float]
    tokens_range: tuple[float, float]
    multipliers_range: tuple[float, float]
    covariance: tuple[tuple[float, float, float], ...] = ()

    def at(self, params: float, tokens: float) -> float:
        """The value for a run."""
        _, n, d = self._direction(params, tokens)
        return self.value * math.exp(self.params_exponent * n + self.tokens_exponent * d)

    def interval(self, params: float, tokens: float, deviations: float = 1.96) -> tuple[float, float]:
        """So many standard deviations of its logarithm about the value for a run; NaN where they are not known."""
        away = self._direction(params, tokens)
        rows = zip(away, self.covariance, strict=False)
        variance = sum(a * b * c for a, row in rows for b, c in zip(away, row, strict=True))
        spread = math.exp(deviations * math.sqrt(variance)) if self.covariance else math.nan
        return self.at(params, tokens) / spread, self.at(params, tokens) * spread

    def beyond(self, params: float, tokens: float) -> str:
        """How far a run lies outside those that it was tuned on, in words; nothing where it lies among them."""
        asked = {"N": (params, self.params_range), "D": (tokens, self.tokens_range)}
        asked |= {"D/N": (tokens / params, self.multipliers_range)}
        far = {name: max(low / own, own / high) for name, (own, (low, high)) in asked.items()}
        return ", ".join(f"{name} by a factor of {by:.3g}" for name, by in far.items() if by > ROUNDING)

    def _direction(self, params: float, tokens: float) -> tuple[float, float, float]:
        return 1.0, math.log(params / self.params), math.log(tokens / self.tokens)


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


# Li et al. 2025 (Step Law, arXiv 2503.04715), abstract and section 4; their N leaves the embeddings out. The ranges are
# of the dense models in their released table.
STEP_LAW_RATE = PowerLaw(
    value=1.79,
    params=1.0,
    tokens=1.0,
    params_exponent=-0.713,
    tokens_exponent=0.307,
    params_range=(6e7, 1.074e9),
    tokens_range=(2e9, 1e11),
    multipliers_range=(1.86, 466.0),
)
STEP_LAW_BATCH_TOKENS = dataclasses.replace(STEP_LAW_RATE, value=0.58, params_exponent=0.0, tokens_exponent=0.571)


def steplaw2025(params: int, tokens: float, sequence_length: int) -> Hyperparameters:
    """The best rate and batch of Li et al. 2025 (Step Law, arXiv 2503.04715); `params` without embeddings, as theirs.

    They end every run at a rate of 1e-5, whatever its peak: where the end is a share of the peak, other peaks are best.
    Warm-up, weight decay and betas are the field's usual ones; their public material was not found to say them.
    """
    batch_size = splittable(STEP_LAW_BATCH_TOKENS.at(params, tokens) / sequence_length)
    return Hyperparameters(
        batch_size=batch_size,
        learning_rate=STEP_LAW_RATE.at(params, tokens),
        final_learning_rate=1e-5,
        warmup_steps=2000,
        weight_decay=0.1,
    )


def splittable(sequences: float) -> int:
    """The nearest whole number that is 4 to 7 times a power of two, so that a batch splits over many devices."""
    if sequences < 8:
        return max(1, round(sequences))
    power = 2 ** (math.floor(math.log2(sequences)) - 2)
    return power * round(sequences / power)


RECIPES: dict[str, Callable[[int, float, int], Hyperparameters]] = {
    "gadre2024": gadre2024,
    "tiny": tiny,
    "steplaw2025": steplaw2025,
}
# What a recipe takes for N where that is not all parameters, and within what it was tuned where that is known.
WITHOUT_EMBEDDINGS = ("steplaw2025",)
TUNED = {"steplaw2025": STEP_LAW_RATE}


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
