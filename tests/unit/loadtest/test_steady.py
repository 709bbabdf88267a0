"""Warm-up that is found out: series with a known truth."""

import math

import numpy as np
import pytest

from naiad.loadtest import Latencies
from naiad.loadtest._engine.messages import Interval
from naiad.loadtest._truth.steady import SteadyDetector, drift_of

LEVEL_NS, USERS = 5e6, 64
NUM_SLOTS = 160


def curve(kind):
    """The logarithm of how much slower the server is, at each quarter second."""
    at_s = np.arange(NUM_SLOTS) / 4 + 0.125
    return {
        "steady": np.zeros(NUM_SLOTS),
        "step at 3 s": np.where(at_s < 3, 0.7, 0.0),
        "decay": np.log1p(1.5 * np.exp(-at_s)),
        "slow decay": np.log1p(1.5 * np.exp(-at_s / 3)),
        "every second": 0.2 * np.sin(2 * np.pi * at_s),
        "every third second": 0.2 * np.sin(2 * np.pi * at_s / 3),
        "drift": 0.1 * at_s,
    }[kind]


def slots(kind, seed, noise):
    """What 64 users measure; ``noise`` moves the whole server from one quarter second to the next."""
    generator = np.random.default_rng(seed)
    for level in curve(kind) + generator.normal(0, noise, NUM_SLOTS):
        latency_ns = LEVEL_NS * math.exp(level)
        count = round(USERS * 0.25e9 / latency_ns / 20)
        yield Latencies((latency_ns * generator.lognormal(0, 0.4, count)).astype(np.int64))


def intervals(latencies, users=USERS):
    for index, found in enumerate(latencies):
        yield Interval(start_s=index / 4, end_s=(index + 1) / 4, users=users, latencies=found)


def detect(found, **options):
    detector = SteadyDetector(30.0, **options)
    for interval in found:
        detector.add(interval)
        if detector.decided:
            break
    return detector


def since(kind, noise, num=20):
    """When each of some runs became steady; infinity where it did not within 30 s."""
    found = [detect(intervals(slots(kind, seed, noise))).steady_since_s for seed in range(num)]
    return [math.inf if at_s is None else at_s for at_s in found]


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_a_run_without_warm_up_begins_early(noise):
    """Nearly nothing is left out where there is nothing to leave out."""
    assert np.median(since("steady", noise)) <= 2
    assert max(since("steady", noise)) < 30


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_a_step_is_left_out_and_little_more(noise):
    """Three slow seconds at the start are found to the second in nine of ten runs."""
    found = np.array(since("step at 3 s", noise))
    assert np.mean((found >= 2.75) & (found <= 4.5)) >= 0.9


@pytest.mark.parametrize(
    ("kind", "noise", "bias"), [("decay", 0.03, 0.03), ("decay", 0.1, 0.08), ("slow decay", 0.03, 0.05)]
)
def test_what_is_left_of_a_decay_is_small(kind, noise, bias):
    """A cache that fills: the ten seconds from there on are as slow as the server ends up, within a few per cent."""
    level = curve(kind)
    left = [np.mean(level[int(at_s * 4) : int(at_s * 4) + 40]) for at_s in since(kind, noise) if math.isfinite(at_s)]
    assert len(left) >= 19
    assert np.quantile(left, 0.9) < bias


@pytest.mark.parametrize("kind", ["every second", "every third second"])
def test_what_comes_again_and_again_is_no_warm_up(kind):
    """A batch job each second is part of the steady state."""
    found = since(kind, 0.05)
    assert max(found) < 30
    assert np.median(found) <= 3


def test_a_drift_that_does_not_end_is_not_steady():
    """A server that gets slower by a tenth each second is called steady in none of 8 runs, and the reason is said."""
    assert min(since("drift", 0.03, num=8)) == math.inf
    steadiness = detect(intervals(slots("drift", 1, 0.03))).steadiness
    assert (steadiness.steady, steadiness.warmup_s) == (False, 30.0)
    assert "trend" in steadiness.reason or "level" in steadiness.reason


def test_the_users_have_to_be_there_first():
    """While users are still being started, nothing is steady."""
    latencies = list(slots("steady", 1, 0.03))
    ramp = [*intervals(latencies[:20], users=10)]
    rest = [
        Interval(start_s=5 + one.start_s, end_s=5 + one.end_s, users=USERS, latencies=one.latencies)
        for one in intervals(latencies)
    ]
    found = detect([*ramp, *rest], users=USERS)
    assert found.steady_since_s is not None
    assert found.steady_since_s >= 5


def test_what_was_not_looked_at_is_no_warm_up():
    """Where the first ten seconds are left out beforehand, they do not count as silence."""
    later = [
        Interval(start_s=10 + one.start_s, end_s=10 + one.end_s, users=USERS, latencies=one.latencies)
        for one in intervals(slots("steady", 1, 0.03))
    ]
    assert 10 <= detect(later).steady_since_s <= 13


def test_a_server_that_does_not_answer_is_not_steady():
    """Nothing answered, quarter second by quarter second, is level but no steady state."""
    steadiness = detect(intervals([Latencies()] * 121)).steadiness
    assert not steadiness.steady
    assert "too few requests" in steadiness.reason


def test_engines_are_looked_at_together():
    """Two engines of which each has half of the requests give the same answer as one with all of them."""
    whole = list(intervals(slots("step at 3 s", 3, 0.05)))
    both = [
        Interval(start_s=one.start_s, end_s=one.end_s, engine=engine, users=USERS // 2, latencies=half)
        for one in whole
        for engine, half in enumerate((one.latencies, Latencies()))
    ]
    assert detect(both, users=USERS).steady_since_s == detect(whole, users=USERS).steady_since_s


def test_a_drift_within_the_window_is_found_afterwards():
    """Half of the speed lost between the halves of a window is named; noise is not."""
    drifting = list(slots("drift", 1, 0.1))[:40]
    assert drift_of(drifting)["the median latency"] > 1.2
    assert drift_of(drifting)["throughput"] < 1
    false_alarms = [drift_of(list(slots("steady", seed, 0.1))[:40]) for seed in range(40)]
    assert sum(map(bool, false_alarms)) <= 2
