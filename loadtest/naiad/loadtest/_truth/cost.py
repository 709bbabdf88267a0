"""What the measured rate costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from naiad.loadtest._truth.gpu_use import GpuUse
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest.slo import Slo

__all__ = ["Cost", "energy_uj"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Requests per second for each part of the server, and money for each million requests; ``None`` if unknown."""

    requests_per_s_per_core: float | None
    """For each core of the server's machine, used or not."""
    requests_per_s_per_core_used: float | None
    """For each core's worth of CPU time that the server's processes used."""
    requests_per_s_per_gpu: float | None
    requests_per_second_per_watt: float | None
    """For each watt that the server's GPUs drew."""
    joules_per_request: float | None
    """Of the GPUs."""
    joules_per_request_above_idle: float | None
    """Without what they draw with nothing to do."""
    price_per_hour: float | None
    per_million_requests: float | None
    """At the measured rate."""
    per_million_good_requests: float | None
    """At the rate of those requests that were within the limits of the objectives on latency."""

    @classmethod
    def of(
        cls,
        measurement: Measurement,
        price_per_hour: float | None,
        num_cores: int | None,
        slos: Iterable[Slo] = (),
    ) -> Self:
        """Return what ``measurement`` costs; ``num_cores`` is of the server's machine, if known."""
        rate, used = measurement.throughput, measurement.resources
        return cls(
            requests_per_s_per_core=rate / num_cores if num_cores and used is not None and used.cpu_cores else None,
            requests_per_s_per_core_used=rate / used.cpu_cores if used is not None and used.cpu_cores else None,
            requests_per_s_per_gpu=rate / len(used.gpus) if used is not None and used.gpus else None,
            **_energy(rate, () if used is None else used.gpus),
            price_per_hour=price_per_hour,
            per_million_requests=_per_million(price_per_hour, rate),
            per_million_good_requests=_per_million(price_per_hour, measurement.goodput(slos)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


def energy_uj(measurement: Measurement) -> float | None:
    """Return what a request takes of the GPUs, in µJ, as it is compared; ``None`` where it is not known."""
    joules = Cost.of(measurement, None, None).joules_per_request
    return None if joules is None else joules * 1e6


def _energy(rate_per_s: float, gpus: Sequence[GpuUse]) -> dict[str, float | None]:
    """Return what a request takes of all GPUs; unknown where the power of one is."""
    power_w = _sum(gpu.power_w for gpu in gpus)
    idle_w = _sum(gpu.idle_power_w for gpu in gpus)
    per_request = power_w / rate_per_s if power_w and rate_per_s else None
    above = None if per_request is None or idle_w is None else max(0.0, per_request - idle_w / rate_per_s)
    return {
        "requests_per_second_per_watt": None if per_request is None else 1 / per_request,
        "joules_per_request": per_request,
        "joules_per_request_above_idle": above,
    }


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if found and len(known) == len(found) else None


def _per_million(price_per_hour: float | None, rate_per_s: float | None) -> float | None:
    if price_per_hour is None or not rate_per_s:
        return None
    return price_per_hour / 3600 / rate_per_s * 1e6
