"""What a fit says against itself is said where it is so, and nowhere else."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import gadre2024
from fitting.doubts import doubts
from fitting.laws import catalogue
from fitting.methods import fit
from fitting.testbeds.testbed import Testbed

OVER_TRAINING = (1.8, 30.0, 60.0, 0.15)
COUPLED = (1.6, 1200.0, 5000.0, 0.38, 0.4, 0.35)


def _law(form, theta, noise=0.003, seed=0, target_multiplier=20, **options):
    """A ladder of 20 runs of a form, fitted by the over-training law."""
    params, multiplier = (v.ravel() for v in np.meshgrid((1e7, 3e7, 1e8, 3e8, 1e9), (5, 20, 80, 320)))
    params, multiplier = np.append(params, 5e9), np.append(multiplier, target_multiplier)
    loss = catalogue.LOSS_LAWS[form].evaluate(theta, params, params * multiplier)
    loss *= 1 + noise * np.random.default_rng(seed).standard_normal(len(loss))
    table = {"run": [f"r{i}" for i in range(21)], "role": ["rung"] * 20 + ["target"], "params": params}
    return fit(Testbed(pd.DataFrame(table | {"tokens": params * multiplier, "loss/x": loss})), loss="x", **options)


@pytest.mark.parametrize("seed", range(5))
def test_a_ladder_of_the_law_itself_has_no_doubts(seed):
    assert list(doubts(_law("over_training", OVER_TRAINING, seed=seed))) == []


def test_a_better_form_is_named_with_its_weight():
    (said,) = doubts(_law("coupled", COUPLED))
    assert re.search(r"law coupled foretells each run from the others to 0\.\d\d%, coupled_tied to", said)
    assert "--law coupled --method best" in said


def test_residuals_that_are_a_pattern_are_told():
    """A wave in data that no law of the family has."""
    law = _law("over_training", OVER_TRAINING, noise=0.001)
    points = tuple(
        dataclasses.replace(p, measured=p.measured * (1 + 0.01 * np.sin(2.5 * np.log10(p.tokens))))
        for p in law.loss.points
    )
    said = list(doubts(dataclasses.replace(law, loss=dataclasses.replace(law.loss, points=points))))
    assert any("a pattern that the law lacks, not noise" in doubt for doubt in said)


def test_a_target_far_off_in_tokens_a_parameter_is_told():
    (said,) = doubts(_law("over_training", OVER_TRAINING, target_multiplier=3200))
    assert said.startswith("r20 lie up to 10 times beyond the runs fitted in tokens a parameter (5 to 320)")
    assert not list(doubts(_law("over_training", OVER_TRAINING, target_multiplier=640)))


def test_a_parameter_at_its_bound_is_told():
    law = _law("kaplan", (8.8e13, 5.4e13, 0.076, 0.095), method="best", law="chinchilla", resamples=0)
    law = dataclasses.replace(law, loss=dataclasses.replace(law.loss, at_bound=("E",)))
    assert "Parameter E of the loss law lies at its bound: the data do not determine it." in list(doubts(law))


def test_five_runs_are_fitted_and_doubted_without_jax():
    """In a process of its own, as the command line does it."""
    code = """
import sys
import fitting
from fitting.doubts import doubts
five = "corpus == 'rpj' and role == 'rung' and params < 1e9"
law = fitting.fit(fitting.read("gadre2024"), loss="c4_val", select=five)
print(len(law.loss.points), list(doubts(law)), "jax" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "5 [] False\n"


def test_the_papers_five_runs_are_too_few_to_rank_forms():
    law = fit(gadre2024.testbed("rpj"), loss="c4_val", select=gadre2024.FIVE)
    assert not any("foretells" in doubt or "pattern" in doubt for doubt in doubts(law))


def test_a_task_that_follows_no_law_is_told():
    law = fit(gadre2024.testbed("rpj"), loss="c4_val", error="average", select=gadre2024.SIX)
    assert not any("follows no law" in doubt for doubt in doubts(law))
    error = dataclasses.replace(law.error, column="error/bbq")
    lawless = dataclasses.replace(law, error=error, tasks={"error/bbq": -1.4, "error/piqa": 0.97})
    assert any(doubt.startswith("error/bbq follows no law") for doubt in doubts(lawless))
