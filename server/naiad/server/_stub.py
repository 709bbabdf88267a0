"""The Python environment in which Triton's stub runs the backends, and proof that the stub starts in it.

The stub ignores PYTHONPATH and the like. It finds packages through the first `python3` in PATH and the `pyvenv.cfg`
beside it. So it gets an environment of links: numpy 1.26 first (with numpy 2 it silently corrupts tensors), then
everything of the environment that runs us. It costs a millisecond, so each server builds its own and none can be stale.
"""

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from naiad.server._home import Home
from naiad.server.errors import PreflightFailed

_BACKENDS: Final = Path(__file__).parent / "backends"
_STARTS: Final = "Expected 9 arguments"
_TIMEOUT_S: Final = 30.0


def build_environment(environment: Path, numpy: Path) -> None:
    """Fill the empty directory `environment` so that its `bin/python3` has numpy 1.26 and our packages."""
    python = Path(getattr(sys, "_base_executable", sys.executable)).absolute()
    (environment / "bin").mkdir()
    (environment / "bin" / "python3").symlink_to(python)
    (environment / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    packages = environment / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    for entry in numpy.iterdir():
        (packages / entry.name).symlink_to(entry)
    (packages / "zz_naiad.pth").write_text("".join(f"{path}\n" for path in _package_directories()))


def build_backends(backends: Path, home: Home) -> None:
    """Fill the empty directory `backends` with Triton's Python backend and those that Naiad ships."""
    python = backends / "python"
    python.mkdir()
    # A copy: Triton refuses a library that a link leads out of the backend directory. The stub stays a link: it finds
    # its own libraries relative to where it really lies.
    shutil.copyfile(home.python_backend / "libtriton_python.so", python / "libtriton_python.so")
    (python / "triton_python_backend_utils.py").symlink_to(home.python_backend / "triton_python_backend_utils.py")
    (python / "triton_python_backend_stub").symlink_to(home.stub(sys.version_info[:2]))
    for backend in _BACKENDS.iterdir() if _BACKENDS.is_dir() else ():
        if (backend / "model.py").is_file():
            shutil.copytree(backend, backends / backend.name, ignore=shutil.ignore_patterns("__pycache__"))


def link_libpython(libraries: Path) -> None:
    """Put a link to this interpreter's libpython into `libraries`, if there is such a file."""
    found = find_libpython()
    if found is not None:
        (libraries / libpython_name()).symlink_to(found)


def link_driver(libraries: Path, driver: str) -> None:
    """Put a link named `libcuda.so` to the driver into `libraries`.

    Triton opens that name, without the version that drivers' packages install; where it is missing, tensors go through
    the host's memory, and nobody says so.
    """
    (libraries / "libcuda.so").symlink_to(driver)


def preflight(stub: Path, environment: dict[str, str]) -> None:
    """Start the stub without arguments and expect its complaint; one that cannot start makes Triton wait for ever.

    Raises: `PreflightFailed`.
    """
    if not stub.is_file():
        raise PreflightFailed(
            f"Expected a Python stub at {stub.resolve()}, found none: this Triton has no stub for Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}. Unset NAIAD_TRITON_HOME to fetch one that has.",
            check="stub",
        )
    try:
        done = subprocess.run(
            [str(stub)],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PreflightFailed(f"The Python stub {stub.resolve()} cannot be run: {exc}.", check="stub") from exc
    said = done.stdout + done.stderr
    if _STARTS not in said:
        raise _cannot_start(said, done.returncode)


def find_libpython() -> Path | None:
    """The shared library of this interpreter, also where the stub's loader would not look."""
    return next((path for path in _candidates() if path.is_file()), None)


def libpython_name() -> str:
    """The file name that the stub asks the loader for."""
    return f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"


def _candidates() -> Iterator[Path]:
    named = os.environ.get("NAIAD_LIBPYTHON")
    if named:
        yield Path(named).expanduser().absolute()
        return
    directories = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:
        directories.append(f"{sys.base_prefix}/lib/{multiarch}")
    for directory in directories:
        if directory:
            yield Path(directory) / libpython_name()


def _cannot_start(said: str, returncode: int) -> PreflightFailed:
    missing = said.partition("error while loading shared libraries: ")[2].partition(":")[0]
    if missing.startswith("libpython"):
        return PreflightFailed(
            f"Triton's Python stub needs {missing}, and this Python ({sys.base_prefix}) brings no such file. Install "
            f"it (Debian, Ubuntu: `apt-get install {missing.partition('.so')[0]}`), use a Python that has it (`uv "
            "python install`; pyenv with PYTHON_CONFIGURE_OPTS=--enable-shared), or name the file in NAIAD_LIBPYTHON.",
            check="libpython",
        )
    if missing:
        return PreflightFailed(
            f"Triton's Python stub needs the shared library {missing}, found none. Install the package that has it "
            "(on slim images often zlib1g, libstdc++6 or libgcc-s1).",
            check=missing,
        )
    return PreflightFailed(
        f"Triton's Python stub cannot start: exit code {returncode}, it said: {said.strip() or 'nothing'}", check="stub"
    )


def _package_directories() -> list[str]:
    ours = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        ours.append(site.getusersitepackages())
    return list(dict.fromkeys(path for path in ours if os.path.isdir(path)))
