"""The capture process from outside: a job is handed over, and its answer read.

A fresh process, because PyTorch keeps state between exports: the second recurrent net of one process fails. The model
travels as a file in our own private stage. Classes the new process could not import (from `__main__`, a notebook, a
recipe, a test) travel by value, the rest by reference.
"""

import contextlib
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import torch

from naiad.export._aoti import toolchain as _toolchain
from naiad.export.errors import CaptureFailed

JOB = "job.pt"


def run_job(job: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Have a fresh process do `job` by way of `directory`, and return its answer; Ctrl-C ends the process.

    Raises:
        CaptureFailed: The model cannot travel.
    """
    _save(job, directory / JOB)
    paths = [path for path in sys.path if path]
    if job.get("exporter") != "aoti":
        return _run(directory, {"PYTHONPATH": os.pathsep.join(paths)})
    with _for_a_compiler(paths) as environment:
        if job["device"] == "cuda":
            environment |= _toolchain.environment(Path(environment["TMPDIR"]))
        return _run(directory, environment)


@contextlib.contextmanager
def _for_a_compiler(paths: list[str]) -> Iterator[dict[str, str]]:
    """Give an environment whose paths a compiler's command line can hold: PyTorch does not quote those with spaces."""
    temporary = next((path for path in (tempfile.gettempdir(), "/tmp") if not _has_space(path)), "/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="naiad-compile-", dir=temporary) as folder:
        plain = []
        for number, path in enumerate(paths):
            plain.append(str(Path(folder) / str(number)) if _has_space(path) else path)
            if plain[-1] != path:
                Path(plain[-1]).symlink_to(path, target_is_directory=True)
        cache = {} if "TORCHINDUCTOR_CACHE_DIR" in os.environ else {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"}
        yield {"PYTHONPATH": os.pathsep.join(plain), "TMPDIR": folder, **cache}


def _has_space(path: str) -> bool:
    return any(character.isspace() for character in path)


def _save(job: dict[str, Any], path: Path) -> None:
    model = job["model"]
    with _travelling_by_value(model):
        try:
            with path.open("xb") as file:
                torch.save(job, file, pickle_module=cloudpickle)
        except Exception as exc:  # whatever __reduce__ and __getstate__ of a foreign class raise
            if isinstance(exc.__context__, OSError):  # PyTorch's writer says something else about a full disk
                raise exc.__context__ from None
            raise CaptureFailed(
                f"{type(model).__name__} cannot be handed to the capture process: {exc}; keep locks, files, generators "
                "and the like out of the module, or set them to None before the export"
            ) from exc


@contextlib.contextmanager
def _travelling_by_value(model: torch.nn.Module | None) -> Iterator[None]:
    names = {cls.__module__ for module in (model.modules() if model else ()) for cls in type(module).__mro__}
    modules = [sys.modules[name] for name in sorted(names) if name in sys.modules and name != "__main__"]
    foreign = [module for module in modules if not _importable(module)]
    for module in foreign:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in foreign:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: ModuleType) -> bool:
    """Whether a new process with the same `sys.path` would import this very file under this name."""
    file = getattr(module, "__file__", None)
    if file is None:
        return True
    path = None
    spec: importlib.machinery.ModuleSpec | None = None
    for part in _prefixes(module.__name__):
        spec = _find(part, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return spec is not None and spec.origin is not None and Path(spec.origin) == Path(file)


def _find(name: str, path: Any) -> importlib.machinery.ModuleSpec | None:
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    specs = (find(name, path) for find in finders if find is not None)
    return next((spec for spec in specs if spec is not None), None)


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _run(directory: Path, changes: dict[str, str]) -> dict[str, Any]:
    environment = os.environ | changes
    command = [sys.executable, "-m", "naiad.export._capture.worker", str(directory)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        try:
            output, log = process.communicate()
        except BaseException:
            process.kill()
            process.wait()  # it must not write into the stage any more when that is removed
            raise
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        end = " | ".join(log.decode(errors="replace").strip().splitlines()[-3:])
        message = f"the capture process ended with code {process.returncode} and no answer: {end}"
        return {"error": {"errno": None, "message": message, "operator": None, "source": None, "fixed": None}}
    return answer
