"""What a sweep varies, read from text."""

from __future__ import annotations

import pytest

from naiad.loadtest import InvalidPlan, LoadTest, Rate, Traffic, Users, parse_axis

TEST = LoadTest(traffic=(Traffic(model="a"), Traffic(model="b", batch=4)), load=Rate(per_s=7, arrivals="constant"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("users=1..256", (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        ("users=3..20", (3, 6, 12, 20)),
        ("users=8,1,4,4", (1, 4, 8)),
        ("users=1..100:3", (1, 10, 100)),
        ("batch=1..4", (1, 2, 4)),
        ("rate=100..400:3", (100, 200, 400)),
        ("rate=100..400:3:linear", (100, 250, 400)),
        (" rate = 0.5 , 10/s ", (0.5, 10)),
    ],
)
def test_values_are_listed_or_spread(text: str, values: tuple[float, ...]) -> None:
    """Users and rows double, rates have equal ratios, and a number after the range asks for so many."""
    assert parse_axis(text).values == values


def test_a_range_of_rates_has_eight_steps() -> None:
    """Without a number of its own, from the low end to the high one."""
    values = parse_axis("rate=100..2000").values
    assert (len(values), values[0], values[-1]) == (8, 100, 2000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user=1..4", "found 'user=1..4'"),
        ("users", "expected a sweep like"),
        ("users=", "expected a sweep like"),
        ("users=4..1", "from a low to a high value"),
        ("users=1..4:1", "2 to 64 values"),
        ("users=1..4:2:cubic", "expected a sweep like"),
        ("users=1.5", "whole numbers"),
        ("users=0,1", "whole numbers from 1"),
        ("users=1..99999999999", "to 20,000"),
        ("rate=0", "above 0"),
        ("rate=1,x", "expected a sweep like"),
    ],
)
def test_what_is_no_sweep_is_refused_with_an_example(text: str, words: str) -> None:
    """The message says what was found, and what would do."""
    with pytest.raises(InvalidPlan, match=words):
        parse_axis(text)


def test_a_value_takes_the_place_of_one_thing_only() -> None:
    """A rate keeps the kind of arrivals, a batch is that of every model."""
    assert parse_axis("users=4").at(TEST, 4).load == Users(users=4)
    assert parse_axis("rate=9").at(TEST, 9).load == Rate(per_s=9, arrivals="constant")
    assert [each.batch for each in parse_axis("batch=2").at(TEST, 2).mix] == [2, 2]
