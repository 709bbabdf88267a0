"""The results as the report has them; docs/loadtest.md describes the fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from naiad.loadtest._truth.slots import merge
from naiad.loadtest.latencies import Latencies

if TYPE_CHECKING:
    from naiad.loadtest._truth.measurement import Measurement

__all__ = ["INTERVALS", "PERCENTILES", "breakdown_us", "results"]

PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
INTERVALS: Final = ("p50", "p90", "p95", "p99", "p99.9", "mean", "throughput", "inferences", "errors", "goodput")
_NUM_BINS: Final = 60


def results(measurement: Measurement) -> dict[str, Any]:
    """Return the whole, or a part of it."""
    return {
        **_counts(measurement),
        "latency_us": _times(measurement.latencies),
        "service_us": _times(measurement.service),
        "lag_us": _times(measurement.lag),
        "first_response_us": _times(measurement.first_response) if measurement.first_response.count else None,
        "between_responses_us": _times(measurement.between_responses) if measurement.between_responses.count else None,
        "intervals": {metric: measurement.interval(metric) for metric in INTERVALS},
        "errors": {
            name: {"count": count, "example": measurement.examples.get(name, "")}
            for name, count in measurement.errors.items()
        },
        "generator": _generator(measurement),
        "counted": None if measurement.counted is None else measurement.counted.to_json(),
        "server": None if measurement.server is None else measurement.server.to_json(),
        "breakdown_us": breakdown_us(measurement),
        **({"steps": [], "between_steps": None} if measurement.steps is None else measurement.steps.to_json()),
        "resources": None if measurement.resources is None else measurement.resources.to_json(),
        **_curves(measurement),
    }


def breakdown_us(measurement: Measurement) -> dict[str, float] | None:
    """Return where the mean latency of the window went, in µs, step by step; ``None`` where the server does not say.

    ``network_and_grpc`` is what is left of the time since a request left: both ends' gRPC, the way there and back, and
    the client's own handling; the report's calibration says how much of it there is with a server that does nothing.
    """
    server, window = measurement.server, merge(measurement.in_window) if measurement.in_window else None
    if server is None or not server.requests or window is None:
        return None
    latency_us, service_us = window.latencies.mean_us, window.service.mean_us
    if latency_us is None or service_us is None:
        return None
    return {
        "generator": max(0.0, latency_us - service_us),
        "network_and_grpc": max(0.0, service_us - server.total_us),
        "queue": server.queue_us,
        "compute_input": server.compute_input_us,
        "compute_infer": server.compute_infer_us,
        "compute_output": server.compute_output_us,
        "server_other": max(0.0, server.total_us - server.queue_us - server.compute_us),
    }


def _counts(measurement: Measurement) -> dict[str, Any]:
    window_s = measurement.window_s
    return {
        "window_s": window_s,
        "users": measurement.users or None,
        "rows_per_request": measurement.rows_per_request,
        "requests": measurement.latencies.count + measurement.failed,
        "sent": measurement.sent,
        "completed": measurement.completed,
        "failed": measurement.failed,
        "responses": measurement.responses,
        "offered_per_s": None if measurement.users or not window_s else measurement.offered / window_s,
        "throughput_per_s": measurement.throughput,
        "inferences_per_s": measurement.inferences,
        "responses_per_s": measurement.responses / window_s if window_s else 0.0,
        "goodput_per_s": measurement.goodput(measurement.slos),
        "goodput_share": measurement.goodput_share(measurement.slos),
        "error_share": measurement.error_share,
    }


def _times(latencies: Latencies) -> dict[str, Any]:
    return {
        "count": latencies.count,
        "mean": latencies.mean_us,
        **{f"p{percentile:g}": latencies.percentile_us(percentile) for percentile in PERCENTILES},
        "max": latencies.max_us,
    }


def _generator(measurement: Measurement) -> dict[str, Any]:
    return {
        "cpu_share": measurement.cpu_share,
        "engines": len(measurement.cpu_shares),
        "in_flight": measurement.in_flight,
        "in_flight_in_server": None if measurement.server is None else measurement.server.in_flight,
    }


def _curves(measurement: Measurement) -> dict[str, Any]:
    same = measurement.service == measurement.latencies
    return {
        "curve": _curve(measurement.latencies),
        "service_curve": [] if same else _curve(measurement.service),
        "bins": _bins(measurement.latencies),
        "points": [point.to_json() for point in measurement.points],
        "histogram": measurement.latencies.encode(),
    }


def _curve(latencies: Latencies) -> list[dict[str, float]]:
    return [{"percentile": percentile, "latency_us": latency_us} for percentile, latency_us in latencies.curve()]


def _bins(latencies: Latencies) -> list[dict[str, float]]:
    """Return the latencies in bins of equal ratio: what a bar chart on a logarithmic axis shows."""
    found = list(latencies.counts())
    if not found:
        return []
    values, counts = np.array(found, np.float64).T
    edges = np.geomspace(max(values[0] - 1, 0.5), values[-1], min(_NUM_BINS, len(found)) + 1)
    where = np.searchsorted(edges, values, side="left").clip(1, len(edges) - 1)
    sums = np.bincount(where - 1, weights=counts, minlength=len(edges) - 1)
    return [
        {"from_us": float(edges[bin_]), "to_us": float(edges[bin_ + 1]), "count": int(sums[bin_])}
        for bin_ in range(len(sums))
    ]
