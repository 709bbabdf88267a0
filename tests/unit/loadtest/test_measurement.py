"""Which requests count where."""

from dataclasses import replace

import pytest

from loadtest_samples import TEST, histogram, interval, measured, measurement, quarters, server_times
from naiad.client import Duration, ModelStatistics
from naiad.loadtest import LoadTest, Rate, Slo, Traffic
from naiad.loadtest._truth.gpu_use import GpuSample
from naiad.loadtest._truth.resources import ServerSample
from naiad.loadtest._truth.server_times import ServerSnapshot

MIX = replace(TEST, traffic=(Traffic(model="a"), Traffic(model="b", batch=3)))


def sample(at_s: float, requests: int, *, in_server_us: int = 800, **used: object) -> ServerSample:
    """The server after ``requests`` requests, of each model of a mix."""
    each = Duration(count=requests, ns=requests * in_server_us * 1000)
    snapshot = ServerSnapshot.of([ModelStatistics(name="m", version="1", success=each)])
    return ServerSample(at_s=at_s, snapshots={0: snapshot, 1: snapshot}, **used)  # type: ignore[arg-type]


def test_the_warm_up_is_not_measured():
    """Slow first requests appear nowhere but in the curve over time."""
    warm = quarters(0, 5, [900.0] * 20, errors={"E": 4})
    result = measured(*warm, *quarters(5, 6, [1.0] * 12), start_s=5, end_s=6)
    assert (result.throughput, result.inferences, result.failed, result.sent) == (12, 12, 0, 12)
    assert result.value("max") == pytest.approx(1000, rel=0.002)
    assert {point.warmup for point in result.points if point.at_s < 0} == {True}


def test_what_was_in_flight_at_the_end_counts_for_latency_but_not_for_throughput():
    """A server that hangs at the end shows in the percentiles and errors; its late answers give no throughput."""
    late = interval(6, 8.9, [3000.0] * 10, errors={"Unfinished": 1}, sent=0)
    result = measured(*quarters(5, 6, [1.0] * 12), late, start_s=5, end_s=6)
    assert (result.throughput, result.failed, result.sent) == (12, 1, 12)
    assert result.value("p99") == pytest.approx(3e6, rel=0.002)
    assert result.error_share == pytest.approx(1 / 23)


def test_a_frozen_second_is_seen_over_time():
    """A stretch without an answer is points with throughput 0, not a gap."""
    around = [*quarters(0, 1, [1.0] * 48), *quarters(2, 3, [1.0] * 48)]
    result = measured(*around, start_s=0, end_s=3)
    assert [point.throughput_per_s for point in result.points] == [48, 48, 0, 0, 48, 48]
    assert result.points[2].p99_us is None
    assert len(result.in_window) == 12


def test_a_window_the_engine_did_not_fill_is_as_long_as_it_was():
    """Where the server took the load generator with it, the silent rest of the window counts as time."""
    result = measured(*quarters(0, 1, [1.0] * 8), start_s=0, end_s=4)
    assert (result.window_s, result.throughput) == (4, 2)


def test_a_long_run_has_a_bounded_number_of_points():
    """A report of 20 minutes is no larger than one of two, and loses no request."""
    seconds = [interval(at / 4, at / 4 + 0.25, [1.0]) for at in range(4800)]
    result = measured(*seconds, start_s=0, end_s=1200)
    assert len(result.points) <= 241
    widths = {round(b.at_s - a.at_s, 6) for a, b in zip(result.points[:-2], result.points[1:-1], strict=True)}
    assert len(widths) == 1
    assert sum(point.throughput_per_s for point in result.points) * widths.pop() == pytest.approx(4800)


def test_a_run_that_never_reached_its_window_measured_nothing():
    """Rates are 0 and shares unknown, without a division by zero."""
    result = measured(interval(0, 0.25, [1.0]), start_s=1, end_s=1)
    assert (result.latencies.count, result.throughput, result.cpu_share) == (0, 0, 0)
    assert (result.error_share, result.in_flight, result.interval("p50")) == (None, None, None)
    assert result.to_json()["breakdown_us"] is None


def test_engines_add_up():
    """Requests, users and histograms of all engines are one; CPU time is that of the busiest engine."""
    engines = [quarters(0, 1, [float(1 + k)] * 8, engine=k, cpu_s=0.2 + 0.3 * k) for k in range(2)]
    result = measured(*engines[0], *engines[1], start_s=0, end_s=1)
    assert (result.throughput, result.users, result.latencies.count) == (16, 8, 16)
    assert result.cpu_shares == (pytest.approx(0.2), pytest.approx(0.5))
    assert result.cpu_share == pytest.approx(0.5)


def test_a_mix_has_a_part_for_each_model():
    """The whole is the sum of its parts; rows per request are the mean over them."""
    both = [*quarters(0, 1, [1.0] * 12), *quarters(0, 1, [9.0] * 4, traffic=1)]
    result = measured(*both, start_s=0, end_s=1, test=MIX)
    assert [(part.model, part.throughput, part.rows_per_request) for part in result.parts] == [
        ("a", 12, 1),
        ("b", 4, 3),
    ]
    assert (result.throughput, result.users) == (16, 4)
    assert result.inferences == pytest.approx(24)
    assert result.parts[1].value("p50") == pytest.approx(9000, rel=0.001)


def test_a_model_that_is_twice_in_a_mix_is_counted_once_by_the_server():
    """Two kinds of requests to one model share its counters."""
    twice = replace(TEST, traffic=(Traffic(model="a"), Traffic(model="a", batch=3)))
    both = [*quarters(0, 1, [1.0] * 12), *quarters(0, 1, [1.0] * 4, traffic=1)]
    result = measured(*both, start_s=0, end_s=1, test=twice, samples=[sample(-0.1, 100), sample(1.1, 116)])
    assert result.counted is not None
    assert (result.counted.client, result.counted.server) == (16, 16)
    assert result.server is not None
    assert result.server.requests == 16


def test_the_servers_times_are_those_of_the_samples_at_the_windows_edges():
    """Requests before and after the window are not in its server times; both sides' counts are of the whole run."""
    samples = [sample(-0.1, 50), sample(1.0, 250), sample(2.0, 1250), sample(3.1, 1500)]
    result = measured(
        *quarters(0, 1, [1.0] * 200),
        *quarters(1, 2, [1.0] * 1000),
        *quarters(2, 3, [1.0] * 250),
        start_s=1,
        end_s=2,
        samples=samples,
    )
    assert result.server is not None
    assert (result.server.requests, result.server.total_us, result.server.in_flight) == (1000, 800, pytest.approx(0.8))
    assert result.counted is not None
    assert (result.counted.client, result.counted.server) == (1450, 1450)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [sample(1.0, 250), sample(2.0, 3)],
        [sample(1.0, 250), sample(1.5, 3), sample(2.0, 900)],
        [sample(1.0, 250)],
        [sample(1.0, 250), ServerSample(at_s=2.0, snapshots={})],
    ],
    ids=["no samples", "fewer at the end", "fewer in between", "none at the end", "no answer at the end"],
)
def test_a_server_that_began_anew_or_fell_silent_has_no_times(samples):
    """Differences of counters that were set back would be numbers of nothing."""
    result = measured(*quarters(0, 2, [1.0] * 80), start_s=1, end_s=2, samples=samples)
    assert (result.server, result.counted) == (None, None)


def test_what_the_server_used_is_read_from_the_samples():
    """CPU time is what was spent within the window, memory the most, a GPU's load the mean."""
    gpus = [GpuSample(index=0, name="gpu", busy_share=share, memory_bytes=7, power_w=None) for share in (0.2, 0.4)]
    samples = [
        sample(1.0, 0, cpu_s=10.0, rss_bytes=900, num_threads=5, gpus=gpus[:1]),
        sample(2.0, 100, cpu_s=11.5, rss_bytes=800, num_threads=6, gpus=gpus[1:]),
    ]
    used = measured(*quarters(1, 2, [1.0] * 100), start_s=1, end_s=2, samples=samples).resources
    assert used is not None
    assert (used.cpu_cores, used.cpu_us_per_request, used.rss_bytes, used.num_threads) == (1.5, 15_000, 900, 6)
    assert [(gpu.busy_share, gpu.memory_bytes, gpu.power_w) for gpu in used.gpus] == [(pytest.approx(0.3), 7, None)]


def test_the_breakdown_adds_up_to_the_mean():
    """Generator, network, queue, compute and the rest of the server are the whole mean latency of the window."""
    result = measurement([5.0] * 1000)
    result = replace(result, server=server_times(total_us=4000.0))
    breakdown = result.to_json()["breakdown_us"]
    assert sum(breakdown.values()) == pytest.approx(5000, rel=0.001)
    assert breakdown["network_and_grpc"] == pytest.approx(1000, rel=0.01)


def test_goodput_counts_requests_within_the_loosest_latency_objective():
    """Of 1000 requests of 1 to 10 ms half take less than 5.5 ms; failures are requests, too."""
    slos = [Slo.parse("p99<5.5ms"), Slo.parse("p50<3ms"), Slo.parse("throughput>1/s")]
    result = measurement(errors={"E": 1000}, slos=slos)
    assert result.goodput(slos) == pytest.approx(500, abs=2)
    assert result.value("goodput") == pytest.approx(0.25, abs=0.001)
    low, high = result.interval("goodput") or (1.0, 0.0)
    assert low < 0.25 < high


def test_without_an_objective_on_latency_there_is_no_goodput():
    """Nothing says which request was a good one."""
    result = measurement(slos=[Slo.parse("throughput>1/s")])
    assert (result.goodput(result.slos), result.value("goodput"), result.interval("goodput")) == (None, None, None)


def test_arrivals_that_were_not_sent_were_offered_all_the_same():
    """In an open loop the rate that was asked for counts, with what found no room."""
    test = LoadTest(traffic=Traffic(model="m"), load=Rate(per_s=100))
    window = quarters(0, 1, [1.0] * 80, errors={"NotSent": 20}, users=0)
    content = measured(*window, start_s=0, end_s=1, test=test).to_json()
    assert (content["offered_per_s"], content["throughput_per_s"], content["users"]) == (100, 80, None)


def test_metrics_of_streams_have_their_own_distributions():
    """Time to the first response, and between responses, are read by their names."""

    first = {"first_response": histogram([2.0] * 5), "between_responses": histogram([0.5] * 9)}
    result = measured(interval(0, 0.25, [9.0] * 5, **first), start_s=0, end_s=0.25)
    assert [result.value(metric) for metric in ("first_response_p50", "between_max", "service_mean")] == [
        2000,
        500,
        pytest.approx(9000, rel=0.001),
    ]
    assert (result.num_of("between_p99"), result.num_of("errors")) == (9, 5)


def test_bins_hold_every_request_once():
    """The bars of the histogram in the report add up to all requests, in order and without overlap."""
    content = measurement().to_json()
    assert sum(bar["count"] for bar in content["bins"]) == 1000
    assert all(a["to_us"] == b["from_us"] for a, b in zip(content["bins"], content["bins"][1:], strict=False))
