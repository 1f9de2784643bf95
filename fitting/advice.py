"""From a fitted law to what to train: how large, how long, what over-training costs, which run to add to the ladder.

Optima are found by number, on the law itself, so they hold for any law of N and D; C = 6ND to train, 2N a token to
serve (Kaplan et al. 2020).
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from fitting.artifacts.fitted import FittedLaw, Prediction, central
from fitting.designs import design
from fitting.laws import catalogue
from fitting.laws.law import Law
from fitting.prediction import predict

SMALLER = (0.5, 1, 2, 4, 8, 16)  # the sizes whose over-training is told: the optimal N over these
_MOST_TOKENS = 1e24


@dataclasses.dataclass(frozen=True)
class Optimum:
    """A run that is best in some sense.

    Attributes:
      prediction: its N, D, loss, error and their intervals.
      params_interval: N* of the law's draws, at its level.
      lifetime_flops: 6ND to train it and 2N for every token it serves.
    """

    prediction: Prediction
    params_interval: tuple[float, float]
    lifetime_flops: float


@dataclasses.dataclass(frozen=True)
class OverTraining:
    """What it costs to train a model `times_smaller` than the compute-optimal one.

    Attributes:
      times_smaller: the optimal N over this N; below 1 for a larger model.
      params: N.
      tokens: D at the budget.
      loss: at the budget.
      loss_penalty: that above the optimum's.
      tokens_for_equal_loss: D that reaches the optimum's loss; infinite where none does.
      flops_overhead: the training compute this takes above the budget, as a fraction of it.
    """

    times_smaller: float
    params: float
    tokens: float
    loss: float
    loss_penalty: float
    tokens_for_equal_loss: float
    flops_overhead: float


@dataclasses.dataclass(frozen=True)
class Advice:
    """What `advise` says of a budget.

    Attributes:
      budget_flops: what training may take.
      served_tokens: how many tokens the model will serve, in and out.
      compute_optimal: the lowest loss for the budget.
      inference_aware: the least lifetime compute for the same loss; None where nothing is served.
      over_training: by model size.
      target: the run that `next_runs` are to tell more about: the last of the optima.
      doubt: standard deviation of its loss that the parameters' uncertainty causes.
      next_runs: the runs for which no cheaper one tells more, by cost.
      best_per_flop: that of `next_runs` which takes most of the doubt for its compute; None where there is none.
      params_column: what N counts in all of it, as in the law.
      unit: of every loss, penalty and doubt.
      add_flops: what runs that are added together may take; None where that was not asked.
      batch: those runs, by cost; `doubt_left` is what each leaves with those before it.
    """

    budget_flops: float
    served_tokens: float
    compute_optimal: Optimum
    inference_aware: Optimum | None
    over_training: tuple[OverTraining, ...]
    target: str
    doubt: float
    next_runs: tuple[design.NextRun, ...]
    best_per_flop: design.NextRun | None
    params_column: str = "params"
    unit: str = "nats per token"
    add_flops: float | None = None
    batch: tuple[design.NextRun, ...] = ()


def advise(
    law: FittedLaw, budget_flops: float, *, served_tokens: float = 0.0, add_flops: float | None = None
) -> Advice:
    """What to train for `budget_flops`, where the model will then serve `served_tokens` tokens.

    With `add_flops`, which runs to add to the ladder for that much compute, chosen together.

    >>> import fitting
    >>> law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select="corpus == 'rpj' and role == 'rung'")
    >>> advice = fitting.advise(law, budget_flops=1e22, served_tokens=1e12)
    >>> advice.inference_aware.prediction.params < advice.compute_optimal.prediction.params
    True

    Raises:
      ValueError: a budget or a count that is no positive number, a law of more than N and D, one without an optimum,
        too little compute to add a run.
    """
    if not (math.isfinite(budget_flops) and budget_flops > 0):
        raise ValueError(f"budget_flops is {budget_flops}: it must be a positive number, such as 1e21")
    if add_flops is not None and not (math.isfinite(add_flops) and add_flops > 0):
        raise ValueError(f"add_flops is {add_flops}: it must be a positive number, such as 1e19")
    if not (math.isfinite(served_tokens) and served_tokens >= 0):
        raise ValueError(f"served_tokens is {served_tokens}: it must be a number, zero or more, such as 1e12")
    form = catalogue.named(law.loss.law)
    if form.inputs != ("params", "tokens"):
        raise ValueError(
            f"{form.name} is a law of {', '.join(form.inputs)}: advise needs one of params and tokens alone"
        )
    # The fit itself comes first, then its draws.
    theta_PxS = np.asarray([list(law.loss.theta.values()), *law.loss.theta_draws]).T
    params_S = compute_optimal_params(form, theta_PxS, budget_flops)
    optimal = _optimum(law, params_S, budget_flops / 6 / params_S[0], served_tokens)
    loss = optimal.prediction.loss
    aware = None
    if served_tokens:
        loss_S = _loss(form, theta_PxS, params_S, budget_flops / 6 / params_S)
        aware_S = _inference_aware_params(form, theta_PxS, loss_S, budget_flops, served_tokens)
        aware = _optimum(law, aware_S, float(_tokens_for(form, theta_PxS[:, :1], aware_S[:1], loss)[0]), served_tokens)
    target = (aware or optimal).prediction
    doubt, next_runs = design.next_runs(law, target.params, target.tokens)
    return Advice(
        budget_flops=budget_flops,
        served_tokens=served_tokens,
        compute_optimal=optimal,
        inference_aware=aware,
        over_training=tuple(
            _over_training(form, theta_PxS[:, :1], optimal.prediction, budget_flops, times) for times in SMALLER
        ),
        target="inference_aware" if aware else "compute_optimal",
        doubt=doubt,
        next_runs=next_runs,
        best_per_flop=max(next_runs, key=lambda run: (1 - run.doubt_left) / run.flops, default=None),
        params_column=law.params_column,
        unit=law.loss.unit,
        add_flops=add_flops,
        batch=design.batch(law, target.params, target.tokens, add_flops) if add_flops else (),
    )


def _loss(form: Law, theta_PxS: np.ndarray, params_S: np.ndarray, tokens_S: np.ndarray) -> np.ndarray:
    return np.broadcast_to(form.evaluate(theta_PxS, params_S, tokens_S), np.shape(params_S))


def compute_optimal_params(form: Law, theta_PxS: np.ndarray, budget_flops: float) -> np.ndarray:
    """N that minimises L(N, C / 6N), for every draw.

    Raises:
      ValueError: a law without such an optimum, as the first draw has it.
    """

    def loss(log_params_SxG: np.ndarray) -> np.ndarray:
        params_SxG = np.exp(log_params_SxG)
        return _loss(form, theta_PxS[..., None], params_SxG, budget_flops / 6 / params_SxG)

    most = math.log(budget_flops / 6)
    log_params_S = _minimise(loss, theta_PxS.shape[1], 0.0, most)
    if not 0.01 < log_params_S[0] / most < 0.99:
        raise ValueError(
            f"the law {form.name}, as fitted, has no compute-optimal size for {budget_flops:.3g} FLOPs: its loss falls "
            f"all the way to N = {math.exp(log_params_S[0]):.3g}; fit more runs, of other sizes and token multipliers"
        )
    return np.exp(log_params_S)


def _inference_aware_params(
    form: Law, theta_PxS: np.ndarray, loss_S: np.ndarray, budget_flops: float, served_tokens: float
) -> np.ndarray:
    """N that minimises 6ND + 2N T where L(N, D) is `loss_S` (Sardana et al. 2024, Eq. 2), for every draw."""

    def log_lifetime_flops(log_params_SxG: np.ndarray) -> np.ndarray:
        params_SxG = np.exp(log_params_SxG)
        tokens_SxG = _tokens_for(form, theta_PxS[..., None], params_SxG, loss_S[:, None])
        return np.log(params_SxG) + np.log(6 * tokens_SxG + 2 * served_tokens)

    return np.exp(_minimise(log_lifetime_flops, theta_PxS.shape[1], 0.0, math.log(budget_flops / 6)))


def _tokens_for(form: Law, theta: np.ndarray, params: np.ndarray, loss: np.ndarray | float) -> np.ndarray:
    """D at which the loss of a run of `params` falls to `loss`; infinite where it never does. Bisection of log D."""
    low, high = np.zeros_like(params), np.full_like(params, math.log(_MOST_TOKENS))
    reached = _loss(form, theta, params, np.exp(high)) <= loss
    for _ in range(50):
        middle = (low + high) / 2
        enough = _loss(form, theta, params, np.exp(middle)) <= loss
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(reached, np.exp(high), np.inf)


def _minimise(f: Callable[[np.ndarray], np.ndarray], problems: int, low: float, high: float) -> np.ndarray:
    """The least of each of S functions of one variable that fall, then rise: a grid that closes in on it."""
    low_S, high_S = np.full(problems, low), np.full(problems, high)
    for _ in range(7):
        grid_SxG = np.linspace(low_S, high_S, 65, axis=1)
        best_S = np.clip(f(grid_SxG).argmin(1), 1, 63)[:, None]
        low_S, high_S = (np.take_along_axis(grid_SxG, best_S + step, 1)[:, 0] for step in (-1, 1))
    return (low_S + high_S) / 2


def _optimum(law: FittedLaw, params_S: np.ndarray, tokens: float, served_tokens: float) -> Optimum:
    params = float(params_S[0])
    return Optimum(
        prediction=predict(law, params, float(tokens)),
        params_interval=central(params_S[1:], law.level),
        lifetime_flops=params * (6 * float(tokens) + 2 * served_tokens),
    )


def _over_training(
    form: Law, theta_Px1: np.ndarray, optimal: Prediction, budget_flops: float, times_smaller: float
) -> OverTraining:
    params = optimal.params / times_smaller
    tokens = budget_flops / 6 / params
    params_1 = np.array([params])
    loss = float(_loss(form, theta_Px1, params_1, np.array([tokens]))[0])
    tokens_for_equal_loss = (
        tokens if times_smaller == 1 else float(_tokens_for(form, theta_Px1, params_1, optimal.loss)[0])
    )
    return OverTraining(
        times_smaller=times_smaller,
        params=params,
        tokens=tokens,
        loss=loss,
        loss_penalty=loss - optimal.loss,
        tokens_for_equal_loss=tokens_for_equal_loss,
        flops_overhead=6 * params * tokens_for_equal_loss / budget_flops - 1,
    )
