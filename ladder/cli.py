"""The verbs of `ladder`: parse, call one function, print. Heavy imports only inside the verb that needs them."""

import dataclasses
import json
import logging
import shlex
import sys
import warnings
from typing import Annotated, Literal

import tyro
from etils import epath
from rich.console import Console
from tyro.conf import Positional, UseAppendAction, arg

from ladder import cli_cloud, cli_convert, cli_corpus, cli_precompile, storage
from ladder import config as configs
from ladder.cli_arguments import ConfigPath, Json, Overrides, Run, WorkdirPath
from ladder.launch import RunFailed
from ladder.preemption import Preempted
from ladder.spec import RunSpec, Workdir

app = tyro.extras.SubcommandApp()
to_person = Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """The console script: one clear line on stderr and exit code 1 where a command is refused."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells at length how it stores arrays
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

    c, specs = _planned(config, overrides)
    w = Workdir.at(workdir)
    _print_plan(c, specs)
    _prepare(c, specs, w)
    todo = [spec for spec in specs if not record.is_finished(c, spec, w)]
    todo.sort(key=lambda spec: -spec.flops)  # the dearest first, so that no core waits long at the end
    _launch(launch.train_and_evaluate, c, specs, todo, w)
    if not hosts.is_first():
        return
    collecting.collect(w, to_person.print)
    _fit(w.testbed, w.fit(), loss=c.fit.loss, error=c.fit.error, level=c.fit.level, seed=c.seed)
    reporting.report(w.fit(), to_person.print)


@app.command
def plan(config: ConfigPath, *, json: Json = False, overrides: Overrides = ()) -> None:
    """Show every run of a ladder and what it costs."""
    from ladder import plan as plans
    from ladder import precompiled

    c, specs = _planned(config, overrides)
    if json:
        _print_json(plans.as_table(specs, precompiled.chip_hours(c.training, specs)))
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
        _print_json([{"prompt": p, "text": t} for p, t in zip(prompt, texts, strict=True)])
    else:
        text.write(prompt, growing_texts, sys.stdout)


@app.command
def collect(workdir: Annotated[Positional[str], arg(metavar="DIR", help="workdir of a ladder")]) -> None:
    """Gather the records of a workdir's runs into its testbed.csv."""
    from ladder import collect as collecting

    collecting.collect(Workdir.at(workdir), to_person.print)


@app.command(name="import")
def import_(
    kind: Annotated[
        Positional[Literal["gadre2024", "olmo-ladder", "chinchilla", "datablations", "csv"]],
        arg(metavar="KIND", help="gadre2024, olmo-ladder, chinchilla, datablations, or csv: `fitting.testbed.Testbed`"),
    ],
    path: Annotated[Positional[str], arg(metavar="PATH", help="the published folder or file")],
    *,
    out: Annotated[str, arg(metavar="CSV", help="the table to write, such as testbed.csv")],
) -> None:
    """Read a published testbed into a table of runs; broken records are marked in its column `quarantine`."""
    from fitting import importers

    testbed = importers.read(kind, path)
    testbed.write_csv(epath.Path(out))
    for row in testbed.table[testbed.table["quarantine"] != ""].to_dict("records"):
        to_person.print(f"quarantined: {row['run']}, {row['quarantine']}")
    to_person.print(f"{len(testbed.table)} runs: {out}")


@app.command
def fit(
    testbed: Annotated[
        Positional[str],
        arg(metavar="TESTBED", help="table of runs, such as a workdir's testbed.csv, or gadre2024, which is built in"),
    ],
    *,
    loss: Annotated[str, arg(metavar="COLUMN", help="loss to fit, such as loss/code")],
    out: Annotated[str, arg(metavar="DIR", help="folder that law.json goes to")],
    error: Annotated[str | None, arg(metavar="COLUMN", help="error to fit on that loss, such as error/average")] = None,
    select: Annotated[str, arg(metavar="EXPR", help="rows to fit, as a pandas query")] = "role == 'rung'",
    select_error: Annotated[
        str | None, arg(metavar="EXPR", help="rows to fit the error law on, where they differ")
    ] = None,
    method: Annotated[
        Literal["default", "published", "paper", "best"],
        arg(
            help="`published` has priors learned from published testbeds, `paper` is Gadre et al.'s procedure exactly, "
            "`best` the best fit of any law by any objective"
        ),
    ] = "default",
    law: Annotated[str, arg(metavar="LAW", help="loss law, such as chinchilla")] = "over_training",
    error_law: Annotated[str, arg(metavar="LAW", help="error law; `logistic` suits one task")] = "exponential_decay",
    objective: Annotated[str | None, arg(metavar="NAME", help="of the method `best`, such as log_huber")] = None,
    params_column: Annotated[str, arg(metavar="COLUMN", help="what N is, such as params_non_embedding")] = "params",
    level: Annotated[float, arg(help="nominal coverage of the intervals")] = 0.95,
    seed: Annotated[int, arg(help="of the intervals' random draws")] = 0,
) -> None:
    """Fit a loss law, and an error law on top of it, to a table of runs."""
    _fit(
        epath.Path(testbed),
        epath.Path(out),
        loss=loss,
        error=error,
        select=select,
        select_error=select_error,
        method=method,
        law=law,
        error_law=error_law,
        objective=objective,
        params_column=params_column,
        level=level,
        seed=seed,
    )


@app.command
def predict(
    law: Annotated[Positional[str], arg(metavar="LAW.json", help="what `ladder fit` wrote")],
    *,
    params: Annotated[float, arg(metavar="N", help="parameters, embeddings included, such as 1.4e9")],
    tokens: Annotated[float, arg(metavar="D", help="training tokens, such as 900e9")],
    given: Annotated[
        tuple[str, ...], arg(metavar="NAME=VALUE", help="what else the law is of, such as unique_tokens=100e9")
    ] = (),
    run: Annotated[str, arg(metavar="NAME", help="what the run is called, or will be")] = "",
    freeze: Annotated[
        str | None, arg(metavar="FILE", help="date the prediction in this file, for `ladder score` to score later")
    ] = None,
    json: Json = False,
) -> None:
    """Predict the loss and the error of a run from a fitted law."""
    from fitting import fitted
    from fitting.predict import predict

    path = epath.Path(law)
    fitted_law = fitted.load(path)
    prediction = predict(fitted_law, params, tokens, run, columns=dict(map(_named_number, given)))
    if freeze:
        _freeze(fitted_law, path, prediction, epath.Path(freeze))
    if json:
        # Nothing was measured of a run that is only asked about.
        untold = ("run", "measured_loss", "measured_error", "columns")
        told = {f.name: getattr(prediction, f.name) for f in dataclasses.fields(prediction) if f.name not in untold}
        _print_json(told | ({"given": dict(prediction.columns)} if given else {}))
    else:
        _print_predictions([prediction])


@app.command
def score(
    prediction: Annotated[Positional[str], arg(metavar="PREDICTION.json", help="what `ladder predict --freeze` wrote")],
    testbed: Annotated[Positional[str], arg(metavar="TESTBED", help="table that has the run by now")],
    *,
    run: Annotated[str, arg(metavar="NAME", help="the run that was predicted")],
    json: Json = False,
) -> None:
    """Score a frozen prediction against the run, once it has been measured."""
    from fitting import frozen
    from fitting.testbed import Testbed
    from ladder import printing

    table = epath.Path(testbed)
    record = Workdir(table.parent).record(run)
    measured = printing.iso_time(record.stat().mtime) if record.exists() else ""
    scored = frozen.score(frozen.load(epath.Path(prediction)), Testbed.read_csv(table), run, measured=measured)
    if json:
        _print_json(printing.score_as_data(scored))
    else:
        _print_predictions([scored.prediction])
        to_person.print(printing.when(scored))


@app.command
def advise(
    law: Annotated[Positional[str], arg(metavar="LAW.json", help="what `ladder fit` wrote")],
    *,
    budget_flops: Annotated[float, arg(metavar="C", help="training compute, 6ND, such as 1e21")],
    served_tokens: Annotated[float, arg(metavar="T", help="tokens that the model will serve, such as 1e12")] = 0.0,
    json: Json = False,
) -> None:
    """Tell what to train for a budget, what over-training costs, and which run to add to the ladder."""
    from fitting import fitted
    from fitting.advise import advise
    from ladder import printing

    advice = advise(fitted.load(epath.Path(law)), budget_flops, served_tokens=served_tokens)
    if json:
        _print_json(printing.as_data(advice))
    else:
        printing.print_advice(advice, to_person)


@app.command
def report(folder: Annotated[Positional[str], arg(metavar="DIR", help="folder of law.json, or a workdir")]) -> None:
    """Write the report of a fitted law: HTML, Markdown, LaTeX, JSON, CSV, figures as SVG and PDF."""
    from ladder import report as reporting

    path = epath.Path(folder)
    reporting.report(path if (path / "law.json").exists() else Workdir(path).fit(), to_person.print)


app.command(cli_corpus.cache)
app.command(cli_corpus.tokenizer)
app.command(cli_cloud.launch)
app.command(cli_precompile.precompile)
app.command(cli_convert.app, name="convert", help="Import and export models: open_lm, Hugging Face.")


def _planned(config: str, overrides: tuple[str, ...]) -> tuple[configs.LadderConfig, tuple[RunSpec, ...]]:
    from ladder import plan as plans

    c = configs.load(config, overrides)
    return c, plans.plan(c, plans.vocab_size(c))


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

    c, specs = _planned(config, overrides)
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


def _fit(table: epath.Path, out: epath.Path, **options) -> None:
    from fitting import fit, fitted, importers
    from fitting.testbed import Testbed

    command = shlex.join(["ladder", *sys.argv[1:]])
    if not table.exists():
        table = importers.shipped(str(table)) or table
    law = fit.fit(Testbed.read_csv(table), command=command, **options)
    fitted.save(law, out / "law.json")
    for left_out in law.left_out:
        if not left_out.reason.startswith("not selected"):
            to_person.print(f"left out: {left_out.run}, {left_out.reason}")
    _print_predictions(law.predictions)
    to_person.print(f"law: {out / 'law.json'}")


def _named_number(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise ValueError(f"{text!r}: write NAME=VALUE, such as unique_tokens=100e9") from None


def _freeze(law, path: epath.Path, prediction, out: epath.Path) -> None:
    import hashlib

    from fitting import frozen

    command = shlex.join(["ladder", *sys.argv[1:]])
    dated = frozen.freeze(law, hashlib.sha256(path.read_bytes()).hexdigest(), prediction, command=command)
    frozen.save(dated, out)
    to_person.print(f"frozen at {dated.frozen}: {out}\npublish its digest to prove the date: {dated.digest}")


def _print_json(value) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _print_plan(c: configs.LadderConfig, specs: tuple[RunSpec, ...]) -> None:
    from ladder import plan as plans
    from ladder import precompiled, printing

    printing.print_plan(plans.as_table(specs, precompiled.chip_hours(c.training, specs)), to_person)


def _print_predictions(predictions) -> None:
    from ladder import printing

    printing.print_predictions(predictions, to_person)
