"""When a run with a wanted precision may end."""

import math

import numpy as np
import pytest

from loadtest_samples import quarters
from naiad.loadtest import Precision
from naiad.loadtest._truth.stopping import Stopping, alpha_of


def run(stopping, *, per_s, spread, max_s=400, seed=0):
    """Look every quarter second at a run that began its window at 2 s; return what ended it, and how long it took."""
    generator = np.random.default_rng(seed)
    latencies = 5 * generator.lognormal(0, spread, per_s * (max_s + 2))
    intervals = []
    for second in range(max_s + 2):
        intervals += quarters(second, second + 1, latencies[second * per_s : (second + 1) * per_s].tolist())
        for at_s in second + np.arange(1, 5) / 4:
            found = stopping.decide(intervals, 2.0, at_s)
            if found is not None:
                return found, at_s - 2.0
    raise AssertionError("it never ended")


def test_a_run_ends_when_the_percentile_is_known_well_enough():
    """The more the latencies differ, the longer it takes; the interval at the end is as narrow as was asked for."""
    easy, easy_s = run(Stopping(Precision(percentile=50, within=0.05), min_s=4, max_s=300), per_s=80, spread=0.1)
    hard, hard_s = run(Stopping(Precision(percentile=50, within=0.05), min_s=4, max_s=300), per_s=80, spread=0.8)
    assert (easy.reached, hard.reached) == (True, True)
    assert easy_s == 4
    assert hard_s > 10
    assert hard.reached_within <= 0.05


def test_a_run_that_is_never_precise_ends_all_the_same_and_says_so():
    """At the longest duration it is over; the text has what was wanted and what was reached."""
    found, length_s = run(Stopping(Precision(percentile=50, within=0.001), min_s=2, max_s=10), per_s=40, spread=0.5)
    assert (found.reached, length_s) == (False, 10)
    assert found.reached_within > 0.001
    assert "wanted: 0.1%" in found.text


def test_too_few_requests_are_never_precise():
    """p99.9 of some hundred requests has no interval; the reason is said."""
    found, _ = run(Stopping(Precision(percentile=99.9, within=0.5), min_s=2, max_s=8), per_s=40, spread=0.1)
    assert (found.reached, found.reached_within) == (False, None)
    assert "too few requests" in found.text


def test_looks_get_rarer():
    """The window grows by half between looks: 2 … 300 s take 13 looks, not 1200."""
    found, _ = run(Stopping(Precision(percentile=50, within=1e-6), min_s=2, max_s=300), per_s=4, spread=0.5)
    assert found.looks == 14


def test_all_looks_together_are_wrong_no_more_often_than_one():
    """What the looks may be wrong adds up to 5 %; a run of given length has all of it."""
    assert alpha_of(0) == 0.05
    assert math.fsum(alpha_of(look) for look in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)


def test_the_interval_that_ended_a_run_holds_the_truth():
    """Of 40 runs that stopped at the first narrow interval, at least 90 % have the true median within what they say."""
    hits = 0
    for seed in range(40):
        stopping = Stopping(Precision(percentile=50, within=0.15), min_s=2, max_s=40)
        found, length_s = run(stopping, per_s=20, spread=0.6, max_s=40, seed=seed)
        values = 5 * np.random.default_rng(seed).lognormal(0, 0.6, 20 * 42)[40 : 40 + int(length_s * 20)]
        assert found.reached_within is not None
        hits += abs(np.median(values) / 5 - 1) <= found.reached_within
    assert hits >= 36
