"""The command line: every verb by name, and one clear line where a command is refused."""

import sys
import warnings
from collections.abc import Callable

import tyro

from ladder import quiet, storage
from ladder.cli import compare, convert, corpus, design, imports, launch, laws, precompile, runs, status, tune
from ladder.cli.arguments import to_person, told
from ladder.training.preemption import Preempted

app = tyro.extras.SubcommandApp()


def main() -> None:
    """The console script: one clear line on stderr and exit code 1 where a command is refused."""
    quiet.libraries()
    warnings.showwarning = lambda message, *_: to_person.print(f"warning: {message}")
    storage.use_one_client()
    try:
        for argument in sys.argv[1:]:
            flag, _, value = argument.partition("=") if argument.startswith("--") else ("argument", "", argument)
            storage.refuse_placeholders(value, flag)
        app.cli(prog="ladder", description="Train a ladder of small runs, fit its laws, know the large run beforehand.")
    except Preempted as e:
        to_person.print(f"ladder: {e}")
        raise
    except KeyboardInterrupt:
        sys.exit("ladder: stopped; the same command goes on from what is saved")
    except Exception as e:
        if line := told(e):
            sys.exit(line)
        raise


VERBS: tuple[Callable[..., None], ...] = (
    *(runs.run, runs.work, design.design, runs.plan, tune.tune),
    *(runs.train, runs.evaluate, runs.generate, runs.collect),
    *(laws.fit, laws.predict, laws.score, laws.advise, compare.compare, laws.report),
    *(status.status, corpus.cache, corpus.tokenizer, launch.launch, precompile.precompile),
)
for verb in VERBS:
    app.command(verb)
app.command(name="import")(imports.import_)
app.command(convert.app, name="convert", help="Import and export models: open_lm, Hugging Face.")
