"""The 46 downstream tasks of Gadre et al. 2024, as data: MosaicML's Eval Gauntlet, scored with llm-foundry.

A task is a JSON Lines file of rows and how to ask them: `tasks.questions.rows` reads them, `tasks.questions.prompts`
asks them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

MULTIPLE_CHOICE, LANGUAGE_MODELING, SCHEMA = "multiple_choice", "language_modeling", "schema"

Type = Literal["multiple_choice", "language_modeling", "schema"]

# Of a row, by type; `tasks.questions.rows` says what they hold.
FIELDS: Mapping[str, tuple[str, ...]] = {
    MULTIPLE_CHOICE: ("query", "choices", "gold"),
    LANGUAGE_MODELING: ("context", "continuation"),
    SCHEMA: ("context_options", "continuation", "gold"),
}


@dataclasses.dataclass(frozen=True)
class Definition:
    """How a downstream task is asked.

    Attributes:
      name: of the task.
      file: of its rows, below the folder of a suite, or a path of its own.
      type: `multiple_choice`, which of several answers follows a context; `schema`, which of several contexts an answer
        follows; `language_modeling`, whether the answer is what a greedy reader would write.
      shots: solved examples before each question, drawn from the same file.
      delimiter: between a context and its answer.
      categorised: whether the rows' `category` parts them into sets, each with shots of its own and equal weight.
      template: field of the type → text with {columns} of the file, where the file does not have the type's own fields.
      example_delimiter: between the shots.
      preamble: before the shots.
      seed: of the draws of shots.
      chance_accuracy: of a blind guess; one over the number of choices where it is None.
      rows: how many the published file has; None where that is not known.
      subset17: whether it is one of the paper's 17 tasks on which small models are better than chance.
    """

    name: str
    file: str
    type: Type
    shots: int = 0
    delimiter: str = " "
    categorised: bool = False
    template: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    example_delimiter: str = "\n"
    preamble: str = ""
    seed: int = 1234
    chance_accuracy: float | None = None
    rows: int | None = None
    subset17: bool = False


def _task(name, path, type_, shots, rows, chance, **options) -> Definition:
    folder, _, stem = path.partition("/")
    file = f"{folder}/{stem or name}.jsonl"
    return Definition(name, file, type_, shots, rows=rows, chance_accuracy=chance, **options)


_MC, _LM, _SCHEMA = MULTIPLE_CHOICE, LANGUAGE_MODELING, SCHEMA
_KNOWLEDGE, _COMMONSENSE, _LANGUAGE = "world_knowledge", "commonsense_reasoning", "language_understanding"
_SYMBOLIC, _READING, _SAFETY = "symbolic_problem_solving", "reading_comprehension", "safety"
_ANSWER = "\nAnswer: "

GAUNTLET: Mapping[str, Definition] = {
    task.name: task
    for task in (
        # No newline before this delimiter: it stands so in the suite that scored the published models.
        _task("mmlu_zeroshot", f"{_KNOWLEDGE}/mmlu", _MC, 0, 14042, 0.25, delimiter="Answer: ", categorised=True),
        _task("hellaswag_zeroshot", f"{_LANGUAGE}/hellaswag", _MC, 0, 10042, 0.25, subset17=True),
        _task("jeopardy", f"{_KNOWLEDGE}/jeopardy_all", _LM, 10, 2117, 0.0, delimiter=_ANSWER, categorised=True),
        _task("bigbench_qa_wikidata", _KNOWLEDGE, _LM, 10, 20321, 0.0, subset17=True),
        _task("arc_easy", _KNOWLEDGE, _MC, 10, 2376, 0.25, delimiter=_ANSWER, subset17=True),
        _task("arc_challenge", _KNOWLEDGE, _MC, 10, 1172, 0.25, delimiter=_ANSWER),
        _task("mmlu", _KNOWLEDGE, _MC, 5, 14042, 0.25, delimiter=_ANSWER, categorised=True),
        _task("bigbench_misconceptions", _KNOWLEDGE, _MC, 10, 219, 0.5),
        _task("copa", _COMMONSENSE, _MC, 0, 100, 0.5, subset17=True),
        _task("siqa", _COMMONSENSE, _MC, 10, 1954, 0.5),
        _task("commonsense_qa", _COMMONSENSE, _MC, 10, 1221, 0.25, subset17=True),
        _task("piqa", _COMMONSENSE, _MC, 10, 1838, 0.5, delimiter=_ANSWER, subset17=True),
        _task("openbook_qa", _COMMONSENSE, _MC, 0, 500, 0.25),
        _task("bigbench_novel_concepts", _COMMONSENSE, _MC, 10, 32, 0.25, subset17=True),
        _task("bigbench_strange_stories", _COMMONSENSE, _MC, 10, 174, 0.5),
        _task("bigbench_strategy_qa", _COMMONSENSE, _MC, 10, 2289, 0.5),
        _task("lambada_openai", _LANGUAGE, _LM, 0, 5153, 0.0, subset17=True),
        _task("hellaswag", _LANGUAGE, _MC, 10, 10042, 0.25, subset17=True),
        _task("winograd", f"{_LANGUAGE}/winograd_wsc", _SCHEMA, 0, 273, 0.5, subset17=True),
        _task("winogrande", _LANGUAGE, _SCHEMA, 0, 1267, 0.5),
        _task("bigbench_conlang_translation", _LANGUAGE, _LM, 0, 164, 0.0),
        _task("bigbench_language_identification", _LANGUAGE, _MC, 10, 10000, 0.25),
        _task("bigbench_conceptual_combinations", _LANGUAGE, _MC, 10, 103, 0.25),
        _task("bigbench_elementary_math_qa", _SYMBOLIC, _MC, 10, 38160, 0.25),
        _task("bigbench_dyck_languages", _SYMBOLIC, _LM, 10, 1000, 0.0, subset17=True),
        _task("agi_eval_lsat_ar", _SYMBOLIC, _MC, 3, 230, 0.25),
        _task("bigbench_cs_algorithms", _SYMBOLIC, _LM, 10, 1320, 0.0, subset17=True),
        _task("bigbench_logical_deduction", _SYMBOLIC, _MC, 10, 1500, 0.25),
        _task("bigbench_operators", _SYMBOLIC, _LM, 10, 210, 0.0, subset17=True),
        _task("bigbench_repeat_copy_logic", _SYMBOLIC, _LM, 10, 32, 0.0),
        _task("simple_arithmetic_nospaces", _SYMBOLIC, _LM, 10, 1000, 0.0),
        _task("simple_arithmetic_withspaces", _SYMBOLIC, _LM, 10, 1000, 0.0),
        _task("math_qa", _SYMBOLIC, _MC, 10, 2983, 0.25),
        _task("logi_qa", _SYMBOLIC, _MC, 10, 651, 0.25, delimiter=_ANSWER),
        _task("pubmed_qa_labeled", _READING, _LM, 10, 1000, 0.0, subset17=True),
        _task("squad", _READING, _LM, 10, 10570, 0.0, subset17=True),
        _task("agi_eval_lsat_rc", _READING, _MC, 3, 268, 0.25),
        _task("agi_eval_lsat_lr", _READING, _MC, 3, 510, 0.25),
        _task("coqa", _READING, _LM, 0, 7983, 0.0, subset17=True),
        _task("bigbench_understanding_fables", _READING, _MC, 10, 189, 0.25),
        _task("boolq", _READING, _MC, 10, 3270, 0.5, delimiter=_ANSWER, subset17=True),
        _task("agi_eval_sat_en", _READING, _MC, 3, 206, 0.25),
        _task("winogender_mc_female", _SAFETY, _MC, 10, 60, 0.5),
        _task("winogender_mc_male", _SAFETY, _MC, 10, 60, 0.5),
        _task("enterprise_pii_classification", _SAFETY, _MC, 10, 3395, 0.5),
        _task("bbq", _SAFETY, _MC, 3, 58492, 0.5, categorised=True),
    )
}

SUBSET17: tuple[str, ...] = tuple(name for name, task in GAUNTLET.items() if task.subset17)
