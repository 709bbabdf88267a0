"""CUDA's runtime through ``cuda.bindings``, the package that ``tritonclient[cuda]`` brings.

``tritonclient.utils.cuda_shared_memory`` itself is not used: its regions free their memory from finalizers, also in
forked processes, where CUDA must not be touched, and keep their address to themselves; its copy from DLPack hands the
address of a stream's handle over instead of the handle.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from naiad.client._device.driver import DeviceError, Driver


def load() -> Driver:
    """Return CUDA's runtime.

    Raises:
        DeviceError: the package is not installed, or this process sees no GPU.
    """
    try:
        driver, runtime = import_module("cuda.bindings.driver"), import_module("cuda.bindings.runtime")
    except ImportError as exc:
        raise DeviceError(
            f"expected the package 'cuda-bindings' that CUDA memory needs, found none ({exc}): "
            "pip install 'naiad[cuda]'"
        ) from exc
    cuda = CudaRuntime(driver, runtime)
    if cuda.num_devices() == 0:
        raise DeviceError("expected an NVIDIA GPU, found none: see nvidia-smi and CUDA_VISIBLE_DEVICES")
    return cuda


class CudaRuntime:
    """See :class:`~naiad.client._device.driver.Driver`."""

    def __init__(self, driver: Any, runtime: Any) -> None:
        self._driver = driver
        self._runtime = runtime
        self._success = runtime.cudaError_t.cudaSuccess

    def num_devices(self) -> int:
        """How many GPUs this process sees."""
        return int(self._call("cudaGetDeviceCount"))

    def current_device(self) -> int:
        """The GPU that this thread uses now."""
        return int(self._call("cudaGetDevice"))

    @contextmanager
    def using(self, device: int) -> Iterator[None]:
        """Make a GPU this thread's for a while."""
        before = self.current_device()
        if before == device:
            yield
            return
        self._call("cudaSetDevice", device)
        try:
            yield
        finally:
            if self._is_in_use(before):  # to go back to one that nobody has used would take memory of it
                self._call("cudaSetDevice", before)

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory."""
        return int(self._call("cudaMalloc", size_bytes))

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cudaFree", address)

    def handle(self, address: int) -> bytes:
        """Return what another process needs to open an allocation."""
        handle = self._call("cudaIpcGetMemHandle", address)
        return ctypes.string_at(int(handle.getPtr()), self._runtime.CUDA_IPC_HANDLE_SIZE)

    def new_stream(self) -> int:
        """Return a stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking))

    def end_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def copy(self, to: int, source: int, size_bytes: int, stream: int) -> None:
        """Begin to copy."""
        self._call("cudaMemcpyAsync", to, source, size_bytes, self._runtime.cudaMemcpyKind.cudaMemcpyDefault, stream)

    def finished(self, stream: int) -> bool:
        """Whether the stream has nothing left to do."""
        (status,) = self._runtime.cudaStreamQuery(stream)
        if status == self._runtime.cudaError_t.cudaErrorNotReady:
            self._runtime.cudaGetLastError()  # others would take it for a failure of theirs
            return False
        self._check("cudaStreamQuery", status)
        return True

    def wait(self, stream: int) -> None:
        """Return when the stream has nothing left to do."""
        self._call("cudaStreamSynchronize", stream)

    def synchronize(self) -> None:
        """Return when the GPU has nothing left to do for this process."""
        self._call("cudaDeviceSynchronize")

    def _is_in_use(self, device: int) -> bool:
        _, number = self._driver.cuDeviceGet(device)
        _, _, active = self._driver.cuDevicePrimaryCtxGetState(number)
        return bool(active)

    def _call(self, function: str, *arguments: Any) -> Any:
        status, *results = getattr(self._runtime, function)(*arguments)
        self._check(function, status)
        return results[0] if results else None

    def _check(self, function: str, status: Any) -> None:
        if status != self._success:
            self._runtime.cudaGetLastError()
            _, text = self._runtime.cudaGetErrorString(status)
            said = text.decode() if isinstance(text, bytes) else text
            raise DeviceError(f"{function} failed: {said} ({status.name})")
