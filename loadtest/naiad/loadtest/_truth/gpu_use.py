"""A GPU at one moment, and over the window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from statistics import fmean, quantiles
from typing import Any, Final, Literal, Self

__all__ = ["FIGURES", "GpuSample", "GpuUse", "Spread"]

FIGURES: Final = (
    "busy_share",
    "memory_busy_share",
    "memory_bytes",
    "power_w",
    "sm_mhz",
    "memory_mhz",
    "temperature_c",
    "pcie_rx_bytes_per_s",
    "pcie_tx_bytes_per_s",
)
"""What is summed up as a :class:`Spread`."""
IDLE_SHARE: Final = 0.05
"""Busy for less than this a GPU counts as idle: NVML's share is of whole per cents, and a display or a monitor's own
question makes one or two of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuSample:
    """A GPU at one moment; what is not told is ``None``, and ``missing`` says why."""

    index: int
    name: str
    busy_share: float | None
    """Of the driver's last sampling period, 0 to 1: some kernel ran, on however few of the GPU's processors."""
    memory_bytes: int | None
    power_w: float | None
    """Of the last second on most GPUs."""
    uuid: str = ""
    at_s: float = 0.0
    """When it was read, by a clock whose zero means nothing."""
    memory_busy_share: float | None = None
    """Of the same period: its memory was read or written."""
    memory_total_bytes: int | None = None
    own_memory_bytes: int | None = None
    """Of the server's processes."""
    energy_j: float | None = None
    """Since the driver was loaded: differences count."""
    power_limit_w: float | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    temperature_c: float | None = None
    slowed_by: tuple[str, ...] | None = None
    """Why its clocks are lower than they could be: ``"power cap"``, …; empty where nothing slows it."""
    pcie_rx_bytes_per_s: float | None = None
    """To the GPU, over the 20 ms that the driver takes to count."""
    pcie_tx_bytes_per_s: float | None = None
    pcie_limit_bytes_per_s: float | None = None
    """Of the link as it is now, each way."""
    num_foreign: int | None = None
    """Processes of others that compute on it; ``None`` where the server's own cannot be told from them."""
    lost: bool = False
    """Whether the driver has lost it: it fell off the bus, or must be reset."""
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A figure over the samples of the window."""

    mean: float
    min: float
    p50: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Sum up; ``None`` of nothing."""
        if not values:
            return None
        cuts = quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
        return cls(mean=fmean(values), min=min(values), p50=cuts[9], p95=cuts[18], max=max(values))


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuUse:
    """A GPU over the window: means, the most memory, and how far its figures spread."""

    index: int
    name: str
    busy_share: float | None
    memory_bytes: int | None
    power_w: float | None
    """The mean: of the energy counter where there is one, else of the samples."""
    uuid: str = ""
    memory_total_bytes: int | None = None
    own_memory_bytes: int | None = None
    """The most that the server's processes had."""
    power_limit_w: float | None = None
    idle_power_w: float | None = None
    """Before the load began, with the models loaded; ``None`` where the GPU was not idle then."""
    energy_j: float | None = None
    """Over the window."""
    energy_source: Literal["counter", "samples"] | None = None
    pcie_share: float | None = None
    """The busier way's mean over what the link carries."""
    slowed_by: Mapping[str, float] = field(default_factory=dict)
    """Share of the samples in which this held the clocks down, by reason."""
    sm_clock_ratio: float | None = None
    """Mean SM clock of the window's second half over that of its first."""
    num_foreign: int | None = None
    """The most processes of others that computed on it."""
    lost: bool = False
    figures: Mapping[str, Spread | None] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why a figure is not known."""

    @classmethod
    def of(cls, seen: Sequence[GpuSample], window_s: float = 0.0, before: Sequence[GpuSample] = ()) -> Self:
        """Sum up the samples of a window of one GPU; those ``before`` the load tell its idle power."""
        figures = {name: Spread.of(_known(seen, name)) for name in FIGURES}
        busy = figures["busy_share"]
        power_w, source = _power(seen)
        return cls(
            index=seen[0].index,
            name=seen[0].name,
            uuid=seen[0].uuid,
            busy_share=None if busy is None else busy.mean,
            memory_bytes=_most(seen, "memory_bytes"),
            memory_total_bytes=_most(seen, "memory_total_bytes"),
            own_memory_bytes=_most(seen, "own_memory_bytes"),
            power_w=power_w,
            power_limit_w=next((gpu.power_limit_w for gpu in reversed(seen) if gpu.power_limit_w is not None), None),
            idle_power_w=_idle_power_w(before),
            energy_j=None if power_w is None or not window_s else power_w * window_s,
            energy_source=source,
            pcie_share=_pcie_share(seen, figures),
            slowed_by=_slowed_by(seen),
            sm_clock_ratio=_ratio_of_halves(_known(seen, "sm_mhz")),
            num_foreign=_most(seen, "num_foreign"),
            lost=any(gpu.lost for gpu in seen),
            figures=figures,
            missing=dict(seen[-1].missing),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return {
            **asdict(self),
            "figures": {name: None if (one := self.figures.get(name)) is None else asdict(one) for name in FIGURES},
        }


def _known(seen: Sequence[GpuSample], name: str) -> list[float]:
    return [value for gpu in seen if (value := getattr(gpu, name)) is not None]


def _most(seen: Sequence[GpuSample], name: str) -> int | None:
    return max((int(value) for value in _known(seen, name)), default=None)


def _power(seen: Sequence[GpuSample]) -> tuple[float | None, Literal["counter", "samples"] | None]:
    """Return the mean power, by the energy counter where it rose, and where it comes from."""
    counted = [(gpu.at_s, gpu.energy_j) for gpu in seen if gpu.energy_j is not None]
    if len(counted) > 1:
        length_s, energy_j = (last - first for first, last in zip(counted[0], counted[-1], strict=True))
        rising = all(before[1] <= after[1] for before, after in pairwise(counted))
        if length_s > 0 and energy_j > 0 and rising:  # a driver that is loaded anew begins at zero
            return energy_j / length_s, "counter"
    sampled = [(gpu.at_s, gpu.power_w) for gpu in seen if gpu.power_w is not None]
    if not sampled:
        return None, None
    length_s = sampled[-1][0] - sampled[0][0]
    if length_s <= 0:
        return fmean(power_w for _, power_w in sampled), "samples"
    trapezoids = ((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(sampled))
    return sum(trapezoids) / length_s, "samples"


def _idle_power_w(before: Sequence[GpuSample]) -> float | None:
    idle = [
        gpu.power_w
        for gpu in before
        if gpu.power_w is not None and gpu.busy_share is not None and gpu.busy_share <= IDLE_SHARE
    ]
    return fmean(idle) if idle else None


def _pcie_share(seen: Sequence[GpuSample], figures: Mapping[str, Spread | None]) -> float | None:
    limit = max(_known(seen, "pcie_limit_bytes_per_s"), default=0.0)  # an idle link is slower than a busy one
    ways = [way.mean for name in ("pcie_rx_bytes_per_s", "pcie_tx_bytes_per_s") if (way := figures[name]) is not None]
    return max(ways) / limit if limit and ways else None


def _slowed_by(seen: Sequence[GpuSample]) -> dict[str, float]:
    told = [gpu.slowed_by for gpu in seen if gpu.slowed_by is not None]
    names = dict.fromkeys(name for reasons in told for name in reasons)
    return {name: sum(name in reasons for reasons in told) / len(told) for name in names}


def _ratio_of_halves(values: Sequence[float]) -> float | None:
    half = len(values) // 2
    if half < 2 or not fmean(values[:half]):
        return None
    return fmean(values[-half:]) / fmean(values[:half])
