"""What kept a server with GPUs from answering more: named only where a figure is close to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from naiad.loadtest._truth.gpu_use import GpuUse
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest._truth.validity import GENERATOR_KINDS, SATURATED_CPU_SHARE

__all__ = ["Limit", "limit_of"]

GPU_BUSY_SHARE: Final = 0.9
"""Some kernel ran in nine tenths of the time: what is left are gaps between batches, of which 5 to 10 % remain also
where requests wait all the time."""
PCIE_SHARE: Final = 0.7
"""Headers of packets take 10 to 20 % of what a link carries, and the driver counts 20 ms of a second: a mean above
seven tenths leaves no room to speak of."""
MEMORY_BUSY_SHARE: Final = 0.8
"""The memory was read or written in four fifths of the time, though kernels did not run for as long: it was copied."""
SERVER_CPU_SHARE: Final = 0.9
"""Of all cores of the machine, which the load generator shares where it runs there."""

Kind = Literal["gpu compute", "copies", "client", "server cpu", "unknown"]
Figure = tuple[float, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What the limit was, and the figures that say so; ``None`` is not known."""

    kind: Kind
    text: str
    gpu_busy_share: float | None
    """Of the busiest GPU, as are the next two."""
    memory_busy_share: float | None
    pcie_share: float | None
    generator_cpu_share: float
    server_cpu_share: float | None
    """Of all cores of the server's machine."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as the report has them."""
        return asdict(self)


def limit_of(measurement: Measurement, doubt_kinds: Iterable[str], num_cores: int) -> Limit | None:
    """Judge a window; ``None`` without a GPU. ``num_cores`` are this machine's, ``doubt_kinds`` of what is invalid."""
    used = measurement.resources
    if used is None or not used.gpus or not measurement.latencies.count:
        return None
    case = _Case(
        busy=_most(used.gpus, lambda gpu: gpu.busy_share),
        memory=_most(used.gpus, _memory_busy_share),
        pcie=_most(used.gpus, lambda gpu: gpu.pcie_share),
        generator=measurement.cpu_share,
        starved=not GENERATOR_KINDS.isdisjoint(doubt_kinds) or measurement.cpu_share > SATURATED_CPU_SHARE,
        server=used.cpu_cores / num_cores if used.cpu_cores is not None and num_cores else None,
    )
    kind, text = case.judge()
    return Limit(
        kind=kind,
        text=text,
        gpu_busy_share=case.busy[0] if case.busy else None,
        memory_busy_share=case.memory[0] if case.memory else None,
        pcie_share=case.pcie[0] if case.pcie else None,
        generator_cpu_share=case.generator,
        server_cpu_share=case.server,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """The figures that decide; those of a GPU with its name."""

    busy: Figure | None
    memory: Figure | None
    pcie: Figure | None
    generator: float
    starved: bool
    """Whether the load generator could not send more."""
    server: float | None

    def judge(self) -> tuple[Kind, str]:
        """Return the limit: a GPU that works all the time had enough to do, whatever else is busy."""
        busy, memory, pcie = self.busy, self.memory, self.pcie
        computes = busy is not None and busy[0] >= GPU_BUSY_SHARE
        copies = pcie is not None and pcie[0] >= PCIE_SHARE
        if computes and copies:
            return "unknown", f"{self._busy()} and {self._pcie()}: either may be the limit"
        if computes:
            return "gpu compute", f"{self._busy()} ({GPU_BUSY_SHARE:.0%} or more)"
        if self.starved:
            return "client", f"an engine of the load generator used {self.generator:.0%} of a core: it sent too little"
        if copies:
            return "copies", f"{self._pcie()} ({PCIE_SHARE:.0%} or more)"
        if busy is not None and memory is not None and memory[0] >= MEMORY_BUSY_SHARE:
            return "copies", f"the memory of {memory[1]} was busy {memory[0]:.0%} of the time; {self._busy()}"
        if self.server is not None and self.server >= SERVER_CPU_SHARE:
            return "server cpu", f"the server used {self.server:.0%} of the machine's cores"
        return "unknown", f"nothing that is seen from here was near its end ({', '.join(self._shown())})"

    def _busy(self) -> str:
        assert self.busy is not None
        return f"{self.busy[1]} was busy {self.busy[0]:.0%} of the time"

    def _pcie(self) -> str:
        assert self.pcie is not None
        return f"PCIe of {self.pcie[1]} carried {self.pcie[0]:.0%} of its most"

    def _shown(self) -> Iterator[str]:
        for name, figure in (("GPU busy", self.busy), ("PCIe", self.pcie), ("GPU memory busy", self.memory)):
            if figure is not None:
                yield f"{name} {figure[0]:.0%}"
        yield f"generator {self.generator:.0%}"
        if self.server is not None:
            yield f"server CPU {self.server:.0%}"


def _most(gpus: Sequence[GpuUse], figure: Callable[[GpuUse], float | None]) -> Figure | None:
    """Return the figure of the GPU that has the most of it, and the GPU's name."""
    known = [(value, f"GPU {gpu.index}") for gpu in gpus if (value := figure(gpu)) is not None]
    return max(known, key=lambda one: one[0], default=None)


def _memory_busy_share(gpu: GpuUse) -> float | None:
    found = gpu.figures.get("memory_busy_share")
    return None if found is None else found.mean
