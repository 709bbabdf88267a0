"""What about the server's GPUs a reader of the result should know."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from naiad.loadtest._data.target import Target
from naiad.loadtest._truth.gpu_use import GpuUse
from naiad.loadtest._truth.measurement import Measurement
from naiad.loadtest._truth.validity import Doubt

__all__ = ["gpu_doubts"]

SLOWED_SHARE: Final = 0.05
"""Held down for a twentieth of the samples: less is a single sample of a short run."""
CLOCK_FELL: Final = 0.95
"""Boost clocks move by one or two per cent with the temperature; one in twenty is more than that."""
IDLE_SHARE: Final = 0.005
"""NVML's share is of whole per cents: a mean below half of one is a GPU that did nothing in most samples."""


def gpu_doubts(measurement: Measurement, targets: Sequence[Target]) -> list[Doubt]:
    """Return the doubts about the window's GPUs; none of them makes the result invalid, for it was the server's."""
    resources = measurement.resources
    if resources is None or not measurement.latencies.count:
        return []
    found = [doubt for gpu in resources.gpus for doubt in _of_one(gpu)]
    return [*found, *_idle(resources.gpus, targets)]


def _of_one(gpu: GpuUse) -> Iterator[Doubt]:
    named = f"GPU {gpu.index} ({gpu.name})"
    if gpu.lost:
        yield _doubt("gpu_lost", f"{named} was lost within the run: its figures end there")
    held = {name: share for name, share in gpu.slowed_by.items() if share >= SLOWED_SHARE}
    if held:
        reasons = ", ".join(f"{name} in {share:.0%} of the samples" for name, share in held.items())
        yield _doubt("gpu_slowed", f"{named} ran below its clocks: {reasons}; a cooler or less limited one is faster")
    elif gpu.sm_clock_ratio is not None and gpu.sm_clock_ratio < CLOCK_FELL:
        yield _doubt("gpu_clock", f"the SM clock of {named} fell by {1 - gpu.sm_clock_ratio:.0%} within the window")
    if gpu.num_foreign:
        processes = "process" if gpu.num_foreign == 1 else "processes"
        yield _doubt(
            "gpu_shared",
            f"{gpu.num_foreign} {processes} of others computed on {named}: its figures are theirs, too, and the "
            "server had to share it",
        )


def _idle(gpus: Sequence[GpuUse], targets: Sequence[Target]) -> Iterator[Doubt]:
    busy = [gpu.busy_share for gpu in gpus if gpu.busy_share is not None]
    on_gpu = [target.signature.metadata.name for target in targets if _on_gpu(target)]
    if on_gpu and busy and len(busy) == len(gpus) and max(busy) < IDLE_SHARE:
        yield _doubt(
            "gpu_idle",
            f"no GPU did anything, though {', '.join(on_gpu)} has instances of KIND_GPU: it computes on the CPU, or "
            "on a GPU that is not seen from here",
        )


def _on_gpu(target: Target) -> bool:
    return any(group.endswith(" GPU") for group in target.instances)


def _doubt(kind: str, text: str) -> Doubt:
    return Doubt(kind=kind, text=text, invalid=False)
