"""The published ladders: which runs of a published testbed are rungs, and which were held out to be predicted.

Rules, the same for every method that is compared on them:

- Gadre et al. 2024, 3 corpora × 8 losses: the paper's five rungs, a sixth for the error law (Table 2), its two targets.
- Bhagia et al. 2024, 8 tasks and 11 validation losses: the paper's 16 rungs and its two targets, 7B-4T and 13B-5T.
- Hoffmann et al. 2022 as digitised, and Muennighoff et al. 2023 without repeated data: the largest are left out.
  Targets are the runs of at least a third of the largest compute, rungs those of at most a thirtieth.
- Gemstones, Porian et al. 2024, Marin, Farseer and Step Law, by the same rule and as their tables mark them: once with
  all rungs, and once with the four to seven that a small ladder has, `few == 1`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from fitting.testbeds import importers
from fitting.testbeds.testbed import Testbed

GADRE_SETS = (
    *("openlm", "c4_val", "paloma_c4_en", "paloma_dolma_100_programing_languages"),
    *("paloma_falcon-refinedweb", "paloma_ptb", "paloma_redpajama", "de-en"),
)
GADRE_FIVE = "(token_multiplier.round() == 20 and params < 1e9) or (token_multiplier.round() == 320 and params < 2e7)"
GADRE_SIX = f"{GADRE_FIVE} or (token_multiplier.round() == 20 and params < 2e9)"
OLMO_TASKS = (
    *("mmlu_avg_test", "hellaswag_val", "arc_challenge_test", "arc_easy_test"),
    *("piqa_val", "csqa_val", "socialiqa_val", "openbookqa_test"),
)
OLMO_RUNGS = [f"{size}-{multiple}xC" for size in ("190M", "370M", "760M", "1B") for multiple in (1, 2, 5, 10)]
RUNGS = "role == 'rung'"
FEW = f"{RUNGS} and few == 1"
# No method was made on these; tables of one testbed, and the losses measured of its runs.
UNSEEN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "farseer": {"farseer": ("bpb/val",)},
    "gemstones": {"gemstones": ("loss/fineweb_edu", "loss/dclm")},
    "porian": {
        "porian_rw": ("loss/refinedweb",),
        "porian_owt2": ("loss/openwebtext2",),
        "porian_rw_cosine": ("loss/refinedweb",),
    },
    "marin": {name: ("loss/paloma_macro",) for name in ("marin_comma", "marin_dclm", "marin_nemotron")},
    "steplaw": {"steplaw": ("loss/train",)},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Ladder:
    """Runs of one corpus, of which some are fitted and the targets predicted.

    Attributes:
      corpus: testbed/corpus; ladders of one testbed are left out together.
      testbed: its runs.
      loss: column of the loss.
      errors: columns of errors to predict through that loss.
      select: rungs of the loss law.
      select_error: rungs of the error law.
      error_law: the law by which its paper predicts an error.
    """

    corpus: str
    testbed: Testbed
    loss: str
    errors: tuple[str, ...] = ()
    select: str = RUNGS
    select_error: str = RUNGS
    error_law: str = "exponential_decay"

    @property
    def testbed_name(self) -> str:
        """Whose runs these are."""
        return self.corpus.split("/")[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One published ladder as a law sees it.

    Attributes:
      testbed: what it shares with other examples; each testbed weighs the same.
      x: the law's inputs at its N runs, targets too, each [N].
      y_N: measurements.
      log_size_NxF: logarithms of the runs' N and D.
      relative: whether misses are relative to the measurement.
    """

    testbed: str
    x: tuple[np.ndarray, ...]
    y_N: np.ndarray
    log_size_NxF: np.ndarray
    relative: bool


def ladders(folder: Any) -> tuple[Ladder, ...]:
    """The ladders of the published testbeds in `folder`: `gadre2024/`, `olmo_ladder2024/` and so on.

    Raises:
      ValueError: a testbed that is not there.
    """
    folder = epath.Path(folder)
    return (
        *_gadre(importers.read("gadre2024", folder / "gadre2024")),
        *_olmo(importers.read("olmo-ladder", folder / "olmo_ladder2024" / "ladder-runs")),
        *_largest_left_out("chinchilla2022", importers.read("chinchilla", folder / "chinchilla2022" / "points.csv")),
        *_largest_left_out("datablations2023", _once(folder / "datablations2023" / "points.csv")),
        *_unseen(folder / "unseen2026"),
    )


def examples(some: Sequence[Ladder]) -> Mapping[str, list[Example]]:
    """The ladders as the laws see them, by law: the loss given sizes, errors given the measured loss."""
    found: dict[str, list[Example]] = {"coupled_tied": [], "over_training": [], "exponential_decay": []}
    for ladder in some:
        if ladder.select == FEW:
            continue  # all of its rungs teach already
        for law in ("coupled_tied", "over_training"):
            found[law].append(_example(ladder, ladder.select, ("params", "tokens"), ladder.loss))
        if ladder.error_law in found:
            for error in ladder.errors:
                found[ladder.error_law].append(_example(ladder, ladder.select_error, (ladder.loss,), error))
    return found


def _example(ladder: Ladder, select: str, inputs: tuple[str, ...], column: str) -> Example:
    table = ladder.testbed.table
    runs = table[ladder.testbed.select(select) | (table["role"] == "target")]
    return Example(
        testbed=ladder.testbed_name,
        x=tuple(runs[name].to_numpy(float) for name in inputs),
        y_N=runs[column].to_numpy(float),
        log_size_NxF=np.log(runs[["params", "tokens"]].to_numpy(float)),
        relative=not column.startswith("error/"),
    )


def _gadre(testbed: Testbed) -> list[Ladder]:
    table = testbed.table
    return [
        Ladder(
            corpus=f"gadre2024/{corpus}",
            testbed=Testbed(table[table["corpus"] == corpus]),
            loss=f"loss/{name}",
            errors=("error/average_17", "error/average"),
            select=GADRE_FIVE,
            select_error=GADRE_SIX,
        )
        for corpus in sorted(set(table["corpus"]))
        for name in GADRE_SETS
    ]


def _olmo(testbed: Testbed) -> list[Ladder]:
    table = testbed.table
    testbed = Testbed(table[table["run"].isin(OLMO_RUNGS) | (table["role"] == "target")])
    losses = [Ladder("olmo_ladder2024", testbed, name) for name in table if name.startswith("loss/")]
    tasks = [
        Ladder("olmo_ladder2024", testbed, f"bpb/{task}", (f"error/{task}",), error_law="logistic")
        for task in OLMO_TASKS
    ]
    return [*losses, *tasks]


def _unseen(folder: Any) -> list[Ladder]:
    import pandas as pd

    found = []
    for testbed, tables in UNSEEN.items():
        for name, losses in tables.items():
            with (folder / f"{name}.csv").open() as file:
                table = Testbed(pd.read_csv(file))
            errors = ("error/average",) if "error/average" in table.table else ()
            found += [
                Ladder(f"{testbed}/{name}", table, loss, errors, select, select)
                for loss in losses
                for select in (RUNGS, FEW)
            ]
    return found


def _once(path: Any) -> Testbed:
    """Runs that saw no token twice."""
    table = importers.read("datablations", path).table
    return Testbed(table[table["unique_tokens"] >= 0.99 * table["tokens"]])


def _largest_left_out(corpus: str, testbed: Testbed) -> list[Ladder]:
    table = testbed.table[testbed.table["quarantine"] == ""]
    largest = table["flops"].max()
    role = np.where(table["flops"] >= largest / 3, "target", "rung")
    kept = table.assign(role=role)[(role == "target") | (table["flops"] <= largest / 30)]
    loss = next(name for name in kept if name.startswith("loss/"))
    return [Ladder(corpus, Testbed(kept), loss)]
