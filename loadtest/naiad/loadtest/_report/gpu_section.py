"""The part of a run's page on the server's GPUs: what they did, what they drew, what the limit was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from naiad.loadtest._report.html import Child, Html, el
from naiad.loadtest._report.parts import card, facts, grid
from naiad.loadtest._report.units import show_bytes, show_count, show_joules, show_share

__all__ = ["GPU_COLUMNS", "gpus"]

Content = Mapping[str, Any]
GPU_COLUMNS: Final = (
    ("gpu_share", "GPU busy", show_share),
    ("requests_per_second_per_watt", "requests/s per W", show_count),
)
"""Of tables of runs, where one of them has a GPU: field, heading, how a value is written."""
_FIGURES: Final = (
    ("busy", "share of the time that some kernel ran", "busy_share", show_share),
    ("memory busy", "share of the time that its memory was read or written", "memory_busy_share", show_share),
    ("memory in use", "", "memory_bytes", show_bytes),
    ("power", "", "power_w", lambda value: f"{show_count(value)} W"),
    ("SM clock", "", "sm_mhz", lambda value: f"{value:,.0f} MHz"),
    ("memory clock", "", "memory_mhz", lambda value: f"{value:,.0f} MHz"),
    ("temperature", "", "temperature_c", lambda value: f"{value:.0f} °C"),
    ("PCIe, to the GPU", "", "pcie_rx_bytes_per_s", lambda value: f"{show_bytes(value)}/s"),
    ("PCIe, from the GPU", "", "pcie_tx_bytes_per_s", lambda value: f"{show_bytes(value)}/s"),
)
_NAMES: Final = {
    **{field: name for name, _, field, _ in _FIGURES},
    "own_memory_bytes": "memory of the server",
    "energy_j": "energy counter",
    "power_limit_w": "power limit",
    "slowed_by": "reasons of the clocks",
    "pcie_limit_bytes_per_s": "speed of the PCIe link",
}
_COLUMNS: Final = ("mean", "min", "p50", "p95", "max")
_SOURCES: Final = {"counter": "the GPU's energy counter", "samples": "samples of its power"}


def gpus(content: Content) -> Child:
    """Return the limit, the energy of a request and a table for each GPU; nothing without a GPU."""
    found = (content["results"]["resources"] or {}).get("gpus")
    if not found:
        return None
    return [_whole(content), [_one(gpu) for gpu in found]]


def _whole(content: Content) -> Html | None:
    cost, limit = content["cost"] or {}, content.get("limit")
    per_watt = cost.get("requests_per_second_per_watt")
    rows: list[tuple[str, Child]] = [
        ("limit", None if limit is None else f"{limit['kind']}: {limit['text']}"),
        ("energy of a request", _known(show_joules, cost.get("joules_per_request"))),
        ("… above idle", _known(show_joules, cost.get("joules_per_request_above_idle"))),
        ("requests/s per watt", _known(show_count, per_watt)),
    ]
    return card(facts(rows)) if any(value for _, value in rows) else None


def _one(gpu: Content) -> Html:
    figures = gpu.get("figures") or {}
    rows: list[list[Child]] = [
        [
            [name, el("div", meaning, class_="note") if meaning else None],
            *(show(figures[field][column]) for column in _COLUMNS),
        ]
        for name, meaning, field, show in _FIGURES
        if figures.get(field) is not None
    ]
    table = grid(("", *_COLUMNS), rows, numbers=range(1, len(_COLUMNS) + 1)) if rows else None
    return card(el("h3", f"GPU {gpu['index']}: {gpu['name']}"), table, facts(_facts(gpu)), class_="card spaced")


def _facts(gpu: Content) -> list[tuple[str, Child]]:
    source = _SOURCES.get(gpu.get("energy_source") or "")
    slowed = ", ".join(
        f"{name} ({show_share(share)} of the samples)" for name, share in gpu.get("slowed_by", {}).items()
    )
    energy = f"{show_joules(gpu['energy_j'])} ({_watts(gpu['power_w'])}), by {source}" if gpu.get("energy_j") else None
    return [
        ("energy over the window", energy),
        ("power before the load", _known(_watts, gpu.get("idle_power_w"))),
        ("power limit", _known(_watts, gpu.get("power_limit_w"))),
        ("memory", _known(show_bytes, gpu.get("memory_total_bytes"))),
        ("memory of the server", _known(show_bytes, gpu.get("own_memory_bytes"))),
        ("PCIe, of what the link carries", _known(show_share, gpu.get("pcie_share"))),
        ("clocks held down by", slowed or None),
        ("lost", "within the run: its figures end there" if gpu.get("lost") else None),
        *((f"no {_NAMES.get(name, name)}", reason) for name, reason in gpu.get("missing", {}).items()),
    ]


def _known(show: Any, value: float | None) -> str | None:
    return None if value is None else str(show(value))


def _watts(value: float) -> str:
    return f"{show_count(value)} W"
