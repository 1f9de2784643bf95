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
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from etils import epath

from tasks.messages import cut
from tasks.questions.gauntlet import FIELDS, GAUNTLET, SUBSET17, Definition

# Of llm-foundry's tasks, and what we call it; the last three change no score.
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
    entries, read = (tree["icl_tasks"], _foundry) if "icl_tasks" in tree else (tree.get("tasks"), _own)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise ValueError(f"suite {path}: needs a list of tasks under 'tasks', or under llm-foundry's 'icl_tasks'")
    tasks: dict[str, Definition] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            for task in read(entry):
                if task.name in tasks:
                    raise ValueError("is there twice; give each task a name of its own")
                tasks[task.name] = task
        except (ValueError, TypeError) as error:
            name = entry.get("name") or entry.get("label") or f"number {number}"
            raise ValueError(f"suite {path}: task {name!r}: {error}") from None
    return tasks


def _own(entry: Mapping[str, Any]) -> list[Definition]:
    known = {field.name: field for field in dataclasses.fields(Definition)}
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
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
    return [Definition(**entry)]


def _foundry(entry: Mapping[str, Any]) -> list[Definition]:
    # llm-foundry 0.4 takes `question_prelimiter` and does not use it for these types.
    known = {**FOUNDRY_KEYS, "question_prelimiter": ""}
    if unknown := [key for key in entry if key not in known]:
        raise ValueError(f"unknown key {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
    ours = {known[key]: value for key, value in entry.items() if known[key]}
    _, _, below = str(ours.get("file", "")).rpartition("local_data/")
    shots = ours.get("shots", [0])
    shots = shots if isinstance(shots, list) else [shots]
    name = ours.get("name")
    return [
        definition
        for k in shots
        for definition in _own(
            ours | {"file": below, "shots": k, "name": name if len(shots) == 1 else f"{name}_{k}-shot"}
        )
    ]
