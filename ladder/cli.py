"""The verbs of a ladder, and all others by name: parse, call one function, print. Heavy imports only where needed."""

import sys
import warnings
from typing import Annotated

import tyro
from rich.console import Console
from tyro.conf import Positional, UseAppendAction, arg

from ladder import cli_cloud, cli_convert, cli_corpus, cli_laws, cli_precompile, storage
from ladder import config as configs
from ladder.cli_arguments import ConfigPath, Json, Overrides, Run, WorkdirPath, planned, print_json, to_person
from ladder.launch import RunFailed, quiet
from ladder.preemption import Preempted
from ladder.spec import RunSpec, Workdir

app = tyro.extras.SubcommandApp()


def main() -> None:
    """The console script: one clear line on stderr and exit code 1 where a command is refused."""
    quiet()
    warnings.showwarning = lambda message, *_: to_person.print(f"warning: {message}")
    storage.use_one_client()
    try:
        app.cli(prog="ladder", description="Train a ladder of small runs, fit its laws, know the large run beforehand.")
    except (ValueError, OSError, RunFailed) as e:
        sys.exit(f"ladder: {storage.refusal(e) or e}")
    except ModuleNotFoundError as e:
        need = "compiling for TPUs needs" if e.name == "libtpu" else "training and evaluating need"
        extra = "tpu" if e.name == "libtpu" else "train"
        sys.exit(f"ladder: {e.name} is not installed; {need} pip install 'scaling-ladder[{extra}]'")
    except Preempted as e:
        to_person.print(f"ladder: {e}")
        raise
    except KeyboardInterrupt:
        sys.exit("ladder: stopped; the same command goes on from the last checkpoints")
    except Exception as e:
        if told := storage.refusal(e):
            sys.exit(f"ladder: {told}")
        raise


@app.command
def run(config: ConfigPath, *, workdir: WorkdirPath, overrides: Overrides = ()) -> None:
    """Carry out a whole ladder: plan, train, evaluate, collect, fit, report; run again to go on."""
    from ladder import collect as collecting
    from ladder import hosts, launch, record
    from ladder import report as reporting

    c, specs = planned(config, overrides)
    w = Workdir.at(workdir)
    _print_plan(c, specs)
    _prepare(c, specs, w)
    todo = [spec for spec in specs if not record.is_finished(c, spec, w)]
    todo.sort(key=lambda spec: -spec.flops)  # the dearest first, so that no core waits long at the end
    _launch(launch.train_and_evaluate, c, specs, todo, w)
    if not hosts.is_first():
        return
    collecting.collect(w, to_person.print)
    cli_laws.fit_table(w.testbed, w.fit(), loss=c.fit.loss, error=c.fit.error, level=c.fit.level, seed=c.seed)
    reporting.report(w.fit(), to_person.print)


@app.command
def plan(config: ConfigPath, *, json: Json = False, overrides: Overrides = ()) -> None:
    """Show every run of a ladder and what it costs."""
    from ladder import plan as plans
    from ladder import precompiled

    c, specs = planned(config, overrides)
    if json:
        print_json(plans.as_table(specs, precompiled.chip_hours(c.training, specs)))
    else:
        _print_plan(c, specs)


@app.command
def train(config: ConfigPath, *, run: Run, workdir: WorkdirPath, overrides: Overrides = ()) -> None:
    """Train one run of a ladder to its end, going on from its newest checkpoint."""
    from ladder import launch

    _one_run(launch.train, config, run, workdir, overrides)


@app.command
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
    if (run is None) == (checkpoint is None):
        raise ValueError("say what to evaluate: either --run or --checkpoint")
    if checkpoint is None:
        from ladder import launch

        return _one_run(launch.evaluate, config, run, workdir, overrides)
    from ladder.evaluate import evaluate_checkpoint
    from ladder.progress import Measuring

    w = Workdir.at(workdir)
    storage.refuse_closed(w.root)
    record = evaluate_checkpoint(configs.load_evaluation(config, overrides), checkpoint, w, Measuring(to_person.print))
    to_person.print(f"{record.run}: {record.quarantine or 'measured'}; {w.record(record.run)}")


@app.command
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
    from ladder import generate as text
    from models.sample import Sampling

    sampling = Sampling(temperature, top_p)
    growing_texts = text.generate(checkpoint, prompt, sampling, max_tokens=max_tokens, seed=seed)
    if json:
        *_, texts = growing_texts
        print_json([{"prompt": p, "text": t} for p, t in zip(prompt, texts, strict=True)])
    else:
        text.write(prompt, growing_texts, sys.stdout)


@app.command
def collect(workdir: Annotated[Positional[str], arg(metavar="DIR", help="workdir of a ladder")]) -> None:
    """Gather the records of a workdir's runs into its testbed.csv."""
    from ladder import collect as collecting

    w = Workdir.at(workdir)
    storage.refuse_closed(w.root)
    collecting.collect(w, to_person.print)


app.command(cli_laws.import_, name="import")
app.command(cli_laws.fit)
app.command(cli_laws.predict)
app.command(cli_laws.score)
app.command(cli_laws.advise)
app.command(cli_laws.report)
app.command(cli_corpus.cache)
app.command(cli_corpus.tokenizer)
app.command(cli_cloud.launch)
app.command(cli_precompile.precompile)
app.command(cli_convert.app, name="convert", help="Import and export models: open_lm, Hugging Face.")


def _prepare(c: configs.LadderConfig, specs: tuple[RunSpec, ...], w: Workdir) -> None:
    from ladder import hosts
    from ladder.prepare import prepare

    if not c.training.cores_per_run:
        hosts.join()
    if hosts.is_first():
        storage.refuse_closed(w.root)
        prepare(c, specs, w, to_person.print)
    hosts.wait("prepared")
    if not w.config.exists():
        raise ValueError(f"{w.root} is not what process 0 prepared; many hosts need one folder that all of them see")


def _one_run(job, config: str, run: str, workdir: str, overrides: tuple[str, ...]) -> None:
    from ladder import plan as plans

    c, specs = planned(config, overrides)
    spec, w = plans.find(specs, run), Workdir.at(workdir)
    _prepare(c, specs, w)
    _launch(job, c, [spec], [spec], w)


def _launch(job, c: configs.LadderConfig, specs, todo, w: Workdir) -> None:
    from ladder import hosts
    from ladder.launch import launch
    from ladder.progress import Display

    if todo:
        console = to_person if hosts.is_first() else Console(quiet=True)
        with Display(specs, done=[spec.run for spec in specs if spec not in todo], console=console) as display:
            launch(job, c, todo, w, display)


def _print_plan(c: configs.LadderConfig, specs: tuple[RunSpec, ...]) -> None:
    from ladder import plan as plans
    from ladder import precompiled, printing

    printing.print_plan(plans.as_table(specs, precompiled.chip_hours(c.training, specs)), to_person)
