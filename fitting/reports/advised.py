"""Advice in words: three short tables, which the command line and a notebook lay out."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable

from fitting.reports.words import flops, percent, short

if typing.TYPE_CHECKING:
    from fitting.advice import Advice  # brings jax, which `--help` need not wait for
    from fitting.settings import Settings


@dataclasses.dataclass(frozen=True)
class Table:
    """Text by rows and columns, the first of them names; `remark` stands beneath."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""


def tables(advice: Advice) -> tuple[Table, ...]:
    """The best runs for a budget, what other sizes cost, and which run to add to the ladder, or which together."""
    return _optima(advice), _over_training(advice), _next_runs(advice), *([_batch(advice)] if advice.batch else [])


def settings_tables(settings: Settings) -> tuple[Table, ...]:
    """The best settings, and what other choices cost."""
    edge = [setting.name for setting in settings.settings if setting.at_edge]
    loss = f"{settings.loss:.4f}" + _interval(settings.loss_interval, "{:.4f}".format)
    budget = f" for {flops(settings.budget_flops)} FLOPs" if settings.budget_flops else ""
    best = Table(
        title=f"best settings{budget}: {settings.target}, {settings.unit}, is {loss}",
        columns=("", "best", "tried"),
        rows=(
            *(
                (
                    s.name,
                    f"{s.value:.4g}" + _interval(s.interval, "{:.3g}".format),
                    f"{s.tried[0]:.3g} to {s.tried[1]:.3g}",
                )
                for s in settings.settings
            ),
            *((name, f"{value:.4g}", "") for name, value in settings.given.items()),
        ),
        remark=f"at the edge of what was tried: {', '.join(edge)}; a better may lie beyond" if edge else "",
    )
    costs = [(f"{s.name}: {cost.choice}", cost) for s in settings.settings for cost in s.costs]
    costs += [(cost.choice, cost) for cost in settings.costs]
    return best, Table(
        title="what a wrong choice costs, the rest held",
        columns=("choice", f"penalty, {settings.unit.partition(' ')[0]}".removesuffix(", ")),
        rows=tuple(
            (name, f"{cost.penalty:+.4f}" + _interval(cost.penalty_interval, "{:+.4f}".format)) for name, cost in costs
        ),
        remark=""
        if all(cost.penalty >= 0 for _, cost in costs)
        else "below zero: better by the law, but beyond what was tried",
    )


def _optima(advice: Advice) -> Table:
    optima = {"compute-optimal": advice.compute_optimal, "inference-aware": advice.inference_aware}
    optima = {name: optimum for name, optimum in optima.items() if optimum}
    words = {
        "N": lambda o: short(o.prediction.params) + _interval(o.params_interval, short),
        "D": lambda o: short(o.prediction.tokens),
        "M = D/N": lambda o: short(o.prediction.token_multiplier),
        "loss": lambda o: f"{o.prediction.loss:.4f}" + _interval(o.prediction.loss_interval, "{:.4f}".format),
        "training FLOPs": lambda o: flops(o.prediction.flops),
        "lifetime FLOPs": lambda o: flops(o.lifetime_flops),
    }
    remark = ""
    if aware := advice.inference_aware:
        saved = 1 - aware.lifetime_flops / advice.compute_optimal.lifetime_flops
        remark = (
            f"serving {short(advice.served_tokens)} tokens, it takes {percent(saved, 0)} less compute in all for the "
            "same loss: 6ND to train, 2N a token to serve"
        )
    return Table(
        title=f"for {flops(advice.budget_flops)} training FLOPs, C = 6ND",
        columns=("", *optima),
        rows=tuple((name, *map(say, optima.values())) for name, say in words.items()),
        remark=remark,
    )


def _over_training(advice: Advice) -> Table:
    def size(times: float) -> str:
        return "optimal" if times == 1 else f"{times:g}× smaller" if times > 1 else f"{1 / times:g}× larger"

    return Table(
        title="over-training: what another size costs",
        columns=("size", "N", "D", "M", "loss", f"penalty, {_unit(advice)}", "compute for equal loss"),
        rows=tuple(
            (
                size(row.times_smaller),
                short(row.params),
                short(row.tokens),
                short(row.tokens / row.params),
                f"{row.loss:.4f}",
                f"+{row.loss_penalty:.4f}",
                percent(row.flops_overhead, 0, "+") if math.isfinite(row.flops_overhead) else "never reaches it",
            )
            for row in advice.over_training
        ),
    )


def _interval(ends: tuple[float, float], say: Callable[[float], str]) -> str:
    return f" ({' to '.join(map(say, ends))})" if math.isfinite(ends[0]) else ""


def _unit(advice: Advice) -> str:
    """Nats or bits."""
    return advice.unit.split()[0]


def _next_runs(advice: Advice) -> Table:
    return Table(
        title=f"next run: the doubt about the {advice.target.replace('_', '-')} run's loss is {advice.doubt:.4f} "
        f"{_unit(advice)} (standard deviation); one more run leaves of it",
        columns=("", "N", "D", "M", "C FLOPs", "doubt left"),
        rows=tuple(
            (
                "most per FLOP" if run == advice.best_per_flop else "",
                short(run.params),
                short(run.tokens),
                short(run.tokens / run.params),
                flops(run.flops),
                percent(run.doubt_left, 0),
            )
            for run in advice.next_runs
        ),
        remark="" if advice.next_runs else "no run as cheap as the ladder takes any of it",
    )


def _batch(advice: Advice) -> Table:
    return Table(
        title=f"runs to add together for {flops(advice.add_flops or 0.0)} FLOPs; each leaves of that doubt, with those "
        "above it",
        columns=("", "N", "D", "M", "C FLOPs", "doubt left"),
        rows=tuple(
            (
                str(i),
                short(run.params),
                short(run.tokens),
                short(run.tokens / run.params),
                flops(run.flops),
                percent(run.doubt_left, 0),
            )
            for i, run in enumerate(advice.batch, 1)
        ),
    )
