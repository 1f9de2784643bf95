"""From a law of more than size and data to the best of the rest: experts, vocabulary, rate and batch, domains.

Optima are found by number, on the law itself, within what the runs tried: a law says nothing of what none has shown.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from fitting import optima
from fitting.artifacts.fitted import FittedLaw, central
from fitting.laws import catalogue
from fitting.laws.law import Law
from fitting.prediction import NOTHING, predict

MEAN = "mean"  # of all the losses that have a law
_MOST_DRAWS = 200
_POINTS = 0.1  # by how much a proportion is wrong where its cost is told


@dataclasses.dataclass(frozen=True)
class Cost:
    """What another choice costs: the loss above the best one's, all else held, and its interval."""

    choice: str
    penalty: float
    penalty_interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Setting:
    """The best value of one input of a law.

    Attributes:
      name: the input.
      value: the best.
      interval: of the best by each of the law's draws.
      tried: the least and the most that a run fitted has.
      at_edge: whether the best is the least or the most tried: a better may lie beyond.
      costs: what wrong choices cost.
    """

    name: str
    value: float
    interval: tuple[float, float]
    tried: tuple[float, float]
    at_edge: bool
    costs: tuple[Cost, ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `best_settings` says.

    Attributes:
      target: the column whose loss is least, or `mean`.
      loss: at the best settings, of the columns in `losses` the mean.
      loss_interval: of that loss as one run would measure it.
      losses: by column.
      settings: what was chosen.
      given: what was not: as it was given, and tokens where they follow from a budget.
      budget_flops: C = 6ND; None where the law is not asked about any.
      costs: of mixtures that are no best one: equal parts, and the best that a run had.
      level: of every interval.
      unit: of every loss.
    """

    target: str
    loss: float
    loss_interval: tuple[float, float]
    losses: Mapping[str, float]
    settings: tuple[Setting, ...]
    given: Mapping[str, float]
    budget_flops: float | None
    costs: tuple[Cost, ...]
    level: float
    unit: str


def has_settings(law: FittedLaw) -> bool:
    """Whether the law is of something that can be chosen beside N and D."""
    form = catalogue.named(law.loss.law)
    return bool(form.chosen or form.proportions)


def best_settings(
    law: FittedLaw, *, budget_flops: float | None = None, given: Mapping[str, float] = NOTHING, target: str = MEAN
) -> Settings:
    """The settings of the lowest loss, within what the fitted runs tried, and what others cost.

    >>> import fitting, pandas as pd
    >>> web = [0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9]
    >>> runs = pd.DataFrame({"run": list("abcdefg"), "params": 1e8, "tokens": 1e10, "proportion_web": web})
    >>> runs["proportion_code"] = 1 - runs["proportion_web"]
    >>> runs["loss/web"] = 2.5 + 0.2 ** runs["proportion_web"]
    >>> law = fitting.fit(fitting.Testbed(runs), loss="web", law="mixture", method="best", resamples=0)
    >>> {setting.name: round(setting.value, 2) for setting in fitting.best_settings(law).settings}
    {'proportion_web': 0.9, 'proportion_code': 0.1}

    A mixture's is of the `target`, one of the losses that were fitted together, or their mean. With a budget, N and
    what else is not given is chosen too, and tokens follow: C = 6ND, with N what a token passes through.

    Raises:
      ValueError: a law of nothing to choose, a size that is not given, a budget or value that is no positive number, a
        target that has no law.
    """
    form = catalogue.named(law.loss.law)
    if not has_settings(law):
        raise ValueError(f"{form.name} is a law of {', '.join(form.inputs)}: there is nothing to choose but N and D")
    for name, value in given.items():
        bad, must = form.refuse(name, value)
        if name not in form.inputs or bad:
            problem = f"it must be {must}" if bad else f"{form.name} is a law of {', '.join(form.inputs)}"
            raise ValueError(f"{name} is {value:g}: {problem}")
    laws = _targeted(law, target)
    if form.proportions:
        if given or budget_flops is not None:
            raise ValueError(f"{form.name} is a law of proportions alone: it takes no budget, and nothing given")
        return _best_mixture(law, laws, form, target)
    if budget_flops is not None and not (math.isfinite(budget_flops) and budget_flops > 0):
        raise ValueError(f"budget_flops is {budget_flops}: it must be a positive number, such as 1e21")
    return _best_inputs(law, laws, form, budget_flops, given, target)


def _targeted(law: FittedLaw, target: str) -> tuple[FittedLaw, ...]:
    each = {one.loss.column: one for one in law.each}
    found = (
        tuple(each.values())
        if target == MEAN
        else tuple(one for name, one in each.items() if target in (name, name.partition("/")[2]))
    )
    if not found:
        raise ValueError(f"target {target!r} has no law here; there are {', '.join(each)} and {MEAN}")
    return found


def _theta_PxS(law: FittedLaw) -> np.ndarray:
    """The fit itself, then its draws."""
    return np.asarray([list(law.loss.theta.values()), *law.loss.theta_draws[:_MOST_DRAWS]]).T


def _tried(law: FittedLaw, name: str) -> tuple[float, float]:
    values = [point.value(name) for point in law.loss.points]
    return min(values), max(values)


def _best_inputs(
    law: FittedLaw,
    laws: Sequence[FittedLaw],
    form: Law,
    budget_flops: float | None,
    given: Mapping[str, float],
    target: str,
) -> Settings:
    sizes = [name for name in form.inputs if name.startswith("params")]
    follows = budget_flops is not None and "tokens" in form.inputs
    if budget_flops is not None and (not follows or "tokens" in given):
        why = "tokens are given" if follows else f"{form.name} is a law of {', '.join(form.inputs)}, not of tokens"
        raise ValueError(f"a budget is of 6ND, and {why}: leave out one of them")
    names = [name for name in form.inputs if name not in given and (name in form.chosen or (follows and name in sizes))]
    if untold := [name for name in form.inputs if name not in (*names, *given) and not (follows and name == "tokens")]:
        budget = " or a budget, --budget-flops" if "tokens" in untold else ""
        told = " ".join(f"{name}=…" for name in untold)
        raise ValueError(f"{form.name} is a law of {', '.join(form.inputs)} too: say --given {told}{budget}")
    if not names:
        raise ValueError(f"all that {form.name} is of is given: there is nothing to choose")

    most = (budget_flops or 0.0) / 6  # N of one token, and tokens of one parameter
    theta = [_theta_PxS(one) for one in laws]

    def columns(log_x_D: np.ndarray) -> dict[str, np.ndarray]:
        x = dict(given) | dict(zip(names, np.exp(np.moveaxis(log_x_D, -1, 0)), strict=True))
        return x | ({"tokens": most / sum(x[name] for name in sizes)} if follows else {})

    def loss(theta_PxS: np.ndarray, log_x_D: np.ndarray) -> np.ndarray:
        x = columns(log_x_D)
        return form.evaluate(theta_PxS, *(x[name] for name in form.inputs))

    def mean(log_x_D: np.ndarray, axes: int) -> np.ndarray:
        """The mean loss by every draw, [S, ...]: settings have one of S and as many axes more."""
        shape = (slice(None), slice(None), *[None] * axes)
        return np.mean([loss(theta_PxS[shape], log_x_D) for theta_PxS in theta], axis=0)

    tried = {name: _tried(law, name) for name in names}
    free = {name for name in sizes if follows and name not in form.chosen}  # a budget says where these lie
    bounds = [(0.0, math.log(most)) if name in free else tuple(np.log(tried[name])) for name in names]
    low_D, high_D = np.array(bounds).T
    log_best_SxD = optima.search(lambda x_SxGxD: mean(x_SxGxD, 1), theta[0].shape[1], low_D, high_D)
    best_D = log_best_SxD[0]
    at_best_S = mean(best_D, 0)
    settings = []
    for d, name in enumerate(names):
        step_D = math.log(2) * (np.arange(len(names)) == d)
        wrong = {"half": best_D - step_D, "twice": best_D + step_D}
        costs = [_cost(words, mean(wrong_D, 0) - at_best_S, law.level) for words, wrong_D in wrong.items()]
        edge = name not in free and min(best_D[d] - low_D[d], high_D[d] - best_D[d]) < 0.01 * (high_D[d] - low_D[d])
        interval = central(np.exp(log_best_SxD[1:, d]), law.level)
        settings.append(Setting(name, float(np.exp(best_D[d])), interval, tried[name], bool(edge), tuple(costs)))
    at_best = {name: float(value) for name, value in columns(best_D).items()}
    rest = {name: value for name, value in at_best.items() if name not in names}
    return _settings(law, laws, target, at_best, tuple(settings), rest, budget_flops=budget_flops)


def _best_mixture(law: FittedLaw, laws: Sequence[FittedLaw], form: Law, target: str) -> Settings:
    domains = form.proportions
    tried = {name: _tried(law, name) for name in domains}
    low_D, high_D = np.array(list(tried.values())).T
    theta = [_theta_PxS(one) for one in laws]

    def mean(r_D: np.ndarray, axes: int = 0) -> np.ndarray:
        """The mean loss by every draw: proportions have one axis more than those of S and of `axes` together."""
        shape = (slice(None), slice(None), *[None] * axes)
        return np.mean([form.evaluate(theta_PxS[shape], *np.moveaxis(r_D, -1, 0)) for theta_PxS in theta], axis=0)

    best_SxD = optima.search(lambda r_SxGxD: mean(r_SxGxD, 1), theta[0].shape[1], low_D, high_D, optima.proportions)
    best_D = best_SxD[0]
    at_best_S = mean(best_D)
    settings = []
    for d, name in enumerate(domains):
        wrong = {
            f"{100 * _POINTS:.0f} points {words}": _with_proportion(best_D, d, best_D[d] + by)
            for words, by in (("less", -_POINTS), ("more", _POINTS))
            if 0 <= best_D[d] + by <= 1
        }
        costs = [_cost(words, mean(wrong_D) - at_best_S, law.level) for words, wrong_D in wrong.items()]
        edge = min(best_D[d] - low_D[d], high_D[d] - best_D[d]) < 0.01 * (high_D[d] - low_D[d])
        interval = central(best_SxD[1:, d], law.level)
        settings.append(Setting(name, float(best_D[d]), interval, tried[name], bool(edge), tuple(costs)))
    had_NxD = np.array([[point.columns[name] for name in domains] for point in law.loss.points])
    others = {
        "equal parts": np.full(len(domains), 1 / len(domains)),
        "the best that a run had": had_NxD[np.argmin([mean(r_D)[0] for r_D in had_NxD])],
    }
    of_others = tuple(_cost(words, mean(r_D) - at_best_S, law.level) for words, r_D in others.items())
    at_best = dict(zip(domains, best_D.tolist(), strict=True))
    return _settings(law, laws, target, at_best, tuple(settings), {}, costs=of_others)


def _settings(
    law: FittedLaw,
    laws: Sequence[FittedLaw],
    target: str,
    at_best: Mapping[str, float],
    settings: tuple[Setting, ...],
    given: Mapping[str, float],
    *,
    budget_flops: float | None = None,
    costs: tuple[Cost, ...] = (),
) -> Settings:
    point = law.loss.points[0]
    params, tokens = at_best.get("params", point.params), at_best.get("tokens", point.tokens)
    columns = {name: value for name, value in at_best.items() if name not in ("params", "tokens")}
    told = {one.loss.column: predict(one, params, tokens, columns=columns) for one in laws}
    ends = np.mean([p.loss_interval for p in told.values()], axis=0)  # as if a run were off all laws alike
    return Settings(
        target=target if target == MEAN and len(laws) > 1 else laws[0].loss.column,
        loss=float(np.mean([p.loss for p in told.values()])),
        loss_interval=(float(ends[0]), float(ends[1])),
        losses={name: p.loss for name, p in told.items()},
        settings=settings,
        given=given,
        budget_flops=budget_flops,
        costs=costs,
        level=law.level,
        unit=law.loss.unit,
    )


def _cost(choice: str, penalty_S: np.ndarray, level: float) -> Cost:
    return Cost(choice, float(penalty_S[0]), central(penalty_S[1:], level))


def _with_proportion(r_D: np.ndarray, d: int, value: float) -> np.ndarray:
    """The mixture with one domain's proportion changed, the others' in the ratios that they had."""
    rest = 1 - r_D[d]
    changed_D = r_D * (1 - value) / rest if rest > 0 else np.full_like(r_D, (1 - value) / (len(r_D) - 1))
    changed_D[d] = value
    return changed_D
