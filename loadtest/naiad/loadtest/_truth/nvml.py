"""The GPUs of this machine, through NVML (the package nvidia-ml-py)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from naiad.loadtest._truth.gpu_use import GpuSample
from naiad.loadtest._truth.gpu_visible import visible

__all__ = ["Driver"]

_SLOWED_BY: Final = {
    0x04: "power cap",  # SwPowerCap
    0x08: "hardware slowdown",  # HwSlowdown
    0x20: "temperature",  # SwThermalSlowdown
    0x40: "temperature (hardware)",  # HwThermalSlowdown
    0x80: "power brake",  # HwPowerBrakeSlowdown
}
"""Of nvmlClocksEventReasons; the others (idle, clocks that someone set, a display) are no trouble."""
_LANE_BYTES_PER_S: Final = {1: 250e6, 2: 500e6, 3: 985e6, 4: 1969e6, 5: 3938e6, 6: 7563e6}
"""What a PCIe lane carries each way after its line code, by generation."""
_MIG: Final = "the GPU is divided (MIG): NVML tells no utilisation of the whole"
_NO_OWN: Final = "NVML lists no process of the server: it computes on other GPUs, or its PIDs are another namespace's"
T = TypeVar("T")


@dataclass(kw_only=True, slots=True)
class _Device:
    index: int
    handle: Any
    name: str
    uuid: str
    divided: bool = False
    lost: bool = False
    missing: dict[str, str] = field(default_factory=dict)


class Driver:
    """NVIDIA's driver on this machine; ``environment`` and ``pids`` are the server's."""

    def __init__(
        self, nvml: Any, environment: Mapping[str, str] | None = None, pids: Callable[[], Collection[int]] = tuple
    ) -> None:
        self._nvml, self._pids = nvml, pids
        self._lost_codes = {nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED}
        self._devices = self._find(environment or {})
        # Counting what PCIe carries takes 40 ms of each GPU: all at once, a sample is of one moment.
        self._readers = ThreadPoolExecutor(max(len(self._devices), 1), "naiad-loadtest-gpu")

    @classmethod
    def open(
        cls, environment: Mapping[str, str] | None = None, pids: Callable[[], Collection[int]] = tuple
    ) -> Self | None:
        """Return the GPUs that the server may use; ``None`` without a driver or such a GPU."""
        try:
            import pynvml

            pynvml.nvmlInit()
        except (ImportError, OSError):
            return None
        except pynvml.NVMLError:  # no driver, no permission: a machine without GPUs is nothing to speak of
            return None
        try:
            found = cls(pynvml, environment, pids)
        except pynvml.NVMLError:
            pynvml.nvmlShutdown()
            return None
        if not found._devices:
            found.close()
            return None
        return found

    def _find(self, environment: Mapping[str, str]) -> list[_Device]:
        found = [self._device(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        named = [(device.uuid, device.name) for device in found]
        return [found[index] for index in visible(named, self._whole(environment))]

    def _device(self, index: int) -> _Device:
        nvml, device = self._nvml, _Device(index=index, handle=None, name=f"GPU {index}", uuid="")
        device.handle = handle = self._ask(device, "", lambda: nvml.nvmlDeviceGetHandleByIndex(index))
        device.lost = handle is None  # before the run: what it is called is not known either
        device.name = self._ask(device, "", lambda: _text(nvml.nvmlDeviceGetName(handle))) or device.name
        device.uuid = self._ask(device, "", lambda: _text(nvml.nvmlDeviceGetUUID(handle))) or ""
        mode = self._ask(device, "", lambda: nvml.nvmlDeviceGetMigMode(handle))
        device.divided = mode is not None and mode[0] == nvml.NVML_DEVICE_MIG_ENABLE
        device.missing.clear()
        return device

    def _whole(self, environment: Mapping[str, str]) -> Mapping[str, str]:
        """Return the environment with the GPUs themselves in place of their parts (MIG)."""
        named = environment.get("CUDA_VISIBLE_DEVICES", "")
        if "MIG-" not in named:
            return environment
        entries = [self._parent(entry.strip()) for entry in named.split(",")]
        return {**environment, "CUDA_VISIBLE_DEVICES": ",".join(entries)}

    def _parent(self, entry: str) -> str:
        nvml = self._nvml
        if not entry.startswith("MIG-"):
            return entry
        try:
            part = nvml.nvmlDeviceGetHandleByUUID(entry)
            return _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)))
        except nvml.NVMLError:
            return entry

    def read(self) -> list[GpuSample]:
        """Return each GPU as it is now; of one that the driver has lost, that it is lost."""
        return list(self._readers.map(self._sample, self._devices))

    def _sample(self, device: _Device) -> GpuSample:
        nvml, handle = self._nvml, device.handle

        def ask(name: str, question: Callable[[], T]) -> T | None:
            return self._ask(device, name, question)

        def clock(name: str, kind: int) -> float | None:
            return ask(name, lambda: float(nvml.nvmlDeviceGetClockInfo(handle, kind)))

        def pcie(name: str, way: int) -> float | None:
            return ask(name, lambda: nvml.nvmlDeviceGetPcieThroughput(handle, way) * 1e3)

        busy = ask("busy_share", lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        if device.divided and busy is None and not device.lost:
            device.missing["busy_share"] = _MIG
        memory = ask("memory_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        energy_j = ask("energy_j", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)
        at_s = time.perf_counter()
        own_bytes, num_foreign = self._processes(device)
        return GpuSample(
            index=device.index,
            name=device.name,
            uuid=device.uuid,
            at_s=at_s,
            busy_share=None if busy is None else busy.gpu / 100,
            memory_busy_share=None if busy is None else busy.memory / 100,
            memory_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            own_memory_bytes=own_bytes,
            num_foreign=num_foreign,
            energy_j=energy_j,
            power_w=ask("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1e3),
            power_limit_w=ask("power_limit_w", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3),
            sm_mhz=clock("sm_mhz", nvml.NVML_CLOCK_SM),
            memory_mhz=clock("memory_mhz", nvml.NVML_CLOCK_MEM),
            temperature_c=ask("temperature_c", lambda: self._temperature(handle)),
            slowed_by=ask("slowed_by", lambda: self._slowed_by(handle)),
            pcie_rx_bytes_per_s=pcie("pcie_rx_bytes_per_s", nvml.NVML_PCIE_UTIL_RX_BYTES),
            pcie_tx_bytes_per_s=pcie("pcie_tx_bytes_per_s", nvml.NVML_PCIE_UTIL_TX_BYTES),
            pcie_limit_bytes_per_s=ask("pcie_limit_bytes_per_s", lambda: self._link(handle)),
            lost=device.lost,
            missing=dict(device.missing),
        )

    def _processes(self, device: _Device) -> tuple[int | None, int | None]:
        """Return the memory of the server's processes, and how many others compute there."""
        nvml, own = self._nvml, set(self._pids())
        found = self._ask(device, "own_memory_bytes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(device.handle))
        if found is None:
            return None, None
        ours = [process.usedGpuMemory for process in found if process.pid in own]
        if not ours:
            device.missing["own_memory_bytes"] = _NO_OWN
            return None, None
        foreign = {process.pid for process in found} - own - {os.getpid()}
        known = [size for size in ours if size is not None]
        return (sum(known) if len(known) == len(ours) else None), len(foreign)

    def _temperature(self, handle: Any) -> float:
        nvml = self._nvml
        return float(
            self._first(
                lambda: nvml.nvmlDeviceGetTemperatureV(handle, nvml.NVML_TEMPERATURE_GPU),
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            )
        )

    def _slowed_by(self, handle: Any) -> tuple[str, ...]:
        nvml = self._nvml
        reasons = self._first(
            lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        return tuple(name for bit, name in _SLOWED_BY.items() if reasons & bit)

    def _link(self, handle: Any) -> float | None:
        nvml = self._nvml
        lane = _LANE_BYTES_PER_S.get(nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle))
        return None if lane is None else lane * nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)

    def _first(self, new: Callable[[], int], old: Callable[[], int]) -> int:
        """Ask by the function's new name, and by its old one where driver or package are too old for that."""
        try:
            return new()
        except AttributeError:
            return old()
        except self._nvml.NVMLError as exc:
            if exc.value != self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                raise
            return old()

    def _ask(self, device: _Device, name: str, question: Callable[[], T]) -> T | None:
        if device.lost:
            return None
        try:
            answer = question()
        except AttributeError as exc:  # of an older nvidia-ml-py
            device.missing[name] = str(exc)
            return None
        except self._nvml.NVMLError as exc:  # such as a GPU that does not tell its power
            device.missing[name] = str(exc)
            device.lost = exc.value in self._lost_codes
            return None
        device.missing.pop(name, None)
        return answer

    def close(self) -> None:
        """Let go of the driver."""
        self._readers.shutdown()
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:  # a driver that was unloaded has nothing to let go of
            return


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
