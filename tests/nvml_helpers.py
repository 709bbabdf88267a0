"""NVIDIA's management library as a script tells it, compiled from ``nvml_double.c``."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("nvml_double.c")
H200: dict[str, Any] = {
    "name": "NVIDIA H200",
    "uuid": "GPU-11111111-aaaa",
    "mig": 0,
    "busy": 97,
    "memory_busy": 40,
    "memory_total": 150_000_000_000,
    "memory_used": 9_800_000_000,
    "energy": "@512000",  # mJ: 512 W
    "power": 500_000,
    "power_limit": 700_000,
    "sm_clock": 1980,
    "memory_clock": 3201,
    "temperature": 61,
    "reasons": 0,
    "pcie_rx": 2_100_000,
    "pcie_tx": 200_000,
    "link_gen": 5,
    "link_width": 16,
    "processes": "",
}


def build(folder: Path) -> Path:
    """Compile the double to ``libnvidia-ml.so.1``, under which name nvidia-ml-py looks for the library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the double of NVIDIA's management library cannot be built")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
    return library


class Script:
    """What the double answers: ``script.gpu(0, busy=50)`` changes a figure, ``None`` takes it away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._gpus: dict[int, dict[str, Any]] = {}
        self._write()

    def gpu(self, index: int, **changed: Any) -> None:
        figures = self._gpus.setdefault(index, {**H200, "uuid": f"GPU-{index}{index}111111-aaaa"})
        figures.update(changed)
        self._write()

    def _write(self) -> None:
        lines = [f"count {len(self._gpus)}"]
        for index, figures in self._gpus.items():
            lines += [f"{index}.{name} {value}" for name, value in figures.items() if value is not None]
        new = self.path.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.path)  # the double may read it at any moment


def load(library: Path, script: Path, patch: pytest.MonkeyPatch) -> None:
    """Have this process's nvidia-ml-py use the double, as long as ``patch`` lasts."""
    import pynvml

    patch.setenv("NVML_SCRIPT", str(script))
    patch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
