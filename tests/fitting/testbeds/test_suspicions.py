"""A table in other units is told or refused, with the remedy; a right one passes in silence."""

import numpy as np
import pandas as pd
import pytest

import gadre2024
from fitting.methods import fit
from fitting.testbeds import importers
from fitting.testbeds.suspicions import suspicions
from fitting.testbeds.testbed import Testbed

SIZES = [(n, m) for n in (2e7, 5e7, 1.2e8, 4e8) for m in (20, 80, 320)]


def _table() -> pd.DataFrame:
    """Twelve runs with losses and errors that are usual for text."""
    params, multiplier = np.array(SIZES).T
    tokens = params * multiplier
    loss = 1.8 + 480 * params**-0.35 + 2100 * tokens**-0.37
    error = 0.9 - 1.5 * np.exp(-0.9 * loss)
    names = [f"n{n / 1e6:g}m-m{m:g}" for n, m in SIZES]
    return pd.DataFrame({"run": names, "params": params, "tokens": tokens, "loss/x": loss, "error/avg": error})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss/x": lambda t: t["loss/x"] / np.log(2)}, "are these bits, and not nats"),
        ({"loss/x": lambda t: t["loss/x"] / 4 / np.log(2)}, "bits a byte are columns named bpb/x"),
        ({"loss/x": lambda t: t["loss/x"] / 4}, "as a loss a byte or a character is"),
        ({"loss/x": lambda t: np.exp(0.8 * t["loss/x"])}, "of perplexities take the logarithm"),
        ({"loss/x": lambda t: 6 - t["loss/x"], "error/avg": 0.5}, "loss/x rises with compute"),
        ({"error/avg": lambda t: 1 - t["error/avg"]}, "error/avg falls where loss/x rises: if it is an accuracy"),
        ({"params": lambda t: t["params"] / 1e9}, "params is at most 0.4: it is a plain count"),
        ({"params": lambda t: t["params"] / 1e3}, "20 are usual: are params in thousands or millions"),
        ({"params": lambda t: t["params"] / 1e6, "tokens": lambda t: t["tokens"] / 1e6}, "params is at most 400"),
        ({"params": lambda t: t["params"].where(t.index != 3, 50)}, "params of run 'n50m-m20' is 50, of others more"),
        ({"tokens": lambda t: t["tokens"] / 1e9}, "tokens is at most 128: it is a plain count"),
        ({"tokens": lambda t: t["tokens"] / 1e6}, "are tokens steps or sequences, in millions"),
        ({"tokens": lambda t: t["tokens"] / 1e5}, "are tokens steps or sequences, in millions"),
        ({"tokens": lambda t: t["tokens"] / (512 * 2048)}, "are tokens steps or sequences, in millions"),
        ({"tokens": lambda t: t["tokens"] / 2048}, "are tokens steps or sequences"),
        ({"params": lambda t: t["tokens"], "tokens": [n for n, _ in SIZES]}, "or is params in their place"),
        ({"params_non_embedding": 1e9}, "more parameters without its embeddings than with them"),
        ({"flops": lambda t: 12 * t["params"] * t["tokens"]}, "flops is 2 times 6 × params × tokens"),
        (
            {"flops": lambda t: t["params"] * t["tokens"]},
            "flops is 0.167 times 6 × params × tokens in every run: is it ND",
        ),
        ({"flops": lambda t: 2 * t["params"] * t["tokens"]}, "is it 2ND, a forward pass"),
        ({"flops": lambda t: 6 * t["params"] * t["tokens"] / 1e18}, "it is a plain count, not in exaFLOPs"),
        ({"flops": lambda t: 6e3 * t["params"] * t["tokens"]}, "are params or tokens in another unit"),
        (
            {"token_multiplier": lambda t: t["tokens"] / t["params"] / 20},
            "token_multiplier is 0.05 times tokens / params",
        ),
    ],
)
def test_units_that_look_wrong_are_told(changes, message):
    """On losses that are usual for text: those of Hoffmann et al. 2022."""
    assert suspicions(Testbed(_table()), "loss/x", "error/avg") == []
    (said,) = suspicions(Testbed(_table().assign(**changes)), "loss/x", "error/avg")
    assert message in said


def test_a_loss_in_nats_a_token_in_the_place_of_bits_a_byte_is_told():
    table = _table().rename(columns={"loss/x": "bpb/x"})
    assert suspicions(Testbed(table.assign(**{"bpb/x": table["bpb/x"] / 4})), "bpb/x") == []
    (said,) = suspicions(Testbed(table), "bpb/x")
    assert "they are columns named loss/x" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": lambda t: t["tokens"]}, "tokens are the steps in every run"),
        ({"loss/x": lambda t: np.exp(3 * t["loss/x"])}, "if these are perplexities, take their logarithm"),
    ],
)
def test_units_that_cannot_be_right_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        fit(Testbed(_table().assign(**changes)), loss="x")


def test_flops_as_measured_attention_included_are_no_slip():
    times = np.linspace(1.02, 1.4, len(SIZES))
    table = _table().assign(flops=lambda t: 6 * t["params"] * t["tokens"] * times)
    assert suspicions(Testbed(table), "loss/x", "error/avg") == []


def test_whole_flops_beyond_64_bits_are_judged_as_what_they_are():
    table = _table()
    table["flops"] = [6 * int(n) * int(d) * 10**3 for n, d in zip(table["params"], table["tokens"], strict=True)]
    (said,) = suspicions(Testbed(table), "loss/x")
    assert "flops is 1e+03 times" in said


def test_quarantined_runs_are_not_looked_at():
    table = _table().assign(quarantine="")
    table.loc[3, ["params", "quarantine"]] = [7, "a slip"]
    assert suspicions(Testbed(table), "loss/x") == [] == suspicions(Testbed(table.assign(quarantine="all")), "loss/x")


@pytest.mark.parametrize("error", ["average", "average_17", "bigbench_elementary_math_qa", "hellaswag"])
def test_no_published_loss_or_error_looks_wrong(error):
    """Nor that of elementary_math_qa, whose error does fall where the loss rises, by a little."""
    for loss in gadre2024.SETS:
        assert suspicions(gadre2024.everything(), f"loss/{loss}", f"error/{error}") == []


def test_no_other_published_testbed_looks_wrong(shared):
    folder = shared / "testbeds"
    testbeds = [
        importers.read("olmo-ladder", folder / "olmo_ladder2024" / "ladder-runs"),
        importers.read("chinchilla", folder / "chinchilla2022" / "points.csv"),
        importers.read("datablations", folder / "datablations2023" / "points.csv"),
        Testbed.read_csv(importers.shipped("gadre2024")),
        *(Testbed.read_csv(path) for path in sorted((folder / "unseen2026").glob("*.csv"))),
    ]
    for testbed in testbeds:
        errors = [name for name in testbed.table if name.startswith("error/")] or [None]
        losses = [name for name in testbed.table if name.startswith(("loss/", "bpb/"))]
        for i in range(max(len(errors), len(losses))):
            assert suspicions(testbed, losses[i % len(losses)], errors[i % len(errors)]) == []
