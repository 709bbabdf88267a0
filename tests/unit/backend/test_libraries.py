"""A library that is missing is named, with where it was looked for and how to get it."""

from __future__ import annotations

import ctypes
import re

import onnxruntime
import pytest
from _ort_errors import EnvironmentLacksError
from _ort_libraries import load_libraries, missing_library, why_not_active


def has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("library", "advice"),
    [
        ("libcublas.so.13", r"pip install 'naiad\[cuda-libraries\]'"),
        ("libcudnn.so.9", r"pip install 'naiad\[cuda-libraries\]'"),
        ("libnvinfer.so.10", r"pip install 'tensorrt-cu13==10\.\*'"),
        ("libcuda.so.1", "install NVIDIA's driver"),
    ],
)
def test_each_library_has_its_advice(monkeypatch: pytest.MonkeyPatch, library: str, advice: str) -> None:
    """The message names the library, the places and the package."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/libraries")
    message = missing_library("model", library, "no such file")
    assert f"expected the shared library {library}, looked for in" in message
    assert "LD_LIBRARY_PATH (/opt/libraries)" in message
    assert re.search(advice, message)


@pytest.mark.parametrize(
    ("provider", "library"),
    [("CUDAExecutionProvider", "libcudnn.so.9"), ("TensorrtExecutionProvider", "libnvinfer.so.10")],
)
def test_what_is_opened_late_is_looked_for_first(provider: str, library: str) -> None:
    """cuDNN and TensorRT are missed at the load, and not in the middle of the first run."""
    if has(library):
        pytest.skip(f"{library} is installed here")
    with pytest.raises(EnvironmentLacksError, match=f"expected the shared library {library}".replace(".", r"\.")):
        load_libraries("model", [provider])


def test_nothing_is_needed_for_the_cpu() -> None:
    """Other providers need no libraries of these."""
    load_libraries("model", ["CPUExecutionProvider"])
    assert why_not_active("model", "CPUExecutionProvider") is None


def test_the_loader_tells_what_a_provider_lacks() -> None:
    """The library for whose want ONNX Runtime dropped CUDA is read off the loader's own message."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has no CUDA")
    if has("libcublasLt.so.13"):
        pytest.skip("CUDA's libraries are installed here")
    message = why_not_active("model", "CUDAExecutionProvider")
    assert message is not None
    assert "expected the shared library libcublas" in message
    assert "cannot open shared object file" in message
