"""A double of CUDA in the host's memory, and a gRPC server that opens its handles: everything between them is real.

What the double calls a device address is the address of memory of this process, so that the server, a thread of it,
reads and writes what the client copied. Streams do their work when somebody waits for them, and not before.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from naiad.client._device.driver import DeviceError
from naiad.client._protocol.dlpack import CUDA, DeviceArray, on_device

_NUMPY = {"FP32": np.float32, "INT64": np.int64, "BOOL": np.bool_, "FP16": np.float16}


class HostDriver:
    """CUDA with the host's memory in the place of GPUs. Records what it was asked; ``fails`` makes calls fail."""

    def __init__(self, num_devices: int = 2) -> None:
        self._num_devices = num_devices
        self._thread = threading.local()
        self._pending: defaultdict[int, deque[Callable[[], None]]] = defaultdict(deque)
        self._lock = threading.RLock()
        self.asked: Counter[str] = Counter()
        self.fails: dict[str, str] = {}
        self.memory: dict[int, Any] = {}
        self.devices_of: dict[int, int] = {}
        self.streams: set[int] = set()
        self._numbers = itertools.count(1000)  # 0, 1 and 2 are CUDA's own
        self.slow = False
        """Whether streams need somebody to wait for them."""

    def _note(self, function: str) -> None:
        with self._lock:
            self.asked[function] += 1
        if function in self.fails:
            raise DeviceError(f"{function} failed: {self.fails[function]}")

    def num_devices(self) -> int:
        return self._num_devices

    def current_device(self) -> int:
        return getattr(self._thread, "device", 0)

    @contextmanager
    def using(self, device: int) -> Iterator[None]:
        self._note("using")
        if not 0 <= device < self._num_devices:
            raise DeviceError("cudaSetDevice failed: invalid device ordinal")
        before, self._thread.device = self.current_device(), device
        try:
            yield
        finally:
            self._thread.device = before

    def allocate(self, size_bytes: int) -> int:
        self._note("allocate")
        memory = ctypes.create_string_buffer(size_bytes + 256)
        address = -(-ctypes.addressof(memory) // 256) * 256
        with self._lock:
            self.memory[address] = memory
            self.devices_of[address] = self.current_device()
        return address

    def free(self, address: int) -> None:
        self._note("free")
        with self._lock:
            ctypes.memset(address, 0xEE, 256)  # whoever still reads it gets something else
            del self.memory[address]

    def handle(self, address: int) -> bytes:
        self._note("handle")
        return address.to_bytes(8, "little").ljust(64, b"\0")

    def new_stream(self) -> int:
        self._note("new_stream")
        number = next(self._numbers)
        self.streams.add(number)
        return number

    def end_stream(self, stream: int) -> None:
        self.streams.remove(stream)

    def copy(self, to: int, source: int, size_bytes: int, stream: int) -> None:
        self._note("copy")
        assert stream in self.streams
        self._pending[stream].append(lambda: ctypes.memmove(to, source, size_bytes))  # type: ignore[arg-type]

    def finished(self, stream: int) -> bool:
        if not self.slow:
            self._run(stream)
        return not self._pending[stream]

    def wait(self, stream: int) -> None:
        self._note("wait")
        self._run(stream)

    def _run(self, stream: int) -> None:
        with self._lock:
            while self._pending[stream]:
                self._pending[stream].popleft()()

    def synchronize(self) -> None:
        self._note("synchronize")


class Tensor:
    """A tensor "on a GPU": DLPack with the device's number, and memory of the host behind it."""

    def __init__(self, array: np.ndarray[Any, Any], device: int = 0, owner: HostDriver | None = None) -> None:
        self.array = array
        self.device = device
        self.owner = owner
        self.streams: list[int | None] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self.device

    def __dlpack__(self, *, stream: int | None = None, max_version: Any = None) -> object:
        self.streams.append(stream)
        if self.owner is not None and self.owner.current_device() != self.device:
            raise BufferError(f"on GPU {self.device}, the current one is {self.owner.current_device()}")  # as torch
        as_integers = self.array.view(f"u{self.array.itemsize}")
        return on_device(as_integers, self.array.dtype, self.device, max_version)


def memory_of(tensor: Any) -> np.ndarray[Any, Any]:
    """Read a CUDA tensor as a consumer of DLPack does that can look into the GPU's memory."""
    described = DeviceArray(tensor, 1)
    raw = (ctypes.c_uint8 * len(described)).from_address(described.address)
    raw.owner = described  # type: ignore[attr-defined]
    return np.frombuffer(raw, np.uint8).view(described.dtype).reshape(described.shape)


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Model "twice": `y` is twice `x`, [-1, 4] FP32; all others give `x` back as `y`, "half" FP16, the rest FP32."""

    def __init__(self) -> None:
        self.regions: dict[str, tuple[int, int, int]] = {}
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.answer_with: tuple[grpc.StatusCode, str] | None = None
        self.extensions = ["system_shared_memory", "cuda_shared_memory"]
        self.placed_inputs = 0
        self.registered = 0
        self.in_use = False
        self.hold: threading.Event | None = None
        self.lock = threading.Lock()

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(name="triton", version="2.51.0", extensions=self.extensions)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        dims = [-1, 4] if request.name == "twice" else [-1, -1]
        datatype = {"half": "FP16", "brain": "BF16", "truth": "BOOL"}.get(request.name, "FP32")

        def tensor(name: str) -> Any:
            return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=datatype, shape=dims)

        return pb.ModelMetadataResponse(
            name=request.name, versions=["1"], platform="x", inputs=[tensor("x")], outputs=[tensor("y")]
        )

    def ModelConfig(self, request: Any, context: Any) -> Any:
        response = pb.ModelConfigResponse()
        response.config.name = request.name
        response.config.max_batch_size = 64
        return response

    def CudaSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        if self.refusal is not None:
            context.abort(*self.refusal)
        with self.lock:
            if request.name in self.regions:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"region '{request.name}' already in manager")
            address = int.from_bytes(request.raw_handle[:8], "little")
            self.regions[request.name] = (address, request.byte_size, request.device_id)
            self.registered += 1
        return pb.CudaSharedMemoryRegisterResponse()

    def CudaSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        with self.lock:
            if not self.in_use:
                self.regions.pop(request.name, None)
        return pb.CudaSharedMemoryUnregisterResponse()

    def CudaSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        response = pb.CudaSharedMemoryStatusResponse()
        for name in list(self.regions):
            response.regions[name].name = name
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        if self.hold is not None:
            self.hold.wait(30)
        if self.answer_with is not None:
            context.abort(*self.answer_with)
        (tensor,) = request.inputs
        dtype = _dtype(tensor.datatype)
        shape = tuple(tensor.shape)
        if "shared_memory_region" in tensor.parameters:
            self.placed_inputs += 1
            x = self._memory(tensor.parameters, context).view(dtype).reshape(shape)
        else:
            x = np.frombuffer(request.raw_input_contents[0], dtype).reshape(shape)
        y = (x + x).astype(dtype) if request.model_name == "twice" else x
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        response.outputs.add(name="y", datatype=tensor.datatype, shape=shape)
        places = [entry.parameters for entry in request.outputs if "shared_memory_region" in entry.parameters]
        if places:
            memory = self._memory(places[0], context)
            if y.nbytes > memory.size:
                context.abort(
                    grpc.StatusCode.INTERNAL,
                    f"shared memory size specified with the request for output 'y' ({memory.size} bytes) should be at "
                    f"least {y.nbytes} bytes to hold the results",
                )
            memory[: y.nbytes] = np.frombuffer(y.tobytes(), np.uint8)
            response.raw_output_contents.append(b"")
        else:
            response.raw_output_contents.append(y.tobytes())
        return response

    def _memory(self, parameters: Any, context: Any) -> np.ndarray[Any, Any]:
        name = parameters["shared_memory_region"].string_param
        size = parameters["shared_memory_byte_size"].int64_param
        offset = parameters["shared_memory_offset"].int64_param if "shared_memory_offset" in parameters else 0
        if name not in self.regions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")
        address, size_bytes, _ = self.regions[name]
        assert offset + size <= size_bytes
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address + offset), np.uint8)


def _dtype(datatype: str) -> np.dtype[Any]:
    import ml_dtypes

    return np.dtype({**_NUMPY, "BF16": ml_dtypes.bfloat16, "BYTES": np.uint8}[datatype])


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """Serve on a port of the loopback interface; yields the URL."""
    server = grpc.server(futures.ThreadPoolExecutor(16))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
