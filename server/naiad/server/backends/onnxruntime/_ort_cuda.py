"""One GPU through NVIDIA's driver library, in the context that ONNX Runtime uses too."""

import contextlib
import ctypes
import weakref
from typing import Any, Final

from _ort_errors import DeviceLostError, EnvironmentLacksError, mismatch

_DRIVER: Final = "libcuda.so.1"
_STREAM_NON_BLOCKING: Final = 1
_HOST_PORTABLE: Final = 1
_CAPTURE_ERRORS: Final = range(900, 910)
"""CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to CUDA_ERROR_CAPTURED_EVENT and their like: of a recording, not the GPU."""
_DLPACK_CUDA: Final = 2

_int, _uint, _size, _address = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p
# A CUdeviceptr is a 64-bit number, as an address is.
_PROTOTYPES: Final = {
    "cuInit": (_uint,),
    "cuDeviceGet": (_address, _int),
    "cuDevicePrimaryCtxRetain": (_address, _int),
    "cuCtxSetCurrent": (_address,),
    "cuStreamCreate": (_address, _uint),
    "cuStreamSynchronize": (_address,),
    "cuStreamEndCapture": (_address, _address),
    "cuMemAlloc_v2": (_address, _size),
    "cuMemFree_v2": (_address,),
    "cuMemHostAlloc": (_address, _size, _uint),
    "cuMemFreeHost": (_address,),
    "cuMemcpyAsync": (_address, _address, _size, _address),
    "cuGetErrorName": (_int, _address),
    "cuGetErrorString": (_int, _address),
}


class CudaError(RuntimeError):
    """A call to the driver failed; ``code`` is its ``CUresult``."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Driver:
    """The driver library, with errors for exceptions."""

    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        for name, arguments in _PROTOTYPES.items():
            function = self._library[name]
            function.argtypes, function.restype = arguments, ctypes.c_int
            setattr(self._library, name, function)

    def call(self, name: str, *arguments: Any) -> None:
        """Raises ``CudaError``."""
        code = getattr(self._library, name)(*arguments)
        if code:
            message = f"{name}: {self._text('cuGetErrorName', code)} ({self._text('cuGetErrorString', code)})"
            raise CudaError(message, code)

    def address(self, name: str, *arguments: Any) -> int:
        """What a function writes to the place that its first argument points to."""
        place = ctypes.c_void_p()
        self.call(name, ctypes.byref(place), *arguments)
        return place.value or 0

    def _text(self, name: str, code: int) -> str:
        text = ctypes.c_char_p()
        if getattr(self._library, name)(code, ctypes.byref(text)) or text.value is None:
            return f"error {code}"
        return text.value.decode()


class _Memory:
    """Memory that is freed when this object is collected."""

    __slots__ = ("__weakref__", "pointer")

    def __init__(self, driver: _Driver, pointer: int, free: str) -> None:
        self.pointer = pointer
        # Not at the end of the process: it takes the memory along, and the driver may be gone.
        weakref.finalize(self, _free, driver, free, pointer).atexit = False


def _free(driver: _Driver, function: str, pointer: int) -> None:
    with contextlib.suppress(CudaError):  # a lost GPU has freed it already
        driver.call(function, pointer)


class CudaDevice:
    """One GPU, and the stream on which the copies and ONNX Runtime's work are queued.

    It belongs to the thread that opened it; Triton's stub loads and executes in one.
    """

    name = "cuda"
    dlpack_type = _DLPACK_CUDA

    def __init__(self, index: int, library: str = _DRIVER) -> None:
        self.index = index
        self._driver = _Driver(library)
        self._driver.call("cuInit", 0)
        number = ctypes.c_int()
        self._driver.call("cuDeviceGet", ctypes.byref(number), index)
        self._driver.call("cuCtxSetCurrent", self._driver.address("cuDevicePrimaryCtxRetain", number.value))
        self.stream = self._driver.address("cuStreamCreate", _STREAM_NON_BLOCKING)

    def allocate(self, size_bytes: int) -> _Memory:
        """Memory of the GPU. Raises ``CudaError``."""
        return _Memory(self._driver, self._driver.address("cuMemAlloc_v2", size_bytes), "cuMemFree_v2")

    def allocate_host(self, size_bytes: int) -> _Memory:
        """Pinned memory of the host. Raises ``CudaError``."""
        pointer = self._driver.address("cuMemHostAlloc", size_bytes, _HOST_PORTABLE)
        return _Memory(self._driver, pointer, "cuMemFreeHost")

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """Queue a copy; the driver tells from the addresses where they are. Raises ``CudaError``."""
        self._driver.call("cuMemcpyAsync", target, source, size_bytes, self.stream)

    def synchronise(self) -> None:
        """Wait for everything queued. Raises ``DeviceLostError``."""
        try:
            self._driver.call("cuStreamSynchronize", self.stream)
        except CudaError as exc:
            raise DeviceLostError(f"GPU {self.index} failed: {exc}") from exc

    def check(self, error: Exception) -> None:
        """After a failed run: most errors of CUDA repeat at every further call, which only a new process ends."""
        try:
            self._driver.call("cuStreamSynchronize", self.stream)
        except CudaError as exc:
            if exc.code in _CAPTURE_ERRORS:
                self._end_capture()
                return
            raise DeviceLostError(f"GPU {self.index} failed: {exc}, after: {error}") from exc

    def _end_capture(self) -> None:
        """Give up a recording that failed, so that the stream runs its work again."""
        graph = ctypes.c_void_p()
        with contextlib.suppress(CudaError):
            self._driver.call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        self.synchronise()


def open_cuda(model: str, index: int, library: str = _DRIVER) -> CudaDevice:
    """The GPU of an instance. Raises ``EnvironmentLacksError`` where the driver cannot give it."""
    try:
        return CudaDevice(index, library)
    except OSError as exc:
        found, advice = str(exc), "install NVIDIA's driver (in a container: run it with --gpus all)"
    except CudaError as exc:
        found, advice = str(exc), "compare with `nvidia-smi`"
    message = mismatch(
        f"model '{model}', an instance on GPU {index}",
        expected=f"NVIDIA's driver library {library} to give that GPU",
        found=found,
        advice=f"{advice}, or use KIND_CPU or KIND_AUTO in instance_group",
    )
    raise EnvironmentLacksError(message)
