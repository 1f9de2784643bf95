"""The verbs of a law: laws fitted, runs predicted and scored, advice and reports."""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from etils import epath
from tyro.conf import FlagCreatePairsOff, Positional, arg

from fitting import files
from ladder import storage
from ladder.cli import tables
from ladder.cli.arguments import Json, law_file, named_numbers, print_json, to_person, warn_of_strays
from ladder.cli.quick import quick
from ladder.spec import RunSpec, Workdir


@quick
def fit(
    testbed: Annotated[
        Positional[str],
        arg(metavar="TESTBED", help="table of runs, such as a workdir's testbed.csv, or gadre2024, which is built in"),
    ],
    *,
    loss: Annotated[str, arg(metavar="COLUMN", help="loss to fit, such as loss/code; or several, such as web,code")],
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
    law: Annotated[
        str | None,
        arg(
            metavar="LAW", help="loss law, such as chinchilla; by default coupled_tied, or over_training of paper, best"
        ),
    ] = None,
    error_law: Annotated[
        str | None,
        arg(metavar="LAW", help="error law; by default exponential_decay of many tasks, logistic of few"),
    ] = None,
    objective: Annotated[str | None, arg(metavar="NAME", help="of the method `best`, such as log_huber")] = None,
    params_column: Annotated[str, arg(metavar="COLUMN", help="what N is, such as params_non_embedding")] = "params",
    best_of_size: Annotated[
        FlagCreatePairsOff[bool], arg(help="of runs of one size, as of a sweep, take the one of the lowest loss")
    ] = False,
    level: Annotated[float, arg(help="nominal coverage of the intervals")] = 0.95,
    seed: Annotated[int, arg(help="of the intervals' random draws")] = 0,
    resamples: Annotated[
        int, arg(metavar="R", help="that the intervals of `best` and `paper` are of; 0 gives the fit without intervals")
    ] = 1000,
    independent: Annotated[
        FlagCreatePairsOff[bool],
        arg(help="of the method `best`: take each run's scatter for its own, as the bootstraps of others do"),
    ] = False,
    json: Json = False,
) -> None:
    """Fit a loss law, and an error law on top of it, to a table of runs."""
    fitted_law = fit_table(
        storage.place(testbed),
        storage.place(out),
        loss=loss.split(","),
        error=error,
        select=select,
        select_error=select_error,
        method=method,
        law=law,
        error_law=error_law,
        objective=objective,
        params_column=params_column,
        best_of_size=best_of_size,
        level=level,
        seed=seed,
        resamples=resamples,
        independent=independent,
    )
    if json:
        print_json(tables.law_as_data(fitted_law))


@quick
def predict(
    law: Annotated[Positional[str], arg(metavar="LAW.json", help="what `ladder fit` wrote, or its folder")],
    *,
    params: Annotated[float, arg(metavar="N", help="parameters as the law counts them, such as 1.4e9")],
    tokens: Annotated[float, arg(metavar="D", help="training tokens, such as 900e9")],
    given: Annotated[
        tuple[str, ...], arg(metavar="NAME=VALUE", help="what else the law is of, such as unique_tokens=100e9")
    ] = (),
    run: Annotated[str, arg(metavar="NAME", help="what the run is called, or will be")] = "",
    nearby: Annotated[
        FlagCreatePairsOff[bool],
        arg(help="off the law as runs of like sizes are, for sweeps and dense ladders"),
    ] = False,
    freeze: Annotated[
        str | None, arg(metavar="FILE", help="date the prediction in this file, for `ladder score` to score later")
    ] = None,
    json: Json = False,
) -> None:
    """Predict the loss and the error of a run from a fitted law."""
    from fitting.artifacts import fitted
    from fitting.prediction import ladder_of, predict

    path, freeze_to = law_file(law), storage.place(freeze) if freeze else None
    fitted_law = fitted.load(path)
    columns = named_numbers(given, ("params", "tokens"))
    predictions = [predict(one, params, tokens, run, columns=columns, nearby=nearby) for one in fitted_law.each]
    prediction = predictions[0]
    others = {one.loss.column: told for one, told in zip(fitted_law.each[1:], predictions[1:], strict=True)}
    warn_of_strays({"params": params, "tokens": tokens, **prediction.columns}, ladder_of(fitted_law))
    if freeze_to:
        dated = _freeze(fitted_law, path, prediction, freeze_to)
        to_person.print(f"frozen at {dated.frozen}: {freeze}\npublish its digest to prove the date: {dated.digest}")
    if json:
        # Nothing was measured of a run that is only asked about.
        untold = ("run", "measured_loss", "measured_error", "columns")
        told = {f.name: getattr(prediction, f.name) for f in dataclasses.fields(prediction) if f.name not in untold}
        told["params_column"] = fitted_law.params_column
        if others:
            told["others"] = {name: {"loss": p.loss, "loss_interval": p.loss_interval} for name, p in others.items()}
        print_json(files.finite(told | ({"given": dict(prediction.columns)} if given else {})))
    else:
        tables.print_predictions([prediction], to_person)
        for name, other in others.items():
            tables.print_predictions([dataclasses.replace(other, run=name)], to_person)
        tables.print_what_n_is(fitted_law.params_column, to_person)


@quick
def score(
    prediction: Annotated[Positional[str], arg(metavar="PREDICTION.json", help="what `ladder predict --freeze` wrote")],
    testbed: Annotated[Positional[str], arg(metavar="TESTBED", help="table that has the run by now")],
    *,
    run: Annotated[str, arg(metavar="NAME", help="the run that was predicted")],
    json: Json = False,
) -> None:
    """Score a frozen prediction against the run, once it has been measured."""
    from fitting.artifacts import frozen
    from fitting.testbeds.testbed import Testbed

    table = storage.place(testbed)
    record = Workdir(table.parent).record(run)
    measured = tables.iso_time(record.stat().mtime) if record.exists() else ""
    known, measured_runs = frozen.load(storage.place(prediction)), Testbed.read(table)
    scored = frozen.score(known, measured_runs, run, measured=measured)
    warn_of_strays(*known.sizes(measured_runs))
    if json:
        print_json(tables.score_as_data(scored))
    else:
        tables.print_predictions([scored.prediction], to_person)
        tables.print_what_n_is(scored.params_column, to_person)
        to_person.print(tables.when(scored))


@quick
def advise(
    law: Annotated[Positional[str], arg(metavar="LAW.json", help="what `ladder fit` wrote, or its folder")],
    *,
    budget_flops: Annotated[float | None, arg(metavar="C", help="training compute, 6ND, such as 1e21")] = None,
    given: Annotated[
        tuple[str, ...], arg(metavar="NAME=VALUE", help="what is not to be chosen of what else the law is of")
    ] = (),
    target: Annotated[
        str, arg(metavar="COLUMN", help="of losses fitted together, the one to make least; by default their mean")
    ] = "mean",
    served_tokens: Annotated[float, arg(metavar="T", help="tokens that the model will serve, such as 1e12")] = 0.0,
    add: Annotated[
        float | None, arg(metavar="C", help="compute for runs to add to the ladder together, such as 1e19")
    ] = None,
    json: Json = False,
) -> None:
    """Tell what to train for a budget, what over-training costs, and which run to add to the ladder.

    Of a law of more than size and data, tell the best experts, vocabulary, rate and batch, or mixture of domains.
    """
    from fitting.advice import advise
    from fitting.artifacts import fitted
    from fitting.prediction import ladder_of
    from fitting.settings import best_settings, has_settings

    fitted_law, columns = fitted.load(law_file(law)), named_numbers(given)
    warn_of_strays({"flops": budget_flops or 0.0, "served_tokens": served_tokens, **columns}, ladder_of(fitted_law))
    if has_settings(fitted_law):
        if served_tokens or add:
            raise ValueError("served_tokens and add are for laws of params and tokens alone")
        settings = best_settings(fitted_law, budget_flops=budget_flops, given=columns, target=target)
        if json:
            print_json(tables.as_data(settings))
        else:
            tables.print_settings(settings, fitted_law.params_column, to_person)
        return
    if given or target != "mean":
        raise ValueError(f"{fitted_law.loss.law} is a law of params and tokens alone: leave out --given and --target")
    if budget_flops is None:
        raise ValueError(f"the law {fitted_law.loss.law} is asked about a budget: say --budget-flops, such as 1e21")
    advice = advise(fitted_law, budget_flops, served_tokens=served_tokens, add_flops=add)
    if json:
        print_json(tables.as_data(advice))
    else:
        tables.print_advice(advice, to_person)


@quick
def report(folder: Annotated[Positional[str], arg(metavar="DIR", help="folder of law.json, or a workdir")]) -> None:
    """Write the report of a fitted law: HTML, Markdown, LaTeX, JSON, CSV, figures as SVG and PDF."""
    from ladder.evaluation import report as reporting

    path = storage.place(folder)
    storage.refuse_closed(path)
    reporting.report(path if (path / "law.json").exists() else Workdir(path).fit(), to_person.print)


def fit_table(table: epath.Path, out: epath.Path, **options):
    """Fits the laws to a table of runs, and tells which it left out and how its targets came out."""
    from fitting.artifacts import fitted
    from fitting.doubts import doubts
    from fitting.methods import fit
    from fitting.testbeds import importers
    from fitting.testbeds.testbed import Testbed
    from ladder.cli import tables

    storage.refuse_closed(out)
    command = shlex.join(["ladder", *sys.argv[1:]])
    if not table.exists() or table.is_dir():
        table = importers.shipped(str(table)) or table
    law = fit(Testbed.read(table), command=command, **options)
    fitted.save(law, out / "law.json")
    for left_out in law.left_out:
        if not left_out.reason.startswith("not selected"):
            to_person.print(f"left out: {left_out.run}, {left_out.reason}")
    tables.print_predictions(law.predictions, to_person)
    tables.print_what_n_is(law.params_column, to_person)
    for doubt in doubts(law):
        to_person.print(f"warning: {doubt}")
    to_person.print(f"law: {out / 'law.json'}")
    return law


def foretell(workdir: Workdir, targets: Sequence[RunSpec]) -> None:
    """Freezes what a workdir's law says of runs that have not been trained, and tells it."""
    from fitting.artifacts import fitted
    from fitting.prediction import predict

    path = workdir.fit() / "law.json"
    law = fitted.load(path)
    for spec in targets:
        prediction, out = predict(law, spec.params, spec.tokens, spec.run), workdir.prediction(spec.run)
        tables.print_predictions([prediction], to_person)
        to_person.print(f"frozen at {_freeze(law, path, prediction, out).frozen}, before it is trained: {out}")


def _freeze(law, path: epath.Path, prediction, out: epath.Path):
    import hashlib

    from fitting.artifacts import frozen

    command = shlex.join(["ladder", *sys.argv[1:]])
    dated = frozen.freeze(law, hashlib.sha256(path.read_bytes()).hexdigest(), prediction, command=command)
    frozen.save(dated, out)
    return dated
