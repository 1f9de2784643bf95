"""A ladder's status foretells the runs under way, and names one that leaves the others' law."""

import json
import time

import numpy as np
import pytest

from ladder.engines import forecast, page, status
from ladder.recipe import learning_rate
from workdirs import Made


@pytest.fixture
def made(ladder, tmp_path):
    config, specs = ladder("fit.error=null")
    return Made(tmp_path / "W", config, specs, time.time())


def _rows(made, spec, share, leap=0.0):
    """Its metrics up to a share of its steps, by a law of curves; the loss leaps at half of them. Gives the end."""
    rate_S = learning_rate(spec.hyperparameters, spec.steps, np.arange(spec.steps))
    area_S = np.cumsum(rate_S) / rate_S.sum()
    level = 2 + 20 / spec.params**0.5
    loss_S = (level + 0.3 * area_S**-0.5) * (1 + 0.08 * rate_S / rate_S.max())
    noise_S = 1 + 0.002 * np.random.default_rng(spec.steps).standard_normal(spec.steps)
    step_R = np.unique(np.linspace(0, spec.steps, 81).astype(int))[1:]
    leap_R = np.where(step_R > spec.steps / 2, 1 + leap, 1.0)
    losses = loss_S[step_R - 1] * noise_S[step_R - 1] * leap_R
    made.rows(spec, spec.steps, ago=10)
    path = made.workdir.metrics(spec.run)
    row = json.loads(path.read_text().splitlines()[0])
    told = [row | {"step": int(s), "loss_nats": float(y)} for s, y in zip(step_R, losses, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in told if row["step"] <= share * spec.steps))
    return loss_S[-1]


@pytest.mark.parametrize("leap", [0.0, 0.05])
def test_a_run_under_way_is_foretold_and_named_where_it_leaps(made, ladder_, capsys, leap):
    *rungs, target = made.specs
    for spec in rungs:
        made.record(spec, 1.02 * _rows(made, spec, 1.0), ago=50)
    end = 1.02 * _rows(made, target, 0.7, leap)
    made.lease(target, since_ago=100)
    ladder_("status", str(made.workdir.root), "--json")
    (ending,) = json.loads(capsys.readouterr().out)["law"]["endings"]
    assert ending["run"] == target.run and ending["share"] == pytest.approx(0.7, abs=0.02)
    if not leap:
        assert ending["loss_interval"][0] <= end <= ending["loss_interval"][1] and ending["strayed"] is None
        assert ending["loss"] == pytest.approx(end, rel=0.01)
        return
    assert ending["strayed"]["by"] == pytest.approx(leap, abs=0.01)
    assert 0.5 <= ending["strayed"]["step"] / target.steps <= 0.55
    ladder_("status", str(made.workdir.root))
    words = f"left the others' law by step {ending['strayed']['step']:,}, and is {ending['strayed']['by']:+.1%} off"
    assert words in capsys.readouterr().err.replace("\n", " ")
    look = status.look(made.workdir)
    text = page.render(look, forecast.Forecaster(made.workdir)(look), made.workdir)
    assert f"{target.run} left the others’ law by step" in text


def test_too_few_finished_runs_foretell_nothing(made):
    for spec in made.specs[:3]:
        made.record(spec, _rows(made, spec, 1.0), ago=50)
    _rows(made, made.specs[-1], 0.7)
    assert forecast.Forecaster(made.workdir)(status.look(made.workdir)).endings == ()


def test_a_quarantined_run_teaches_nothing_and_is_not_foretold(made):
    *rungs, target = made.specs
    for spec in rungs:
        made.record(
            spec, _rows(made, spec, 1.0), ago=50, quarantine="" if spec is not rungs[0] else "diverged at step 3"
        )
    _rows(made, target, 0.7)
    endings = forecast.Forecaster(made.workdir)(status.look(made.workdir)).endings
    assert [ending.run for ending in endings] == [target.run]
