"""Fitting a law here against scipy doing the same work: many starts, and many resamples.

The work is the replication of Chinchilla's third approach (Besiroglu et al. 2024): 240 runs, five parameters, Huber's
loss of the log, from a grid of 4500 starts; and 4000 bootstrap resamples, each from the best fit. scipy takes it as
they did, by BFGS with gradients by autograd, a start at a time; and once more with gradients written out by hand, which
is as fast as scipy goes. It is given a sample, spread over all, and its time is extrapolated linearly.
Here all are polished too, in one compiled call; but of a start only the exponents are taken (25 pairs of them differ),
since the coefficients that suit them best are a linear solve.

    pip install autograd
    python benchmarks/fit_speed.py [POINTS.csv]   # N, D, loss, used; some 3 minutes; progress on stderr

Prints one JSON line: for `starts` and `resamples` the seconds of scipy (and of scipy with gradients by hand), ours
with compilation and without, and the ratios; the shares of starts at the optimum; how much longer twice the resamples
take; the peak memory of it all. Without POINTS.csv the runs are simulated from the published law.
"""

import itertools
import json
import resource
import sys
import time

import autograd.numpy as autograd_numpy
import numpy as np
import scipy.optimize
from autograd import grad
from scipy.special import logsumexp

from fitting import solve
from fitting.laws import catalogue
from fitting.laws.objectives import OBJECTIVES

LAW, OBJECTIVE = catalogue.LOSS_LAWS["chinchilla"], OBJECTIVES["log_huber"]
_AXES = ((0, 30, 5), (0, 30, 5), (-1, 1.5, 0.5), (0, 2.5, 0.5), (0, 2.5, 0.5))  # of a, b, e, alpha, beta
GRID = np.array(list(itertools.product(*(np.arange(*axis) for axis in _AXES))))
RESAMPLES = 4000
SAMPLED_STARTS, SAMPLED_RESAMPLES = 150, 60
SAME = 1 + 1e-6
_WORDS = {False: "by autograd", True: "by hand"}


def main() -> None:
    """Measures both and prints their ratios."""
    params, tokens, loss = runs()
    count = len(loss)
    rng = np.random.RandomState(42)
    draws = [rng.choice(count, count, replace=True) for _ in range(2 * RESAMPLES)]
    weight_RxN = np.array([np.bincount(draw, minlength=count) for draw in draws], float)

    shapes_GxQ = np.maximum(GRID[:, 3:], LAW.shape_ranges[:, 0])
    options = {"objective": OBJECTIVE, "positive": True}

    def ours_starts():
        return solve.minimise(LAW, (params, tokens), loss, nodes_GxQ=shapes_GxQ, starts=len(GRID), **options)

    def ours_resamples(node_Q, resamples=RESAMPLES):
        weights = weight_RxN[:resamples]
        return solve.minimise(
            LAW, (params, tokens), loss, weight_BxN=weights, nodes_GxQ=node_Q[None], starts=1, **options
        )

    cold_s, best = timed(ours_starts)
    warm_s = min(timed(ours_starts)[0] for _ in range(3))
    tell(f"4500 starts here: {cold_s:.2f} s with compilation, {warm_s:.2f} s without")
    boot_cold_s, ours = timed(lambda: ours_resamples(best.node_Q))
    boot_warm_s = min(timed(lambda: ours_resamples(best.node_Q))[0] for _ in range(3))
    tell(f"4000 resamples here: {boot_cold_s:.2f} s with compilation, {boot_warm_s:.2f} s without")
    ours_resamples(best.node_Q, 2 * RESAMPLES)
    twice_s = min(timed(lambda: ours_resamples(best.node_Q, 2 * RESAMPLES))[0] for _ in range(2))

    optimum = best.objective_B[0]
    sampled = GRID[np.random.default_rng(0).permutation(len(GRID))[:SAMPLED_STARTS]]
    scipy_starts, scipy_boot, share = {}, {}, 0.0
    a_b_e = [np.log(best.theta_BxP[0, i]) for i in (1, 2, 0)]
    start = np.array([*a_b_e, *best.theta_BxP[0, 3:]])
    for by_hand in (False, True):
        seconds, found = timed(lambda h=by_hand: [scipys(p, params, tokens, loss, h) for p in sampled])
        scipy_starts[by_hand] = seconds / SAMPLED_STARTS * len(GRID)
        optimum = min(optimum, *(value for _, value in found))
        share = max(share, np.mean([value <= optimum * SAME for _, value in found]))
        tell(f"4500 starts by scipy, gradients {_WORDS[by_hand]}: {scipy_starts[by_hand]:.0f} s")
        some = draws[:SAMPLED_RESAMPLES]
        seconds, resampled = timed(
            lambda h=by_hand, some=some: [scipys(start, params[i], tokens[i], loss[i], h) for i in some]
        )
        scipy_boot[by_hand] = seconds / SAMPLED_RESAMPLES * RESAMPLES
        tell(f"4000 resamples by scipy, gradients {_WORDS[by_hand]}: {scipy_boot[by_hand]:.0f} s")
    worse = np.array([o / value - 1 for o, (_, value) in zip(ours.objective_B, resampled, strict=False)])
    report = {
        "starts": ratios(scipy_starts, cold_s, warm_s),
        "resamples": ratios(scipy_boot, boot_cold_s, boot_warm_s),
        "optimum": float(best.objective_B[0]),
        "optimum_over_lowest_known": float(best.objective_B[0] / optimum),
        "share_at_optimum": float(best.share_at_optimum_B[0]),
        "scipy_share_at_optimum": float(share),
        "worst_resample_over_scipys": float(1 + worse.max()),
        "time_of_twice_the_resamples": twice_s / boot_warm_s,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(report))


def runs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D and loss of the 240 runs."""
    if len(sys.argv) > 1:
        import pandas as pd

        table = pd.read_csv(sys.argv[1])
        return tuple(table[table["used"] == 1][["N", "D", "loss"]].to_numpy().T)
    rng = np.random.default_rng(0)
    params, flops = np.exp(rng.uniform(np.log(6e7), np.log(1.6e10), 240)), 10 ** rng.uniform(18.3, 22, 240)
    tokens = flops / 6 / params
    loss = 1.817 + 482 * params**-0.348 + 2085 * tokens**-0.366
    return params, tokens, loss * np.exp(0.005 * rng.standard_t(3, 240))


def scipys(start_P: np.ndarray, N: np.ndarray, D: np.ndarray, loss: np.ndarray, by_hand: bool):
    """Parameters and objective of scipy's BFGS from one start, in (a, b, e, alpha, beta), as the replication has it."""
    value, slope = (_by_hand if by_hand else _by_autograd)(N, D, loss)
    with np.errstate(all="ignore"):
        found = scipy.optimize.minimize(value, start_P, jac=slope, method="BFGS")
    return found.x, found.fun


def _by_autograd(N, D, loss):
    """The objective, step by step the replication's, and its slope."""
    np = autograd_numpy

    def value(p):
        a, b, e, alpha, beta = p
        predicted = np.log(np.exp(a - alpha * np.log(N)) + np.exp(b - beta * np.log(D)) + np.exp(e))
        off = np.log(loss) - predicted
        return np.sum(np.where(np.abs(off) <= 1e-3, 0.5 * off**2, 1e-3 * (np.abs(off) - 0.5e-3)))

    return value, grad(value)


def _by_hand(N, D, loss):
    """The same without one logarithm or exponential too many."""
    log_N, log_D, log_loss, one_N = np.log(N), np.log(D), np.log(loss), np.ones(len(N))

    def terms(p):
        return np.stack([p[0] - p[3] * log_N, p[1] - p[4] * log_D, p[2] * one_N])

    def value(p):
        off = np.abs(logsumexp(terms(p), axis=0) - log_loss)
        return np.sum(np.where(off <= 1e-3, 0.5 * off**2, 1e-3 * (off - 0.5e-3)))

    def slope(p):
        parts = terms(p)
        total = logsumexp(parts, axis=0)
        share = np.exp(parts - total) * np.clip(total - log_loss, -1e-3, 1e-3)
        return np.array([share[0].sum(), share[1].sum(), share[2].sum(), -share[0] @ log_N, -share[1] @ log_D])

    return value, slope


def ratios(scipy_s: dict[bool, float], cold_s: float, warm_s: float) -> dict[str, float]:
    """Seconds and how many times fewer ours are."""
    return {
        "scipy_s": scipy_s[False],
        "scipy_by_hand_s": scipy_s[True],
        "with_compilation_s": cold_s,
        "s": warm_s,
        "ratio_with_compilation": scipy_s[False] / cold_s,
        "ratio": scipy_s[False] / warm_s,
        "ratio_to_scipy_by_hand": scipy_s[True] / warm_s,
    }


def timed(work):
    """Seconds and result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def tell(line: str) -> None:
    """Progress, to stderr."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
