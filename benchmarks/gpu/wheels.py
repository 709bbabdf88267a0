"""Collects the wheels that a machine without network needs: `gpu.sh wheels`, run where there is a network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

try:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename
except ImportError:  # pip brings its own
    from pip._vendor.packaging.requirements import Requirement  # type: ignore[assignment]
    from pip._vendor.packaging.utils import canonicalize_name, parse_wheel_filename  # type: ignore[assignment]

from gpu import parts

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = "cuda,export,loadtest,server"
TESTS = ("httpx", "pytest", "pytest-asyncio", "pytest-timeout")
"""What tests/gpu import beside the extras."""
TRITON, STUB_NUMPY = "nvidia-pytriton==0.7.0", "numpy==1.26.4"
"""Never installed: `naiad.server` takes them from the folder, checks their SHA-256 and unpacks them."""
_GIVEN = ("torch", "triton")
_GPU_RUNTIME = "onnxruntime-gpu"
_SAME = {"onnxruntime-gpu": "onnxruntime"}
_GLIBC_MINORS = (*range(39, 16, -1), 12, 5)


class WheelsError(Exception):
    """The wheels could not be collected."""


def collect(
    folder: Path, *, python: str, part_size: int, assumed: dict[str, str], gpu_runtime: bool, libpython: Path | None
) -> list[Path]:
    """Write the parts for a machine with that Python and the assumed packages below `folder`; gives them.

    PyTorch is never carried, `onnxruntime-gpu` only with `gpu_runtime`. Raises: `WheelsError`.
    """
    if any(folder.glob("part-*")):
        raise WheelsError(f"expected no parts in {folder}, found some; remove them or name another folder")
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary)
        roles = dict.fromkeys(_project(store, python, assumed, gpu_runtime), "install")
        for pinned in (TRITON, STUB_NUMPY):
            roles |= dict.fromkeys(_download([pinned], store / "launcher", python, constrained=False), "launcher")
        if libpython is not None:
            name = f"libpython{python}.so.1.0"
            copy = store / name
            shutil.copyfile(libpython, copy)
            roles[copy] = "libpython"
        folder.mkdir(parents=True, exist_ok=True)
        return parts.write(roles, folder, part_size)


def read_assumed(path: Path) -> dict[str, str]:
    """Read `pip list --format=json`, or lines of `name==version`; gives versions by normalised name.

    Raises: `WheelsError`.
    """
    text = path.read_text()
    try:
        rows = (
            [(entry["name"], entry["version"]) for entry in json.loads(text)]
            if text.lstrip()[:1] == "["
            else [
                (name.strip(), version.strip())
                for name, equals, version in (line.partition("#")[0].partition("==") for line in text.splitlines())
                if equals
            ]
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise WheelsError(
            f"expected `pip list --format=json` or lines of name==version in {path}, found: {exc}"
        ) from exc
    return {canonicalize_name(name): version for name, version in rows}


def _project(store: Path, python: str, assumed: dict[str, str], gpu_runtime: bool) -> Iterator[Path]:
    """Give the project's wheel and all that it needs on such a machine, without what is there."""
    wheel = _build(store / "project")
    yield wheel
    waiting = [Requirement(f"naiad[{EXTRAS}]"), *map(Requirement, TESTS)]
    known, seen, requirements = {"naiad": wheel}, set(), list[Any]()
    while waiting:
        for requirement in waiting:
            seen.add(str(requirement))
        missing = [
            each
            for each in waiting
            if canonicalize_name(each.name) not in known and not _is_there(each, assumed, gpu_runtime)
        ]
        named = {canonicalize_name(each.name): each for each in missing}
        for path in _download([_bare(each) for each in named.values()], store / "wheels", python, constrained=True):
            name = str(parse_wheel_filename(path.name)[0])
            if name not in known:
                known[name] = path
                yield path
        requirements = [each for each in waiting if canonicalize_name(each.name) in known]
        waiting = [
            needed
            for each in requirements
            for needed in _needs(known[canonicalize_name(each.name)], each.extras, python)
            if str(needed) not in seen
        ]


def _build(folder: Path) -> Path:
    _pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    return next(folder.glob("naiad-*.whl"))


def _is_there(requirement: Any, assumed: dict[str, str], gpu_runtime: bool) -> bool:
    name = canonicalize_name(requirement.name)
    if name in _GIVEN or (name == _GPU_RUNTIME and not gpu_runtime):
        return True
    return name in assumed and requirement.specifier.contains(assumed[name], prereleases=True)


def _bare(requirement: Any) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _needs(wheel: Path, extras: Iterable[str], python: str) -> Iterator[Any]:
    """Give what a wheel requires on Linux x86-64 with that Python, with these extras."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    target = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for text in metadata.get_all("Requires-Dist") or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**target, "extra": extra}) for extra in ("", *extras)):
            if canonicalize_name(requirement.name) == "naiad":
                continue
            yield requirement


def _download(requirements: list[str], folder: Path, python: str, *, constrained: bool) -> list[Path]:
    """Download without what they need in turn; gives the files that are in `folder` then."""
    if not requirements:
        return []
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in _GLIBC_MINORS if minor <= 35]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    command = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--python-version", python, "--implementation", "cp"]
    for platform in platforms:
        command += ["--platform", platform]
    if constrained:
        command += ["--constraint", str(ROOT / "constraints.txt")]
    _pip(*command, *requirements)
    return sorted(folder.glob("*.whl"))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise WheelsError(f"pip {arguments[0]} failed; it said: {' '.join(lines[-3:])}")
