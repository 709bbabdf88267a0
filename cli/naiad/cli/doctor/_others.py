"""What export, client and load test need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from naiad.cli.doctor._check import Check
from naiad.cli.doctor._packages import built_for, installed, package

__all__ = ["check_client", "check_export", "check_loadtest"]

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the client's segments lie
_ROOMY_BYTES = 256 << 20


def check_export() -> Iterator[Check]:
    """Whether models can be exported here."""
    yield package("torch", "export", essential=True)
    for name in ("onnx", "onnxscript"):
        yield package(name, "export", essential=True)
    found = installed("onnxruntime-gpu", "onnxruntime")
    advice = "" if found else "pip install 'naiad[export]'"
    yield Check(
        name="onnxruntime",
        state="ok" if found else "missing",
        found=found or "not installed",
        advice=advice,
        essential=True,
    )
    yield _compiler()
    if built_for("torch", "version.py", "cuda"):
        yield package("triton", "", use="for --accelerator aoti on a GPU")


def _compiler() -> Check:
    named = os.environ.get("CXX") or "g++"
    found = shutil.which(named)
    if found:
        return Check(name="C++ compiler", state="ok", found=found)
    advice = "for --accelerator aoti, install g++ (Debian, Ubuntu: `apt-get install g++`) or name a compiler in CXX"
    return Check(name="C++ compiler", state="missing", found=f"no {named}", advice=advice)


def check_client() -> Iterator[Check]:
    """Whether servers can be called from here, also through shared memory."""
    for name in ("grpcio", "tritonclient"):
        yield package(name, "", essential=True)
    yield _shared_memory()
    yield package("cuda-bindings", "cuda", use="for CUDA shared memory")


def _shared_memory() -> Check:
    if not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        advice = "mount a tmpfs there; in a container, run it with --shm-size=1g"
        return Check(name=str(_SHARED_MEMORY), state="broken", found="cannot be written", advice=advice)
    usage = shutil.disk_usage(_SHARED_MEMORY)
    found = f"{usage.free >> 20} of {usage.total >> 20} MiB free"
    if usage.free < _ROOMY_BYTES:
        advice = "in a container, run it with --shm-size=1g"
        return Check(name=str(_SHARED_MEMORY), state="missing", found=found, advice=advice)
    return Check(name=str(_SHARED_MEMORY), state="ok", found=found)


def check_loadtest() -> Iterator[Check]:
    """Whether servers can be measured from here, GPUs included."""
    for name in ("locust", "psutil"):
        yield package(name, "loadtest", essential=True)
    yield package("nvidia-ml-py", "loadtest")
    from naiad.server import checks

    library = checks.libraries(["libnvidia-ml.so.1"])["libnvidia-ml.so.1"]
    advice = "" if library.path else "comes with NVIDIA's driver; without it, reports say nothing of GPUs"
    yield Check(
        name="libnvidia-ml.so.1",
        state="ok" if library.path else "missing",
        found=library.path or ("not found" if library.absent else library.error),
        advice=advice,
    )
