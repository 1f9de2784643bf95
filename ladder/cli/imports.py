"""The verb of what others trained: published testbeds and logs, read into a table of runs."""

from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from ladder import storage
from ladder.cli.arguments import to_person

_Names = UseAppendAction[tuple[str, ...]]


def import_(
    kind: Annotated[
        Positional[
            Literal[
                "gadre2024",
                "olmo-ladder",
                "chinchilla",
                "datablations",
                "gemstones",
                "porian",
                "farseer",
                "steplaw",
                "marin-isoflops",
                "csv",
                "wandb",
                "tensorboard",
                "logs",
            ]
        ],
        arg(
            metavar="KIND",
            help="a published testbed, from its authors' repository: gadre2024, olmo-ladder, chinchilla, datablations, "
            "gemstones, porian, farseer, steplaw, marin-isoflops; csv, a table of runs (Parquet too); or what training "
            "logged: wandb, tensorboard, or logs, which is any CSV or JSON lines of steps",
        ),
    ],
    files: Annotated[Positional[tuple[str, ...]], arg(metavar="FILES", help="files or folders; one, unless of logs")],
    *,
    out: Annotated[str, arg(metavar="CSV", help="the table to write, such as testbed.csv")],
    column: Annotated[
        _Names,
        arg(
            metavar="NAME=COLUMN",
            help="of logs: which of their columns is what, such as loss/train=train/loss, error/arc=1-arc/acc, "
            "tokens=seen_tokens",
        ),
    ] = (),
    params: Annotated[float | None, arg(metavar="N", help="of logs: the model's parameters, such as 411e6")] = None,
    tokens_per_step: Annotated[
        float | None, arg(metavar="T", help="of logs that count steps: tokens of a batch, such as 4194304")
    ] = None,
    smooth: Annotated[
        _Names,
        arg(metavar="NAME=TOKENS", help="of logs: average over the last so many tokens, such as loss/train=2e9"),
    ] = (),
    corpus: Annotated[str | None, arg(metavar="NAME", help="of logs: what the runs were trained on")] = None,
    run: Annotated[str | None, arg(metavar="NAME", help="of logs: the one run that all FILES are of")] = None,
    runs: Annotated[
        str | None, arg(metavar="YAML", help="of logs: many runs, and all of the above for each (docs/logs.md)")
    ] = None,
) -> None:
    """Read a published testbed, or logs of training, into a table of runs; broken ones are marked in `quarantine`."""
    from fitting.testbeds import importers
    from fitting.testbeds.logs import formats

    to = storage.place(out)
    given = {
        **{"column": column, "params": params, "tokens-per-step": tokens_per_step, "smooth": smooth},
        **{"corpus": corpus, "run": run, "runs": runs},
    }
    options = [f"--{name}" for name, value in given.items() if value not in (None, ())]
    if kind in formats.READERS:
        testbed = _logs(kind, files, options, given)
    elif options:
        raise ValueError(f"{options[0]} is of logs ({', '.join(formats.READERS)}), and {kind} is a table of runs")
    elif len(files) != 1:
        raise ValueError(f"{kind} is one file or folder, but {len(files)} are given")
    else:
        testbed = importers.read(kind, storage.place(files[0]))
    testbed.write_csv(to)
    is_run = testbed.table["role"] != "checkpoint"
    for run_, why in testbed.quarantined.items():
        to_person.print(f"quarantined: {run_}, {why}")
    checkpoints = f" and {(~is_run).sum():,} checkpoints" if not is_run.all() else ""
    to_person.print(f"{is_run.sum():,} runs{checkpoints}: {out}")


def _logs(kind: str, files: tuple[str, ...], options: list[str], given: dict):
    from fitting.testbeds.logs import importer
    from fitting.testbeds.logs import log as logs

    if given["runs"]:
        if others := [option for option in options if option != "--runs"]:
            raise ValueError(f"{others[0]} belongs into {given['runs']}, where --runs is given")
        return importer.read(kind, files, logs.load(given["runs"]), to_person.print)
    if not files:
        raise ValueError("FILES are missing: name the logs, or give --runs a YAML that does")
    if given["params"] is None:
        raise ValueError("--params is missing: how many parameters the model has, such as --params 411e6")
    log = logs.make(
        columns=_pairs("--column", given["column"], "loss/train=train/loss"),
        smooth=_pairs("--smooth", given["smooth"], "loss/train=2e9"),
        params=given["params"],
        tokens_per_step=given["tokens-per-step"],
        corpus=given["corpus"] or "",
    )
    return importer.read(kind, files, log, to_person.print, run=given["run"])


def _pairs(option: str, texts: tuple[str, ...], example: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} {text}: write NAME=VALUE, such as {example}")
        if name in pairs:
            raise ValueError(f"{option} {name}: given twice, as {pairs[name]} and as {value}")
        pairs[name] = value
    return pairs
