"""The published testbed of Gadre et al. 2024, 104 models, as a Testbed per training corpus."""

import functools
import os
import pathlib

import pytest

from fitting.testbeds import importers
from fitting.testbeds.testbed import Testbed

SHARED = pathlib.Path(os.environ.get("LADDER_SHARED", pathlib.Path(__file__).parents[2].parent / "shared"))
ROOT = SHARED / "testbeds" / "gadre2024"

SETS = (
    *("openlm", "c4_val", "paloma_c4_en", "paloma_dolma_100_programing_languages"),
    *("paloma_falcon-refinedweb", "paloma_ptb", "paloma_redpajama", "de-en"),
)
CORPORA = ("c4_original", "rpj", "rw_original")
# The paper's five runs for the loss law, and six for the error law (Table 2).
FIVE = "(token_multiplier.round() == 20 and params < 1e9) or (token_multiplier.round() == 320 and params < 2e7)"
SIX = f"{FIVE} or (token_multiplier.round() == 20 and params < 2e9)"


@functools.cache
def everything() -> Testbed:
    """All 104 runs."""
    if not ROOT.exists():
        pytest.skip(f"the published testbed is not at {ROOT}; set LADDER_SHARED to the folder that has it")
    return importers.read("gadre2024", ROOT)


@functools.cache
def testbed(corpus: str) -> Testbed:
    """All runs of a corpus; `error/average_17` is over the 17-task subset."""
    table = everything().table
    return Testbed(table[table["corpus"] == corpus])
