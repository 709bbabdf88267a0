"""The shared libraries of CUDA and TensorRT: loads those of Python wheels, and names the one that is missing."""

import contextlib
import ctypes
import importlib.util
import io
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from _ort_accelerators import CUDA, TENSORRT
from _ort_errors import EnvironmentLacksError, mismatch
from _ort_session import runtime

_CUDNN: Final = "libcudnn.so.9"
_TENSORRT: Final = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
_TENSORRT_FOLDER: Final = "tensorrt_libs"
"""The package in which TensorRT's wheels carry its libraries."""
_PROVIDERS: Final = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_LOADERS_MESSAGE: Final = re.compile(r"^(\S+): cannot open shared object file")
_CUDA_ADVICE: Final = "pip install 'naiad[cuda-libraries]', or install CUDA 13 and cuDNN 9 on the system"
_DRIVER_ADVICE: Final = "install NVIDIA's driver (in a container: run it with --gpus all)"
_TENSORRT_ADVICE: Final = "pip install 'tensorrt-cu13==10.*', or remove the accelerator 'tensorrt'"


def load_libraries(model: str, providers: Collection[str]) -> None:
    """Load what the providers open by themselves, late and without a word.

    Raises ``EnvironmentLacksError``, which names the missing library.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, needed or not
        runtime().preload_dlls()
    for name in _own_libraries(providers):
        trouble = _trouble(name)
        if trouble:
            raise EnvironmentLacksError(missing_library(model, name, trouble))


def _own_libraries(providers: Collection[str]) -> Iterable[str]:
    # No library lists cuDNN as needed by CUDA's provider, which opens it in the middle of a run.
    if CUDA in providers:
        yield _CUDNN
    if TENSORRT in providers:
        yield from _TENSORRT


def _trouble(name: str) -> str:
    """What the loader says of a library, looked for in wheels and on the system; "" where it is loaded."""
    folder = _wheel_folder(_TENSORRT_FOLDER) if name in _TENSORRT else None
    if folder is not None and (folder / name).is_file():
        name = str(folder / name)
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError as exc:
        return str(exc)
    return ""


def why_not_active(model: str, provider: str) -> str | None:
    """Why ONNX Runtime dropped a provider: the message that names its missing library; None if it has all.

    Only after ONNX Runtime has tried: it prepares a provider's library before it opens it.
    """
    library = _PROVIDERS.get(provider)
    if library is None:
        return None
    path = Path(runtime().__file__).parent / "capi" / library
    try:
        ctypes.CDLL(str(path))
    except OSError as exc:
        found = _LOADERS_MESSAGE.match(str(exc))
        return missing_library(model, found[1] if found else str(path), str(exc))
    return None


def missing_library(model: str, name: str, trouble: str) -> str:
    """The message about a library that the loader did not give."""
    library = Path(name).name
    advice = _CUDA_ADVICE
    if library.startswith("libcuda.so"):
        advice = _DRIVER_ADVICE
    elif library in _TENSORRT:
        advice = _TENSORRT_ADVICE
    path = os.environ.get("LD_LIBRARY_PATH")
    searched = "the nvidia-* and tensorrt wheels of its Python environment, "
    searched += f"LD_LIBRARY_PATH ({path}) " if path else "LD_LIBRARY_PATH (not set) "
    return mismatch(
        f"model '{model}', an instance on a GPU",
        expected=f"the shared library {library}, looked for in {searched}and the system's folders",
        found=f"none that can be loaded ({trouble})",
        advice=f"{advice}; or use KIND_CPU in instance_group",
    )


def _wheel_folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec else []
    return Path(locations[0]) if locations else None
