"""What Triton's stub gives a model as ``triton_python_backend_utils``: the parts that the backends' executors use."""

from __future__ import annotations

import ctypes
import math
import sys
import types
from typing import Any

import numpy as np

USED = b"used_dlpack"
NAME = "triton_python_backend_utils"
_TYPES = {(0, 32): np.int32, (0, 64): np.int64, (2, 16): np.float16, (2, 32): np.float32, (2, 64): np.float64}
_TYPES |= {(1, 8): np.uint8, (6, 8): np.bool_, (4, 16): np.uint16}


class Tensor:
    """A named tensor in CPU memory, or on a device where it came as, and goes as, DLPack."""

    def __init__(self, name: str, array: np.ndarray[Any, Any], capsule: Any = None) -> None:
        self._name, self._array, self._capsule = name, array, capsule

    @staticmethod
    def from_dlpack(name: str, capsule: Any) -> Tensor:
        """As the stub does: the capsule is used up, its memory read when the response is sent."""
        return ReceivedTensor(name, capsule)

    def name(self) -> str:
        return self._name

    def is_cpu(self) -> bool:
        return self._capsule is None

    def as_numpy(self) -> np.ndarray[Any, Any]:
        assert self.is_cpu()
        return self._array

    def to_dlpack(self) -> Any:
        return self._capsule


class ReceivedTensor(Tensor):
    """A tensor of a response that came as a capsule; ``close`` calls its deleter, as the stub does after sending."""

    def __init__(self, name: str, capsule: Any) -> None:
        from _ort_dlpack import managed_of

        self._managed = managed_of(capsule)
        super().__init__(name, np.empty(0))
        _rename(capsule)

    def as_numpy(self) -> np.ndarray[Any, Any]:
        tensor = self._managed.tensor
        assert not tensor.strides, "the stub takes tensors row by row only"
        shape = tuple((ctypes.c_int64 * tensor.ndim).from_address(tensor.shape)) if tensor.ndim else ()
        dtype = np.dtype(_TYPES[tensor.code, tensor.bits])
        size = math.prod(shape) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(tensor.data) if size else b""
        return np.frombuffer(memory, dtype=dtype).reshape(shape).copy()

    def close(self) -> None:
        deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._managed.deleter)
        deleter(ctypes.addressof(self._managed))


def _rename(capsule: Any) -> None:
    rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))
    assert rename(capsule, USED) == 0


class Request:
    """One request with its inputs, the outputs it asks for, and its place in a sequence."""

    def __init__(
        self, tensors: list[Tensor], outputs: tuple[str, ...] = (), *, sequence: int = 0, flags: int = 0
    ) -> None:
        self._tensors, self._outputs, self._sequence, self._flags = tensors, outputs, sequence, flags

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def requested_output_names(self) -> tuple[str, ...]:
        return self._outputs

    def correlation_id(self) -> int:
        return self._sequence

    def flags(self) -> int:
        return self._flags

    def is_cancelled(self) -> bool:
        return False


class TritonError:
    """An error as a response carries it."""

    INTERNAL, INVALID_ARG, CANCELLED = "INTERNAL", "INVALID_ARG", "CANCELLED"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class InferenceResponse:
    """One response: tensors, or an error."""

    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.tensors = {tensor.name(): tensor for tensor in output_tensors or ()}
        self.error = error


def install() -> None:
    """Let modules of the backends import the double."""
    module: Any = types.ModuleType(NAME)
    for each in (Tensor, TritonError, InferenceResponse):
        setattr(module, each.__name__, each)
    sys.modules.setdefault(NAME, module)
