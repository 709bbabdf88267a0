"""What kept a server with GPUs from answering more: named only where a figure is close to its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    busy, memory, pcie = _most(used.gpus, "busy"), _most(used.gpus, "memory"), _most(used.gpus, "pcie")
    server = used.cpu_cores / num_cores if used.cpu_cores is not None and num_cores else None
    kind, text = _judge(
        busy=busy,
        memory=memory,
        pcie=pcie,
        generator=measurement.cpu_share,
        generator_invalid=not GENERATOR_KINDS.isdisjoint(doubt_kinds),
        server=server,
    )
    return Limit(
        kind=kind,
        text=text,
        gpu_busy_share=busy,
        memory_busy_share=memory,
        pcie_share=pcie,
        generator_cpu_share=measurement.cpu_share,
        server_cpu_share=server,
    )


def _judge(
    *,
    busy: float | None,
    memory: float | None,
    pcie: float | None,
    generator: float,
    generator_invalid: bool,
    server: float | None,
) -> tuple[Kind, str]:
    computes = busy is not None and busy >= GPU_BUSY_SHARE
    by_pcie = pcie is not None and pcie >= PCIE_SHARE
    by_memory = memory is not None and memory >= MEMORY_BUSY_SHARE
    if computes and by_pcie:
        return "unknown", f"the GPU was busy {busy:.0%} of the time and PCIe carried {pcie:.0%} of its most: either"
    if computes:
        return "gpu compute", f"the GPU was busy {busy:.0%} of the time ({GPU_BUSY_SHARE:.0%} or more)"
    if generator_invalid or generator > SATURATED_CPU_SHARE:
        return "client", f"an engine of the load generator used {generator:.0%} of a core: the server had too little"
    if by_pcie:
        return "copies", f"PCIe carried {pcie:.0%} of its most ({PCIE_SHARE:.0%} or more)"
    if by_memory and busy is not None:
        return "copies", f"the GPU's memory was busy {memory:.0%} of the time, its processors {busy:.0%}"
    if server is not None and server >= SERVER_CPU_SHARE:
        return "server cpu", f"the server used {server:.0%} of the machine's cores ({SERVER_CPU_SHARE:.0%} or more)"
    shown = [
        f"{name} {share:.0%}"
        for name, share in (
            ("GPU busy", busy),
            ("PCIe", pcie),
            ("GPU memory busy", memory),
            ("generator", generator),
            ("server CPU", server),
        )
        if share is not None
    ]
    return "unknown", f"nothing that is seen from here was near its end ({', '.join(shown)})"


def _most(gpus: Sequence[GpuUse], what: Literal["busy", "memory", "pcie"]) -> float | None:
    """Return the figure of the GPU that has the most of it."""
    known: list[float] = []
    for gpu in gpus:
        memory = gpu.figures.get("memory_busy_share")
        value = {"busy": gpu.busy_share, "memory": memory.mean if memory else None, "pcie": gpu.pcie_share}[what]
        if value is not None:
            known.append(value)
    return max(known, default=None)
