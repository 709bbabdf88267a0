"""What a run says of itself, on the real server."""

import threading

import numpy as np
import pytest

from naiad.client import Client
from naiad.loadtest import Connection, LoadTest, Precision, Rate, Slo, Traffic, Users, run


@pytest.fixture
def others(triton):
    """Somebody else who asks the same model all the time."""
    stop = threading.Event()

    def ask():
        with Client(triton.grpc_url) as client:
            model = client.model("linear")
            while not stop.is_set():
                model(x=np.zeros((1, 8), np.float32))

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()


def ask_often(url, model, times):
    with Client(url) as client:
        for _ in range(times):
            client.model(model)(x=np.zeros((1, 8), np.float32))


def load_test(triton, **fields):
    plan = {"load": Rate(per_s=40), "warmup_s": 0.5, "duration_s": 1.5, **fields}
    return LoadTest(traffic=Traffic(model="linear"), connection=Connection(url=triton.grpc_url), **plan)


def test_requests_of_others_make_a_result_invalid(triton, others):
    """Far more requests in the server's counters than were sent: its load was not the one that was asked for."""
    report = run(load_test(triton), calibration=False)
    (doubt,) = [doubt for doubt in report.doubts if doubt.kind == "foreign_load"]
    assert doubt.invalid
    assert report.verdict == "invalid"
    assert report.measurement.counted.server > report.measurement.counted.client


def test_alone_both_sides_count_the_same(triton):
    """Every request from first to last is in the server's counters, and objectives are judged with intervals."""
    slos = tuple(map(Slo.parse, ("p50<9s", "goodput>50%", "errors<50%", "throughput>1/s")))
    report = run(load_test(triton, slos=slos), calibration=False)
    assert report.measurement.counted.client == report.measurement.counted.server > 40
    assert not [doubt for doubt in report.doubts if doubt.kind in {"foreign_load", "counts"}]
    assert [(slo.met, slo.proven) for slo in report.slos] == [(True, True)] * 4


def test_a_run_ends_when_the_percentile_is_known_or_says_that_it_is_not(triton):
    """The window grows until the wanted precision, at most as long as allowed; the report has how it came out."""
    precision = Precision(percentile=50, within=0.2)
    plan = load_test(triton, load=Users(users=4), duration_s=1, max_duration_s=6, precision=precision)
    report = run(plan, calibration=False)
    reached = report.precision
    assert reached is not None
    assert reached.looks >= 1
    if reached.reached:
        assert reached.reached_within <= 0.2
        low, high = report.measurement.interval("p50")
        assert (high - low) / (high + low) <= 0.2 + 1e-9
    else:
        assert report.measurement.window_s == pytest.approx(6, abs=0.3)


def test_a_server_that_began_anew_has_no_times_of_the_window(triton):
    """Counters of a model that was loaded again in between say nothing; the run does not break off."""
    plan = LoadTest(
        traffic=Traffic(model="reloaded"),
        load=Rate(per_s=40),
        connection=Connection(url=triton.grpc_url),
        warmup_s=0.5,
        duration_s=3,
    )
    ask_often(triton.grpc_url, "reloaded", 300)
    done = threading.Event()

    def reload(progress):
        if progress.phase == "window" and not done.is_set():
            done.set()
            with triton.client() as admin:
                admin.unload("reloaded")
                admin.load("reloaded")

    report = run(plan, calibration=False, on_progress=reload)
    assert done.is_set()
    assert (report.measurement.counted, report.measurement.server) == (None, None)
    assert "began_anew" in {doubt.kind for doubt in report.doubts}
    assert report.measurement.latencies.count > 0
