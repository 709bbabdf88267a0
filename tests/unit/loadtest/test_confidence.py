"""How sure a figure is: intervals have to hold the truth as often as they say, also when requests are alike."""

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from naiad.loadtest import Latencies
from naiad.loadtest._truth.confidence import (
    mean_interval,
    needed_requests,
    quantile_interval,
    rate_interval,
    share_interval,
)

MEDIAN_US, LEVEL, NOISE = 5000.0, 0.3, 0.5
SPREAD = math.hypot(LEVEL, NOISE)


def autocorrelated(generator, num, rho):
    """A series of standard deviation 1 in which each value remembers the one before."""
    steps = generator.normal(0, math.sqrt(1 - rho**2), num)
    values = [generator.normal()]
    for step in steps[1:]:
        values.append(rho * values[-1] + step)
    return np.array(values)


def window(seed, *, num_slots, rho, per_slot=60):
    """A window in which the whole server is now faster, now slower; latencies are log-normal over a long time."""
    generator = np.random.default_rng(seed)
    levels = np.log(MEDIAN_US * 1000) + LEVEL * autocorrelated(generator, num_slots, rho)
    return [Latencies(np.exp(generator.normal(level, NOISE, per_slot)).astype(np.int64)) for level in levels]


def coverage(intervals, truth):
    known = [found for found in intervals if found is not None]
    assert len(known) > len(intervals) * 0.9
    return sum(low <= truth <= high for low, high in known) / len(known)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_hold_the_truth_as_often_as_they_say(rho):
    """Of 300 windows of a minute with quarter seconds that are alike, 90 % of the intervals have the true value."""
    windows = [window(seed, num_slots=240, rho=rho, per_slot=40) for seed in range(300)]
    for fraction in (0.5, 0.9, 0.99):
        truth_us = MEDIAN_US * math.exp(SPREAD * norm.ppf(fraction))
        assert coverage([quantile_interval(slots, fraction) for slots in windows], truth_us) >= 0.9
    assert coverage([mean_interval(slots) for slots in windows], MEDIAN_US * math.exp(SPREAD**2 / 2)) >= 0.9


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_of_rates_hold_the_truth(rho):
    """The same for the throughput of a server whose speed comes and goes."""
    series = [100 + 20 * autocorrelated(np.random.default_rng(seed), 120, rho) for seed in range(300)]
    assert coverage([rate_interval(counts, 0.25) for counts in series], 400) >= 0.9


def test_an_interval_that_ignores_correlation_would_not_do():
    """The check above can fail: intervals for independent requests miss the truth far more often than once in 20."""
    truth_us, hits = MEDIAN_US, 0
    for seed in range(100):
        whole = Latencies.merged(window(seed, num_slots=120, rho=0.8))
        low, high = binom.ppf([0.025, 0.975], whole.count, 0.5) / whole.count
        hits += whole.quantiles_us([low])[0] <= truth_us <= whole.quantiles_us([high])[0]
    assert hits < 60


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_an_interval_is_never_narrower_than_that_of_independent_requests(fraction):
    """The order statistics of as many independent requests are the least uncertainty there can be."""
    for seed in range(30):
        slots = window(seed, num_slots=40, rho=0.0)
        whole = Latencies.merged(slots)
        low, high = quantile_interval(slots, fraction)
        ranks = binom.ppf([0.025, 0.975], whole.count, fraction)
        least = [whole.quantiles_us([rank / whole.count])[0] for rank in (ranks[0] + 1, ranks[1] - 1)]
        assert low <= least[0]
        assert high >= least[1]


def test_requests_that_are_alike_widen_an_interval():
    """A server that goes from one state into another for seconds at a time is known less well."""
    widths = []
    for rho in (0.0, 0.8):
        bounds = [quantile_interval(window(seed, num_slots=120, rho=rho), 0.5) for seed in range(30)]
        widths.append(np.mean([high - low for low, high in bounds]))
    assert widths[1] > 1.5 * widths[0]


def test_too_few_requests_have_no_interval():
    """p99 takes 459 requests, p99.9 takes 4603: below, nothing is said."""
    assert [needed_requests(fraction) for fraction in (0.5, 0.99, 0.999)] == [7, 459, 4603]
    few = [Latencies(np.arange(1, 46) * 10**6) for _ in range(10)]
    assert quantile_interval(few, 0.99) is None
    assert quantile_interval(few, 0.5) is not None
    assert quantile_interval([], 0.5) is None


def test_a_moment_has_no_interval():
    """Fewer than a second in quarters says nothing about how much seconds differ."""
    assert quantile_interval(window(1, num_slots=3, rho=0.0, per_slot=1000), 0.5) is None
    assert mean_interval(window(1, num_slots=3, rho=0.0)) is None
    assert rate_interval([5, 6, 5], 0.25) is None


def test_no_failure_seen_is_not_no_failure():
    """Of 300 requests without a failure, up to about one in 100 may fail: the interval's end says so."""
    low, high = share_interval([0] * 20, [15] * 20)
    assert low == 0
    assert 0.009 < high < 0.013


def test_failures_that_come_together_widen_the_interval():
    """Ten failures in one second tell less about their share than ten failures spread over all seconds."""
    spread = share_interval([1, 0] * 10, [100] * 20)
    together = share_interval([10] + [0] * 19, [100] * 20)
    assert together[1] > spread[1]
    assert share_interval([], []) is None
