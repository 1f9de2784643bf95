"""What several verbs read alike."""

import pytest

from ladder.cli.arguments import named_numbers


def test_named_numbers_are_read_by_name():
    assert named_numbers(["unique_tokens=100e9", "proportion_web=0.5"]) == {
        "unique_tokens": 1e11,
        "proportion_web": 0.5,
    }


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["x"], "--given x: write NAME=VALUE"),
        (["=1"], "--given =1: write NAME=VALUE"),
        (["x=one"], "--given x=one: write NAME=VALUE"),
        (["x=1", "x=2"], "--given x=2: x is given twice"),
        (["tokens=2"], "--given tokens=2: say --tokens alone"),
    ],
)
def test_what_is_no_named_number_or_said_twice_is_refused(texts, why):
    with pytest.raises(ValueError, match=why):
        named_numbers(texts, ("params", "tokens"))
