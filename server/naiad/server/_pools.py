"""Memory that Triton reserves for tensors on their way: on each GPU, and pinned on the host.

The Python backend hands tensors on a GPU to its processes, and takes them back, in memory out of the GPU's pool. The
pool cannot grow, and 64 MiB, as Triton has it, hold not even one batch of 128 images (128 × 3 × 224 × 224 × 4 bytes =
77 MB). A share of the GPU's memory is for several of them in flight, and leaves the memory to the models.
"""

from collections.abc import Sequence
from typing import Final

from naiad.server._gpus import Gpu
from naiad.server.errors import PreflightFailed

_MIB: Final = 1 << 20
_SHARE: Final = 32
_LEAST_BYTES: Final = 64 * _MIB
_MOST_BYTES: Final = 4096 * _MIB


def arguments(gpus: Sequence[Gpu], *, cuda_bytes: int | None, pinned_bytes: int | None) -> list[str]:
    """Triton's options; it numbers the GPUs that it uses from 0."""
    sizes = [usual_bytes(gpu) if cuda_bytes is None else cuda_bytes for gpu in gpus]
    found = [f"--cuda-memory-pool-byte-size={number}:{size}" for number, size in enumerate(sizes)]
    return found if pinned_bytes is None else [*found, f"--pinned-memory-pool-byte-size={pinned_bytes}"]


def usual_bytes(gpu: Gpu) -> int:
    """The size of the pool where none is named."""
    return min(_MOST_BYTES, max(_LEAST_BYTES, gpu.memory_bytes // _SHARE))


def check(gpus: Sequence[Gpu], cuda_bytes: int | None) -> None:
    """Raise `PreflightFailed` for a pool that is larger than a GPU."""
    for gpu in gpus:
        if cuda_bytes is not None and cuda_bytes >= gpu.memory_bytes:
            raise PreflightFailed(
                f"Expected a CUDA memory pool smaller than the {gpu.memory_bytes // _MIB} MiB of each GPU "
                f"({gpu.name}, {gpu.uuid}), found {cuda_bytes // _MIB} MiB. Name less; the models need memory, too.",
                check="cuda memory pool",
            )
