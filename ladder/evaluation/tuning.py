"""A sweep's records → a tuned recipe, what it says in words, and how its rate does at a larger size."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fitting import files
from fitting.dynamics import valleys
from fitting.dynamics.valleys import Power, Tuned
from fitting.testbeds.testbed import RunRecord, Testbed
from ladder.config import Recipe
from ladder.evaluation import collect
from ladder.recipe import PowerLaw
from ladder.spec import RECORD_REMEDY, RunSpec, Workdir

DEVIATIONS = 1.96  # of a normal distribution, that hold 95 %


@dataclasses.dataclass(frozen=True)
class Confirmed:
    """The predicted rate of one larger size, held against its neighbours.

    Attributes:
      runs: by name, in the order of their rates: learning rate and loss, NaN where it diverged.
      predicted: the run of the law's own rate.
      holds: whether no other rate is better by more than the noise of two runs.
      words: all that for a person.
    """

    runs: Mapping[str, tuple[float, float]]
    predicted: str
    holds: bool
    words: str


def tune(workdir: Workdir, specs: Sequence[RunSpec], loss: str, factors: Sequence[str], *, seed: int) -> Tuned:
    """The laws of a sweep's best rates, and batches (`fitting.dynamics.valleys.tune`).

    Args:
      workdir: in which every run of the sweep has its record.
      specs: the sweep.
      loss: the column that is to be lowest.
      factors: `learning_rate` and perhaps `batch_tokens`.
      seed: of the intervals.

    Raises:
      ValueError: the sweep does not tell where its best rates are; with which runs would.
    """
    return valleys.tune(_testbed(workdir, specs), loss, factors, seed=seed)


def recipe(base: Recipe, tuned: Tuned) -> Recipe:
    """The recipe with what was tuned in place of its own."""
    laws: dict[str, Any] = {factor: _as_recipe(power) for factor, power in tuned.laws.items()}
    return dataclasses.replace(base, learning_rate_scale=1.0, **laws)


def confirm(workdir: Workdir, specs: Sequence[RunSpec], predicted: RunSpec, loss: str, noise: float) -> Confirmed:
    """Holds the run of a predicted rate against others of its size.

    Args:
      workdir: has their records.
      specs: of all of them.
      predicted: the one whose rate the law gave.
      loss: the column that is to be lowest.
      noise: of one run, as a fraction of its loss.
    """
    testbed = _testbed(workdir, specs)
    column = testbed.column(loss, "loss")
    by_rate = testbed.table.sort_values("learning_rate")
    rows = zip(by_rate["run"], by_rate["learning_rate"], by_rate[column], strict=True)
    runs = {run: (float(rate), float(value)) for run, rate, value in rows}
    own_rate, own_loss = runs[predicted.run]
    others = [value for run, (_, value) in runs.items() if run != predicted.run and not math.isnan(value)]
    ahead = min(others, default=math.inf) / own_loss - 1
    holds = ahead > -math.sqrt(2) * DEVIATIONS * noise
    told = ", ".join(
        f"{rate:.3g}: {'diverged' if math.isnan(value) else f'{value:.4f}'}" for rate, value in runs.values()
    )
    verdict = (
        f"better than its neighbours, by {ahead:.2%} of the loss"
        if ahead > 0
        else f"as good as the best of its neighbours, which is {-ahead:.2%} better, within the noise of two runs"
        if holds
        else f"{-ahead:.2%} worse than the best of its neighbours: the law does not hold there; tune at larger sizes"
    )
    where = f"{predicted.size} at {predicted.token_multiplier:.3g} tokens a parameter"
    return Confirmed(runs, predicted.run, holds, f"{where}: the law's {own_rate:.3g} is {verdict} ({told})")


def lines(tuned: Tuned) -> list[str]:
    """What was found, a line each: every valley, then every law, with 95 % intervals."""
    found = []
    for valley in tuned.valleys:
        best = ", ".join(
            f"{factor} {value:.3g} ({_within(value, valley.log_sd[factor])})" for factor, value in valley.best.items()
        )
        found.append(f"N = {valley.params:.4g}, D = {valley.tokens:.4g}: {best}, of {valley.runs} runs near the lowest")
    for factor, power in tuned.laws.items():
        found.append(f"{factor} = {_law(power)}")
        if not power.tokens_exponent:
            low, high = power.multipliers_range
            found.append(
                f"all runs have {low:.3g} to {high:.3g} tokens a parameter: the exponent of N holds along that ray"
            )
    return found


def as_data(tuned: Tuned, confirmed: Confirmed | None) -> dict[str, Any]:
    """JSON-ready."""
    told = dataclasses.asdict(tuned) | {"confirmed": dataclasses.asdict(confirmed) if confirmed else None}
    return files.finite(told)


def _testbed(workdir: Workdir, specs: Iterable[RunSpec]) -> Testbed:
    records = {spec: RunRecord.load(workdir.record(spec.run), RECORD_REMEDY) for spec in specs}
    settings = {}
    for spec in records:
        h = spec.hyperparameters
        own = {"learning_rate": h.learning_rate, "batch_tokens": h.batch_size * spec.sequence_length}
        settings[spec.run] = collect.settings(workdir, spec.run) | own
    return Testbed.from_records(list(records.values()), settings)


def _as_recipe(power: Power) -> PowerLaw:
    return PowerLaw(**{f.name: getattr(power, f.name) for f in dataclasses.fields(PowerLaw)})


def _law(power: Power) -> str:
    sd = [math.sqrt(power.covariance[i][i]) for i in range(3)]
    exponents = (("N", power.params, power.params_exponent, sd[1]), ("D", power.tokens, power.tokens_exponent, sd[2]))
    terms = [f"({name} / {at:.3g})^{value:.3f}" for name, at, value, _ in exponents if value]
    within = [f"{value - DEVIATIONS * s:.3f} to {value + DEVIATIONS * s:.3f}" for _, _, value, s in exponents if value]
    return f"{power.value:.3g} {' '.join(terms)} ({', '.join([_within(power.value, sd[0]), *within])})"


def _within(value: float, log_sd: float) -> str:
    spread = math.exp(DEVIATIONS * log_sd)
    return f"{value / spread:.3g} to {value * spread:.3g}"
