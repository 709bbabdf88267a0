"""The remote procedures that tell a server which shared memory there is, as values.

Source: the "System-Shared-Memory Extension" and "CUDA-Shared-Memory Extension" of Triton's protocol documentation.
"""

from __future__ import annotations

from naiad.client._protocol.operations import Operation
from naiad.client._protocol.operations import _call as call

UNKNOWN_REGION = "Unable to find shared memory region"
"""How Triton's refusal of a request begins that refers to a region which it has not, or not any more."""
TOO_SMALL = "shared memory size specified with the request for output"
"""How it begins when an output was computed that does not fit the place that it was given."""


def register(name: str, size_bytes: int) -> Operation[None]:
    """SystemSharedMemoryRegister of a whole segment; its key for shm_open(3) is its name."""
    return call(
        "SystemSharedMemoryRegister", lambda _: None, {"name": name, "key": f"/{name}", "byte_size": size_bytes}
    )


def unregister(name: str) -> Operation[None]:
    """SystemSharedMemoryUnregister; unknown names are as good as unregistered."""
    return call("SystemSharedMemoryUnregister", lambda _: None, {"name": name})


def registered() -> Operation[tuple[str, ...]]:
    """SystemSharedMemoryStatus: the names of all regions that anybody has registered."""
    return call("SystemSharedMemoryStatus", lambda message: tuple(message.regions))


def register_cuda(name: str, handle: bytes, device: int, size_bytes: int) -> Operation[None]:
    """CudaSharedMemoryRegister; ``handle`` is a cudaIpcMemHandle_t, ``device`` the server's number of the GPU."""
    fields = {"name": name, "raw_handle": handle, "device_id": device, "byte_size": size_bytes}
    return call("CudaSharedMemoryRegister", lambda _: None, fields)


def unregister_cuda(name: str) -> Operation[None]:
    """CudaSharedMemoryUnregister; unknown names are as good as unregistered."""
    return call("CudaSharedMemoryUnregister", lambda _: None, {"name": name})


def registered_cuda() -> Operation[tuple[str, ...]]:
    """CudaSharedMemoryStatus: the names of all regions that are registered, those included that wait for their end."""
    return call("CudaSharedMemoryStatus", lambda message: tuple(message.regions))
