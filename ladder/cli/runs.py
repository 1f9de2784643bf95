"""The verbs of a ladder's runs: planned, trained, measured, collected, and all of it in one."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from ladder import config_file, storage
from ladder import plan as plans
from ladder.cli import laws, tables
from ladder.cli.arguments import ConfigPath, Json, Overrides, Run, WorkdirPath, planned, print_json, to_person, told
from ladder.config import LadderConfig
from ladder.engines import here, jobs, local
from ladder.engines import launch as launching
from ladder.engines import lease as leases
from ladder.engines import schedule as schedules
from ladder.engines.attempts import Job
from ladder.engines.launch import Engine
from ladder.engines.progress import Caching, Display, Measuring
from ladder.engines.schedule import Schedule
from ladder.evaluation import collect as collecting
from ladder.events import Waits
from ladder.pods import precompiled
from ladder.spec import RECORD_REMEDY, RunSpec, Workdir
from ladder.training import hosts

EngineName = Annotated[
    Literal["local", "ray"], arg(help="what carries out the runs: this machine, or the TPU slices of a Ray cluster")
]
Address = Annotated[
    str | None, arg(metavar="HOST:PORT", help="of the Ray cluster; the one that this machine is part of if not given")
]
Retries = Annotated[int, arg(metavar="N", help="how often a run that fails is tried again before it is set aside")]


def run(
    config: ConfigPath,
    *,
    workdir: WorkdirPath,
    engine: EngineName = "local",
    address: Address = None,
    retries: Retries = launching.RETRIES,
    reuse: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(metavar="DIR", help="workdir whose finished runs are taken where they are the same, as often as you like"),
    ] = (),
    overrides: Overrides = (),
) -> None:
    """Carry out a whole ladder: plan, train, evaluate, collect, fit, report; run again to go on.

    The rungs come first. What their law says of the targets is frozen, with its date, before a target is trained. Runs
    that another command holds on the same workdir are left to it, and waited for.
    """
    with _together(config, overrides, alone=engine == "ray") as (c, specs):
        w = Workdir.at(workdir)
        _print_plan(c, specs)
        with _engine(engine, address, jobs.train_and_evaluate, c, specs, w) as e:
            _prepare(c, specs, w, e.name)
            _reuse(c, specs, w, reuse, e.name)
            if not hosts.is_first():
                return e.follow(specs)
            rungs, targets = _todo(c, specs, w)
            _launch(e, c, specs, rungs, w, retries)
            _foretell(c, targets, w, e.name)
            _launch(e, c, specs, targets, w, retries)
            _fit(c, w, e.name)


def work(
    config: ConfigPath, *, workdir: WorkdirPath, retries: Retries = launching.RETRIES, overrides: Overrides = ()
) -> None:
    """Carry out runs of a ladder that suit this machine's devices, the longest first, until none of them is free.

    Start it on as many machines as you like, at any time: each run is one worker's. A worker waits for others only
    where targets are left to it and the rungs are not finished; the last one fits.
    """
    with _together(config, overrides) as (c, specs):
        w = Workdir.at(workdir)
        c, meant = _meant_for_here(c, specs)
        with _engine("work", None, jobs.train_and_evaluate, c, specs, w) as e:
            _prepare(c, specs, w, e.name)
            if not hosts.is_first():
                return e.follow(specs)
            own = here.suiting(c.training, meant)
            every_rung, every_target = _todo(c, specs, w)
            rungs, targets = ([spec for spec in runs if spec in own] for runs in (every_rung, every_target))
            _launch(e, c, specs, rungs, w, retries, until=every_rung if targets else [])
            if targets:
                _foretell(c, every_target, w, e.name)
                _launch(e, c, specs, targets, w, retries, until=[])
            if all(_finished(c, w, spec) is not None for spec in specs):
                _fit(c, w, e.name)


def carry_out(
    config: str, overrides: tuple[str, ...], w: Workdir, engine: str, address: str | None, retries: int
) -> tuple[LadderConfig, tuple[RunSpec, ...]]:
    """Trains and measures every run of a ladder, and fits nothing; gives its config and its runs.

    Raises:
      ValueError: many processes share this command: they could not follow it from one ladder to the next.
    """
    with _together(config, overrides, alone=engine == "ray") as (c, specs):
        if hosts.are_many():
            raise ValueError("this is for one host, or for a Ray cluster with --engine ray; start it on one alone")
        _print_plan(c, specs)
        with _engine(engine, address, jobs.train_and_evaluate, c, specs, w) as e:
            _prepare(c, specs, w, e.name)
            rungs, targets = _todo(c, specs, w)
            _launch(e, c, specs, [*rungs, *targets], w, retries)
    return c, specs


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
    _one_run(jobs.train, config, run, workdir, overrides)


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
        return _one_run(jobs.evaluate, config, run, workdir, overrides)
    if run is not None or checkpoint is None:
        raise ValueError("say what to evaluate: either --run or --checkpoint")
    from ladder.evaluation.evaluate import evaluate_checkpoint

    w = Workdir.at(workdir)
    storage.refuse_closed(w.root)
    evaluation = config_file.load_evaluation(config, overrides)
    record = evaluate_checkpoint(evaluation, checkpoint, w, Measuring(to_person.print))
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
def _together(
    config: str, overrides: tuple[str, ...], alone: bool = False
) -> Iterator[tuple[LadderConfig, tuple[RunSpec, ...]]]:
    """A config and its runs, on every host of this command; what one host refuses ends all of them."""
    with hosts.one_end(told):
        try:
            c, specs = planned(config, overrides)
        except Exception:
            if not alone:
                hosts.join()  # the others are to hear of it
            raise
        if not (alone or c.training.cores_per_run):
            hosts.join()
        yield c, specs


def _engine(name: str, address: str | None, job: Job, c: LadderConfig, specs: Sequence[RunSpec], w: Workdir) -> Any:
    if name == "ray":
        from ladder.engines.ray import Ray

        schedule = schedules.plan(c, specs)
        return Ray(job, c, specs, w, address, schedule.slices if schedule else {})
    if address is not None:
        raise ValueError("--address is a Ray cluster's; add --engine ray")
    return local.Local(job, c, w, name) if c.training.cores_per_run else here.Here(job, c, w, name)


def _prepare(c: LadderConfig, specs: tuple[RunSpec, ...], w: Workdir, engine: str) -> None:
    from ladder.corpus.prepare import prepare, refuse_change

    if hosts.is_first():
        storage.refuse_placeholders(config_file.as_tree(c))
        storage.refuse_closed(w.root)
        with leases.wait(w.own_lease, engine, to_person.print):
            if holders := leases.live_holders(w):
                refuse_change(c, w, "; ".join(f"{run} is held by {leases.told(who)}" for run, who in holders.items()))
            prepare(c, specs, w, to_person.print, Caching(to_person.print))
            schedules.keep(schedules.plan(c, specs), w)
    hosts.wait("prepared")
    if not w.config.exists():
        raise ValueError(f"{w.root} is not what process 0 prepared; many hosts need one folder that all of them see")


def _reuse(c: LadderConfig, specs: tuple[RunSpec, ...], w: Workdir, folders: tuple[str, ...], engine: str) -> None:
    from ladder.evaluation.reuse import reuse

    if folders and hosts.is_first():
        with contextlib.ExitStack() as stack:
            free = []
            for spec in specs:
                with contextlib.suppress(leases.Busy):
                    stack.enter_context(leases.claim(w.lease(spec.run), engine))
                    free.append(spec)
            reuse(c, free, w, [Workdir.at(folder) for folder in folders], to_person.print)
    hosts.wait("reused")


def _one_run(job: Job, config: str, run: str, workdir: str, overrides: tuple[str, ...]) -> None:
    with _together(config, overrides) as (c, specs):
        spec, w = plans.find(specs, run), Workdir.at(workdir)
        with _engine("local", None, job, c, [spec], w) as e:
            _prepare(c, specs, w, e.name)
            if not hosts.is_first():
                return e.follow([spec])
            w.refuse_early(spec)
            leases.refuse_living(w.lease(run), to_person.print)
            with Display([spec], console=to_person) as display:
                launching.launch(e, [spec], w, display).refuse_failures()


def _meant_for_here(c: LadderConfig, specs: Sequence[RunSpec]) -> tuple[LadderConfig, Sequence[RunSpec]]:
    """The runs that the schedule gives a slice like this machine, and the config as it is carried out on one.

    Both are as they were where the config names no machines.
    """
    if (schedule := schedules.plan(c, specs)) is None:
        return c, specs
    import jax

    devices = jax.device_count()
    if meant := schedules.meant_for(schedule, specs, devices):
        return dataclasses.replace(c, training=c.training.on(devices)), meant
    slices = ", ".join(sorted({str(where) for where in schedule.slices.values()}))
    raise ValueError(f"no run is meant for this machine, which has {devices} devices: they are given {slices}")


def _todo(c: LadderConfig, specs: Sequence[RunSpec], w: Workdir) -> tuple[list[RunSpec], list[RunSpec]]:
    """Rungs and targets that are not finished, the dearest first, so that no core waits long at the end."""
    todo = sorted((spec for spec in specs if _finished(c, w, spec) is None), key=lambda spec: -spec.own_flops)
    return [spec for spec in todo if spec.role == "rung"], [spec for spec in todo if spec.role == "target"]


def _finished(c: LadderConfig, w: Workdir, spec: RunSpec) -> str | None:
    """Why a finished run is not fitted, "" where it is; None where it is not finished."""
    from fitting.testbeds.testbed import RunRecord
    from ladder.evaluation import record

    if not record.is_finished(c, spec, w):
        return None
    return RunRecord.load(w.record(spec.run), RECORD_REMEDY).quarantine


def _launch(
    e: Engine,
    c: LadderConfig,
    specs: Sequence[RunSpec],
    todo: Sequence[RunSpec],
    w: Workdir,
    retries: int,
    *,
    until: Sequence[RunSpec] | None = None,
) -> None:
    """Carries out runs, and waits for those of them that others hold; a worker waits for all of `until` instead, and
    for trunks that others are at.

    Raises:
      RunFailed: runs were set aside. A worker says so when nobody else is at work: it may take the others along.
    """
    finished, worker = functools.partial(_finished, c, w), until is not None
    done = [spec.run for spec in specs if finished(spec) is not None]
    told: dict[str, str] = {}
    with Display(specs, done=done, console=to_person) as display:
        while todo or until:
            left = launching.launch(
                e, todo, w, display, finished=finished, awaits=w.awaited_trunk, retries=retries, remember=worker
            )
            if not worker:
                left.refuse_failures()
            elif not leases.live_holders(w):
                launching.refuse_given_up(w, specs, retries)
            held = [spec for spec in todo if spec.run in left.held]
            awaited = [spec.run for spec in (held if until is None else until) if finished(spec) is None]
            if worker:
                awaited += [spec.run for spec in held if _is_under_way(w, w.awaited_trunk(spec), left.held)]
            if not awaited:
                return
            waits = {run: left.held.get(run, "another worker") for run in awaited}
            for run in waits.keys() - told.keys():
                display(Waits(run, waits[run]))
            told |= waits
            todo = held
            time.sleep(launching.LOOK_SECONDS)


def _is_under_way(w: Workdir, trunk: str, held: Collection[str]) -> bool:
    return bool(trunk) and (trunk in held or leases.live_holder(w.lease(trunk)) is not None)


def _foretell(c: LadderConfig, targets: Sequence[RunSpec], w: Workdir, engine: str) -> None:
    if all(w.prediction(spec.run).exists() for spec in targets):
        return
    with leases.wait(w.own_lease, engine, to_person.print):
        if unforetold := [spec for spec in targets if not w.prediction(spec.run).exists()]:
            _fit_held(c, w)
            laws.foretell(w, unforetold)


def _fit(c: LadderConfig, w: Workdir, engine: str) -> None:
    with leases.wait(w.own_lease, engine, to_person.print):
        _fit_held(c, w)


def _fit_held(c: LadderConfig, w: Workdir) -> None:
    from ladder.evaluation import report as reporting

    collecting.collect([w], w.testbed, to_person.print)
    laws.fit_table(w.testbed, w.fit(), loss=c.fit.loss, error=c.fit.error, level=c.fit.level, seed=c.seed)
    reporting.report(w.fit(), to_person.print)


def _print_plan(c: LadderConfig, specs: tuple[RunSpec, ...]) -> None:
    tables.print_plan(_table(c, specs, schedules.plan(c, specs)), to_person)


def _table(c: LadderConfig, specs: tuple[RunSpec, ...], schedule: Schedule | None) -> dict[str, Any]:
    chip_hours, shares = precompiled.chip_hours(c.training, specs), plans.pool_shares(c, specs)
    return plans.as_table(specs, chip_hours, shares, schedules.as_table(schedule) if schedule else None, c.recipe)
