"""A fitted law as an artifact: law.json holds all that `predict` and `report` need."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fitting import files

SCHEMA_VERSION = 6
_ADDED: Mapping[int, Mapping[str, Any]] = {
    3: {"params_column": "params", "tasks": {}, "others": []},
    4: {"tasks": {}, "others": []},
    5: {"others": []},
}
_UNITS = {"loss": "nats per token", "bpb": "bits per byte"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's name and its size: N = `params`, D = `tokens`."""

    run: str
    params: float
    tokens: float

    @property
    def token_multiplier(self) -> float:
        """M = D / N."""
        return self.tokens / self.params

    @property
    def flops(self) -> float:
        """C = 6 N D (Kaplan et al. 2020)."""
        return 6 * self.params * self.tokens


@dataclasses.dataclass(frozen=True)
class Point(Run):
    """One run as the law sees it. Losses in nats a token, errors as fractions; NaN where unknown.

    `columns` are the run's other numbers: what the law was given beside `params` and `tokens`, such as an error law's
    `loss`, the measured one; and what it might have been given in their place, `params_non_embedding` and `flops`.
    """

    measured: float
    measured_stderr: float
    fitted: float
    columns: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The measured loss that an error law was given; NaN in a loss law."""
        return self.columns.get("loss", math.nan)

    def value(self, name: str) -> float:
        """What the run has of one of the law's inputs."""
        return float(getattr(self, name) if name in ("params", "tokens") else self.columns[name])


def inputs_of(points: Sequence[Point], names: Iterable[str]) -> dict[str, np.ndarray]:
    """What N runs have of some of the law's inputs, each [N], by name."""
    return {name: np.array([point.value(name) for point in points]) for name in names}


@dataclasses.dataclass(frozen=True)
class LawFit:
    """One law fitted to one column of a testbed.

    Attributes:
      column: the testbed's column, such as `loss/code` or `error/average`.
      law: the law's name in `fitting.laws.catalogue`.
      theta: fitted parameters by name, in the law's order.
      theta_intervals: (low, high) of each parameter at the artifact's level.
      theta_draws: joint draws of the parameters, [draw][parameter in `theta`'s order], which carry every interval; one
        draw, the fit itself, carries none, and intervals are NaN.
      noise: standard deviation of one run's measurement around the law, in the column's unit (times the law's value
        where `noise_is_relative`), of a run of the lowest loss fitted or less: see `noise_at`.
      noise_is_relative: whether `noise` is a fraction of the law's value.
      noise_growth: the power of its loss over the lowest by which a run's noise is larger.
      lowest_loss: that was fitted, of several seeds of a size their mean; of an error law, that it was given.
      misfit: what share of the variance `noise` ** 2 runs of one size have in common, being off the law alike.
      beliefs: what was believed of shapes before the runs were seen: median, and standard deviation of the logarithm.
      objective: what was minimised, in words.
      objective_value: its value at `theta`.
      starts: how many starting points were tried.
      share_at_optimum: share of starts that reached the optimum.
      at_bound: names of parameters that lie at a bound.
      points: the runs fitted, with residuals.
      degrees_of_freedom: points less free parameters.
    """

    column: str
    law: str
    theta: Mapping[str, float]
    theta_intervals: Mapping[str, tuple[float, float]]
    theta_draws: tuple[tuple[float, ...], ...] = dataclasses.field(repr=False)
    noise: float
    noise_is_relative: bool
    noise_growth: float
    lowest_loss: float
    misfit: float
    beliefs: Mapping[str, tuple[float, float]]
    objective: str
    objective_value: float
    starts: int
    share_at_optimum: float
    at_bound: tuple[str, ...]
    points: tuple[Point, ...] = dataclasses.field(repr=False)
    degrees_of_freedom: int

    @property
    def unit(self) -> str:
        """What the column is in: nats per token, bits per byte, or nothing, as an error is a fraction."""
        return _UNITS.get(self.column.partition("/")[0], "")

    def noise_at(self, value: Any, loss: Any) -> Any:
        """Standard deviation around the law's `value` of the measurement of a run of loss `loss`; arrays, broadcast."""
        grown = np.maximum(loss / self.lowest_loss, 1.0) ** self.noise_growth
        return self.noise * grown * (value if self.noise_is_relative else 1.0)


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A row of the testbed that no law was fitted on, and why."""

    run: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Prediction(Run):
    """What the laws say of a run of `params` parameters and `tokens` tokens, intervals at `level`.

    `measured_loss` and `measured_error` are NaN for a projection: a run that does not yet exist. `columns` are the
    run's other numbers, as those of a `Point`, where known.
    """

    level: float
    loss: float
    loss_interval: tuple[float, float]
    error: float | None
    error_interval: tuple[float, float] | None
    measured_loss: float
    measured_error: float
    columns: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FittedLaw:
    """law.json: a loss law, perhaps an error law on top of it, and everything needed to repeat them.

    Attributes:
      method: how it was fitted, a name in `fitting.methods.METHODS`.
      loss: the loss law, L(N, D).
      error: the error law, Err(L), or None.
      others: laws of further losses, of the same form and runs; what was measured of them on a target is among its
        prediction's `columns`.
      left_out: rows of the testbed that were not fitted, each with the reason.
      predictions: the testbed's targets, predicted and scored.
      level: nominal coverage of every interval.
      seed: of every random draw.
      select: the row selection that was asked for.
      select_error: the same for the error law; None where it takes the loss law's rows, or there is none.
      params_column: the column of the table that N is of, in every law and prediction here; `params` counts all
        parameters, `params_non_embedding` those without the embeddings.
      objective: what the method `best` was told to minimise, a name in `fitting.laws.objectives`; None where it was
        not.
      tasks: of each single task that the error law's runs measured, what share of the variance of a run left out its
        error's law foretells from the others (`fitting.forms.foretold`).
      testbed_sha256: of the table's bytes.
      command: the command that made this file.
      versions: of the libraries that took part.
      created: ISO 8601 time.
    """

    method: str
    loss: LawFit
    error: LawFit | None
    left_out: tuple[LeftOut, ...] = dataclasses.field(repr=False)
    predictions: tuple[Prediction, ...] = dataclasses.field(repr=False)
    level: float
    seed: int
    select: str
    testbed_sha256: str
    command: str
    versions: Mapping[str, str]
    created: str
    select_error: str | None = None
    objective: str | None = None
    params_column: str = "params"
    others: tuple[LawFit, ...] = dataclasses.field(default=(), repr=False)
    tasks: Mapping[str, float] = dataclasses.field(default_factory=dict, repr=False)
    schema_version: int = SCHEMA_VERSION

    @property
    def each(self) -> "tuple[FittedLaw, ...]":
        """A law for each loss, this one first: what predicts one of them predicts each."""
        return (
            self,
            *(dataclasses.replace(self, loss=fit, error=None, others=(), predictions=()) for fit in self.others),
        )

    @property
    def fits(self) -> dict[str, LawFit]:
        """The laws by the part they fit: `loss`, and `error` where there is one."""
        return {"loss": self.loss} | ({"error": self.error} if self.error else {})


def is_lawful(foretold: float) -> bool:
    """Whether a task follows a law on its ladder: what `FittedLaw.tasks` says of it is half the variance or more."""
    return foretold >= 0.5


def central(value_S: np.ndarray, level: float) -> tuple[float, float]:
    """The central interval of S draws; NaN of one, which is a best fit and tells no interval."""
    if len(value_S) == 1:
        return math.nan, math.nan
    with np.errstate(invalid="ignore"):  # of draws that are infinite there is no interval
        low, high = np.quantile(value_S, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def save(law: FittedLaw, path: Any) -> None:
    """Writes law.json, whole or not at all. `path` may be on `gs://`.

    >>> import fitting, tempfile
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> fitting.save(law, f"{tempfile.mkdtemp()}/law.json")
    """
    files.save(law, path)


def load(path: Any) -> FittedLaw:
    """Reads law.json, of this version or the two before. Raises ValueError where it is not what `save` writes.

    >>> import fitting, tempfile
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> fitting.save(law, path := f"{tempfile.mkdtemp()}/law.json")
    >>> fitting.load(path).loss == law.loss
    True
    """
    return files.load(FittedLaw, path, added=_ADDED)
