"""What is asked of CUDA, and nothing else: everything above this seam runs without a GPU, on a double of it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class DeviceError(Exception):
    """CUDA cannot be used here, or one of its calls failed; the text says why."""


class Driver(Protocol):
    """CUDA's runtime. Addresses and streams are numbers; every method may raise :class:`DeviceError`."""

    def num_devices(self) -> int:
        """How many GPUs this process sees (CUDA_VISIBLE_DEVICES counts)."""
        ...

    def current_device(self) -> int:
        """The GPU that this thread uses now."""
        ...

    def using(self, device: int) -> AbstractContextManager[None]:
        """Make a GPU this thread's for a while; the other methods concern the thread's GPU."""
        ...

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory, all of it one allocation, as CUDA IPC needs it."""
        ...

    def free(self, address: int) -> None:
        """Give memory back; work that uses it is waited for."""
        ...

    def handle(self, address: int) -> bytes:
        """Return what another process needs to open an allocation."""
        ...

    def new_stream(self) -> int:
        """Return a stream that does not wait for the default one."""
        ...

    def end_stream(self, stream: int) -> None:
        """Give a stream back that has nothing left to do."""
        ...

    def copy(self, to: int, source: int, size_bytes: int, stream: int) -> None:
        """Begin to copy between addresses of the host or of any GPU, after what the stream has to do before."""
        ...

    def finished(self, stream: int) -> bool:
        """Whether the stream has nothing left to do."""
        ...

    def wait(self, stream: int) -> None:
        """Return when the stream has nothing left to do."""
        ...

    def synchronize(self) -> None:
        """Return when the GPU has nothing left to do for this process."""
        ...
