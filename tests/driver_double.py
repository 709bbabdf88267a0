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
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler on this machine: the double of NVIDIA's driver is C")
    library = directory / "libcuda.so.580.159.03"
    command = [compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
    subprocess.run([*command, "-Wl,-soname,libcuda.so.1"], check=True)
    (directory / "libcuda.so.1").symlink_to(library.name)
    return directory


def environment(driver: Path, num_gpus: int, **variables: str) -> dict[str, str]:
    """The environment of a process that sees that many GPUs."""
    ours = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return ours | {"LD_LIBRARY_PATH": str(driver), "NAIAD_DOUBLE_GPUS": str(num_gpus)} | variables
