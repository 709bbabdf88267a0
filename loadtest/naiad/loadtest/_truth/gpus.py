"""The GPUs of the server: from the driver where it runs on this machine, else from Triton's metrics."""

from __future__ import annotations

import logging
import re
import time
import urllib.request
from collections.abc import Sequence
from typing import Final, Protocol

from naiad.loadtest._truth.gpu_use import GpuSample
from naiad.loadtest._truth.nvml import Driver
from naiad.loadtest._truth.processes import ServerProcesses

__all__ = ["Gpus", "open_gpus", "read_metrics"]

_TIMEOUT_S: Final = 1.0
_METRIC: Final = re.compile(
    r"^nv_(gpu_utilization|gpu_memory_total_bytes|gpu_memory_used_bytes|gpu_power_usage|gpu_power_limit"
    r'|energy_consumption)\{[^}]*gpu_uuid="([^"]*)"[^}]*\} (\S+)',
    re.M,
)
_log = logging.getLogger("naiad.loadtest")


class Gpus(Protocol):
    """Reads the GPUs of a server."""

    def read(self) -> Sequence[GpuSample]:
        """Return each GPU as it is now; nothing where it cannot be read."""

    def close(self) -> None:
        """Let go of the driver."""


def open_gpus(processes: ServerProcesses | None, metrics_url: str | None = None) -> Gpus | None:
    """Return what reads the server's GPUs; ``None`` where there are none, or none can be seen from here.

    ``processes`` are the server's, where it runs on this machine: its GPUs are then those of this machine that its
    ``CUDA_VISIBLE_DEVICES`` leaves it.
    """
    found = None if processes is None else Driver.open(processes.environment, lambda: processes.pids)
    if found is not None:
        return found
    if metrics_url is not None:
        return _Metrics(metrics_url)
    _log.debug("no GPU of the server is seen from here")
    return None


class _Metrics:
    def __init__(self, url: str) -> None:
        self._url = url

    def read(self) -> Sequence[GpuSample]:
        try:
            with urllib.request.urlopen(self._url, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # the plan takes http only
                return read_metrics(answer.read().decode("utf-8", "replace"), time.perf_counter())
        except (OSError, ValueError):
            return ()

    def close(self) -> None:
        pass


def read_metrics(text: str, at_s: float = 0.0) -> list[GpuSample]:
    """Return the GPUs that Triton's metrics tell of, in the order of their identifiers.

    Power, energy and memory of zero are what Triton writes where the driver does not tell: they are unknown.
    """
    found: dict[str, dict[str, float]] = {}
    for metric, uuid, value in _METRIC.findall(text):
        found.setdefault(uuid, {})[metric] = float(value)
    return [
        GpuSample(
            index=index,
            name="GPU",
            uuid=uuid,
            at_s=at_s,
            busy_share=metrics.get("gpu_utilization"),
            memory_bytes=_size(metrics.get("gpu_memory_used_bytes")),
            memory_total_bytes=_size(metrics.get("gpu_memory_total_bytes")),
            power_w=metrics.get("gpu_power_usage") or None,
            power_limit_w=metrics.get("gpu_power_limit") or None,
            energy_j=metrics.get("energy_consumption") or None,
        )
        for index, (uuid, metrics) in enumerate(sorted(found.items()))
    ]


def _size(value: float | None) -> int | None:
    return int(value) if value else None
