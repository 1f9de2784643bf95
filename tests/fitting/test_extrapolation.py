"""How far off the methods land on published runs that were held out: bounds that reflect what is really obtained."""

import importlib.util
import pathlib
import sys

import pytest

import gadre2024
from fitting.testbeds import published


@pytest.fixture(scope="module")
def benchmark():
    """benchmarks/extrapolation.py, as a module."""
    path = pathlib.Path(__file__).parents[2] / "benchmarks" / "extrapolation.py"
    spec = importlib.util.spec_from_file_location("extrapolation", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(benchmark):
    """The benchmark's table, by testbed, column and method."""
    if not gadre2024.ROOT.exists():
        pytest.skip(f"the published testbeds are not at {gadre2024.ROOT.parent}; set LADDER_SHARED")
    ladders = published.ladders(gadre2024.ROOT.parent)
    table = benchmark.summary(list(benchmark.score(ladders, ladders)))
    return {(row["testbed"], row["of"], row["method"]): row for row in table}


@pytest.mark.slow
def test_held_out_losses_of_gadre(rows):
    found = {method: row for (testbed, of, method), row in rows.items() if (testbed, of) == ("gadre2024", "loss")}
    assert f"{found['paper']['mean']:.2%}" == "5.46%"
    assert found["paper"]["median"] == pytest.approx(0.04025, abs=2e-6)
    assert {row["predictions"] for row in found.values()} == {48}
    assert found["default"]["mean"] < 0.038
    assert found["published"]["mean"] < 0.042
    assert found["published, error's runs"]["mean"] < 0.032
    assert 0.7 <= found["default"]["covered"] <= 0.9


@pytest.mark.slow
def test_held_out_errors_of_gadre(rows):
    found = {m: row for (testbed, of, m), row in rows.items() if (testbed, of) == ("gadre2024", "error/average_17")}
    assert f"{found['paper']['mean']:.2%}" == "8.39%"
    assert found["default"]["mean"] < 0.052
    assert found["published"]["mean"] < 0.05
    assert found["published, error's runs"]["mean"] < 0.042
    assert found["pooled"]["mean"] < 0.033
    assert 0.7 <= found["default"]["covered"] <= 0.9


@pytest.mark.slow
def test_held_out_tasks_of_olmo_ladder(rows):
    """Its authors' two steps are off by 3.82 points on 7B-4T and by 4.17 on 13B-5T: by 4.0 over both."""
    assert rows["olmo_ladder2024", "error of 8 tasks", "default"]["mean_points"] < 2.7


@pytest.mark.slow
@pytest.mark.parametrize(("rungs", "most", "most_covered"), [("few", 0.02, 0.95), ("all", 0.018, 0.9)])
def test_testbeds_that_no_method_was_made_on(rows, rungs, most, most_covered):
    """One testbed, one vote; of few rungs' nominal 80 % intervals too many cover (docs/extrapolation.md says why)."""
    testbeds = [f"{name}, {rungs}" for name in published.UNSEEN]
    for method in ("default", "published"):
        assert sum(rows[name, "loss", method]["mean"] for name in testbeds) / len(testbeds) < most
    share_80, share_95 = (
        sum(rows[name, "loss", "default"][covered] for name in testbeds) / len(testbeds)
        for covered in ("covered", "covered_95")
    )
    assert 0.7 <= share_80 <= most_covered and share_95 >= 0.9
