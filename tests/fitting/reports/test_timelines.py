"""Pictures of a ladder in time: every run where it belongs, bars that do not overlap, a forecast that can be read."""

import pytest

from fitting.reports import drawing, report, timelines
from synthetic_law import synthetic_law

GIVEN = {"run": "r<1>", "token_multiplier": 20.0, "slice": "v5p:2x2x1", "first_chip": 0, "chips": 4}
GIVEN |= {"start_hours": 0.0, "hours": 2.0}
ATTEMPT = {"run": "a", "token_multiplier": 20.0, "machine": "m", "why": "finished", "start_hours": 0.0, "hours": 1.0}


def test_a_schedule_has_a_bar_of_its_chips_and_hours_for_every_run():
    bars = [GIVEN, GIVEN | {"run": "r2", "first_chip": 4, "token_multiplier": 320.0, "start_hours": 1.0, "hours": 3.0}]
    figure = timelines.on_chips(bars, 8)
    (panel,) = figure.axes
    boxes = [(bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()) for bar in panel.patches]
    assert boxes == [(0.0, 0, 2.0, 4), (1.0, 4, 3.0, 4)]
    assert panel.get_xlim() == (0, 4) and panel.get_ylim() == (0, 8)
    text = drawing.svg(figure, "schedule")
    assert 'data-run="r&lt;1&gt;"><title>r&lt;1&gt;: v5p:2x2x1, 2.0 hours</title>' in text
    assert text == drawing.svg(timelines.on_chips(bars, 8), "schedule")


def test_attempts_side_by_side_on_a_machine_have_rows_of_their_own():
    later = [ATTEMPT | {"run": "b", "start_hours": 0.5}, ATTEMPT | {"run": "c", "start_hours": 1.0}]
    other = ATTEMPT | {"run": "d", "machine": "k"}
    rows = timelines._rows([*later, ATTEMPT, other])
    assert [(machine, [bar["run"] for bar in row]) for machine, row in rows] == [
        ("k", ["d"]),
        ("m", ["a", "c"]),
        ("m", ["b"]),
    ]


def test_what_became_of_an_attempt_is_told_where_it_did_not_end_its_run():
    bars = [ATTEMPT, *(ATTEMPT | {"run": why, "why": why, "start_hours": 1.0} for why in timelines.ENDS)]
    text = drawing.svg(timelines.on_machines(bars), "machines")
    assert "<title>a: 1.0 hours</title>" in text and "<title>taken away: 1.0 hours, taken away</title>" in text
    assert all(words in text for _, words in timelines.ENDS.values())
    assert "under way" not in drawing.svg(timelines.on_machines([ATTEMPT]), "machines")


def test_nothing_yet_is_a_picture_too():
    assert timelines.on_machines([]).axes and timelines.on_chips([], 4).axes


def test_a_forecast_shows_the_last_interval_large_enough_to_read():
    said = [(3, (0.1, 9.0)), (4, (1.5, 3.0)), (5, (2.0, 2.2))]
    history = [
        {"runs": runs, "predictions": {"t": {"loss": sum(ends) / 2, "loss_interval": ends}}} for runs, ends in said
    ]
    (panel,) = timelines.forecast([{"runs": 2, "predictions": {}}, *history], "t", 2.1).axes
    low, high = panel.get_ylim()
    assert (low, high) == pytest.approx((1.2, 3.0)) and list(panel.get_xticks()) == [3, 4, 5]


def test_a_report_has_the_schedule_where_there_is_one(tmp_path):
    schedule = {"chips": 8, "hours": 2.0, "used": 0.91, "bars": [GIVEN]}
    text = report.write(synthetic_law(error=False, targets=False), tmp_path, schedule=schedule).read_text()
    assert "on 8 chips: 2.0 hours, 91\u00a0% of the chips’ time used" in text and 'data-run="r&lt;1&gt;"' in text
    assert (tmp_path / "figures" / "schedule.svg").exists()
