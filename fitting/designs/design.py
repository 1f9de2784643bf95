"""Which runs to buy: those that leave the least doubt about a target's loss, for what they cost together.

Optimal design (Chaloner & Verdinelli 1995, section 2): near each of some laws that are plausible, a loss is linear in
the law's parameters, and what any set of runs would leave open of a target is known before one of them is trained.
The design is the set of least mean doubt over those laws (V-optimal for the targets; c-optimal for one). Before a
ladder the laws are drawn from what is believed (`fitting.designs.plausible`), after it the law is the one fitted.

What runs tell is weighed as `fitting.uncertainty` weighs it: a run of higher loss less, one near others for its own
scatter alone.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from fitting.artifacts.fitted import FittedLaw
from fitting.laws import catalogue
from fitting.linear import slopes
from fitting.uncertainty import alike, apart

_SIZES, _MULTIPLIERS = 13, 7
FLAT = 10.0  # standard deviation of the logarithm of what nothing is known of
POWERS = (0.0, 0.35, 0.7, 1.0)  # of what a run costs, by which what it tells is divided where a set grows
_WORTH = 0.005  # the share of the doubt that a run must take to be bought at all
_SWEEPS = 10
_FARTHEST = 1e6  # from a target, in squares of `REACH`, where there is no run
_CHEAP = 12  # of the cheapest runs, those among which the smallest ladder is sought

Cost = Callable[[np.ndarray], np.ndarray]  # sets of runs, by their places among all, [S, R] -> what each costs, [S]


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What H plausible laws foresee of K runs that could be bought and of T targets, near each law linear.

    Attributes:
      size_Kx2: N and D of each run.
      slope_HxKxP: of each run's loss in P parameters, each in standard deviations of what is known of it beforehand.
      target_HxTxP: the same of the targets.
      scale_HxK: standard deviation of each run's noise, in the loss's unit.
      misfit_H: what share of its variance runs of like sizes have in common.
      alike_KxK: correlation of that between runs.
      target_noise_H: standard deviation of what a target at a run's own size is off the law by; zero to leave it out.
      apart_TxK: square of the distance of each target from each run, in `REACH`, with which misfit grows.
    """

    size_Kx2: np.ndarray
    slope_HxKxP: np.ndarray
    target_HxTxP: np.ndarray
    scale_HxK: np.ndarray
    misfit_H: np.ndarray
    alike_KxK: np.ndarray
    target_noise_H: np.ndarray
    apart_TxK: np.ndarray

    @property
    def multiplier_K(self) -> np.ndarray:
        """M = D / N of each run."""
        return self.size_Kx2[:, 1] / self.size_Kx2[:, 0]

    def doubt(self, chosen_R: Sequence[int]) -> float:
        """The doubt that a set of runs leaves: root mean square over the targets, geometric mean over the laws."""
        chosen = np.asarray(chosen_R, int)
        _, _, variance_HxT = self._given(chosen)
        return float(self._mean(variance_HxT[..., None], self._apart_Tx1(chosen))[0])

    def doubt_with_one_more(self, chosen_R: Sequence[int]) -> np.ndarray:
        """The doubt that a set of runs leaves with each of the K runs added to it, [K]; seeds may be added."""
        chosen = np.asarray(chosen_R, int)
        whiten_HxRxR, turned_HxRxT, variance_HxT = self._given(chosen)
        turned_HxRxK = whiten_HxRxR @ self._covariance(chosen, np.arange(len(self.size_Kx2)))
        with_target_HxTxK = self._target_HxTxK - np.swapaxes(turned_HxRxT, 1, 2) @ turned_HxRxK
        open_HxK = np.maximum(self._law_HxK - np.square(turned_HxRxK).sum(1), 0) + self._own_HxK
        left_HxTxK = variance_HxT[..., None] - with_target_HxTxK**2 / open_HxK[:, None]
        return self._mean(left_HxTxK, np.minimum(self._apart_Tx1(chosen), self.apart_TxK))

    def _given(self, chosen_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What whitens a set's losses; their covariance with the targets', whitened; the targets' variance given it."""
        among_HxRxR = self._covariance(chosen_R, chosen_R)
        among_HxRxR += self._own_HxK[:, chosen_R, None] * np.eye(len(chosen_R))
        whiten_HxRxR = np.linalg.inv(np.linalg.cholesky(among_HxRxR))
        turned_HxRxT = whiten_HxRxR @ np.swapaxes(self._target_HxTxK[:, :, chosen_R], 1, 2)
        variance_HxT = np.square(self.target_HxTxP).sum(-1) - np.square(turned_HxRxT).sum(1)
        return whiten_HxRxR, turned_HxRxT, variance_HxT

    def _covariance(self, a_R: np.ndarray, b_I: np.ndarray) -> np.ndarray:
        """Of the laws' values and misfits at two sets of runs, [H, R, I], without each run's own noise."""
        law_HxRxI = self.slope_HxKxP[:, a_R] @ np.swapaxes(self.slope_HxKxP[:, b_I], 1, 2)
        shared_HxR = self.misfit_H[:, None] * self.scale_HxK[:, a_R]
        return law_HxRxI + self.alike_KxK[np.ix_(a_R, b_I)] * shared_HxR[..., None] * self.scale_HxK[:, None, b_I]

    def _apart_Tx1(self, chosen_R: np.ndarray) -> np.ndarray:
        return self.apart_TxK[:, chosen_R].min(1, initial=_FARTHEST, keepdims=True)

    def _mean(self, variance_HxTxK: np.ndarray, apart_TxK: np.ndarray) -> np.ndarray:
        """Over targets and laws, with what targets are off each law by, as `fitting.uncertainty.growth_beyond` says."""
        off_HxK = self.target_noise_H[:, None] ** 2 * (1 + self.misfit_H[:, None] * apart_TxK.mean(0))
        mean_HxK = np.maximum(variance_HxTxK, 0).mean(1) + off_HxK
        return np.exp(np.log(mean_HxK + 1e-30).mean(0) / 2)

    @functools.cached_property
    def _target_HxTxK(self) -> np.ndarray:
        return self.target_HxTxP @ np.swapaxes(self.slope_HxKxP, 1, 2)

    @functools.cached_property
    def _law_HxK(self) -> np.ndarray:
        return np.square(self.slope_HxKxP).sum(-1) + self.misfit_H[:, None] * self.scale_HxK**2

    @functools.cached_property
    def _own_HxK(self) -> np.ndarray:
        # Seeds that shared all would be one run.
        return np.maximum(1 - self.misfit_H, 1e-7)[:, None] * self.scale_HxK**2


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a set of runs must be, whatever a law that is only believed says of it.

    Attributes:
      least_runs, most_runs: of different sizes the former, seeds counted the latter.
      least_sizes: different N.
      spread: the largest token multiplier over the smallest; ladders of one multiplier hardly tell of another.
      seeds: of one size, at most.
    """

    least_runs: int = 5
    most_runs: int = 12
    least_sizes: int = 3
    spread: float = 4.0
    seeds: int = 3

    def allow(self, outlook: Outlook, chosen_SxR: np.ndarray) -> np.ndarray:
        """Which sets are as they must be, [S]."""
        if chosen_SxR.shape[1] < self.least_runs:
            return np.zeros(len(chosen_SxR), bool)
        multiplier_SxR = outlook.multiplier_K[chosen_SxR]
        wide_S = multiplier_SxR.max(1) >= self.spread * multiplier_SxR.min(1) * (1 - 1e-2)  # whole batches are read
        return (
            wide_S
            & (_different(outlook.size_Kx2[chosen_SxR, 0]) >= self.least_sizes)
            & (_different(chosen_SxR) >= self.least_runs)
            & (_most_alike(chosen_SxR) <= self.seeds)
            & (chosen_SxR.shape[1] <= self.most_runs)
        )


def _different(value_SxR: np.ndarray) -> np.ndarray:
    return 1 + (np.diff(np.sort(value_SxR, 1), axis=1) > 0).sum(1)


def _most_alike(value_SxR: np.ndarray) -> np.ndarray:
    return (value_SxR[:, :, None] == value_SxR[:, None]).sum(-1).max(1)


def smallest(outlook: Outlook, cost: Cost, rules: Rules) -> tuple[int, ...]:
    """The cheapest set that the rules allow, of the cheapest runs, the cheapest of each size and of each multiplier.

    Raises:
      ValueError: no set of these runs is allowed.
    """
    cost_K = cost(np.arange(len(outlook.size_Kx2))[:, None])
    by_cost = np.argsort(cost_K, kind="stable")
    sizes = np.unique(outlook.size_Kx2[by_cost, 0], return_index=True)[1]
    wide = np.unique(np.round(np.log(outlook.multiplier_K[by_cost]), 1), return_index=True)[1]
    places = np.unique([*range(min(_CHEAP, len(by_cost))), *np.sort(sizes)[:5], *np.sort(wide)[:5]])
    set_SxR = by_cost[np.array([*itertools.combinations(places, rules.least_runs)]).reshape(-1, rules.least_runs)]
    set_SxR = set_SxR[rules.allow(outlook, set_SxR)]
    if not len(set_SxR):
        raise ValueError(
            f"no {rules.least_runs} of {len(cost_K)} runs are of {rules.least_sizes} sizes and of token multipliers "
            f"that differ by a factor of {rules.spread:g}: give more sizes or token multipliers to choose from"
        )
    return tuple(map(int, set_SxR[cost(set_SxR).argmin()]))


def best(
    outlook: Outlook,
    cost: Cost,
    budget: float,
    rules: Rules = Rules(),
    landed: Sequence[int] = (),
    powers: Sequence[float] = POWERS,
    at_once: int = 2,
) -> tuple[int, ...]:
    """The runs to buy: of the sets that the rules and the budget allow, one of the least doubt that a search finds.

    A set grows from the smallest that is allowed, by the runs that tell most for a power of what they cost, and is then
    improved by exchanging one run at a time (Fedorov 1972), for each of a few powers.

    Args:
      outlook: what is foreseen.
      cost: what a set costs, so that runs may share some of it.
      budget: what may be spent beyond what those that landed cost.
      rules: what the set must be, with those that landed.
      landed: runs that are there already, of any number; they stay.
      powers: of what a run costs, by which what it tells is divided while a set grows; each is tried.
      at_once: how many runs, at most, one is tried in the place of; less of both is quicker.

    Returns:
      The places of all runs, those that landed first.

    Raises:
      ValueError: the budget is too small for any set that is allowed; says what would do.
    """
    start = tuple(landed)
    if not rules.allow(outlook, np.array([start], int)).all():
        start = smallest(outlook, cost, rules) if not landed else start
    spent = float(cost(np.array([landed], int))[0]) if landed else 0.0
    search = _Search(outlook, cost, spent + budget, rules, len(landed), at_once)
    if not landed and (least := float(cost(np.array([start]))[0])) > budget:
        raise ValueError(f"a budget of {budget:.3g} is too small for a law: the smallest that works is {least:.3g}")
    found = {tuple(sorted(each)): each for each in (search.improved(search.grown(start, p)) for p in powers)}
    return min(found.values(), key=outlook.doubt)


@dataclasses.dataclass(frozen=True)
class _Search:
    outlook: Outlook
    cost: Cost
    most: float
    rules: Rules
    landed: int
    at_once: int

    def grown(self, chosen: tuple[int, ...], power: float) -> tuple[int, ...]:
        """A set with runs added, while one is worth it."""
        before, spent = self.outlook.doubt(chosen), self._cost(chosen)
        while True:
            left_K, cost_K = self._with_one_more(chosen)
            told_K = np.where(left_K < (1 - _WORTH) * before, np.log(before) - np.log(left_K), 0.0)
            if not told_K.any():
                return chosen
            k = int((told_K / np.maximum(cost_K - spent, 1e-12 * self.most) ** power).argmax())
            chosen, before, spent = (*chosen, k), left_K[k], cost_K[k]

    def improved(self, chosen: tuple[int, ...]) -> tuple[int, ...]:
        """A set with one run in the place of one or of two while that helps, and without those that tell nothing."""
        doubt = self.outlook.doubt(chosen)
        for _ in range(_SWEEPS):
            before = doubt
            for taken in range(1, self.at_once + 1):
                chosen, doubt = self._exchanged(chosen, doubt, taken)
            chosen = self.grown(self._pruned(chosen), 0.0)
            doubt = self.outlook.doubt(chosen)
            if doubt > (1 - 1e-3) * before:
                break
        return chosen

    def _exchanged(self, chosen: tuple[int, ...], doubt: float, taken: int) -> tuple[tuple[int, ...], float]:
        for places in itertools.combinations(range(self.landed, len(chosen)), taken):
            if places[-1] < len(chosen):
                rest = tuple(k for r, k in enumerate(chosen) if r not in places)
                left_K, _ = self._with_one_more(rest)
                if left_K.min() < (1 - 1e-3) * doubt:
                    k = int(left_K.argmin())
                    chosen, doubt = (*rest, k), float(left_K[k])
        return chosen, doubt

    def _pruned(self, chosen: tuple[int, ...]) -> tuple[int, ...]:
        doubt = self.outlook.doubt(chosen)
        for r in sorted(range(self.landed, len(chosen)), reverse=True):
            rest = chosen[:r] + chosen[r + 1 :]
            if self._allowed(np.array([rest], int)).all() and self.outlook.doubt(rest) < (1 + _WORTH / 2) * doubt:
                chosen = rest
        return chosen

    def _with_one_more(self, chosen: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The doubt with each of the K runs added, infinite where that is not allowed or affordable, and the cost."""
        count = len(self.outlook.size_Kx2)
        set_KxR = np.column_stack([np.tile(np.array(chosen, int), (count, 1)), np.arange(count)])
        cost_K = self.cost(set_KxR)
        allowed_K = (cost_K <= self.most * (1 + 1e-9)) & self._allowed(set_KxR)
        return np.where(allowed_K, self.outlook.doubt_with_one_more(chosen), np.inf), cost_K

    def _allowed(self, set_SxR: np.ndarray) -> np.ndarray:
        if self.landed:  # what there is may be of too few sizes: each run more brings it nearer
            return (_most_alike(set_SxR) <= self.rules.seeds) & (set_SxR.shape[1] - self.landed <= self.rules.most_runs)
        return self.rules.allow(self.outlook, set_SxR)

    def _cost(self, chosen: tuple[int, ...]) -> float:
        return float(self.cost(np.array([chosen], int))[0]) if chosen else 0.0


def of_law(law: FittedLaw, target: tuple[float, float], size_Kx2: np.ndarray) -> Outlook:
    """What a fitted law foresees of runs (N, D) and of the target's own loss, without the noise that it will have."""
    form, fit = catalogue.named(law.loss.law), law.loss
    theta_1xP = np.array([tuple(fit.theta.values())])
    slope_1xIxP, loss_1xI = slopes(form, theta_1xP, (*np.array([target, *size_Kx2]).T,))
    sd_P = np.array([fit.beliefs[name][1] if name in fit.beliefs else FLAT for name in fit.theta])
    return Outlook(
        size_Kx2=size_Kx2,
        slope_HxKxP=slope_1xIxP[:, 1:] * sd_P,
        target_HxTxP=slope_1xIxP[:, :1] * sd_P,
        scale_HxK=fit.noise_at(loss_1xI[:, 1:], loss_1xI[:, 1:]),
        misfit_H=np.array([fit.misfit]),
        alike_KxK=alike(apart(np.log(size_Kx2), np.log(size_Kx2))),
        target_noise_H=np.zeros(1),
        apart_TxK=np.zeros((1, len(size_Kx2))),
    )


@dataclasses.dataclass(frozen=True)
class NextRun:
    """A run that could be added to the ladder.

    Attributes:
      params: N.
      tokens: D.
      flops: C = 6ND.
      doubt_left: what the run would leave of the standard deviation of the target's loss that the uncertainty of the
        law's parameters causes, as a fraction; of a batch, with those before it.
    """

    params: float
    tokens: float
    flops: float
    doubt_left: float


def next_runs(law: FittedLaw, params: float, tokens: float) -> tuple[float, tuple[NextRun, ...]]:
    """The doubt about the loss of the target (N, D), and the runs that would take most of it, by cost.

    Candidates are of the ladder's sizes and up to four times its largest, of its token multipliers, and take no more
    compute than the whole ladder did. Those are kept of which no cheaper one tells as much.

    Returns:
      The standard deviation, of the target's loss that the parameters' uncertainty causes; the runs.
    """
    candidate_Kx2 = _candidates(law, sum(point.flops for point in law.loss.points))
    target_doubt, left_K = doubt(law, (params, tokens), candidate_Kx2)
    flops_K = 6 * candidate_Kx2.prod(1)
    frontier: list[int] = []
    for k in np.lexsort((left_K, flops_K)):
        if left_K[k] < 0.995 * (left_K[frontier[-1]] if frontier else 1):
            frontier.append(int(k))
    return target_doubt, tuple(NextRun(*map(float, (*candidate_Kx2[k], flops_K[k], left_K[k]))) for k in frontier)


def batch(law: FittedLaw, params: float, tokens: float, budget_flops: float) -> tuple[NextRun, ...]:
    """The runs to add together, for so much compute, to know more of the loss of the target (N, D), by cost.

    Candidates are those of `next_runs` as far as the budget goes, seeds of the ladder's own runs among them.

    Raises:
      ValueError: the budget pays for no run that tells of the target.
    """
    landed_Nx2 = np.array([(point.params, point.tokens) for point in law.loss.points])
    candidate_Kx2 = np.concatenate([landed_Nx2, _candidates(law, budget_flops)])
    outlook = of_law(law, (params, tokens), candidate_Kx2)
    landed = tuple(range(len(landed_Nx2)))
    flops_K = 6 * candidate_Kx2.prod(1)
    rules = Rules(seeds=1 + _most_alike(_places(landed_Nx2)[None])[0])
    chosen = best(outlook, lambda set_SxR: flops_K[set_SxR].sum(1), budget_flops, rules, landed)[len(landed) :]
    if not chosen:
        raise ValueError(
            f"{budget_flops:.3g} FLOPs pay for no run that tells of N = {params:.3g}, D = {tokens:.3g}: the cheapest "
            f"of the ladder's sizes and token multipliers takes {flops_K.min():.3g}"
        )
    before, some = outlook.doubt(landed), list[NextRun]()
    for k in sorted(chosen, key=lambda k: flops_K[k]):
        landed = (*landed, k)
        some.append(NextRun(*map(float, (*candidate_Kx2[k], flops_K[k], outlook.doubt(landed) / before))))
    return tuple(some)


def doubt(law: FittedLaw, target: tuple[float, float], candidate_Kx2: np.ndarray) -> tuple[float, np.ndarray]:
    """The doubt about the loss of the target (N, D), and the fraction of it that each candidate (N, D) would leave."""
    ladder_Nx2 = np.array([(point.params, point.tokens) for point in law.loss.points])
    outlook = of_law(law, target, np.concatenate([ladder_Nx2, candidate_Kx2]))
    ladder = range(len(ladder_Nx2))
    before = outlook.doubt(ladder)
    return before, outlook.doubt_with_one_more(ladder)[len(ladder_Nx2) :] / before


def _places(size_Nx2: np.ndarray) -> np.ndarray:
    """For each run the number of its size."""
    return np.unique(size_Nx2, axis=0, return_inverse=True)[1].ravel()


def _candidates(law: FittedLaw, most_flops: float) -> np.ndarray:
    """(N, D) of every candidate."""
    points = law.loss.points
    sizes = [point.params for point in points]
    multipliers = [point.token_multiplier for point in points]
    grid_Kx2 = np.array(
        [
            (params, multiplier * params)
            for params in np.geomspace(min(sizes), 4 * max(sizes), _SIZES)
            for multiplier in np.geomspace(min(multipliers), max(multipliers), _MULTIPLIERS)
        ]
    )
    return grid_Kx2[6 * grid_Kx2.prod(1) <= most_flops]
