"""Suites of downstream tasks from a YAML file: one of your own, or llm-foundry's (`icl_tasks`, such as heavy.yaml).

    tasks:
      - name: capitals
        file: geography/capitals.jsonl       # below the suite's source, or a path of its own
        type: multiple_choice                # or language_modeling, or schema
        shots: 5
        delimiter: "\\nAnswer: "
        template:                            # only where the file does not have the type's own fields
          query: "Question: what is the capital of {country}?"
          choices: ["{first}", "{second}"]   # or "{options}", a column that holds a list
          gold: "{answer_index}"

Other keys are the attributes of `tasks.questions.gauntlet.Definition`.
"""

import dataclasses
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml
from etils import epath

from tasks.messages import cut
from tasks.questions.gauntlet import FIELDS, GAUNTLET, SUBSET17, Definition

# Of llm-foundry's tasks, and what we call it; the last four change no score: llm-foundry 0.4 takes
# `question_prelimiter` and does not use it for these types.
FOUNDRY_KEYS: Mapping[str, str] = {
    "label": "name",
    "dataset_uri": "file",
    "icl_task_type": "type",
    "num_fewshot": "shots",
    "continuation_delimiter": "delimiter",
    "has_categories": "categorised",
    "example_delimiter": "example_delimiter",
    "prompt_string": "preamble",
    "fewshot_random_seed": "seed",
    "metric_names": "",
    "batch_size": "",
    "pad_tok_id": "",
    "question_prelimiter": "",
}


def choose(tasks: str | Sequence[str]) -> dict[str, Definition]:
    """Gives tasks by name.

    Args:
      tasks: `gauntlet`, the paper's 46; `subset17`, those 17 of them on which small models are better than chance; the
        path of a suite's file, ending in .yaml; or names of the gauntlet's.

    Raises:
      ValueError: an unknown name; see `load` for a file's.
    """
    if tasks == "gauntlet":
        return dict(GAUNTLET)
    if isinstance(tasks, str) and tasks.endswith((".yaml", ".yml")):
        return load(tasks)
    names = SUBSET17 if tasks == "subset17" else [tasks] if isinstance(tasks, str) else tasks
    if unknown := [name for name in names if name not in GAUNTLET]:
        raise ValueError(
            f"unknown tasks {', '.join(unknown)}; give gauntlet, subset17, a suite's .yaml file, or names of "
            f"{', '.join(GAUNTLET)}"
        )
    return {name: GAUNTLET[name] for name in names}


def load(path: os.PathLike | str) -> dict[str, Definition]:
    """Gives the tasks of a suite's file by name.

    Raises:
      ValueError: no such file, not YAML, or a task that cannot be asked, naming the file, the task and the reason.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise ValueError(f"suite {path}: no such file")
    try:
        tree = yaml.safe_load(file.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"suite {path} is not YAML: {cut(error, 200)}") from None
    tree = tree if isinstance(tree, dict) else {}
    is_foundry = "icl_tasks" in tree
    entries = tree["icl_tasks"] if is_foundry else tree.get("tasks")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise ValueError(f"suite {path}: needs a list of tasks under 'tasks', or under llm-foundry's 'icl_tasks'")
    tasks: dict[str, Definition] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            for own in _as_own(entry) if is_foundry else [entry]:
                task = _definition(own)
                if task.name in tasks:
                    raise ValueError("is there twice; give each task a name of its own")
                tasks[task.name] = task
        except (ValueError, TypeError) as error:
            name = entry.get("name") or entry.get("label") or f"number {number}"
            raise ValueError(f"suite {path}: task {name!r}: {error}") from None
    return tasks


def _definition(entry: Mapping[str, Any]) -> Definition:
    _refuse_unknown(entry, [field.name for field in dataclasses.fields(Definition)])
    if missing := [key for key in ("name", "file", "type") if not (isinstance(entry.get(key), str) and entry[key])]:
        raise ValueError(f"needs text for {', '.join(missing)}")
    for key, kinds in {"shots": int, "seed": int, "delimiter": str, "categorised": bool, "template": dict}.items():
        if key in entry and (not isinstance(entry[key], kinds) or (kinds is int and entry[key] is True)):
            raise ValueError(f"{key} is {cut(repr(entry[key]))}; it must be {kinds.__name__}")
    if not re.fullmatch(r"[\w.=-]+", entry["name"]):
        raise ValueError("the name is a file's and a column's: use letters, digits and _ . = - only")
    if entry["type"] not in FIELDS:
        raise ValueError(f"type {cut(repr(entry['type']))} cannot be asked; there are {', '.join(FIELDS)}")
    if entry.get("shots", 0) < 0:
        raise ValueError(f"shots is {entry['shots']}; it must be 0 or more")
    fields = {*FIELDS[entry["type"]], "category"}
    if extra := set(entry.get("template", {})) - fields:
        raise ValueError(f"template has {', '.join(sorted(extra))}; a {entry['type']} has {', '.join(sorted(fields))}")
    chance = entry.get("chance_accuracy")
    if chance is not None and not 0 <= chance < 1:
        raise ValueError(f"chance_accuracy is {cut(repr(chance))}; it must be from 0 to less than 1")
    return Definition(**entry)


def _refuse_unknown(entry: Mapping[str, Any], known: Collection[str]) -> None:
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}")


def _as_own(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A task of llm-foundry's file as ours have it, one for each number of shots."""
    _refuse_unknown(entry, FOUNDRY_KEYS)
    ours = {FOUNDRY_KEYS[key]: value for key, value in entry.items() if FOUNDRY_KEYS[key]}
    _, _, below = str(ours.get("file", "")).rpartition("local_data/")
    shots = ours.get("shots", [0])
    shots = shots if isinstance(shots, list) else [shots]
    name = ours.get("name")
    return [ours | {"file": below, "shots": k, "name": name if len(shots) == 1 else f"{name}_{k}-shot"} for k in shots]
