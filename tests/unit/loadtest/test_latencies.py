"""The histogram that every figure comes from."""

import numpy as np
import pytest

from naiad.loadtest import Latencies


def lognormal_ns(seed: int, size: int) -> list[int]:
    return (np.random.default_rng(seed).lognormal(15, 1, size)).astype(np.int64).tolist()


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


def test_merging_loses_nothing():
    """Two histograms added give the same as one that saw everything."""
    first, second = lognormal_ns(1, 3000), lognormal_ns(2, 5000)
    whole = Latencies.merged([Latencies(first), Latencies(second)])
    assert list(whole.counts()) == list(Latencies(first + second).counts())
    assert whole.count == 8000


def test_a_histogram_survives_the_pipe():
    """What is decoded equals what was encoded, also when it is empty."""
    for latencies in (Latencies(lognormal_ns(3, 1000)), Latencies()):
        assert list(Latencies.decode(latencies.encode()).counts()) == list(latencies.counts())


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
