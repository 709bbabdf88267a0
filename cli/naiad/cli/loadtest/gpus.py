"""The lines of a report in a terminal that are about the server's GPUs; without one there are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from naiad.cli.loadtest.figures import energy, memory, number, share

__all__ = ["GPU_COLUMNS", "gpu_rows"]

GPU_COLUMNS: Final = (("gpu_share", "GPU busy", share), ("requests_per_second_per_watt", "req/s per W", number))
"""Of tables of runs, where one of them has a GPU: field, heading, how a value is written."""
Content = Mapping[str, Any]


def gpu_rows(content: Content) -> Iterator[tuple[str, str]]:
    """Yield a line for each GPU, the energy of a request, and what the limit was."""
    found = (content["results"]["resources"] or {}).get("gpus") or ()
    for gpu in found:
        yield f"GPU {gpu['index']}", " · ".join([gpu["name"], *_figures(gpu)])
    cost, limit = content.get("cost") or {}, content.get("limit")
    if found and cost.get("joules_per_request") is not None:
        yield "energy", " · ".join(_energy(cost))
    if limit is not None:
        yield "limit", f"{limit['kind']}: {limit['text']}"


def _figures(gpu: Content) -> Iterator[str]:
    figures = gpu.get("figures") or {}
    mean = {name: spread["mean"] for name, spread in figures.items() if spread is not None}
    if gpu["busy_share"] is not None:
        yield f"{gpu['busy_share']:.0%} busy"
    if gpu["memory_bytes"] is not None:
        total = gpu.get("memory_total_bytes")
        yield memory(gpu["memory_bytes"]) + (f" of {memory(total)}" if total else "")
    if gpu["power_w"] is not None:
        yield f"{number(gpu['power_w'])} W"
    if "sm_mhz" in mean:
        yield f"{mean['sm_mhz']:,.0f} MHz"
    if "temperature_c" in mean:
        yield f"{mean['temperature_c']:.0f} °C"
    ways = [memory(mean[f"pcie_{way}_bytes_per_s"]) for way in ("rx", "tx") if f"pcie_{way}_bytes_per_s" in mean]
    if len(ways) == 2:
        yield f"PCIe {ways[0]}/s in, {ways[1]}/s out"
    if gpu.get("lost"):
        yield "lost within the run"


def _energy(cost: Content) -> Iterator[str]:
    yield f"{energy(cost['joules_per_request'])} per request"
    if cost.get("joules_per_request_above_idle") is not None:
        yield f"{energy(cost['joules_per_request_above_idle'])} above idle"
    yield f"{number(cost['requests_per_second_per_watt'])} requests/s per W"
