"""CSV files for spreadsheets and other programs: a heading line, a row for each point or percentile.

Units are in the names of the columns. A text that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

__all__ = ["PERCENTILE_COLUMNS", "POINT_COLUMNS", "SWEEP_COLUMNS", "percentiles_csv", "points_csv", "sweep_csv"]

POINT_COLUMNS: Final = (
    "at_s",
    "warmup",
    "offered_per_s",
    "throughput_per_s",
    "p50_us",
    "p99_us",
    "service_p99_us",
    "errors",
    "in_flight",
    "users",
    "server_cpu_cores",
    "server_rss_bytes",
    "gpu_share",
    "gpu_memory_busy_share",
    "gpu_memory_bytes",
    "gpu_power_w",
    "gpu_sm_mhz",
    "gpu_temperature_c",
    "gpu_pcie_rx_bytes_per_s",
    "gpu_pcie_tx_bytes_per_s",
)
PERCENTILE_COLUMNS: Final = ("percentile", "latency_us", "service_us")
SWEEP_COLUMNS: Final = (
    "value",
    "offered_per_s",
    "throughput_per_s",
    "inferences_per_s",
    "goodput_per_s",
    "mean_us",
    "p50_us",
    "p99_us",
    "queue_us",
    "compute_us",
    "mean_batch",
    "error_share",
    "requests",
    "valid",
    "met",
    "gpu_share",
    "requests_per_second_per_watt",
)
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def points_csv(content: Mapping[str, Any]) -> str:
    """Return the curves over time: ``model`` (empty: all together), then the fields of a point of ``report.json``."""
    rows = (
        [model, *(point.get(column) for column in POINT_COLUMNS)]
        for model, results in _results(content)
        for point in results["points"]
    )
    return _csv(("model", *POINT_COLUMNS), rows)


def percentiles_csv(content: Mapping[str, Any]) -> str:
    """Return latency (and, where it differs, service time) by percentile."""
    rows = []
    for model, results in _results(content):
        service = {point["percentile"]: point["latency_us"] for point in results["service_curve"]}
        rows += [
            [model, point["percentile"], point["latency_us"], service.get(point["percentile"])]
            for point in results["curve"]
        ]
    return _csv(("model", *PERCENTILE_COLUMNS), rows)


def sweep_csv(sweep: Mapping[str, Any]) -> str:
    """Return the runs of a sweep; ``value`` is in users, or in arrivals per second."""
    rows = ([point.get(column) for column in SWEEP_COLUMNS] for point in sweep["points"])
    return _csv(SWEEP_COLUMNS, rows)


def _results(content: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    parts = [(part["model"], part) for part in content["parts"]]
    return [("", content["results"]), *parts]


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # as RFC 4180 has it
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    text = value.encode(errors="replace").decode()  # halves of surrogate pairs are in no file
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
