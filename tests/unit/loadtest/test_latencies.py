"""The histogram that every figure comes from."""

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from naiad.loadtest import Latencies
from naiad.loadtest.latencies import HIGHEST_US, stack


def lognormal_ns(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(15, 1.5, size).astype(np.int64)


def reference(latencies_ns: np.ndarray) -> HdrHistogram:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    for latency_us in ((latencies_ns + 500) // 1000).clip(1).tolist():
        histogram.record_value(latency_us)
    return histogram


@pytest.mark.parametrize("percentile", [50, 90, 99, 99.9])
def test_percentiles_are_within_a_thousandth_of_the_exact_ones(percentile):
    """A percentile read from the histogram is the sample's own, within 0.1 %."""
    sample = lognormal_ns(1, 20_000)
    exact_us = sorted(sample)[round(len(sample) * percentile / 100) - 1] / 1000
    assert Latencies(sample).percentile_us(percentile) == pytest.approx(exact_us, rel=0.001, abs=1)


def test_microseconds_are_told_apart():
    """Latencies below 2 ms are kept to the microsecond; nothing is rounded to milliseconds."""
    latencies = Latencies([1_001_000, 1_002_000, 1_003_400])
    assert list(latencies.counts()) == [(1001, 1), (1002, 1), (1003, 1)]


@pytest.mark.parametrize("latency_us", [1, 2047, 2048, 2049, 4095, 4096, 1 << 20, (1 << 31) - 1, HIGHEST_US])
def test_buckets_are_those_of_hdrhistogram(latency_us):
    """At every edge of its layout a value falls into the bucket that the reference puts it into."""
    (bucket,) = Latencies([latency_us * 1000]).counts()
    assert bucket == (reference(np.array([latency_us * 1000])).get_highest_equivalent_value(latency_us), 1)


def test_other_tools_read_what_is_written():
    """HdrHistogram's own library decodes the text, and finds the same percentiles, mean and maximum."""
    sample = lognormal_ns(2, 5000)
    ours, theirs = Latencies(sample), HdrHistogram.decode(Latencies(sample).encode().encode())
    assert theirs.get_total_count() == 5000
    assert [ours.percentile_us(p) for p in (50, 90, 99, 100)] == [
        theirs.get_value_at_percentile(p) for p in (50, 90, 99, 100)
    ]
    assert ours.mean_us == pytest.approx(theirs.get_mean_value())
    assert ours.max_us == theirs.get_max_value()


def test_what_other_tools_wrote_is_read():
    """A histogram of HdrHistogram's own library becomes ours, bucket for bucket."""
    sample = lognormal_ns(3, 5000)
    assert Latencies.decode(reference(sample).encode().decode()) == Latencies(sample)


def test_merging_loses_nothing():
    """Two histograms added give the same as one that saw everything."""
    first, second = lognormal_ns(1, 3000), lognormal_ns(2, 5000)
    whole = Latencies(np.concatenate([first, second]))
    assert Latencies.merged([Latencies(first), Latencies(second)]) == whole
    added = Latencies(first)
    added.add(Latencies(second))
    assert added == whole


def test_adding_leaves_the_other_as_it_was():
    """A histogram that was added, or began as a copy of nothing plus another, is not changed by what comes after."""
    part, whole = Latencies([1_000_000]), Latencies()
    whole.add(part)
    whole.record_ns([2_000_000])
    assert (part.count, whole.count) == (1, 2)


@pytest.mark.parametrize("form", ["encode", "pack"])
def test_a_histogram_survives_the_pipe(form):
    """What is decoded equals what was encoded, compressed or not, also when it is empty or its counts are large."""
    many = Latencies([5_000_000] * 70_000)
    for latencies in (Latencies(lognormal_ns(3, 1000)), Latencies(), Latencies([1]), Latencies([10**13]), many):
        assert Latencies.decode(getattr(latencies, form)()) == latencies


@pytest.mark.parametrize("text", ["no histogram", "AAAA", Latencies([5]).pack()[:-8], Latencies([5]).encode()[:-8]])
def test_what_is_no_histogram_is_refused(text):
    """Half a message, or any other text, is an error and not a histogram with less in it."""
    with pytest.raises(ValueError, match="HDR histogram"):
        Latencies.decode(text)


def test_nothing_recorded_has_no_percentile():
    """An empty histogram says that it knows nothing instead of 0."""
    empty = Latencies()
    assert (empty.percentile_us(99), empty.max_us, empty.mean_us, empty.curve()) == (None, None, None, [])


def test_the_curve_goes_no_further_than_the_requests_resolve():
    """With 100 requests the curve ends at p99 and the maximum."""
    percentiles = [percentile for percentile, _ in Latencies([1000] * 100).curve()]
    assert percentiles[-2:] == [99.0, 100.0]


def test_a_latency_beyond_an_hour_is_kept_as_an_hour():
    """An absurd value is not lost."""
    assert Latencies([10**18]).max_us == pytest.approx(3.6e9, rel=0.001)


def test_counting_within_a_limit_agrees_with_percentiles():
    """Exactly the share up to a percentile is within it, and a strict limit leaves that bucket out."""
    latencies = Latencies([1_000_000, 2_000_000, 3_000_000])
    assert latencies.count_within(latencies.percentile_us(100)) == 3
    assert (latencies.count_within(1000), latencies.count_within(1000, included=False)) == (1, 0)


def test_stacked_histograms_are_the_rows_of_a_table():
    """Each row holds one histogram's counts; the columns are the buckets that any of them uses."""
    values_us, counts = stack([Latencies([1000, 5000]), Latencies(), Latencies([5000, 5000])])
    assert values_us.tolist() == [1, 5]
    assert counts.tolist() == [[1, 1], [0, 0], [0, 2]]
