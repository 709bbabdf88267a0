"""What the GPU says of itself while something runs: utilisation, power, memory, clock."""

from __future__ import annotations

import statistics
import threading
from types import TracebackType
from typing import Any, Self

_EVERY_S = 0.05


class Watch:
    """Samples one GPU in a thread, from `settle_s` after the block begins to its end; without NVML it finds nothing.

    The driver's own utilisation is a mean over up to a second: the first ones are about what was before.
    """

    def __init__(self, uuid: str | None, *, settle_s: float) -> None:
        self._uuid, self._settle_s = uuid, settle_s
        self._samples: list[tuple[float, float, float, float]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = _handle(pynvml, self._uuid)
        except Exception:  # noqa: BLE001 - no binding, no library or no such GPU: there is nothing to sample
            return self
        self._thread = threading.Thread(target=self._sample, args=(pynvml, handle), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def summary(self) -> dict[str, float] | None:
        """Return mean utilisation (0 to 1), power in W, the most memory in bytes and SM clock in MHz; None without."""
        if not self._samples:
            return None
        busy, power, memory, clock = zip(*self._samples, strict=True)
        return {
            "utilisation": round(statistics.fmean(busy), 4),
            "power_w": round(statistics.fmean(power), 1),
            "memory_bytes": max(memory),
            "sm_clock_mhz": round(statistics.fmean(clock)),
        }

    def _sample(self, pynvml: Any, handle: Any) -> None:
        if self._stop.wait(self._settle_s):
            return
        while not self._stop.wait(_EVERY_S):
            try:
                sample = (
                    pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
                    pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                    float(pynvml.nvmlDeviceGetMemoryInfo(handle).used),
                    float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
                )
            except pynvml.NVMLError:
                return
            self._samples.append(sample)


def _handle(pynvml: Any, uuid: str | None) -> Any:
    if uuid is not None:
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return pynvml.nvmlDeviceGetHandleByIndex(0)
