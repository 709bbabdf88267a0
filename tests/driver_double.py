"""A stand-in for NVIDIA's driver, compiled from driver_double.c, for processes that tests start."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("driver_double.c")
UUIDS = [f"GPU-{number:x}1ababab-abab-abab-abab-ababababab00" for number in range(8)]


def compiled(directory: Path) -> Path:
    """A directory with the driver as an installed one looks: libcuda.so.1, a link to the file with its version."""
    library = directory / "libcuda.so.580.159.03"
    compile_library(SOURCE.read_text(), library, soname="libcuda.so.1")
    (directory / "libcuda.so.1").symlink_to(library.name)
    return directory


def compile_library(source: str, library: Path, *, soname: str | None = None) -> None:
    """Compile a shared library from C; without a compiler, the test is skipped."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler on this machine: the double of NVIDIA's driver is C")
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{soname or library.name}"]
    subprocess.run([*command, "-o", str(library), "-xc", "-"], input=source, text=True, check=True)


def environment(driver: Path, num_gpus: int, **variables: str) -> dict[str, str]:
    """The environment of a process that sees that many GPUs."""
    ours = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return ours | {"LD_LIBRARY_PATH": str(driver), "NAIAD_DOUBLE_GPUS": str(num_gpus)} | variables
