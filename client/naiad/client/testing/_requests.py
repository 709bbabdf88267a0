"""What a fake server was asked, kept for a test's assertions."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from naiad.client.errors import InvalidInput
from naiad.client.testing._tensors import decode

METHODS = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
)
_MAX_KEPT_BYTES = 256 << 20


def checked_method(method: str | None) -> str | None:
    """Return the name of a method, or ``None`` for every method; raise :class:`InvalidInput` for anything else."""
    if method is not None and method not in METHODS:
        raise InvalidInput(f"expected one of the methods {', '.join(METHODS)}, found {method!r}")
    return method


class Request:
    """One request as it arrived; each message of a stream is one.

    ``metadata`` are the call's headers, ``deadline_left_s`` the time that the caller was still willing to wait
    (``None``: for ever), ``outputs`` the names that were asked for, ``parameters`` those of the request itself.
    ``message`` is the parsed protobuf message.
    """

    def __init__(
        self, method: str, message: Any, metadata: Mapping[str, str], deadline_left_s: float | None, peer: str
    ) -> None:
        self.method = method
        self.message = message
        self.metadata: dict[str, str] = dict(metadata)
        self.deadline_left_s = deadline_left_s
        self.peer = peer
        self.arrived_s: float = time.monotonic()
        named = "" if "SharedMemory" in method else getattr(message, "name", "")
        self.model: str | None = getattr(message, "model_name", "") or named or None
        self.version: str | None = getattr(message, "model_version", None) or getattr(message, "version", None) or None
        self.request_id: str = getattr(message, "id", "")
        self.status: str | None = None
        """``"OK"`` or the error that was answered; ``None`` while there is no answer."""
        self._elsewhere: dict[str, NDArray[Any]] = {}
        self._grew: Callable[[int], None] = lambda _: None
        self.ended: threading.Event = threading.Event()
        self.cancelled: bool = False
        """Whether the caller went away, or its deadline passed, before there was an answer."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the request: bool, int, float or str by name."""
        entries = getattr(self.message, "parameters", {})
        return {key: getattr(entry, entry.WhichOneof("parameter_choice") or "") for key, entry in entries.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs that were asked for; none means all."""
        return tuple(output.name for output in getattr(self.message, "outputs", ()))

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """The tensors by name; those that lay in shared memory only if the request got as far as its model."""
        found: dict[str, NDArray[Any]] = {}
        raws = iter(getattr(self.message, "raw_input_contents", ()))
        for tensor in getattr(self.message, "inputs", ()):
            if tensor.name in self._elsewhere:
                found[tensor.name] = self._elsewhere[tensor.name]
            elif "shared_memory_region" not in tensor.parameters and (raw := next(raws, None)) is not None:
                found[tensor.name] = decode(raw, tensor.datatype, tuple(tensor.shape), tensor.name)
        return found

    def keep(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep the tensors that are not among the raw contents of the message."""
        tensors = {tensor.name: tensor for tensor in self.message.inputs}
        self._elsewhere = {
            name: array
            for name, array in arrays.items()
            if "shared_memory_region" in tensors[name].parameters or tensors[name].HasField("contents")
        }
        if self._elsewhere:
            self._grew(sum(array.nbytes for array in self._elsewhere.values()))

    def answered(self, status: str) -> None:
        """Note what was answered; without effect if the call had ended before."""
        if not self.cancelled:
            self.status = status

    def call_ended(self) -> None:
        """Note that the call is over."""
        self.cancelled = self.status is None
        self.ended.set()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until the call has ended, for a function that works for long; ``True`` if it has."""
        return self.ended.wait(timeout_s)

    def __repr__(self) -> str:
        of = f" of {self.model}{'/' + self.version if self.version else ''}" if self.model else ""
        state = self.status or ("cancelled" if self.cancelled else "in flight")
        return f"<Request {self.method}{of}: {state}>"


class RequestLog:
    """The latest requests; older ones go when there are too many or they are too big."""

    def __init__(self, num_kept: int) -> None:
        if num_kept < 1:
            raise InvalidInput(f"keep_requests is at least 1, found {num_kept}")
        self._kept: deque[tuple[Request, list[int]]] = deque()  # each with its size in bytes
        self._num_kept = num_kept
        self._size_bytes = 0
        self._changed = threading.Condition()

    def add(self, request: Request) -> None:
        """Remember a request, and wake those who wait for one."""
        with self._changed:
            size_bytes = [0]
            self._kept.append((request, size_bytes))
            self._grow(size_bytes, request.message.ByteSize())
            self._changed.notify_all()
        request._grew = lambda more: self._grow(size_bytes, more)

    def _grow(self, size_bytes: list[int], more: int) -> None:
        with self._changed:
            if not size_bytes:  # it is not kept any more
                return
            size_bytes[0] += more
            self._size_bytes += more
            while len(self._kept) > self._num_kept or (self._size_bytes > _MAX_KEPT_BYTES and len(self._kept) > 1):
                _, gone = self._kept.popleft()
                self._size_bytes -= gone.pop()

    def find(self, method: str | None, model: str | None) -> tuple[Request, ...]:
        """Return the requests of a method, of a model, in the order of their arrival."""
        with self._changed:
            return tuple(
                request
                for request, _ in self._kept
                if method in (None, request.method) and model in (None, request.model)
            )

    def wait(self, number: int, method: str | None, model: str | None, timeout_s: float) -> tuple[Request, ...]:
        """Return as soon as there are that many; raise ``TimeoutError`` if there are not in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(found := self.find(method, model)) < number:
                if not self._changed.wait(deadline - time.monotonic()) and time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"expected {number} requests of {method or 'any method'}"
                        f"{f' of model {model!r}' if model else ''} within {timeout_s:g} s, found {len(found)}"
                    )
            return found

    def clear(self) -> None:
        """Forget all of them."""
        with self._changed:
            for _, size_bytes in self._kept:
                size_bytes.clear()
            self._kept.clear()
            self._size_bytes = 0
