"""What the machine is, and how fast it can be: a task of the environment."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PACKAGES = ("naiad", "torch", "onnxruntime-gpu", "onnxruntime", "numpy", "grpcio", "protobuf", "tritonclient")
_ROUNDS = 7
_WARM_UP = 3


def inspect(*, device: str, quick: bool) -> dict[str, Any]:
    """Return names, versions, the runtimes that can be measured, and the ceilings that PyTorch reaches."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"expected a GPU that PyTorch {torch.__version__} can use, found none; --device cpu rehearses"
        )
    found: dict[str, Any] = {
        "device": device,
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "versions": _versions(),
        "runtimes": _runtimes(device),
        "ceilings": _ceilings(torch, device, quick),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "memory_bytes": properties.total_memory,
            "uuid": f"GPU-{properties.uuid}" if hasattr(properties, "uuid") else None,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return found


def _runtimes(device: str) -> dict[str, str | None]:
    """Return the runtimes, each with the reason why it cannot be measured, or None."""
    try:
        import onnxruntime
    except ImportError as exc:
        found: dict[str, str | None] = {"onnxruntime": f"not installed ({exc})"}
    else:
        providers = onnxruntime.get_available_providers()
        lacks = device == "cuda" and "CUDAExecutionProvider" not in providers
        found = {"onnxruntime": f"built without CUDA ({', '.join(providers)})" if lacks else None}
    return found | {"aoti": None}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _ceilings(torch: Any, device: str, quick: bool) -> dict[str, float]:
    """Measure copies on the device (bytes read and written), to and from it, and its bf16 matrix product."""
    copied = (1 << 24) if quick else (1 << 32)
    side = 512 if quick else 8192
    source = torch.empty(copied, dtype=torch.uint8, device=device).zero_()
    target = torch.empty_like(source)
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    found = {
        "copy_gb_per_s": 2 * copied / _median_s(torch, device, lambda: target.copy_(source)) / 1e9,
        "bf16_matmul_tflop_per_s": 2 * side**3 / _median_s(torch, device, lambda: left @ right) / 1e12,
    }
    if device == "cuda":
        num_bytes = 1 << 28
        host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        part = target[:num_bytes]
        found["host_to_device_gb_per_s"] = num_bytes / _median_s(torch, device, lambda: part.copy_(host)) / 1e9
        found["device_to_host_gb_per_s"] = num_bytes / _median_s(torch, device, lambda: host.copy_(part)) / 1e9
    return {name: round(value, 3) for name, value in found.items()}


def _median_s(torch: Any, device: str, work: Callable[[], object]) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    taken = []
    for _ in range(_WARM_UP + _ROUNDS):
        wait()
        started = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[_WARM_UP:])


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # noqa: BLE001 - the binding is not installed, or its library is not there
        return None


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
