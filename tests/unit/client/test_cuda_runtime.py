"""The thin layer that calls CUDA, on a stand-in for its Python binding: what it asks, and what it makes of failures."""

import ctypes
from enum import IntEnum
from types import SimpleNamespace

import pytest

from naiad.client._device.cuda import CudaRuntime
from naiad.client._device.driver import DeviceError

OPEN = bytes(range(64))


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNotReady = 600


class Handle:
    def __init__(self):
        self.memory = ctypes.create_string_buffer(OPEN, 64)

    def getPtr(self):
        return ctypes.addressof(self.memory)


class Binding:
    """What `cuda.bindings.runtime` looks like: tuples that begin with a status."""

    cudaError_t = Error
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)
    cudaStreamNonBlocking = 1
    CUDA_IPC_HANDLE_SIZE = 64

    def __init__(self):
        self.asked = []
        self.device = 0
        self.answers = {
            "cudaMalloc": (Error.cudaSuccess, 0x7F00),
            "cudaIpcGetMemHandle": (Error.cudaSuccess, Handle()),
            "cudaGetErrorString": (Error.cudaSuccess, b"out of memory"),
            "cudaStreamQuery": (Error.cudaErrorNotReady,),
        }

    def cudaGetDevice(self):
        return Error.cudaSuccess, self.device

    def cudaSetDevice(self, device):
        self.device = device
        return (Error.cudaSuccess,)

    def __getattr__(self, function):
        def call(*arguments):
            self.asked.append((function, *arguments))
            return self.answers.get(function, (Error.cudaSuccess,))

        return call


def runtime(binding, active=()):
    driver = SimpleNamespace(
        cuDeviceGet=lambda device: (0, device), cuDevicePrimaryCtxGetState=lambda device: (0, 0, int(device in active))
    )
    return CudaRuntime(driver, binding)


def test_what_is_asked_of_cuda():
    """Addresses, sizes and streams go as they are; a handle is the bytes behind its pointer."""
    binding = Binding()
    cuda = runtime(binding)
    assert cuda.allocate(4096) == 0x7F00
    assert cuda.handle(0x7F00) == OPEN
    cuda.copy(1, 2, 3, 4)
    cuda.free(0x7F00)
    assert binding.asked == [
        ("cudaMalloc", 4096),
        ("cudaIpcGetMemHandle", 0x7F00),
        ("cudaMemcpyAsync", 1, 2, 3, 4, 4),
        ("cudaFree", 0x7F00),
    ]


def test_a_failure_says_what_failed_and_leaves_nothing_behind():
    """CUDA's name and text; its last error is cleared, so that other libraries do not take it for theirs."""
    binding = Binding()
    binding.answers["cudaMalloc"] = (Error.cudaErrorMemoryAllocation, None)
    with pytest.raises(DeviceError, match=r"cudaMalloc failed: out of memory \(cudaErrorMemoryAllocation\)"):
        runtime(binding).allocate(1)
    assert ("cudaGetLastError",) in binding.asked


def test_a_stream_that_is_not_done_is_no_failure():
    """CUDA answers with a status of its own."""
    binding = Binding()
    assert not runtime(binding).finished(5)
    assert ("cudaGetLastError",) in binding.asked
    binding.answers["cudaStreamQuery"] = (Error.cudaSuccess,)
    assert runtime(binding).finished(5)


@pytest.mark.parametrize(("active", "after"), [({0}, 0), (set(), 1)])
def test_a_gpu_is_used_for_a_while(active, after):
    """The thread goes back to the one it had, unless nobody has used that: going there would take memory of it."""
    binding = Binding()
    cuda = runtime(binding, active)
    with cuda.using(1):
        assert cuda.current_device() == 1
    assert binding.device == after
