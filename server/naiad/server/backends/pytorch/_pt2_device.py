"""Where a package runs: what moves tensors there and back, and notices when a GPU is lost."""

from collections.abc import Sequence
from typing import Final, Protocol

import torch
from _pt2_errors import DeviceLost, LoadError, mismatch

_ALIGNMENT_BYTES: Final = 16
"""Compiled code reads its inputs in pieces of this size."""


class Device(Protocol):
    """What the executor asks of a processor."""

    def gather(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """One contiguous tensor on the device, of the parts joined along their first dimension."""

    def deliver(self, output: torch.Tensor, *, lent: bool) -> torch.Tensor:
        """A contiguous tensor for Triton; a copy where ``output`` is only lent, until the next run."""

    def finish(self) -> None:
        """Return when all work is done. Raises ``DeviceLost``."""

    def check(self, error: Exception) -> None:
        """Raise ``DeviceLost`` where nothing can run after ``error`` any more."""


class Cpu:
    """The processor: tensors are where Triton put them."""

    def gather(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The parts joined."""
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(list(parts))

    def deliver(self, output: torch.Tensor, *, lent: bool) -> torch.Tensor:
        """The output, row by row."""
        return output.clone(memory_format=torch.contiguous_format) if lent else output.contiguous()

    def finish(self) -> None:
        """Nothing is under way."""

    def check(self, error: Exception) -> None:
        """A failed run leaves the processor as it was."""


class Cuda:
    """One GPU; its work is queued on the current stream, and ``finish`` waits for that."""

    def __init__(self, index: int, *, outputs_on_host: bool) -> None:
        self._device = torch.device("cuda", index)
        self._outputs_on_host = outputs_on_host

    def gather(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The parts joined on the GPU; each from the host is copied once, through pinned memory."""
        placed = [self._placed(part) for part in parts]
        return placed[0] if len(placed) == 1 else torch.cat(placed)

    def deliver(self, output: torch.Tensor, *, lent: bool) -> torch.Tensor:
        """The output where Triton is to find it, once the work is finished."""
        if output.device.type == "cpu":
            return output.contiguous()
        if self._outputs_on_host:
            host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            return host.copy_(output, non_blocking=True)
        return output.clone(memory_format=torch.contiguous_format) if lent else output.contiguous()

    def finish(self) -> None:
        """Wait for the current stream."""
        try:
            torch.cuda.current_stream(self._device).synchronize()
        except Exception as exc:
            raise DeviceLost(f"GPU {self._device.index} failed: {exc}") from exc

    def check(self, error: Exception) -> None:
        """Most errors of CUDA repeat at every further call: only a new process can use the GPU again."""
        try:
            torch.cuda.synchronize(self._device)
        except Exception as exc:
            raise DeviceLost(f"GPU {self._device.index} failed: {error}") from exc

    def _placed(self, part: torch.Tensor) -> torch.Tensor:
        if part.device.type == "cpu":
            part = part.contiguous().pin_memory()
        placed = part.to(self._device, non_blocking=True).contiguous()
        return placed.clone() if placed.data_ptr() % _ALIGNMENT_BYTES else placed


def open_cuda(model: str, index: int, *, outputs_on_host: bool, fixed_shapes: bool) -> Cuda:
    """The GPU of this instance, as the export verified on it. Raises ``LoadError`` where PyTorch cannot use it."""
    lacks = _lacks(index)
    if lacks:
        subject = f"model '{model}', an instance on GPU {index}"
        advice = (
            "install a PyTorch for CUDA in the environment that starts the server, and NVIDIA's driver on the machine, "
            "or set instance_group to KIND_CPU and export the model for that"
        )
        raise LoadError(mismatch(subject, expected="a PyTorch that can use it", found=lacks, advice=advice))
    torch.cuda.set_device(index)
    torch.backends.cudnn.allow_tf32 = False  # it keeps three decimal digits, and the export verified without
    torch.backends.cudnn.benchmark = fixed_shapes
    return Cuda(index, outputs_on_host=outputs_on_host)


def _lacks(index: int) -> str:
    """What keeps PyTorch from using a GPU, in words; empty where nothing does."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__}, which was built without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as exc:  # noqa: BLE001  whatever a driver that is missing, too old or broken makes it raise
        return f"torch {torch.__version__}, which says: {str(exc).partition(chr(10))[0]}"
    count = torch.cuda.device_count()
    return "" if index < count else f"torch {torch.__version__}, which sees {count} GPUs"
