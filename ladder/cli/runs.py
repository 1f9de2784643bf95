"""The verbs of a ladder's runs: planned, trained, measured, collected, and all of it in one."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from rich.console import Console
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from ladder import config as configs
from ladder import plan as plans
from ladder import storage
from ladder.cli import laws, tables
from ladder.cli.arguments import ConfigPath, Json, Overrides, Run, WorkdirPath, planned, print_json, to_person, told
from ladder.engines import local
from ladder.engines import schedule as schedules
from ladder.engines.progress import Caching, Display, Measuring
from ladder.engines.schedule import Schedule
from ladder.evaluation import collect as collecting
from ladder.pods import precompiled
from ladder.spec import RunSpec, Workdir
from ladder.training import hosts


def run(
    config: ConfigPath,
    *,
    workdir: WorkdirPath,
    reuse: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="DIR", help="workdir whose finished runs are taken where they are the same, as often as you like"),
    ] = (),
    overrides: Overrides = (),
) -> None:
    """Carry out a whole ladder: plan, train, evaluate, collect, fit, report; run again to go on.

    The rungs come first. What their law says of the targets is frozen, with its date, before a target is trained.
    """
    from ladder.evaluation import record

    with _together(config, overrides) as (c, specs):
        w = Workdir.at(workdir)
        _print_plan(c, specs)
        _prepare(c, specs, w)
        _reuse(c, specs, w, reuse)
        todo = [spec for spec in specs if not record.is_finished(c, spec, w)]
        todo.sort(key=lambda spec: -spec.flops)  # the dearest first, so that no core waits long at the end
        rungs, targets = ([spec for spec in todo if spec.role == role] for role in ("rung", "target"))
        _launch(local.train_and_evaluate, c, specs, rungs, w, later=targets)
        unforetold = [spec for spec in targets if not w.prediction(spec.run).exists()]
        if unforetold and hosts.is_first():
            _fit(c, w)
            laws.foretell(w, unforetold)
        _launch(local.train_and_evaluate, c, specs, targets, w)
        if hosts.is_first():
            _fit(c, w)


def plan(
    config: ConfigPath,
    *,
    json: Json = False,
    svg: Annotated[str | None, arg(metavar="FILE", help="draw the schedule on the config's machines")] = None,
    overrides: Overrides = (),
) -> None:
    """Show every run of a ladder and what it costs; where the config names machines, on which slice and when, too."""
    c, specs = planned(config, overrides)
    schedule = schedules.plan(c, specs)
    if svg:
        schedules.draw(schedule, specs, storage.place(svg))
    if json:
        print_json(_table(c, specs, schedule))
    else:
        tables.print_plan(_table(c, specs, schedule), to_person)


def train(config: ConfigPath, *, run: Run, workdir: WorkdirPath, overrides: Overrides = ()) -> None:
    """Train one run of a ladder to its end, going on from its newest checkpoint."""
    _one_run(local.train, config, run, workdir, overrides)


def evaluate(
    config: ConfigPath,
    *,
    workdir: WorkdirPath,
    run: Annotated[str | None, arg(metavar="NAME", help="one run, as `ladder plan` names it")] = None,
    checkpoint: Annotated[
        str | None, arg(metavar="DIR", help="in place of a run: a converted model, or a run of any workdir")
    ] = None,
    overrides: Overrides = (),
) -> None:
    """Measure one trained run, or any model, on validation sets and tasks, into a record.json."""
    if run is not None and checkpoint is None:
        return _one_run(local.evaluate, config, run, workdir, overrides)
    if run is not None or checkpoint is None:
        raise ValueError("say what to evaluate: either --run or --checkpoint")
    from ladder.evaluation.evaluate import evaluate_checkpoint

    w = Workdir.at(workdir)
    storage.refuse_closed(w.root)
    record = evaluate_checkpoint(configs.load_evaluation(config, overrides), checkpoint, w, Measuring(to_person.print))
    to_person.print(f"{record.run}: {record.quarantine or 'measured'}; {w.record(record.run)}")


def generate(
    *,
    checkpoint: Annotated[str, arg(metavar="DIR", help="<workdir>/runs/<run>, or what `ladder convert` wrote")],
    prompt: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="TEXT", help="text to go on from, as often as you like; an empty one begins a text"),
    ],
    temperature: Annotated[float, arg(help="0 takes the likeliest token, 1 samples as the model says")] = 1.0,
    top_p: Annotated[float, arg(help="sample from the likeliest tokens that have this probability together")] = 1.0,
    max_tokens: Annotated[int, arg(help="most new tokens of each text")] = 256,
    seed: Annotated[int, arg(help="the same seed gives the same texts")] = 0,
    json: Json = False,
) -> None:
    """Let a trained model go on from prompts, until the text ends or the context is full."""
    from ladder.evaluation import generate as text
    from models.sample import Sampling

    sampling = Sampling(temperature, top_p)
    growing_texts = text.generate(checkpoint, prompt, sampling, max_tokens=max_tokens, seed=seed)
    if json:
        *_, texts = growing_texts
        print_json([{"prompt": p, "text": t} for p, t in zip(prompt, texts, strict=True)])
    else:
        text.write(prompt, growing_texts, sys.stdout)


def collect(
    workdirs: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR", help="workdirs of ladders")],
    *,
    out: Annotated[str | None, arg(metavar="CSV", help="the first workdir's testbed.csv if not given")] = None,
    curves: Annotated[
        FlagCreatePairsOff[bool], arg(help="add every run's training curve, a row of role `checkpoint` a logged step")
    ] = False,
) -> None:
    """Gather the records of the runs of one workdir, or of several, into one testbed.csv; the same run counts once."""
    if not workdirs:
        raise ValueError("name the workdir of a ladder, or several")
    found = [Workdir.at(workdir) for workdir in workdirs]
    path = storage.place(out) if out else found[0].testbed
    storage.refuse_closed(path.parent)
    collecting.collect(found, path, to_person.print, curves=curves)


@contextlib.contextmanager
def _together(config: str, overrides: tuple[str, ...]) -> Iterator[tuple[configs.LadderConfig, tuple[RunSpec, ...]]]:
    """A config and its runs, on every host of this command; what one host refuses ends all of them."""
    with hosts.one_end(told):
        try:
            c, specs = planned(config, overrides)
        except Exception:
            hosts.join()  # the others are to hear of it
            raise
        if not c.training.cores_per_run:
            hosts.join()
        yield c, specs


def _prepare(c: configs.LadderConfig, specs: tuple[RunSpec, ...], w: Workdir) -> None:
    from ladder.corpus.prepare import prepare

    if hosts.is_first():
        storage.refuse_closed(w.root)
        prepare(c, specs, w, to_person.print, Caching(to_person.print))
        schedules.keep(schedules.plan(c, specs), w)
    hosts.wait("prepared")
    if not w.config.exists():
        raise ValueError(f"{w.root} is not what process 0 prepared; many hosts need one folder that all of them see")


def _reuse(c: configs.LadderConfig, specs: tuple[RunSpec, ...], w: Workdir, folders: tuple[str, ...]) -> None:
    from ladder.evaluation.reuse import reuse

    if folders and hosts.is_first():
        reuse(c, specs, w, [Workdir.at(folder) for folder in folders], to_person.print)
    hosts.wait("reused")


def _one_run(job, config: str, run: str, workdir: str, overrides: tuple[str, ...]) -> None:
    with _together(config, overrides) as (c, specs):
        spec, w = plans.find(specs, run), Workdir.at(workdir)
        _prepare(c, specs, w)
        _launch(job, c, [spec], [spec], w)


def _launch(job, c: configs.LadderConfig, specs, todo, w: Workdir, later: Sequence[RunSpec] = ()) -> None:
    if todo:
        console = to_person if hosts.is_first() else Console(quiet=True)
        done = [spec.run for spec in specs if spec not in (*todo, *later)]
        with Display(specs, done=done, console=console) as display:
            local.launch(job, c, todo, w, display)


def _fit(c: configs.LadderConfig, w: Workdir) -> None:
    from ladder.evaluation import report as reporting

    collecting.collect([w], w.testbed, to_person.print)
    laws.fit_table(w.testbed, w.fit(), loss=c.fit.loss, error=c.fit.error, level=c.fit.level, seed=c.seed)
    reporting.report(w.fit(), to_person.print)


def _print_plan(c: configs.LadderConfig, specs: tuple[RunSpec, ...]) -> None:
    tables.print_plan(_table(c, specs, schedules.plan(c, specs)), to_person)


def _table(c: configs.LadderConfig, specs: tuple[RunSpec, ...], schedule: Schedule | None) -> dict[str, Any]:
    chip_hours, shares = precompiled.chip_hours(c.training, specs), plans.pool_shares(c, specs)
    return plans.as_table(specs, chip_hours, shares, schedules.as_table(schedule) if schedule else None)
