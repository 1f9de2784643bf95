"""The published testbed of Gadre et al. 2024, 104 models, read into a Testbed per training corpus."""

import functools
import json
import os
import pathlib

import pytest

from fitting.testbed import Measurement, RunRecord, Testbed

SHARED = pathlib.Path(os.environ.get("LADDER_SHARED", pathlib.Path(__file__).parents[1].parent / "shared"))
ROOT = SHARED / "testbeds" / "gadre2024"

SETS = {
    "openlm": "val_tok_mult/openlm",
    "c4_val": "c4_val",
    "paloma_c4": "paloma_c4_en",
    "100_languages": "100_programing_languages",
    "falcon": "falcon-refinedweb",
    "ptb": "paloma_ptb",
    "paloma_rpj": "paloma_redpajama",
    "de_en": "de-en",
}
SUBSET = (
    "hellaswag_zeroshot",
    "bigbench_qa_wikidata",
    "arc_easy",
    "copa",
    "commonsense_qa",
    "piqa",
    "bigbench_novel_concepts",
    "lambada_openai",
    "hellaswag",
    "winograd",
    "bigbench_dyck_languages",
    "bigbench_cs_algorithms",
    "bigbench_operators",
    "pubmed_qa_labeled",
    "squad",
    "coqa",
    "boolq",
)
CORPORA = ("c4_original", "rpj", "rw_original")
# The paper's five runs for the loss law, and six for the error law (Table 2).
FIVE = "(token_multiplier.round() == 20 and params < 1e9) or (token_multiplier.round() == 320 and params < 2e7)"
SIX = f"{FIVE} or (token_multiplier.round() == 20 and params < 2e9)"
TARGETS = {
    "c4_original": ("open_lm_1b-4.0", "open_lm_7b-1.0"),
    "rpj": ("open_lm_1b-32.0", "open_lm_7b-1.0"),
    "rw_original": ("open_lm_1b-16.0", "open_lm_7b-1.0"),
}


@functools.cache
def testbed(corpus: str) -> Testbed:
    """All runs of a corpus; errors are `error/average` over the 17-task subset."""
    if not ROOT.exists():
        pytest.skip(f"the published testbed is not at {ROOT}; set LADDER_SHARED to the folder that has it")
    return Testbed.from_records([_record(path) for path in sorted((ROOT / "models").glob(f"{corpus}-*.json"))])


def _record(path: pathlib.Path) -> RunRecord:
    model = json.loads(path.read_text())
    accuracies = json.loads((ROOT / "evals" / f"evaluation_{path.stem}_heavy.json").read_text())["eval_metrics"]["icl"]
    size = model["hyperparameters"]
    losses = {
        name: Measurement(result["loss"], (result["loss_tokens_upper_95"] - result["loss_tokens_lower_95"]) / 3.92)
        for name, key in SETS.items()
        for result in model["results"]
        if key in result["val_data"][0]
    }
    return RunRecord(
        run=model["name"],
        role="target"
        if model["name"].removeprefix(f"{model['dataset_name']}-") in TARGETS[model["dataset_name"]]
        else "rung",
        corpus=model["dataset_name"],
        model=size["model"],
        params=size["params"],
        params_non_embedding=size["params_no_embed"],
        tokens=size["tokens"],
        token_multiplier=size["tokens"] / size["params"],
        flops=6.0 * size["params"] * size["tokens"],
        losses=losses,
        errors={task: Measurement(1 - accuracies[task]) for task in SUBSET},
        chance_errors={},
    )
