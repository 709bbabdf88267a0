"""Axes: every label stands where its value lies, and there are enough of them, and not too many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from naiad.loadtest._report.scale import Categories, Linear, Log, Rarity, from_zero
from naiad.loadtest._report.units import show_interval, show_ratio, show_us, unit_us

ENDS = st.tuples(st.floats(1e-3, 1e9), st.floats(1.01, 1e6))


def read(label):
    return float(label.replace(",", "").replace("−", "-"))


def check(scale, fewest, most, factor=1.0):
    ticks = scale.ticks()
    places = [scale.position(value) for value, _ in ticks]
    assert fewest <= len(ticks) <= most
    assert places == sorted(places)
    assert all(-0.001 <= place <= 1.001 for place in places)
    assert len({label for _, label in ticks}) == len(ticks)
    for value, label in ticks:
        assert read(label) * factor == pytest.approx(value, rel=1e-6, abs=1e-9 * factor)


@given(ENDS, st.sampled_from([1.0, 1e3, 1e6]))
def test_a_linear_axis_has_a_few_true_labels(ends, factor):
    """From three to eight round values, each at its place."""
    low, ratio = ends
    check(Linear(low, low * ratio, factor), 2, 8, factor)


@given(ENDS, st.sampled_from([1.0, 1e3]))
def test_a_logarithmic_axis_has_a_few_true_labels(ends, factor):
    """Also where no power of ten lies between its ends."""
    low, ratio = ends
    check(Log(low, low * ratio, factor), 2, 9, factor)


@given(st.floats(1e-3, 1e9))
def test_an_axis_from_zero_holds_the_largest_value(largest):
    """Below its end, and not far below."""
    scale, _ = from_zero([None, largest / 3, largest])
    assert 0.9 < scale.position(largest) < 1
    check(scale, 3, 8)


@given(st.integers(1, 10**9))
def test_percentiles_stretch_to_the_rarest(count):
    """0 begins the axis, the maximum ends it, and every ten times rarer takes the same room."""
    scale = Rarity(count)
    assert scale.position(0) == 0
    assert scale.position(100) == pytest.approx(1)
    labels = [label for _, label in scale.ticks()]
    assert (labels[0], labels[-1]) == ("0", "max")
    if count > 10**4:
        assert scale.position(99) - scale.position(90) == pytest.approx(scale.position(99.9) - scale.position(99))


def test_names_stand_in_the_middle_of_their_places():
    """Many names are thinned out."""
    scale = Categories([str(size) for size in range(40)])
    assert scale.position(0) == pytest.approx(1 / 80)
    assert len(scale.ticks()) <= 12


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (None, "–"),
        (0.4, "0.4 µs"),
        (12.0, "12 µs"),
        (999.4, "999 µs"),
        (1234.0, "1.23 ms"),
        (123456.0, "123.5 ms"),
        (2.5e7, "25.00 s"),
    ],
)
def test_times_are_written_in_the_unit_that_fits(us, text):
    """Three or four digits, never a row of zeros."""
    assert show_us(us) == text
    assert us is None or unit_us(us)[0] == text.split()[1]


def test_an_interval_has_its_unit_once():
    """Unless its ends have different ones."""
    assert show_interval("p99", [8130.0, 18050.0]) == "8.13 – 18.05 ms"
    assert show_interval("p99", [813.0, 1805.0]) == "813 µs – 1.80 ms"
    assert show_interval("throughput", [393.2, 416.0]) == "393 – 416/s"
    assert show_interval("errors", [0.0, 0.000455]) == "0 – 0.0455 %"
    assert show_interval("p99", None) == ""


def test_ratios_are_written_as_changes():
    """In per cent, and as a factor where that is easier to grasp."""
    assert [show_ratio(ratio) for ratio in (1.0, 1.2, 0.815, 3.5, None)] == [
        "+0.0 %",
        "+20.0 %",
        "−18.5 %",
        "× 3.5",
        "–",
    ]
