"""What this machine has for the embedded Triton, for reports: nothing is fetched, started or loaded into this process.

A check raises the `ServerError` that a start would, or returns what it found.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server import _gpus, _home, _library_probe, _machine, _stub
from naiad.server._gpus import Driver as Driver
from naiad.server._gpus import Gpu as Gpu
from naiad.server._gpus import advice as gpu_advice
from naiad.server.errors import PreflightFailed

__all__ = ["Driver", "Gpu", "Library", "gpu_advice", "libraries", "look_at_gpus", "machine", "numpy", "stub", "triton"]

_TIMEOUT_S: Final = 120.0
_OF_WHEELS: Final = ("nvidia/*/lib", "tensorrt_libs")


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """A shared library that was looked for."""

    name: str
    path: str
    """Where it is; "" where it cannot be loaded."""
    error: str
    """Why it cannot be loaded."""

    @property
    def absent(self) -> bool:
        """Whether it is nowhere; it may also be there, and lack another one that it needs."""
        return self.error.startswith(f"{self.name}: {_gpus.NO_LIBRARY}")


def machine() -> str:
    """This Python and this machine. Raises: `UnsupportedMachine`, `PreflightFailed`."""
    _machine.check_supported()
    _machine.preflight()
    return f"CPython {sys.version.split()[0]} on {sys.platform}"


def triton() -> Path | None:
    """The Triton that would be started; None where the first start fetches it. Raises: `InvalidOption`."""
    home = _home.present()
    return None if home is None else home.path


def numpy() -> Path | None:
    """The numpy for Triton's Python processes; None where the first start fetches it. Raises: `UnsupportedMachine`."""
    return _home.present_numpy()


def stub() -> Path | None:
    """The program of Triton's Python processes, which starts; None without Triton. Raises: `PreflightFailed`."""
    home = _home.present()
    if home is None:
        return None
    program = home.stub(sys.version_info[:2])
    with tempfile.TemporaryDirectory() as libraries:
        _stub.link_libpython(Path(libraries))
        path = ":".join(map(str, [libraries, *home.libraries]))
        _stub.preflight(program, {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": path})
    return program


def look_at_gpus() -> Driver:
    """What the NVIDIA driver shows."""
    return _gpus.look()


def libraries(names: Sequence[str]) -> dict[str, Library]:
    """Load each library, in another process: from NVIDIA's wheels, or as the loader finds it.

    Name those first that others need. Raises: `PreflightFailed` where that process ended, or hangs.
    """
    asked = {"directories": _directories(), "names": list(names)}
    command = [sys.executable, "-I", "-S", _library_probe.__file__]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise _damaged(names, f"did not end within {_TIMEOUT_S:g} s") from exc
    if done.returncode:
        raise _damaged(names, f"ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return {name: Library(name=name, **found) for name, found in json.loads(done.stdout).items()}


def _damaged(names: Sequence[str], what: str) -> PreflightFailed:
    return PreflightFailed(f"Loading {', '.join(names)} {what}. Install the damaged one again.", check="libraries")


def _directories() -> list[str]:
    packages = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    return [str(found) for root in packages for pattern in _OF_WHEELS for found in sorted(Path(root).glob(pattern))]
