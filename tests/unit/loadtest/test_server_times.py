"""The server's counters, and what lies between two readings."""

import pytest

from naiad.client import BatchStatistics, Duration, ModelStatistics
from naiad.loadtest._truth.server_times import ServerSnapshot, ServerTimes


def statistics(requests: int, *, version: str = "1", batches: dict[int, int] | None = None) -> ModelStatistics:
    def each(us: int) -> Duration:
        return Duration(count=requests, ns=requests * us * 1000)

    return ModelStatistics(
        name="m",
        version=version,
        inference_count=requests * 2,
        execution_count=requests // 2,
        success=each(1000),
        queue=each(300),
        compute_input=each(50),
        compute_infer=each(600),
        compute_output=each(40),
        batches={
            size: BatchStatistics(compute_infer=Duration(count=count, ns=1)) for size, count in (batches or {}).items()
        },
    )


def test_only_the_time_between_the_readings_counts():
    """Requests before the window, and other versions' too, are subtracted."""
    before = ServerSnapshot.of([statistics(100, batches={1: 5}), statistics(10, version="2")])
    after = ServerSnapshot.of([statistics(300, batches={1: 5, 4: 7}), statistics(10, version="2")])
    times = ServerTimes.between(before, after, window_s=2.0)
    assert times is not None
    assert (times.requests, times.inferences, times.executions, times.batches) == (200, 400, 100, {4: 7})
    assert (times.total_us, times.queue_us, times.compute_us) == pytest.approx((1000, 300, 690))
    assert times.mean_batch == 4


def test_littles_law_gives_the_requests_in_the_server():
    """200 requests of 1 ms each within 2 s are 0.1 in the server on average."""
    times = ServerTimes.between(ServerSnapshot.of([statistics(0)]), ServerSnapshot.of([statistics(200)]), 2.0)
    assert times is not None
    assert times.in_flight == pytest.approx(0.1)


def test_counters_that_fall_are_no_window():
    """A server that began anew in between has no times for the window."""
    assert ServerTimes.between(ServerSnapshot.of([statistics(9)]), ServerSnapshot.of([statistics(2)]), 1.0) is None


def test_a_snapshot_survives_the_pipe():
    """Batch sizes are numbers again on the other side."""
    snapshot = ServerSnapshot.of([statistics(3, batches={8: 2})])
    assert ServerSnapshot.from_json(snapshot.to_json()) == snapshot


def test_several_models_are_weighted_by_their_requests():
    """The times of a mix are the means over all requests; counts and requests in the server add up."""
    few, many = (
        ServerTimes.between(ServerSnapshot.of([statistics(0)]), ServerSnapshot.of([statistics(requests)]), 1.0)
        for requests in (100, 300)
    )
    assert few is not None
    assert many is not None
    whole = ServerTimes.together([few, many])
    assert whole is not None
    assert (whole.requests, whole.executions, whole.in_flight) == (400, 200, pytest.approx(0.4))
    assert whole.total_us == pytest.approx(1000)
    assert ServerTimes.together([]) is None
