"""The GPUs of the server: from the driver where it runs on this machine, else from Triton's metrics."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from naiad.loadtest._truth.resources import GpuSample

__all__ = ["Driver", "Gpus", "open_gpus", "read_metrics"]

_TIMEOUT_S: Final = 1.0
_METRIC: Final = re.compile(
    r'^nv_gpu_(utilization|memory_used_bytes|power_usage)\{[^}]*gpu_uuid="([^"]*)"[^}]*\} (\S+)', re.M
)
T = TypeVar("T")


class Gpus(Protocol):
    """Reads all GPUs of a machine."""

    def read(self) -> Sequence[GpuSample]:
        """Return each GPU as it is now; nothing where it cannot be read."""

    def close(self) -> None:
        """Let go of the driver."""


def open_gpus(*, local: bool, metrics_url: str | None = None) -> Gpus | None:
    """Return what reads the server's GPUs; ``None`` where there are none, or none can be seen from here."""
    if metrics_url is not None:
        return _Metrics(metrics_url)
    return Driver.open() if local else None


class Driver:
    """NVIDIA's driver on this machine, through NVML."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._names = [_text(nvml.nvmlDeviceGetName(device)) for device in self._devices]

    @classmethod
    def open(cls) -> Driver | None:
        """Return the GPUs of this machine; ``None`` without a driver or a GPU."""
        try:
            import pynvml

            pynvml.nvmlInit()
        except (ImportError, OSError):
            return None
        except pynvml.NVMLError:  # no driver, no permission: a machine without GPUs is nothing to speak of
            return None
        found = cls(pynvml)
        if not found._devices:
            found.close()
            return None
        return found

    def read(self) -> list[GpuSample]:
        """Return each GPU as it is now."""
        return [self._sample(index, device) for index, device in enumerate(self._devices)]

    def _sample(self, index: int, device: Any) -> GpuSample:
        nvml = self._nvml
        return GpuSample(
            index=index,
            name=self._names[index],
            busy_share=self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100),
            memory_bytes=self._ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(device).used)),
            power_w=self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(device) / 1000),
        )

    def _ask(self, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except self._nvml.NVMLError:  # such as a GPU that does not tell its power
            return None

    def close(self) -> None:
        """Let go of the driver."""
        self._ask(self._nvml.nvmlShutdown)


class _Metrics:
    def __init__(self, url: str) -> None:
        self._url = url

    def read(self) -> Sequence[GpuSample]:
        try:
            with urllib.request.urlopen(self._url, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # the plan takes http only
                return read_metrics(answer.read().decode("utf-8", "replace"))
        except (OSError, ValueError):
            return ()

    def close(self) -> None:
        pass


def read_metrics(text: str) -> list[GpuSample]:
    """Return the GPUs that Triton's metrics tell of, in the order of their identifiers."""
    found: dict[str, dict[str, float]] = {}
    for metric, uuid, value in _METRIC.findall(text):
        found.setdefault(uuid, {})[metric] = float(value)
    return [
        GpuSample(
            index=index,
            name="GPU",
            busy_share=metrics.get("utilization"),
            memory_bytes=None if "memory_used_bytes" not in metrics else int(metrics["memory_used_bytes"]),
            power_w=metrics.get("power_usage"),
        )
        for index, (_, metrics) in enumerate(sorted(found.items()))
    ]


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
