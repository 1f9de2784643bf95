"""A config as a file: read with its overrides, refused by key where it says what cannot be, written."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import pydantic
import yaml

from fitting.files import cut
from ladder import config_tree, storage
from ladder.config import Evaluation, LadderConfig
from ladder.recipe import RECIPES
from tasks.text.published import PAPER

MOST_PROBLEMS = 10  # that one message names
MOST_RUNS = 10_000  # of a ladder
# A number that is not finite is refused where it stands, and not taken for one that is not given.
ANYTHING = pydantic.TypeAdapter(Any, config=pydantic.ConfigDict(ser_json_inf_nan="constants"))
BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}  # by pydantic's name of a problem, what a person is told


def load(path: str, overrides: Sequence[str] = ()) -> LadderConfig:
    """Reads a ladder from YAML.

    A file may name a `base`, another config beside it, and say only what differs: mappings are merged key by key,
    everything else is replaced.

    Args:
      path: the file, local or gs://.
      overrides: `path.to.key=value` each; the value is read as YAML.

    Raises:
      ValueError: naming the file, the key and what is wrong with it.
    """
    config = _checked(config_tree.read(path, overrides), LadderConfig, path)
    _refuse_impossible(config, path)
    return config


def load_evaluation(path: str, overrides: Sequence[str] = ()) -> Evaluation:
    """Reads the `evaluation:` of a ladder's YAML, or of a file that holds nothing else.

    Raises:
      ValueError: as `load`.
    """
    tree = config_tree.read(path, overrides)
    if set(tree) != {"evaluation"}:
        return load(path, overrides).evaluation
    evaluation = _checked(tree["evaluation"], Evaluation, f"{path}: evaluation")
    _refuse_misplaced(tree, path)
    _refuse_unknown_sets(evaluation, path)
    return evaluation


def dump(config: LadderConfig) -> str:
    """The whole config as YAML, defaults included; `load` gives the same config back."""
    return yaml.safe_dump(as_tree(config), sort_keys=False, width=100)


def as_tree(config: LadderConfig) -> dict[str, Any]:
    """The config as plain mappings, lists and scalars."""
    return pydantic.TypeAdapter(LadderConfig).dump_python(config, mode="json")


def _checked(tree: Any, kind: type, path: str) -> Any:
    try:
        # JSON mode is strict about scalars and still takes a list for a tuple.
        return pydantic.TypeAdapter(kind).validate_json(ANYTHING.dump_json(tree))
    except pydantic.ValidationError as e:
        problems = [f"{cut('.'.join(map(str, p['loc']))) or 'config'}: {_what(p)}" for p in e.errors()]
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise ValueError(f"{path}: {'; '.join(problems[:MOST_PROBLEMS] + more)}") from e


def _what(problem: Any) -> str:
    if (bound := BOUNDS.get(problem["type"])) is not None:
        return f"{problem['input']} must be {bound} {problem['ctx'].popitem()[1]:.15g}"
    if problem["type"] == "finite_number":
        return f"{problem['input']} is not a finite number"
    return "unknown key" if problem["type"] == "unexpected_keyword_argument" else problem["msg"]


def _refuse_unknown_sets(evaluation: Evaluation, path: str) -> None:
    paper = evaluation.paper_validation
    if paper and (unknown := [name for name in paper.sets if name not in PAPER]):
        raise ValueError(
            f"{path}: evaluation.paper_validation.sets: there is no {', '.join(unknown)}; there are {', '.join(PAPER)}"
        )


def _refuse_misplaced(tree: Any, path: str, key: str = "") -> None:
    """Every text that names a place must name one that can be read and written."""
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            _refuse_misplaced(value, path, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, str) and not tree.startswith("tfds:") and (why := storage.misplaced(tree)):
        raise ValueError(f"{path}: {key}: {why}")


def _refuse_impossible(config: LadderConfig, path: str) -> None:
    def refuse(key: str, why: str) -> None:
        raise ValueError(f"{path}: {key}: {why}")

    _refuse_unknown_sets(config.evaluation, path)
    _refuse_misplaced(as_tree(config), path)
    if config.recipe.name not in RECIPES:
        refuse("recipe.name", f"no recipe is named {config.recipe.name!r}; there are {', '.join(RECIPES)}")
    for key in ("learning_rate", "batch_tokens"):
        law = getattr(config.recipe, key)
        for name in ("value", "params", "tokens") if law else ():
            if not getattr(law, name) > 0:
                refuse(f"recipe.{key}.{name}", f"{getattr(law, name)} must be more than 0")
    for size in config.sizes:
        if not re.fullmatch(r"[A-Za-z0-9=_.-]+", size):
            refuse("sizes", f"{cut(repr(size))} names a folder: use letters, digits and = _ . - only")
    if not config.rungs and not config.design:
        refuse("rungs", "a ladder needs at least one grid of rungs, or a `design` to choose them by")
    if config.design:
        given = [kind for kind, value in dataclasses.asdict(config.design.budget).items() if value is not None]
        if len(given) > 1:
            refuse("design.budget", f"{' and '.join(given)} are given; a design has one budget, such as flops: 3e19")
    if config.training.profile_steps and not 1 <= config.training.profile_steps[0] <= config.training.profile_steps[1]:
        refuse("training.profile_steps", "must be a first step, from 1 on, and a last one that is not before it")
    if (chunk := config.training.loss_chunk_tokens) and config.model.sequence_length % chunk:
        refuse("training.loss_chunk_tokens", f"{chunk} does not divide model.sequence_length")
    if config.training.checkpoint_every_steps % config.training.log_every_steps:
        refuse("training.checkpoint_every_steps", "must be a multiple of training.log_every_steps")
    for kind in ("rungs", "targets"):
        for i, grid in enumerate(getattr(config, kind)):
            if not grid.sizes or not grid.token_multipliers:
                refuse(f"{kind}.{i}", "needs at least one size and one token multiplier")
            if not grid.learning_rate_scales or not grid.batch_scales:
                refuse(f"{kind}.{i}", "learning_rate_scales and batch_scales need one value at least")
            if (runs := grid.runs) > MOST_RUNS:
                refuse(f"{kind}.{i}", f"these are {runs:,} runs, and a ladder has {MOST_RUNS:,} at most")
            for size in grid.sizes:
                if size not in config.sizes:
                    refuse(f"{kind}.{i}.sizes", f"no size is named {size!r}; there are {', '.join(config.sizes)}")
