"""The run as a curve over time, of a bounded number of points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any, Final

from naiad.loadtest._truth.gpu_use import GpuSample
from naiad.loadtest._truth.resources import ServerSample
from naiad.loadtest._truth.slots import SLOT_S, Slot
from naiad.loadtest.latencies import Latencies

__all__ = ["NOT_SENT", "Point", "points_of"]

NOT_SENT: Final = "NotSent"
"""The error of an arrival that found too many requests in flight and was never sent."""
_MAX_POINTS: Final = 240
_MIN_POINT_S: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A short stretch of the run; ``at_s`` is its middle, counted from the start of the window."""

    at_s: float
    warmup: bool
    """Whether it lies before the window."""
    offered_per_s: float
    """Requests that left, and those that should have."""
    throughput_per_s: float
    p50_us: float | None
    p99_us: float | None
    service_p99_us: float | None
    errors: int
    in_flight: int
    users: int
    server_cpu_cores: float | None = None
    server_rss_bytes: int | None = None
    gpu_share: float | None = None
    """The mean over the GPUs."""
    gpu_memory_busy_share: float | None = None
    """The mean over the GPUs."""
    gpu_memory_bytes: float | None = None
    """All GPUs together, as are power and PCIe."""
    gpu_power_w: float | None = None
    gpu_sm_mhz: float | None = None
    """The mean over the GPUs."""
    gpu_temperature_c: float | None = None
    """Of the hottest."""
    gpu_pcie_rx_bytes_per_s: float | None = None
    """To the GPUs."""
    gpu_pcie_tx_bytes_per_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


def points_of(
    slots: Sequence[Slot], samples: Sequence[ServerSample], start_s: float, end_s: float
) -> tuple[Point, ...]:
    """Return the points from the run's start to the end of its window, at most some 240 of them.

    No point lies on both sides of the window's start.
    """
    shown = [slot for slot in slots if slot.end_s <= end_s + SLOT_S / 2]
    width = max(round(_MIN_POINT_S / SLOT_S), -(-len(shown) // _MAX_POINTS))
    first = round(start_s / SLOT_S)
    stretches = groupby(enumerate(shown, -first), key=lambda numbered: numbered[0] // width)
    return tuple(_point([slot for _, slot in numbered], samples, start_s) for _, numbered in stretches)


def _point(slots: Sequence[Slot], samples: Sequence[ServerSample], start_s: float) -> Point:
    start_at_s, end_at_s = slots[0].start_s, slots[-1].end_s
    length_s, middle_s = end_at_s - start_at_s, (start_at_s + end_at_s) / 2
    latencies = Latencies.merged(slot.latencies for slot in slots)
    offered = sum(slot.sent + slot.errors.get(NOT_SENT, 0) for slot in slots)
    return Point(
        at_s=middle_s - start_s,
        warmup=middle_s < start_s,
        offered_per_s=offered / length_s,
        throughput_per_s=latencies.count / length_s,
        p50_us=latencies.percentile_us(50),
        p99_us=latencies.percentile_us(99),
        service_p99_us=Latencies.merged(slot.service for slot in slots).percentile_us(99),
        errors=sum(slot.failed for slot in slots),
        in_flight=slots[-1].in_flight,
        users=max(slot.users for slot in slots),
        **_server(samples, middle_s),  # type: ignore[arg-type]  # by name
    )


def _server(samples: Sequence[ServerSample], at_s: float) -> dict[str, object]:
    """Return what the server used between the two samples around a moment."""
    for before, after in pairwise(samples):
        if before.at_s <= at_s < after.at_s:
            return {
                "server_cpu_cores": _cores(before, after),
                "server_rss_bytes": after.rss_bytes,
                **_of_gpus(after.gpus),
            }
    return {}


def _of_gpus(gpus: Sequence[GpuSample]) -> dict[str, float | None]:
    return {
        "gpu_share": _together(fmean, gpus, "busy_share"),
        "gpu_memory_busy_share": _together(fmean, gpus, "memory_busy_share"),
        "gpu_memory_bytes": _together(sum, gpus, "memory_bytes"),
        "gpu_power_w": _together(sum, gpus, "power_w"),
        "gpu_sm_mhz": _together(fmean, gpus, "sm_mhz"),
        "gpu_temperature_c": _together(max, gpus, "temperature_c"),
        "gpu_pcie_rx_bytes_per_s": _together(sum, gpus, "pcie_rx_bytes_per_s"),
        "gpu_pcie_tx_bytes_per_s": _together(sum, gpus, "pcie_tx_bytes_per_s"),
    }


def _together(how: Callable[[list[float]], float], gpus: Sequence[GpuSample], name: str) -> float | None:
    known = [value for gpu in gpus if (value := getattr(gpu, name)) is not None]
    return how(known) if known else None


def _cores(before: ServerSample, after: ServerSample) -> float | None:
    if before.cpu_s is None or after.cpu_s is None:
        return None
    return max(0.0, after.cpu_s - before.cpu_s) / (after.at_s - before.at_s)
