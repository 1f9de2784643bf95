"""A fitted law made from known parameters: 8 rungs, 2 targets, noise of 0.5 %. Nothing is fitted."""

import math

import numpy as np

from fitting.artifacts.fitted import FittedLaw, LawFit, LeftOut, Point, Prediction

LOSS_THETA = {"E": 0.9, "a": 3.1, "b": 28.0, "eta": 0.14}
ERROR_THETA = {"eps": 0.78, "k": 3.2, "gamma": 1.35}
RUNGS = [
    (15_000, 20),
    (15_000, 80),
    (15_000, 320),
    (26_000, 20),
    (41_000, 20),
    (60_000, 20),
    (60_000, 80),
    (110_000, 20),
]
TARGETS = [(250_000, 20), (76_000, 240)]
LEVEL = 0.8


def loss_of(theta: tuple[float, ...], params: float, tokens: float) -> float:
    E, a, b, eta = theta
    multiplier, flops = tokens / params, 6 * params * tokens
    return E + (a * multiplier**eta + b * multiplier**-eta) * flops**-eta


def error_of(theta: tuple[float, ...], loss: float) -> float:
    eps, k, gamma = theta
    return eps - k * math.exp(-gamma * loss)


def name(params: float, multiplier: float) -> str:
    return f"rung-n{params / 1000:g}k-m{multiplier:g}"


def synthetic_law(*, error: bool = True, targets: bool = True, rungs=RUNGS, seed: int = 0) -> FittedLaw:
    """A law as `fit` would give it; with `targets`, one is well predicted and one lies outside its interval."""
    random = np.random.default_rng(seed)
    theta, error_theta = tuple(LOSS_THETA.values()), tuple(ERROR_THETA.values())
    draws = np.asarray(theta) * (1 + 0.01 * random.standard_normal((300, 4)) * [1, 1, 1, 0.2])
    error_draws = np.asarray(error_theta) * (1 + 0.01 * random.standard_normal((300, 3)))
    loss_points, error_points = [], []
    for params, multiplier in rungs:
        tokens = params * multiplier
        loss = loss_of(theta, params, tokens)
        measured = loss * (1 + 0.005 * random.standard_normal())
        loss_points.append(Point(name(params, multiplier), params, tokens, measured, 0.004, loss))
        fitted = error_of(error_theta, measured)
        error_points.append(
            Point(
                name(params, multiplier),
                params,
                tokens,
                fitted + 0.008 * random.standard_normal(),
                0.012,
                fitted,
                {"loss": measured},
            )
        )
    predictions = []
    for (params, multiplier), miss in zip(TARGETS, (0.004, -0.031), strict=True):
        tokens = params * multiplier
        loss = loss_of(theta, params, tokens)
        predicted_error = error_of(error_theta, loss)
        predictions.append(
            Prediction(
                f"target-n{params / 1000:g}k-m{multiplier:g}",
                params,
                tokens,
                LEVEL,
                loss,
                (loss * 0.982, loss * 1.019),
                predicted_error if error else None,
                (predicted_error - 0.021, predicted_error + 0.02) if error else None,
                loss * (1 + miss),
                predicted_error + 0.011 if error else math.nan,
            )
        )
    return FittedLaw(
        method="default",
        loss=_fit("loss/code", "over_training", LOSS_THETA, draws, 0.005, True, loss_points),
        error=_fit("error/average", "exponential_decay", ERROR_THETA, error_draws, 0.009, False, error_points)
        if error
        else None,
        left_out=(
            LeftOut("rung-n8k-m20", "not selected by `params > 10_000`"),
            LeftOut("rung-n26k-m320", "quarantined: loss became NaN at step 1,204"),
        ),
        predictions=tuple(predictions) if targets else (),
        level=LEVEL,
        seed=seed,
        select="role == 'rung' and params > 10_000",
        testbed_sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        command="ladder fit testbed.csv --loss code --error average --out fits/default",
        versions={"jax": "0.10.2", "jaxopt": "0.8.5", "numpy": "2.4.6", "python": "3.11.7"},
        created="2026-11-23T06:20:00+00:00",
    )


def _fit(column, law, theta, draws, noise, relative, points) -> LawFit:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    intervals = {name: (lo, hi) for name, lo, hi in zip(theta, low.tolist(), high.tolist(), strict=True)}
    return LawFit(
        column=column,
        law=law,
        theta=theta,
        theta_intervals=intervals,
        theta_draws=tuple(map(tuple, draws.tolist())),
        noise=noise,
        noise_is_relative=relative,
        noise_growth=3.0 if relative else 0.0,
        lowest_loss=min(point.loss if column.startswith("error") else point.measured for point in points),
        misfit=0.5,
        beliefs={"eta": (0.17, 0.25)} if relative else {"gamma": (1.0, 0.5)},
        objective="mean squared residual of log loss",
        objective_value=2.1e-5,
        starts=64,
        share_at_optimum=0.97,
        at_bound=(),
        points=tuple(points),
        degrees_of_freedom=len(points) - len(theta),
    )
