"""What models on NVIDIA GPUs need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from naiad.cli.doctor._check import Check, State
from naiad.cli.doctor._packages import built_for, installed
from naiad.server import PreflightFailed, checks

if TYPE_CHECKING:
    from naiad.server.checks import Driver, Library

__all__ = ["check_gpus"]

_LIBRARIES: Final = {
    "12": ("libcudart.so.12", "libnvrtc.so.12", "libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10",
           "libcufft.so.11", "libcudnn.so.9"),
    "13": ("libcudart.so.13", "libnvrtc.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10",
           "libcufft.so.12", "libcudnn.so.9"),
}  # fmt: skip
"""What ONNX Runtime's CUDA provider loads, by the CUDA that it is built for; those first that others need."""
_TENSORRT: Final = "libnvinfer.so.10"
_TENSORRT_WHEELS: Final = "pip install 'tensorrt-cu13==10.*', for models that ask for TensorRT"
_WHEELS: Final = "pip install 'naiad[cuda-libraries]'"


def check_gpus() -> Iterator[Check]:
    """Whether `naiad serve --gpus all` can start here, and with which backends."""
    driver = checks.look_at_gpus()
    yield _driver(driver)
    yield from _gpus(driver)
    if driver.gpus:
        yield _plain_name(driver)
    yield from _onnxruntime(driver)
    yield _torch(driver)


def _driver(driver: Driver) -> Check:
    if not driver.cuda:
        state: State = "broken" if driver.library else "missing"
        advice = checks.gpu_advice(driver)
        return Check(name="driver", state=state, found=driver.trouble, advice=advice, essential=True)
    found = f"{driver.version or 'of unknown version'}, CUDA {driver.cuda}, {driver.library}"
    if driver.trouble:
        found, advice = f"{found}: {driver.trouble}", checks.gpu_advice(driver)
        return Check(name="driver", state="broken", found=found, advice=advice, essential=True)
    return Check(name="driver", state="ok", found=found, essential=True)


def _gpus(driver: Driver) -> Iterator[Check]:
    for number, gpu in enumerate(driver.gpus):
        found = (
            f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB, compute capability {gpu.compute_capability}, {gpu.uuid}"
        )
        yield Check(name=f"GPU {number}", state="ok", found=found)
    if not driver.gpus:
        advice = "" if driver.trouble else checks.gpu_advice(driver)
        yield Check(name="GPUs", state="missing", found="none", advice=advice, essential=True)


def _plain_name(driver: Driver) -> Check:
    found = "found" if driver.named_plainly else f"Triton gets a link to {driver.library}"
    return Check(name="libcuda.so", state="ok", found=found)


def _onnxruntime(driver: Driver) -> Iterator[Check]:
    found = installed("onnxruntime-gpu", "onnxruntime")
    cuda = built_for("onnxruntime", "capi/build_and_package_info.py", "cuda_version")
    if not cuda:
        built = f"{found}, built for the CPU" if found else "not installed"
        yield Check(name="onnxruntime", state="missing", found=built, advice="pip install onnxruntime-gpu")
        return
    yield _built("onnxruntime", found, cuda, driver)
    wanted = _LIBRARIES.get(cuda.partition(".")[0], ())
    try:
        loaded = checks.libraries([*wanted, _TENSORRT])
    except PreflightFailed as exc:
        yield Check(name="libraries", state="broken", found="do not load", advice=str(exc))
        return
    for name, library in loaded.items():
        yield _library(name, library, needed=bool(driver.gpus))


def _library(name: str, library: Library, *, needed: bool) -> Check:
    if library.path:
        return Check(name=name, state="ok", found=library.path)
    found = "not found" if library.absent else library.error
    if name == _TENSORRT:
        return Check(name=name, state="missing", found=found, advice=_TENSORRT_WHEELS)
    return Check(name=name, state="broken" if needed else "missing", found=found, advice=_WHEELS)


def _torch(driver: Driver) -> Check:
    found = installed("torch")
    cuda = built_for("torch", "version.py", "cuda")
    if cuda:
        return _built("torch", found, cuda, driver)
    built = f"{found}, built for the CPU" if found else "not installed"
    advice = "for model.pt2 on GPUs, and to export there, install PyTorch built for CUDA"
    return Check(name="torch", state="missing", found=built, advice=advice)


def _built(name: str, version: str, cuda: str, driver: Driver) -> Check:
    found = f"{version}, built for CUDA {cuda}"
    if driver.cuda and int(driver.cuda.partition(".")[0]) < int(cuda.partition(".")[0]):
        advice = f"the driver runs CUDA {driver.cuda} at most: update it, or install a {name} built for that"
        return Check(name=name, state="broken", found=found, advice=advice)
    return Check(name=name, state="ok", found=found)
