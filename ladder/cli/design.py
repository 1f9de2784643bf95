"""The verb that chooses a ladder's rungs."""

import dataclasses
import functools
import json as encoding
import math
from typing import Annotated, Any

import yaml
from tyro.conf import arg

from fitting import files
from fitting.reports.advised import Table
from fitting.reports.words import flops, percent, short
from ladder import config_file, config_tree, storage
from ladder import plan as plans
from ladder.cli import tables
from ladder.cli.arguments import ConfigPath, Json, Overrides, print_json, to_person
from ladder.config import Design, LadderConfig

_UNITS = {"flops": "FLOPs", "target_share": "FLOPs", "chip_hours": "chip-hours", "dollars": "dollars"}


def design(
    config: ConfigPath,
    *,
    budget_flops: Annotated[float | None, arg(metavar="C", help="what all rungs may take, 6ND, such as 3e19")] = None,
    budget_share: Annotated[float | None, arg(metavar="S", help="the same as a share of the cheapest target's")] = None,
    budget_chip_hours: Annotated[float | None, arg(metavar="H", help="the same on the config's machines")] = None,
    budget_dollars: Annotated[float | None, arg(metavar="USD", help="the same, on demand")] = None,
    target: Annotated[str | None, arg(metavar="NAME", help="one target, as `ladder plan` names it; or all")] = None,
    out: Annotated[str | None, arg(metavar="FILE", help="YAML that the config goes to, with the chosen rungs")] = None,
    svg: Annotated[str | None, arg(metavar="FILE", help="draw the interval to expect against compute")] = None,
    json: Json = False,
    overrides: Overrides = (),
) -> None:
    """Choose the rungs of a ladder: those that leave the narrowest interval of the target's loss for a budget.

    Without a budget here the config's `design` says it. Nothing is trained, and no law is needed: laws are drawn from
    what published testbeds teach.
    """
    from ladder import design as designs

    given = {
        name: value
        for name, value in (
            ("flops", budget_flops),
            ("target_share", budget_share),
            ("chip_hours", budget_chip_hours),
            ("dollars", budget_dollars),
        )
        if value is not None
    }
    written = storage.place(out) if out else None
    asked = [f"design.budget={yaml.safe_dump(given, default_flow_style=True)}"] if given else []
    asked += [f"design.target={encoding.dumps(target, ensure_ascii=False)}"] if target else []
    tree = config_tree.read(config, (*overrides, *asked))
    c = config_file.load(config, (*overrides, *asked, *(() if tree.get("design") else ("design={}",))))
    kinds = [name for name, value in dataclasses.asdict((c.design or Design()).budget).items() if value]
    unit = _UNITS[kinds[0]] if kinds else "FLOPs"
    vocab_size = plans.vocab_size(c)
    chosen = designs.choose(c, vocab_size, functools.partial(_price, c, unit), unit=unit)
    if svg:
        _draw(chosen, svg)
    whole = designs.as_tree(tree, chosen, vocab_size, c)
    if written:
        storage.refuse_closed(written.parent)
        files.write(written, designs.dump(whole, _remarks(chosen)))
    if json:
        print_json(files.finite(dataclasses.asdict(chosen) | {"config": {k: whole[k] for k in ("sizes", "rungs")}}))
        return
    tables.print_tables(_tables(chosen), to_person)
    if written:
        to_person.print(f"\nconfig: {written}; `ladder plan {written}` shows its runs")
    else:
        print(designs.dump({key: whole[key] for key in ("sizes", "rungs")}, ()), end="")


def _price(c: LadderConfig, unit: str, spec: Any) -> float:
    if unit == "FLOPs":
        return spec.flops
    from ladder.engines import schedule

    return schedule.least(c, spec)[unit == "dollars"]


def _cost(value: float, chosen: Any) -> str:
    return f"{flops(value) if chosen.unit == 'FLOPs' else short(value)} {chosen.unit}"


def _spent(chosen: Any) -> str:
    return f"{_cost(chosen.cost, chosen)} of {_cost(chosen.budget, chosen).partition(' ')[0]}"


def _half(value: float) -> str:
    return f"±{percent(value, 1)}" if value < 1 else "anything"


def _tables(chosen: Any) -> list[Table]:
    """What each rung brings, and what other sets would."""
    rungs = Table(
        title=f"{sum(rung.seeds for rung in chosen.rungs)} rungs of {chosen.candidates} candidates, for "
        f"{', '.join(chosen.targets)}: {_spent(chosen)}; the "
        f"{percent(chosen.level, 0)} interval to expect of the loss is {_half(chosen.interval)}",
        columns=("rung", "seeds", "N", "D", "M", chosen.unit, "share", "without it"),
        rows=tuple(
            (
                rung.size,
                str(rung.seeds),
                short(rung.params),
                short(rung.tokens),
                f"{rung.token_multiplier:g}",
                _cost(rung.cost, chosen).partition(" ")[0],
                percent(rung.cost / chosen.cost, 0 if rung.cost > 0.01 * chosen.cost else 2),
                _half(rung.interval_without),
            )
            for rung in chosen.rungs
        ),
    )
    others = Table(
        title="for less, for more, and otherwise",
        columns=("", "rungs", chosen.unit, "interval to expect"),
        rows=tuple(
            (one.name, str(one.runs), _cost(one.cost, chosen).partition(" ")[0], _half(one.interval))
            for one in (*chosen.curve, *chosen.alternatives)
        ),
        remark="expected over laws that published testbeds make plausible, before a run of this ladder is seen",
    )
    return [rungs, others]


def _remarks(chosen: Any) -> list[str]:
    """What the YAML says above itself."""
    lines = [
        "Written by `ladder design`; change what you like: these are plain sizes and rungs.",
        f"{_spent(chosen)}, to predict {', '.join(chosen.targets)}. The "
        f"{percent(chosen.level, 0)} interval to expect of the loss is {_half(chosen.interval)}; without",
    ]
    lines += [
        f"  {rung.size} at M = {rung.token_multiplier:g}{f' x {rung.seeds} seeds' if rung.seeds > 1 else ''}: "
        f"{_half(rung.interval_without)}"
        for rung in chosen.rungs
    ]
    lines += [f"{one.name}, {_cost(one.cost, chosen)}: {_half(one.interval)}" for one in chosen.alternatives]
    return lines


def _draw(chosen: Any, path: str) -> None:
    from fitting.reports import designed, drawing

    points = [(one.name, one.cost, one.interval) for one in chosen.curve if math.isfinite(one.interval)]
    mine = next(point for point in points if point[0] == "the design")
    others = [(one.name, one.cost, one.interval) for one in chosen.alternatives if one.interval < 1]
    figure = designed.curve(points, mine, others, chosen.unit, chosen.level)
    files.write(storage.place(path), drawing.on_paper(drawing.svg(figure, "design")))
