"""An environment of its own for the benchmark: carried wheels first, then everything that the machine's Python has."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu import parts

BENCHMARKS = Path(__file__).resolve().parents[1]
_READY = ".ready"
_IMPORTS = "import naiad.client, naiad.export, naiad.server, torch"


class SetupError(Exception):
    """The environment cannot be made on this machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """Where it lies, and what the processes in it are told."""

    python: Path
    variables: dict[str, str]
    wheels: dict[str, str]
    """Carried files and their SHA-256; empty where Naiad is installed already."""


def prepare(work: Path, wheels: Path | None, log: Path) -> Environment:
    """Make the environment in `work`, or find it there complete. Without wheels, this Python has Naiad itself.

    Raises: `SetupError`, `parts.PartsError`.
    """
    if wheels is None:
        python, files = Path(sys.executable), list[dict[str, Any]]()
    else:
        files = parts.join(wheels, work / "wheels")["files"]
        python = work / "env" / "bin" / "python3"
        marker = work / "env" / _READY
        if not marker.is_file() or marker.read_text() != _stamp(files):
            _make(work, files, python, log)
            marker.write_text(_stamp(files))
    environment = Environment(
        python=python,
        variables=_variables(work, files),
        wheels={entry["name"]: entry["sha256"] for entry in files},
    )
    _check(environment)
    return environment


def _stamp(files: list[dict[str, Any]]) -> str:
    return json.dumps([sys.executable, sys.version, files])


def _make(work: Path, files: list[dict[str, Any]], python: Path, log: Path) -> None:
    shutil.rmtree(work / "env", ignore_errors=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(work / "env")], log)
    store = work / "wheels"
    install = [str(store / entry["name"]) for entry in files if entry["role"] == "install"]
    pip = next((wheel for wheel in install if Path(wheel).name.startswith("pip-")), None)
    search = [pip] if pip else list(_package_folders())
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    command += ["--no-deps", "--no-compile", "--no-cache-dir", "--ignore-installed", *install]
    _run(command, log, PYTHONPATH=os.pathsep.join(search))
    packages = next((work / "env" / "lib").glob("python3.*/site-packages"))
    names = {name for entry in packages.glob("*.dist-info") if (name := _project(entry.name))}
    for folder in _package_folders():
        link_missing(Path(folder), packages, names)


def link_missing(theirs: Path, ours: Path, projects: set[str]) -> None:
    """Link what `theirs` has and `ours` has not, into `ours`; folders that both have become one where no package is.

    The metadata of `projects` (normalised names) stay ours alone. Links and no path file: Triton's Python process looks
    into this one folder only.
    """
    for entry in theirs.iterdir():
        mine = ours / entry.name
        if entry.suffix == ".pth" or entry.name == "__pycache__" or _project(entry.name) in projects:
            continue
        if not mine.exists() and not mine.is_symlink():
            mine.symlink_to(entry)
        elif mine.is_dir() and not mine.is_symlink() and entry.is_dir() and not (mine / "__init__.py").exists():
            link_missing(entry, mine, set())


def _project(name: str) -> str | None:
    """Return the normalised project name of a metadata folder."""
    stem, dash, _ = name.partition("-")
    return (
        stem.lower().replace("-", "_").replace(".", "_")
        if dash and name.endswith((".dist-info", ".egg-info"))
        else None
    )


def _package_folders() -> Iterator[str]:
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    names = ("site-packages", "dist-packages")
    return (path for path in dict.fromkeys(folders) if os.path.basename(path) in names and os.path.isdir(path))


def _variables(work: Path, files: list[dict[str, Any]]) -> dict[str, str]:
    variables = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "PYTHONUNBUFFERED": "1"}
    if files:
        # An address and no path: pip divides the variable at spaces.
        variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (work / "wheels").as_uri()}
        variables["NAIAD_CACHE_DIR"] = str(work / "cache")
    carried = next((entry["name"] for entry in files if entry["role"] == "libpython"), None)
    if carried and not _has_libpython(carried):
        variables["NAIAD_LIBPYTHON"] = str(work / "wheels" / carried)
    if " " not in str(work):  # the compiler behind PyTorch takes no such path
        variables["TORCHINDUCTOR_CACHE_DIR"] = str(work / "cache" / "inductor")
    return variables


def _has_libpython(name: str) -> bool:
    folders = [sysconfig.get_config_var("LIBDIR"), f"{sys.base_prefix}/lib", f"{sys.base_prefix}/lib64"]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    folders += [f"{sys.base_prefix}/lib/{multiarch}"] if multiarch else []
    return any((Path(folder) / name).is_file() for folder in folders if folder)


def _check(environment: Environment) -> None:
    done = subprocess.run(
        [environment.python, "-c", _IMPORTS], env=environment.variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise SetupError(
            f"expected naiad and torch in {environment.python}, found: {said[0]}. Carry what is missing: "
            "`gpu.sh wheels` with --assume made of this machine's `pip list --format=json`."
        )


def _run(command: list[str], log: Path, **variables: str) -> None:
    with open(log, "a") as output:
        done = subprocess.run(
            command, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        tail = " ".join(log.read_text(errors="replace").splitlines()[-3:])
        raise SetupError(f"{' '.join(command[1:4])} failed with {done.returncode}; it said: {tail} (all of it: {log})")
