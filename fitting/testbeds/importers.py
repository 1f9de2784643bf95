"""Published testbeds → Testbed: what others measured, read into the table that every law is fitted to.

Each importer is given a path and returns a table, typed, checked and passed through the quality gates.
"""

import collections
import dataclasses
import importlib.resources
import itertools
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from fitting import files
from fitting.files import cut
from fitting.testbeds import cells
from fitting.testbeds.testbed import Testbed

if typing.TYPE_CHECKING:
    import pandas as pd


def read(kind: str, path: Any) -> Testbed:
    """Reads a published testbed of a kind in `KINDS`; records that break a quality gate are in `quarantine`, with why.

    Raises:
      ValueError: an unknown kind, or files that are not what the kind says.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; kinds are {', '.join(KINDS)}")
    path = _existing(path)
    try:
        return KINDS[kind](path)
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def shipped(name: str) -> Any:
    """The path of a small table that comes with the package, or None where there is none of that name."""
    path = importlib.resources.files("fitting.testbeds") / "data" / f"{name}.csv"
    return path if re.fullmatch(r"\w+", name) and path.is_file() else None


def gadre2024(folder: Any) -> Testbed:
    """The 104 models of Gadre et al. 2024 (arXiv:2403.08540): `exp_data` of github.com/mlfoundations/scaling.

    Losses are named as the paper's code names them, after their folder. `error/average` is over the tasks that most
    runs have, the paper's 46, and `error/average_17` over its 17-task subset, of runs that have them all. Targets are
    the six runs the paper held out.
    """
    paths = sorted((folder / "models").glob("*.json"))
    if not paths:
        raise ValueError(f"{folder}: no models/*.json; give the exp_data folder of github.com/mlfoundations/scaling")
    rows = [_gadre_run(folder, path) for path in paths]
    errors = [{name: value for name, value in row.items() if name.startswith("error/")} for row in rows]
    ((usual, _),) = collections.Counter(map(frozenset, errors)).most_common(1)
    for row, of_run in zip(rows, errors, strict=True):
        for average, tasks in {"average": usual, "average_17": {f"error/{task}" for task in _GADRE_SUBSET}}.items():
            if tasks and tasks <= of_run.keys():
                row[f"error/{average}"] = math.fsum(of_run[task] for task in tasks) / len(tasks)
    return _table(rows)


_GADRE_TARGETS = (
    *("c4_original-open_lm_1b-4.0", "c4_original-open_lm_7b-1.0"),
    *("rpj-open_lm_1b-32.0", "rpj-open_lm_7b-1.0"),
    *("rw_original-open_lm_1b-16.0", "rw_original-open_lm_7b-1.0"),
)
_GADRE_SUBSET = (
    *("arc_easy", "bigbench_cs_algorithms", "bigbench_dyck_languages", "bigbench_novel_concepts"),
    *("bigbench_operators", "bigbench_qa_wikidata", "boolq", "commonsense_qa", "copa", "coqa", "hellaswag"),
    *("hellaswag_zeroshot", "lambada_openai", "piqa", "pubmed_qa_labeled", "squad", "winograd"),
)


def _gadre_run(folder: Any, path: Any) -> dict[str, Any]:
    """What a model's file and that of its evaluation say; what only a gate looks at may be missing."""
    model, evaluation = _Record.read(path), _Record.read(folder / "evals" / f"evaluation_{path.stem}_heavy.json")
    arguments = _arguments(model.maybe("open_lm_args", []))
    batch_size = model.maybe("hyperparameters", "global_bs", math.nan)
    tokens = model.number("hyperparameters", "tokens")
    row = {
        "run": model["name"],
        "role": "target" if model["name"] in _GADRE_TARGETS else "rung",
        "corpus": model["dataset_name"],
        "model": str(model["hyperparameters", "model"]).split("/")[-1].removesuffix(".json"),
        "params": model.number("hyperparameters", "params"),
        "params_non_embedding": model.maybe("hyperparameters", "params_no_embed", math.nan),
        "tokens": tokens,
        "batch_size": batch_size,
        "warmup_steps": model.maybe("hyperparameters", "warmup", math.nan),
        "steps": tokens / (2048 * batch_size),
    }
    if {"train-num-samples", "epochs"} <= arguments.keys():
        row["tokens_seen"] = int(arguments["train-num-samples"]) * int(arguments["epochs"])
    for i in range(len(model.several("results", kind=list))):
        where = str(model["results", i, "val_data", 0]).split("/")
        name = where[-2] if len(where) > 1 else where[0]
        row[f"loss/{name}"] = model.number("results", i, "loss")
        ends = [model.maybe("results", i, f"loss_tokens_{end}_95", math.nan) for end in ("lower", "upper")]
        # A 95 % interval of the mean over tokens: 2 × 1.96 standard errors wide.
        row[f"loss_stderr/{name}"] = (ends[1] - ends[0]) / 3.92
    for task in evaluation.several("eval_metrics", "icl", kind=dict):
        row[f"error/{task}"] = 1 - evaluation.number("eval_metrics", "icl", task)
    return row


@dataclasses.dataclass(frozen=True)
class _Record:
    """A JSON file, asked for by the way to a value; a ValueError names the file and the key that it lacks."""

    path: Any
    tree: Any

    @classmethod
    def read(cls, path: Any) -> "_Record":
        return cls(path, _json(path))

    def __getitem__(self, way: Any) -> Any:
        way, value = way if isinstance(way, tuple) else (way,), self.tree
        for i, key in enumerate(way):
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                raise ValueError(f"{self.path}: no key {'.'.join(map(str, way[: i + 1]))}") from None
        return value

    def number(self, *way: Any) -> float:
        value = self[way]
        if isinstance(value, bool) or not isinstance(value, int | float):
            where = ".".join(map(str, way))
            raise ValueError(f"{self.path}: {where}: expected a number but found {cut(json.dumps(value))}")
        return value

    def several(self, *way: Any, kind: type) -> Any:
        """A list or an object."""
        if not isinstance(value := self[way], kind):
            what = "a list" if kind is list else "an object"
            where = ".".join(map(str, way))
            raise ValueError(f"{self.path}: {where}: expected {what} but found {cut(json.dumps(value))}")
        return value

    def maybe(self, *way_and_default: Any) -> Any:
        """The last is the default, and says by its type what is asked for."""
        *way, default = way_and_default
        try:
            return self.number(*way) if isinstance(default, float) else self[tuple(way)]
        except ValueError:
            return default


def _arguments(words: list[str]) -> dict[str, str]:
    return {a.removeprefix("--"): b for a, b in itertools.pairwise(words) if a.startswith("--")}


def olmo_ladder(folder: Any) -> Testbed:
    """The task ladder of Bhagia et al. 2024 (arXiv:2412.04403): `ladder-runs` of github.com/allenai/OLMo-ladder.

    A run is the mean of its last 5 checkpoints. Its other checkpoints are rows too, of role `checkpoint`, named
    `<run>@<step>`: the first 10 % are left out, then losses and errors are moving averages over 5. Losses on validation
    sets are `loss/<set>` in nats a token, on tasks `bpb/<task>` in bits a byte; `error/<task>` is 1 - accuracy. The
    averages over MMLU are the paper's. Targets are 7B-4T and 13B-5T. N without embeddings is what the paper fits.
    """
    import pandas as pd

    paths = sorted(path for path in folder.glob("*.csv") if _OLMO_NAMES.fullmatch(path.stem) or path.stem in _OLMO_7B)
    if not paths:
        raise ValueError(f"{folder}: no runs such as 190M-1xC.csv; give the ladder-runs folder of allenai/OLMo-ladder")
    return Testbed(pd.concat([_olmo_run(path) for path in paths], ignore_index=True))


_OLMO_NAMES = re.compile(r"(\d+[MB])-([\d.]+xC)(-rerun)?")
_OLMO_7B = {"peteish7_eval_anneal": "7B-4T", "peteish13_eval_final": "13B-5T"}
# Parameters without the input embedding, as the paper counts them, and the width of that embedding.
_OLMO_SIZES = {
    "190M": (190354176, 768),
    "370M": (371262464, 1024),
    "760M": (758220288, 1536),
    "1B": (1279395840, 2048),
    "3B": (3169537280, 3328),
    "7B": (6887575552, 4096),
    "13B": (13202396160, 5120),
}
_OLMO_VOCABULARY = 100352
_OLMO_MMLU = {"stem": 0.215, "humanities": 0.335, "social_sciences": 0.219, "other": 0.231}
_OLMO_COLUMNS = (
    (re.compile(r"eval/(.+)-validation/CrossEntropyLoss"), "loss"),
    (re.compile(r"eval/downstream_bpb/(.+)_rc_5shot_bpb"), "bpb"),
    (re.compile(r"eval/downstream/(.+)_rc_5shot_(?:len_norm|acc)"), "error"),
)


def _olmo_run(path: Any) -> "pd.DataFrame":
    import pandas as pd

    run = _OLMO_7B.get(path.stem, path.stem)
    size = run.split("-")[0]
    if size not in _OLMO_SIZES:
        raise ValueError(
            f"{path}: how many parameters {size} has is not known, only of {', '.join(_OLMO_SIZES)}; give a table of "
            "its own, of kind csv"
        )
    log = _csv(path, "batch_size_in_tokens")
    measured = _olmo_measured(path, log)
    counters = ["batch_size_in_tokens", "throughput/total_tokens" if "throughput/total_tokens" in log else "_step"]
    if counters[1] not in log:
        raise ValueError(f"{path}: missing column _step, or throughput/total_tokens")
    _refuse_words(path, log, *counters)
    tokens = log[counters[1]] if counters[1] != "_step" else log["_step"] * log["batch_size_in_tokens"]
    steps = (tokens / log["batch_size_in_tokens"]).round().astype(int)
    params, width = _OLMO_SIZES[size]
    common = {
        "corpus": "olmo-mix",
        "model": size,
        "params": params + _OLMO_VOCABULARY * width,
        "params_non_embedding": params,
        "learning_rate": log["learning_rate_peak"].iloc[-1] if "learning_rate_peak" in log else math.nan,
    }
    final = measured.iloc[-5:].mean().to_frame().T
    final = final.assign(run=run, role="target" if run in _OLMO_7B.values() else "rung", tokens=int(tokens.iloc[-1]))
    if path.stem in _OLMO_7B:
        return final.assign(**common)
    skipped = math.ceil(0.1 * len(log))
    along = measured.iloc[skipped:].rolling(5, min_periods=1).mean()
    names = [f"{run}@{step}" for step in steps.iloc[skipped:]]
    along = along.assign(run=names, role="checkpoint", tokens=tokens.iloc[skipped:].astype(int))
    return pd.concat([final, along], ignore_index=True).assign(**common)


def _olmo_measured(path: Any, log: "pd.DataFrame") -> "pd.DataFrame":
    """Losses and errors of every checkpoint, by our names; averages over MMLU where all its parts are."""
    import pandas as pd

    measured = {}
    for column in log:
        for pattern, kind in _OLMO_COLUMNS:
            if match := pattern.fullmatch(column):
                _refuse_words(path, log, column)
                measured[f"{kind}/{match[1]}"] = 1 - log[column] if kind == "error" else log[column]
    for kind in ("bpb", "error"):
        for split in ("val", "test"):
            parts = {f"{kind}/mmlu_{name}_{split}": weight for name, weight in _OLMO_MMLU.items()}
            if parts.keys() <= measured.keys():
                total = sum(weight * measured[name] for name, weight in parts.items())
                measured[f"{kind}/mmlu_avg_{split}"] = total / sum(_OLMO_MMLU.values())
    return pd.DataFrame(measured)


def chinchilla(path: Any) -> Testbed:
    """245 runs read off Hoffmann et al. 2022, Fig. 4, by Besiroglu et al. 2024 (arXiv:2404.10102).

    A CSV with columns N, D and loss; `used`, where there is one, is 0 for the five runs of highest loss, which the
    replication left out: they are in quarantine. N counts all parameters.
    """
    points = _csv(path, "N", "D", "loss")
    table = _points(points, "massivetext").assign(run=[f"chinchilla-{i:03d}" for i in range(len(points))])
    if "used" in points:
        table["quarantine"] = ["" if used else _CHINCHILLA_UNUSED for used in points["used"]]
    return Testbed(table)


_CHINCHILLA_UNUSED = "one of the five highest losses, which Besiroglu et al. 2024 leave out"


def datablations(path: Any) -> Testbed:
    """182 runs with repeated data of Muennighoff et al. 2023 (arXiv:2305.16264): a CSV with name, N, D, U and loss.

    `unique_tokens` is U, the tokens of the corpus: epochs are D/U.
    """
    points = _csv(path, "name", "N", "D", "U", "loss")
    return Testbed(_points(points, "c4").assign(run=points["name"], unique_tokens=points["U"]))


def _points(points: "pd.DataFrame", corpus: str) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {"corpus": corpus, "params": points["N"], "tokens": points["D"], f"loss/{corpus}": points["loss"]}
    )


KINDS: Mapping[str, Callable[[Any], Testbed]] = {
    "gadre2024": gadre2024,
    "olmo-ladder": olmo_ladder,
    "chinchilla": chinchilla,
    "datablations": datablations,
    "csv": Testbed.read,
}


def _existing(path: Any) -> Any:
    from etils import epath

    path = epath.Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    return path


def _json(path: Any) -> Any:
    try:
        return json.loads(files.read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None


def _csv(path: Any, *required: str) -> "pd.DataFrame":
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the CSV file of runs in it")
    table = cells.read(path)
    if table.empty:
        raise ValueError(f"{path}: no rows")
    if missing := [name for name in required if name not in table]:
        raise ValueError(f"{path}: missing column {', '.join(missing)}; columns are {cut(', '.join(table))}")
    return table.apply(_typed)


def _refuse_words(path: Any, table: "pd.DataFrame", *columns: str) -> None:
    """Raises a ValueError where a column holds what is no number."""
    import pandas as pd

    for column in columns:
        if not pd.api.types.is_numeric_dtype(table[column]):
            bad = table[column][pd.to_numeric(table[column], errors="coerce").isna() & (table[column] != "")].iloc[0]
            raise ValueError(f"{path}: column {column}: {cut(bad)!r} is not a number")


def _typed(column: "pd.Series") -> "pd.Series":
    """A column as numbers where all its cells are, an empty one as NaN; else as it is."""
    import pandas as pd

    try:
        return pd.to_numeric(column.replace("", math.nan))
    except ValueError:
        return column


def _table(rows: list[dict[str, Any]]) -> Testbed:
    import pandas as pd

    return Testbed(pd.DataFrame(rows))
