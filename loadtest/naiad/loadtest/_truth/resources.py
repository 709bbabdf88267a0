"""What the server used: CPU time, memory and GPUs, sampled while it was under load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from naiad.loadtest._data.pipeline import Key
from naiad.loadtest._truth.gpu_use import GpuSample, GpuUse
from naiad.loadtest._truth.server_times import ServerSnapshot

__all__ = ["GpuSample", "GpuUse", "Resources", "ServerSample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSample:
    """The server at one moment, in seconds since the run's start."""

    at_s: float
    snapshots: Mapping[int | Key, ServerSnapshot]
    """Triton's counters: of each tested model by the traffic's index in the mix, of those that they call by name and
    version; empty where the server did not answer."""
    cpu_s: float | None = None
    """CPU time that the server's processes have used so far; ``None`` where they cannot be seen."""
    rss_bytes: int | None = None
    num_threads: int | None = None
    gpus: Sequence[GpuSample] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What the server's processes used within the window; ``None`` where it cannot be seen from here."""

    cpu_cores: float | None
    """CPU time over wall time: 1 is one core, busy throughout."""
    cpu_us_per_request: float | None
    rss_bytes: int | None
    """The most; pages that processes share count in each."""
    num_threads: int | None
    gpus: Sequence[GpuUse] = field(default_factory=tuple)
    """Those that the server may use, whoever used them."""

    @classmethod
    def of(
        cls,
        samples: Sequence[ServerSample],
        requests_per_s: float,
        *,
        window_s: float = 0.0,
        before: Sequence[ServerSample] = (),
    ) -> Self | None:
        """Sum up the samples of a window, and those ``before`` the load; ``None`` where nothing was seen."""
        seen = [sample for sample in samples if sample.cpu_s is not None]
        gpus = _gpus(samples, before, window_s)
        if not seen and not gpus:
            return None
        cores = _cores(seen)
        return cls(
            cpu_cores=cores,
            cpu_us_per_request=cores / requests_per_s * 1e6 if cores is not None and requests_per_s else None,
            rss_bytes=max((sample.rss_bytes for sample in seen if sample.rss_bytes is not None), default=None),
            num_threads=max((sample.num_threads for sample in seen if sample.num_threads is not None), default=None),
            gpus=gpus,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return {**asdict(self), "local": self.cpu_cores is not None, "gpus": [gpu.to_json() for gpu in self.gpus]}


def _cores(seen: Sequence[ServerSample]) -> float | None:
    if len(seen) < 2 or seen[-1].at_s <= seen[0].at_s:
        return None
    assert seen[0].cpu_s is not None
    assert seen[-1].cpu_s is not None
    return (seen[-1].cpu_s - seen[0].cpu_s) / (seen[-1].at_s - seen[0].at_s)


def _gpus(samples: Sequence[ServerSample], before: Sequence[ServerSample], window_s: float) -> tuple[GpuUse, ...]:
    seen, idle = _by_index(samples), _by_index(before)
    return tuple(GpuUse.of(one, window_s, idle.get(index, ())) for index, one in sorted(seen.items()))


def _by_index(samples: Sequence[ServerSample]) -> dict[int, list[GpuSample]]:
    found: dict[int, list[GpuSample]] = {}
    for sample in samples:
        for gpu in sample.gpus:
            found.setdefault(gpu.index, []).append(gpu)
    return found
