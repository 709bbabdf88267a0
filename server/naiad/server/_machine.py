"""What the machine must have before Triton starts: where one of these is missing, Triton hangs or aborts."""

import logging
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Final

from naiad.server.errors import PreflightFailed, UnsupportedMachine

_log = logging.getLogger("naiad.server")
_GLIBC: Final = (2, 35)
_PYTHONS: Final = ((3, 11), (3, 12))
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the stub has no other place
_TEMPORARY: Final = Path("/tmp")  # noqa: S108 - Triton's own, unconditional choice
_REGION_BYTES: Final = 1 << 20
_ROOMY_BYTES: Final = 256 << 20
_COMPOSE: Final = "Serve the repository with `docker compose up` instead."


def check_supported() -> None:
    """Raise `UnsupportedMachine` where the embedded Triton has no build."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnsupportedMachine(
            f"The embedded Triton runs on Linux x86-64, found {sys.platform} {platform.machine()}. {_COMPOSE}"
        )
    if _glibc() < _GLIBC:
        found = ".".join(map(str, _glibc())) if _glibc() > (0, 0) else "another C library"
        raise UnsupportedMachine(f"The embedded Triton needs glibc 2.35 or newer, found {found}. {_COMPOSE}")
    check_python()


def check_python() -> None:
    """Raise `UnsupportedMachine` for a Python without a stub that works."""
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in _PYTHONS:
        raise UnsupportedMachine(
            "The embedded Triton's Python stub needs CPython 3.11 or 3.12, found "
            f"{platform.python_implementation()} {platform.python_version()}. Create the environment with one of "
            f"these (`python3.12 -m venv …`). {_COMPOSE}"
        )


def preflight() -> None:
    """Raise `PreflightFailed` for what Triton itself would only show by hanging or aborting."""
    if bash() is None:
        raise PreflightFailed(
            "Triton starts its Python stubs through bash, found none in PATH. Install it.", check="bash"
        )
    if not os.access(_TEMPORARY, os.W_OK | os.X_OK):
        raise PreflightFailed(
            f"Triton needs a writable {_TEMPORARY}, whatever TMPDIR says. Mount a tmpfs there.",
            check="temporary directory",
        )
    _check_shared_memory()


def bash() -> Path | None:
    """The bash that Triton would find."""
    found = shutil.which("bash") or shutil.which("bash", path=os.defpath)
    return Path(found).absolute() if found else None


def _check_shared_memory() -> None:
    hint = "In a container, run it with --shm-size=1g."
    if not _SHARED_MEMORY.is_dir() or not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        raise PreflightFailed(f"Triton needs a writable {_SHARED_MEMORY}. {hint}", check="shared memory")
    usage = shutil.disk_usage(_SHARED_MEMORY)
    if usage.free < _REGION_BYTES:
        raise PreflightFailed(
            f"Each model instance needs at least 1 MiB of {_SHARED_MEMORY}, found {usage.free} bytes free. {hint}",
            check="shared memory",
        )
    if usage.total < _ROOMY_BYTES:
        _log.warning(
            "%s has %d MiB only: a request needs about three times its size there. %s",
            _SHARED_MEMORY,
            usage.total >> 20,
            hint,
        )


def _glibc() -> tuple[int, ...]:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return (0, 0)
    return tuple(int(part) for part in version.split(".")) if name == "glibc" else (0, 0)
