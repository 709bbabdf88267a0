"""Locust's statistics, fed with batches of exact results."""

from __future__ import annotations

import time
from typing import Any

import locust.stats
from locust.stats import RequestStats, StatsEntry, StatsError

from naiad.loadtest._engine.messages import Interval

__all__ = ["METHOD", "feed_statistics", "keep_microseconds"]

METHOD = "grpc"
_EXACT_BELOW_US = 2048


def keep_microseconds() -> None:
    """Have Locust keep response times to the microsecond, where it rounds to whole milliseconds or two digits.

    The buckets are those of our histograms: exact to 1 µs up to 2 ms, to 0.1 % above. Locust allows for that since
    2.43.4 (``locust.stats.bucket_response_time``).
    """
    statistics: Any = locust.stats
    statistics.bucket_response_time = _bucket


def _bucket(response_time_ms: float) -> float:
    microseconds = max(1, round(response_time_ms * 1000))
    step = 1 << max(0, microseconds.bit_length() - _EXACT_BELOW_US.bit_length() + 1)
    return (microseconds // step * step + step - 1) / 1000


def feed_statistics(statistics: RequestStats, name: str, interval: Interval) -> None:
    """Add an interval to Locust's statistics, in its milliseconds, as if each request had been logged."""
    now_s = time.time()
    for entry in (statistics.total, statistics.get(name, METHOD)):
        _feed_entry(entry, interval, now_s)
    for error, number in interval.errors.items():
        text = interval.examples.get(error, error)
        key = StatsError.create_key(METHOD, name, text)
        statistics.errors.setdefault(key, StatsError(METHOD, name, text)).occurrences += number


def _feed_entry(entry: StatsEntry, interval: Interval, now_s: float) -> None:
    batch: Any = StatsEntry(RequestStats(use_response_times_cache=False), entry.name, entry.method)
    failed = sum(interval.errors.values())
    batch.start_time = entry.start_time
    batch.num_requests = interval.latencies.count + failed
    batch.num_none_requests = batch.num_failures = failed
    if not batch.num_requests:
        return
    batch.last_request_timestamp = now_s
    batch.num_reqs_per_sec[int(now_s)] = batch.num_requests
    batch.num_fail_per_sec[int(now_s)] = failed
    for latency_us, number in interval.latencies.counts():
        latency_ms = latency_us / 1000
        batch.total_response_time += latency_ms * number
        batch.response_times[latency_ms] += number
        batch.min_response_time = latency_ms if batch.min_response_time is None else batch.min_response_time
        batch.max_response_time = latency_ms
    entry.extend(batch)
