"""The verb that tunes a recipe: a sweep at small sizes, the law of the best rate, and a check of it at a larger one."""

import dataclasses
import json as encoding
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import arg

from fitting import files
from fitting.files import cut
from ladder import config_file, storage
from ladder import plan as plans
from ladder.cli import runs
from ladder.cli.arguments import ConfigPath, Json, Overrides, WorkdirPath, print_json, to_person
from ladder.config import LadderConfig
from ladder.engines import launch as launching
from ladder.evaluation import tuning
from ladder.spec import Workdir

NEIGHBOURS = (0.5, 1.0, 2.0)  # of the rate that is checked


def tune(
    config: ConfigPath,
    *,
    workdir: WorkdirPath,
    sizes: Annotated[tuple[str, ...], arg(metavar="SIZE", help="two or more cheap ones of the config's")],
    token_multipliers: Annotated[
        tuple[float, ...],
        arg(metavar="M", help="two or more, unless all runs will have one: only they tell D's exponent"),
    ] = (20.0, 80.0),
    rates: Annotated[
        tuple[float, ...], arg(metavar="FACTOR", help="of the config's learning rate, in steps of two or less")
    ] = (0.25, 0.5, 1.0, 2.0, 4.0),
    batches: Annotated[tuple[float, ...], arg(metavar="FACTOR", help="of the config's batch, if that is tuned too")] = (
        1.0,
    ),
    confirm: Annotated[
        str | None, arg(metavar="SIZE", help="a larger one, where the law's rate is held against half and twice it")
    ] = None,
    out: Annotated[
        str | None, arg(metavar="YAML", help="the config with the tuned recipe; tuned.yaml of the workdir if not given")
    ] = None,
    engine: runs.EngineName = "local",
    address: runs.Address = None,
    retries: runs.Retries = launching.RETRIES,
    json: Json = False,
    overrides: Overrides = (),
) -> None:
    """Tune the learning rate: sweep it at small sizes, fit its law in N and D, write the config with that recipe.

    The runs are a ladder's: carried out by the same engines into a workdir of their own, taken up where they were
    stopped, and those that are done are left alone, so that a grid may be widened.
    """
    c, w = config_file.load(config, overrides), Workdir.at(workdir)
    path = storage.place(out) if out else w.root / "tuned.yaml"
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file for the config with the tuned recipe")
    factors = ("learning_rate", "batch_tokens")[: 2 if len(batches) > 1 else 1]
    for size in (*sizes, *([confirm] if confirm else ())):
        if size not in c.sizes:
            raise ValueError(f"no size is named {cut(repr(size))}; there are {', '.join(c.sizes)}")
    if len(set(sizes)) < 2 or len(set(rates)) < 3:
        raise ValueError("two sizes at least tell how the best rate moves with N, and three rates where it lies")
    if confirm in sizes:
        raise ValueError(f"--confirm {confirm}: a law is checked at a size that it was not tuned on; name a larger one")
    sweep = (*overrides, f"rungs=[{_grid(sizes, token_multipliers, rates, batches)}]", "targets=[]", *_of_the_loss(c))
    _, specs = runs.carry_out(config, sweep, w, engine, address, retries)
    tuned = tuning.tune(w, specs, c.fit.loss, factors, seed=c.seed)
    with_recipe = dataclasses.replace(c, recipe=tuning.recipe(c.recipe, tuned))
    lines = tuning.lines(tuned)
    remarks = (f"# {line}\n" for line in (f"Tuned by {shlex.join(['ladder', *sys.argv[1:]])}", *lines))
    files.write(path, "".join(remarks) + config_file.dump(with_recipe))
    to_person.print("\n".join([*lines, f"the config with this recipe: {path}"]))
    confirmed = None
    if confirm:
        rate, batch = plans.scales(with_recipe, c, confirm, token_multipliers[0])
        checked = _grid((confirm,), token_multipliers[:1], [_short(n * rate) for n in NEIGHBOURS], (_short(batch),))
        _, specs = runs.carry_out(config, (*sweep, f"targets=[{checked}]"), w, engine, address, retries)
        below, predicted, above = (spec for spec in specs if spec.role == "target")
        confirmed = tuning.confirm(w, (below, predicted, above), predicted, c.fit.loss, tuned.noise)
        to_person.print(confirmed.words if confirmed.holds else f"warning: {confirmed.words}")
    if json:
        print_json(tuning.as_data(tuned, confirmed))


def _grid(sizes: Sequence[str], multipliers: Sequence[float], rates: Sequence[float], batches: Sequence[float]) -> str:
    """A grid of the config as the value of an override."""
    grid = {"sizes": sizes, "token_multipliers": multipliers, "learning_rate_scales": rates, "batch_scales": batches}
    return encoding.dumps(grid)


def _of_the_loss(c: LadderConfig) -> Sequence[str]:
    """What leaves out of an evaluation what a loss on text does not need."""
    if not c.fit.loss.startswith("loss/"):
        return ()
    return "evaluation.tasks=[]", "evaluation.suite=null", "fit.error=null"


def _short(factor: float) -> float:
    """As the run's name says it, so that the name is the whole truth."""
    return float(f"{factor:.3g}")
