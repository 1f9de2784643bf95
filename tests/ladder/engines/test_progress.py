"""Progress: one line a run where nobody watches; which of how many, speed and time left where somebody does."""

import dataclasses
import io

import pytest
from rich.console import Console

from ladder.engines.progress import Display, Measuring
from ladder.events import Evaluating, Finished, Stops, Trained


@pytest.fixture
def specs(spec):
    return [dataclasses.replace(spec, run=name) for name in ("a", "b", "c")]


def _shown(specs, events, done=(), terminal=False, **options):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, highlight=False, color_system=None)
    with Display(specs, done, console, **options) as display:
        for event in events:
            display(event)
    return out.getvalue()


def test_a_log_is_told_how_far_and_how_long(specs):
    steps = specs[0].steps
    events = [Trained("a", 1, 3.0, 1e5), Trained("a", steps // 2, 2.0, 1e5), Evaluating("a", "prose", 64)]
    first, half, measuring = _shown(specs, events, every_s=0).splitlines()
    assert "loss 3.000  100,000 tokens/s" in first
    assert half.startswith(f"a  {100 * (steps // 2) / steps:.0f}%  loss 2.000")
    assert "(0 of 3 runs  0:00:0" in half and "left)" in half
    assert measuring.startswith("a  100%  evaluating prose 64")


def test_a_log_gets_no_more_than_a_line_every_half_minute(specs):
    events = [Trained("a", 5, 3.0, 1e5), Trained("a", 25, 2.0, 1e5), Evaluating("a"), Finished("a", "")]
    assert _shown(specs, events).splitlines() == ["a  done  (1 of 3 runs)"]


def test_a_quarantined_run_is_shown_with_its_reason(specs):
    assert "b  quarantined: b diverged at step 3: loss nan" in _shown(
        specs, [Finished("b", "b diverged at step 3: loss nan")]
    )


def test_runs_that_were_done_before_are_counted(specs):
    assert "(3 of 3 runs)" in _shown(specs, [Finished("c", "")], done=["a", "b"])


def test_a_terminal_sees_loss_speed_how_many_and_time_left(specs):
    shown = _shown(
        specs, [Trained("a", 5, 3.25, 123456.0), Trained("a", 10, 3.125, 123456.0), Evaluating("a")], terminal=True
    )
    assert "0 of 3 runs" in shown and "left" in shown
    assert "evaluating" in shown


def test_a_reason_with_brackets_is_shown_as_it_is(specs):
    assert "loss [nan]" in _shown(specs, [Finished("b", "loss [nan]")])


def test_a_model_that_is_no_run_is_told_of_by_lines_of_what_it_is_measured_on():
    lines = []
    tell = Measuring(lines.append, every_s=0)
    for event in (Evaluating("theirs", "copa"), Evaluating("theirs", "copa", 1200)):
        tell(event)
    Measuring(lines.append)(Evaluating("theirs", "copa", 1300))
    assert lines == ["evaluating copa", "evaluating copa: 1,200 done"]


def test_a_run_that_is_told_to_stop_says_what_is_saved(specs):
    assert _shown(specs, [Stops("a", "nothing of it is saved")]) == "a  stops: nothing of it is saved\n"
