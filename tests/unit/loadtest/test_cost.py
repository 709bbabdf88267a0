"""What a rate costs."""

from dataclasses import replace

import pytest

from loadtest_samples import measurement
from naiad.loadtest import Slo
from naiad.loadtest._truth.cost import Cost
from naiad.loadtest._truth.gpu_use import GpuUse
from naiad.loadtest._truth.resources import Resources

USED = Resources(
    cpu_cores=0.5,
    cpu_us_per_request=500.0,
    rss_bytes=1,
    num_threads=1,
    gpus=tuple(GpuUse(index=k, name="gpu", busy_share=None, memory_bytes=None, power_w=None) for k in range(2)),
)


def test_a_price_is_divided_by_what_was_answered():
    """At 1,000 requests per second and 3.60 an hour a million costs 1; twice that where half of them are good ones."""
    cost = Cost.of(measurement(), 3.6, 4, [Slo.parse("p99<5.5ms")])
    assert cost.per_million_requests == pytest.approx(1.0)
    assert cost.per_million_good_requests == pytest.approx(2.0, rel=0.01)


def test_rates_are_divided_by_what_the_server_has_and_uses():
    """1,000 requests per second of half a core of four, and of two GPUs."""
    cost = Cost.of(replace(measurement(), resources=USED), None, 4)
    assert cost.requests_per_s_per_core == pytest.approx(250)
    assert cost.requests_per_s_per_core_used == pytest.approx(2000)
    assert cost.requests_per_s_per_gpu == pytest.approx(500)
    assert cost.per_million_requests is None


def test_nothing_answered_has_no_price():
    """A rate of 0 costs no finite amount, and a server that cannot be seen has no cores to divide by."""
    cost = Cost.of(measurement([]), 3.6, 4, [Slo.parse("p99<5.5ms")])
    assert (cost.per_million_requests, cost.per_million_good_requests, cost.requests_per_s_per_core) == (None,) * 3
