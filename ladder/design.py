"""The rungs that tell most about the targets for a budget, chosen from all widths and depths that shard well.

The numbers are those of `fitting.designs`; here are the sizes, what they cost, and the YAML that a person changes.
"""

import dataclasses
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from fitting.designs import design as designs
from fitting.designs import plausible
from fitting.designs.design import Cost, Rules
from ladder import plan as plans
from ladder.config import Design, Grid, LadderConfig, Size
from ladder.spec import RunSpec
from models.config import DecoderConfig

MULTIPLIERS = (20.0, 40.0, 80.0, 160.0, 320.0, 640.0)  # below, runs are under-trained, and hardly tell of others
SMALLEST = 650  # times fewer parameters than the target, as Gadre et al. 2024, where the config names no smaller
SIZES = 40  # of about so many, evenly spread
DEPTHS = 0.2  # by what share a depth may differ from the proportions of the config's own sizes
BUDGETS = (1 / 4, 1 / 2, 2, 4)  # of the curve, in budgets


@dataclasses.dataclass(frozen=True)
class Bought:
    """A rung that was chosen: `seeds` runs of a size and a token multiplier.

    `cost` is of all of them, each alone; `interval_without` is the half width of the interval to expect without them.
    """

    size: str
    token_multiplier: float
    seeds: int
    params: int
    tokens: int
    cost: float
    interval_without: float


@dataclasses.dataclass(frozen=True)
class Alternative:
    """Another set of runs: what it costs, and the half width of the interval to expect of it."""

    name: str
    runs: int
    cost: float
    interval: float


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A design: its rungs, and why they are what they are.

    Attributes:
      targets: names of the runs that are to be predicted.
      unit: of every cost: `FLOPs`, `chip-hours` or `dollars`.
      budget: what may be spent.
      cost: what is.
      level: nominal coverage of every interval.
      interval: half width of the interval to expect of a target's loss, as a share of it.
      rungs: the cheapest first.
      curve: the best sets for less and for more, the cheapest first, this one among them.
      alternatives: the cheapest set that works, and the config's own rungs where it has some.
      candidates: how many runs there were to choose from.
      sizes: of the rungs and the targets, by name, the smallest first.
    """

    targets: tuple[str, ...]
    unit: str
    budget: float
    cost: float
    level: float
    interval: float
    rungs: tuple[Bought, ...]
    curve: tuple[Alternative, ...]
    alternatives: tuple[Alternative, ...]
    candidates: int
    sizes: Mapping[str, Size]


def choose(
    config: LadderConfig,
    vocab_size: int,
    price: Callable[[RunSpec], float] = lambda spec: spec.flops,
    *,
    unit: str = "FLOPs",
) -> Chosen:
    """The rungs for the config's design.

    Args:
      config: a ladder with targets and a design.
      vocab_size: ids of the vocabulary.
      price: what a run alone costs, in the budget's unit; infinite where it cannot be had.
      unit: `FLOPs`, `chip-hours` or `dollars`.

    Raises:
      ValueError: no targets or no budget, a target that does not shard or is inside the ladder, a budget too small.
    """
    wanted = config.design or Design()
    targets = _targets(config, vocab_size, wanted)
    dearest_allowed = min(map(price, targets))
    budget = _budget(wanted, dearest_allowed, unit)
    _refuse_inside(targets, dearest_allowed, budget, price, unit)
    sizes = _sizes(config, vocab_size, max(targets, key=lambda spec: spec.params))
    specs = [spec for spec in _candidates(config, vocab_size, sizes, targets, wanted) if price(spec) < dearest_allowed]
    price_K = np.array([price(spec) for spec in specs])
    cost_of = _together(specs, price_K)
    target_Tx2, size_Kx2 = (
        np.array([(s.params, s.tokens) for s in some], float).reshape(-1, 2) for some in (targets, specs)
    )
    outlook = plausible.outlook(size_Kx2, target_Tx2)
    rules = Rules(most_runs=wanted.most_runs, seeds=wanted.seeds)
    z = statistics.NormalDist().inv_cdf((1 + config.fit.level) / 2)

    def told(name: str, some: Sequence[int]) -> Alternative:
        return Alternative(name, len(some), float(cost_of(np.array([some]))[0]), z * outlook.doubt(some))

    cheapest = designs.smallest(outlook, cost_of, rules)
    least = told("the cheapest that works", cheapest)
    if least.cost > budget:
        raise ValueError(
            f"design: a budget of {budget:.3g} {unit} is too small for a law: the smallest that works is "
            f"{least.cost:.3g}, {', '.join(specs[k].run for k in cheapest)}"
        )
    chosen = designs.best(outlook, cost_of, budget, rules)
    found = told("the design", chosen)
    curve = [
        told(
            f"{factor:g} times the budget",
            designs.best(outlook, cost_of, factor * budget, rules, powers=(0.7,), at_once=1),
        )
        for factor in BUDGETS
        if least.cost <= factor * budget < dearest_allowed
    ]
    own = _own_rungs(config, vocab_size, size_Kx2)
    rungs = tuple(
        Bought(
            size=specs[k].size,
            token_multiplier=_asked(specs[k]),
            seeds=chosen.count(k),
            params=specs[k].params,
            tokens=specs[k].tokens,
            cost=float(chosen.count(k) * price_K[k]),
            interval_without=z * outlook.doubt([other for other in chosen if other != k]),
        )
        for k in sorted(set(chosen), key=lambda k: price_K[k])
    )
    kept = {rung.size for rung in rungs} | {target.size for target in targets}
    kept |= {name for grid in config.targets for name in grid.sizes}
    return Chosen(
        targets=tuple(spec.run for spec in targets),
        unit=unit,
        budget=budget,
        cost=found.cost,
        level=config.fit.level,
        interval=found.interval,
        rungs=rungs,
        curve=tuple(sorted([found, *curve], key=lambda one: one.cost)),
        alternatives=(least, *([told("the config's own rungs", own)] if own else [])),
        candidates=len(specs),
        sizes={name: size for name, size in (sizes | config.sizes).items() if name in kept},
    )


def _together(specs: Sequence[RunSpec], price_K: np.ndarray) -> Cost:
    """What sets of runs cost: a branch its cooldown alone, where the set has a longer run of its size and seed.

    As `ladder.plan.with_trunks` has it; seeds of a run are the same place again.
    """
    sizes = sorted({spec.size for spec in specs})
    size_K = np.array([sizes.index(spec.size) for spec in specs])
    steps_K = np.array([spec.steps for spec in specs])
    own_K = price_K * np.array([1 - spec.constant_steps / spec.steps for spec in specs])

    def cost(set_SxR: np.ndarray) -> np.ndarray:
        seed_SxR = np.tril(set_SxR[:, :, None] == set_SxR[:, None], -1).sum(-1)
        size_SxR, steps_SxR = size_K[set_SxR], steps_K[set_SxR]
        same_SxRxR = (size_SxR[:, :, None] == size_SxR[:, None]) & (seed_SxR[:, :, None] == seed_SxR[:, None])
        branch_SxR = (same_SxRxR & (steps_SxR[:, None] > steps_SxR[:, :, None])).any(-1)
        return np.where(branch_SxR, own_K[set_SxR], price_K[set_SxR]).sum(1)

    return cost


def as_tree(tree: Mapping[str, Any], chosen: Chosen, vocab_size: int, config: LadderConfig) -> dict[str, Any]:
    """A config's own tree, with the rungs that were chosen and the sizes of these and of its targets."""
    whole = dataclasses.replace(config, sizes=dict(chosen.sizes))
    params = {name: plans.params(whole, name, vocab_size) for name in chosen.sizes}
    by_params = sorted(chosen.sizes, key=params.__getitem__)
    sizes = {name: _told(chosen.sizes[name]) for name in by_params}
    return {**tree, "sizes": sizes, "rungs": [*_grids(chosen)]}


def dump(tree: Mapping[str, Any], remarks: Sequence[str]) -> str:
    """A config's tree as YAML, under remarks."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in remarks)
    return head + yaml.safe_dump(dict(tree), sort_keys=False, default_flow_style=None, width=120)


def _told(size: Size) -> dict[str, int]:
    return {name: value for name, value in dataclasses.asdict(size).items() if value is not None}


def _grids(chosen: Chosen) -> Iterator[dict[str, Any]]:
    """The rungs as a config has them: a grid for each token multiplier and number of seeds."""
    for multiplier, seeds in sorted({(rung.token_multiplier, rung.seeds) for rung in chosen.rungs}):
        sizes = [rung for rung in chosen.rungs if (rung.token_multiplier, rung.seeds) == (multiplier, seeds)]
        names = [rung.size for rung in sorted(sizes, key=lambda rung: rung.params)]
        whole = int(multiplier) if multiplier == int(multiplier) else multiplier
        yield {"sizes": names, "token_multipliers": [whole]} | ({"seeds": seeds} if seeds > 1 else {})


def _targets(config: LadderConfig, vocab_size: int, wanted: Design) -> list[RunSpec]:
    if not config.targets:
        raise ValueError("design: there is no target; say in targets which runs are to be predicted")
    with warnings.catch_warnings(action="ignore"):  # a plan says of a target what there is to say
        targets = list(plans.plan(dataclasses.replace(config, rungs=config.targets, targets=()), vocab_size))
    if wanted.target:
        targets = [plans.find(targets, wanted.target)]
    for target in targets:
        if why := _unsharded(config, target.decoder):
            raise ValueError(f"design: sizes.{target.size} does not shard: {why}")
    return targets


def _budget(wanted: Design, target_price: float, unit: str) -> float:
    own = {"FLOPs": wanted.budget.flops, "chip-hours": wanted.budget.chip_hours, "dollars": wanted.budget.dollars}
    if wanted.budget.target_share is not None:
        return wanted.budget.target_share * target_price
    if (given := own[unit]) is None:
        raise ValueError("design: there is no budget; give --budget-flops 3e19, or design.budget.flops in the config")
    return given


def _refuse_inside(
    targets: Sequence[RunSpec], least: float, budget: float, price: Callable[[RunSpec], float], unit: str
) -> None:
    if not math.isfinite(least):
        raise ValueError("design: a target fits none of the config's machines")
    if budget >= least:
        run = min(targets, key=price).run
        raise ValueError(
            f"design: the target {run} is inside the ladder: it costs {least:.3g} {unit} and the budget is "
            f"{budget:.3g}; train it, or name a larger target"
        )


def _candidates(
    config: LadderConfig, vocab_size: int, sizes: Mapping[str, Size], targets: Sequence[RunSpec], wanted: Design
) -> list[RunSpec]:
    """Every run that could be a rung: each size at each token multiplier, if it does not end within its warm-up."""
    multipliers = wanted.token_multipliers or tuple(sorted({*MULTIPLIERS, *map(_asked, targets)}))
    grid = Grid(sizes=tuple(sizes), token_multipliers=multipliers)
    with warnings.catch_warnings(action="ignore"):
        every = dataclasses.replace(config, sizes=dict(sizes), rungs=(grid,), targets=())
        return list(plans.plan(every, vocab_size))


def _own_rungs(config: LadderConfig, vocab_size: int, size_Kx2: np.ndarray) -> list[int]:
    """Places among K runs of the config's own rungs; nothing where it has none or one is not among them."""
    if not config.rungs:
        return []
    with warnings.catch_warnings(action="ignore"):
        own = [(s.params, s.tokens) for s in plans.plan(config, vocab_size) if s.role == "rung"]
    found = [np.flatnonzero((size_Kx2 == one).all(1)) for one in own]
    return [int(places[0]) for places in found] if all(len(places) for places in found) else []


def _asked(spec: RunSpec) -> float:
    """M as it was asked for, which whole batches round."""
    return float(spec.run.rpartition("-m")[2].partition("-s")[0])


def _sizes(config: LadderConfig, vocab_size: int, largest: RunSpec) -> dict[str, Size]:
    """Sizes below the largest target that shard, the smallest first: the config's own, and others in their proportions.

    None is smaller than the config's smallest, which says how far down its recipe holds. Heads are as wide as the
    target's. Of sizes of nearly as many parameters the one stays that is most in proportion.
    """
    named = [plans.params(config, name, vocab_size) for name in config.sizes]
    least = min(named) if min(named) < largest.params else largest.params / SMALLEST
    found: dict[int, tuple[float, str, Size]] = {}
    for name, size, off in (*((name, size, -1.0) for name, size in config.sizes.items()), *_shapes(config, largest)):
        decoder = plans.decoder(dataclasses.replace(config, sizes={name: size}), name, vocab_size)
        params = plans.params(dataclasses.replace(config, sizes={name: size}), name, vocab_size)
        if least <= params < largest.params and not _unsharded(config, decoder):
            found[params] = min(found.get(params, (math.inf, "", size)), (off, name, size), key=lambda one: one[0])
    if not found:
        mesh = config.training.mesh
        raise ValueError(
            f"design: no size below {largest.size} shards over training.mesh, fsdp {mesh.fsdp} and tensor "
            f"{mesh.tensor}, with heads as wide as its own, {largest.decoder.head_width}"
        )
    log_n = np.log(sorted(found))
    bins = np.round((SIZES - 1) * (log_n - log_n[0]) / max(log_n[-1] - log_n[0], 1e-9))
    kept: dict[float, int] = {}
    for place, params in zip(bins, sorted(found), strict=True):
        if place not in kept or found[params][0] < found[kept[place]][0]:
            kept[place] = params
    own = {params for params, (off, _, _) in found.items() if off < 0}
    return {found[params][1]: found[params][2] for params in sorted({*kept.values()} | own)}


def _shapes(config: LadderConfig, largest: RunSpec) -> Iterator[tuple[str, Size, float]]:
    """Names, widths and depths up to the target's, and how far off the config's proportions of them each is."""
    shape, head_width, mesh = config.sizes[largest.size], largest.decoder.head_width, config.training.mesh
    known = sorted({size.width: size.layers for size in config.sizes.values()}.items())
    width_S, layers_S = np.log(np.array(known, float)).T
    step = math.lcm(head_width * mesh.tensor, mesh.fsdp)
    for width in range(step, shape.width + 1, step):
        ideal = math.exp(np.interp(math.log(width), width_S, layers_S))
        if len(known) == 1:
            ideal = max(1.0, shape.layers * width / shape.width)
        heads = width // head_width
        key_heads = shape.key_heads and max(1, round(heads * shape.key_heads / shape.heads))
        if width % head_width or (key_heads and heads % key_heads):
            continue
        for layers in range(max(1, round(ideal * (1 - DEPTHS))), round(ideal * (1 + DEPTHS)) + 1):
            size = Size(width=width, layers=layers, heads=heads, key_heads=key_heads)
            yield f"w{width}-l{layers}", size, abs(math.log(layers / ideal))


def _unsharded(config: LadderConfig, decoder: DecoderConfig) -> str:
    """Why a size does not split over the config's mesh (`ladder.training.mesh.RULES`); nothing where it does."""
    mesh = config.training.mesh
    parts = (
        ("width", decoder.width, "fsdp", mesh.fsdp),
        ("heads", decoder.heads, "tensor", mesh.tensor),
        ("key_heads", decoder.groups, "tensor", mesh.tensor),
        ("feed-forward width", decoder.ffn_width, "tensor", mesh.tensor),
        ("vocabulary, of model.vocab_multiple,", decoder.vocab_size, "tensor", mesh.tensor),
    )
    uneven = (f"{name} {count} over training.mesh.{axis} {ways}" for name, count, axis, ways in parts if count % ways)
    return next(uneven, "")
