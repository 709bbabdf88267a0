"""What this machine lacks to run ONNX graphs on a GPU, and the GPU that it has."""

import contextlib
import ctypes
import functools
import importlib.util
import io
from pathlib import Path

import onnxruntime

from naiad.export._runtime.place import CUDA_PROVIDER, PROVIDERS, TENSORRT_PROVIDER

_DRIVER = "libcuda.so.1"
_CUDNN = "libcudnn.so.9"
_TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
_PROVIDER_LIBRARIES = {
    CUDA_PROVIDER: "libonnxruntime_providers_cuda.so",
    TENSORRT_PROVIDER: "libonnxruntime_providers_tensorrt.so",
}
_NAME_BYTES = 256


def lacking(accelerator: str) -> str:
    """Return what is missing for "cuda" or "tensorrt", and what to do; empty where the provider can be used.

    Looked for in this order: the driver, a GPU, a build of ONNX Runtime for CUDA, and the libraries that it loads.
    """
    found = _driver()
    if isinstance(found, str):
        return found
    missing = _build(PROVIDERS[accelerator])
    return missing or _libraries(PROVIDERS[accelerator])


def device_name() -> str:
    """Return the name of the first GPU, such as `NVIDIA H200`."""
    driver, device, name = _driver(), ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES)
    assert not isinstance(driver, str)
    driver.cuDeviceGet(ctypes.byref(device), 0)
    return name.value.decode() if driver.cuDeviceGetName(name, _NAME_BYTES, device) == 0 else "a GPU"


@functools.cache
def _driver() -> "ctypes.CDLL | str":
    """Return the driver, initialised, or what is missing of it."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as exc:
        return f"expected NVIDIA's driver, found none ({exc}); run on a machine with an NVIDIA GPU and its driver"
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return f"expected a GPU, found none (the driver's status is {status}); see nvidia-smi and CUDA_VISIBLE_DEVICES"
    return driver


def _build(provider: str) -> str:
    available = onnxruntime.get_available_providers()
    if provider in available:
        return ""
    return (
        f"expected an ONNX Runtime with its {provider}, found onnxruntime {onnxruntime.__version__} with "
        f"{', '.join(available)}; install onnxruntime-gpu in its place"
    )


@functools.cache
def _libraries(provider: str) -> str:
    """Load what the provider needs, and say which library is not there."""
    capi = Path(onnxruntime.__file__).parent / "capi"
    with contextlib.redirect_stdout(io.StringIO()):  # what it prints is said below, for the library that matters
        onnxruntime.preload_dlls()
    try:
        if provider == TENSORRT_PROVIDER:
            _load_tensorrt()
        ctypes.CDLL(_CUDNN)  # loaded by the provider only when the first graph needs it
        ctypes.CDLL(str(capi / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(capi / _PROVIDER_LIBRARIES[provider]))
    except OSError as exc:
        wheels = (
            "tensorrt-cu13" if provider == TENSORRT_PROVIDER else "the nvidia-* wheels of naiad's extra cuda-libraries"
        )
        return (
            f"ONNX Runtime's {provider} cannot be loaded: {exc}; install {wheels}, or put the folder of the library on "
            "LD_LIBRARY_PATH"
        )
    return ""


def _load_tensorrt() -> None:
    """Load TensorRT's libraries, from its wheel where that is installed."""
    wheel = importlib.util.find_spec("tensorrt_libs")
    folder = Path(wheel.origin).parent if wheel and wheel.origin else None
    for name in _TENSORRT_LIBRARIES:
        beside = folder / name if folder else None
        ctypes.CDLL(str(beside) if beside and beside.is_file() else name)
