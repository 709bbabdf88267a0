"""Finds the files of a Triton: named, system-wide, cached, or fetched."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from naiad.server import _fetch, _machine
from naiad.server._cache import cache_directories, cache_directory
from naiad.server.errors import InvalidOption

_log = logging.getLogger("naiad.server")
_SYSTEM: Final = Path("/opt/tritonserver")
_IN_WHEEL: Final = Path("pytriton/tritonserver")


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """A Triton with a Python backend, as the wheel or as NVIDIA's container lays it out."""

    path: Path

    @property
    def server(self) -> Path:
        """The executable."""
        return self.path / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """The directory of `libtriton_python.so`."""
        return self.path / "backends" / "python"

    @property
    def caches(self) -> Path:
        """The directory of the response caches."""
        return self.path / "caches"

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Directories that the loader has to search; the wheel's files find theirs by themselves."""
        return tuple(path for path in (self.path / "lib",) if path.is_dir())

    def stub(self, python: tuple[int, int]) -> Path:
        """The stub for that Python; the container has one only."""
        in_wheel = self.path / "python_backend_stubs" / f"{python[0]}.{python[1]}" / "triton_python_backend_stub"
        return in_wheel if in_wheel.is_file() else self.python_backend / "triton_python_backend_stub"


def find(named: str | os.PathLike[str] | None = None) -> Home:
    """The Triton to run: `named`, NAIAD_TRITON_HOME, /opt/tritonserver, the cache, else fetched into the cache.

    Raises: `InvalidOption`, `UnsupportedMachine`, `FetchError`.
    """
    found = present(named)
    if found is not None:
        return found
    _machine.check_supported()
    return Home(path=_fetch.install(_fetch.TRITON, cache_directory()) / _IN_WHEEL)


def present(named: str | os.PathLike[str] | None = None) -> Home | None:
    """As `find`, where nothing has to be fetched for it. Raises: `InvalidOption`."""
    named = named or os.environ.get("NAIAD_TRITON_HOME")
    if named:
        return _named(Path(named).expanduser().absolute())
    if _complete(_SYSTEM):
        return Home(path=_SYSTEM)
    cached = _cached(_fetch.TRITON)
    return Home(path=cached / _IN_WHEEL) if cached else None


def find_numpy() -> Path:
    """The directory that holds the stub's numpy, fetched if need be. Raises: `UnsupportedMachine`, `FetchError`."""
    return present_numpy() or _fetch.install(_fetch.numpy_for(sys.version_info[:2]), cache_directory())


def present_numpy() -> Path | None:
    """As `find_numpy`, where nothing has to be fetched for it. Raises: `UnsupportedMachine`."""
    return _cached(_fetch.numpy_for(sys.version_info[:2]))


def _cached(wheel: _fetch.Wheel) -> Path | None:
    # A complete one is used as it is, also from a cache that cannot be written.
    found = (_fetch.installed(wheel, cache) for cache in cache_directories())
    return next(filter(None, found), None)


def _named(path: Path) -> Home:
    for candidate in (path, path / _IN_WHEEL):
        if _complete(candidate):
            return Home(path=candidate)
    raise InvalidOption(
        f"Expected a Triton in {path} (bin/tritonserver and backends/python/libtriton_python.so), found none. "
        "Correct or remove NAIAD_TRITON_HOME; without it Triton is fetched."
    )


def _complete(path: Path) -> bool:
    home = Home(path=path)
    return home.server.is_file() and (home.python_backend / "libtriton_python.so").is_file()
