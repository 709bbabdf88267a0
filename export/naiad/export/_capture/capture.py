"""Capture: the model becomes an ONNX graph, in a fresh process.

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
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import torch

from naiad.export._capture import copy as _copy
from naiad.export._capture.graph import Graph
from naiad.export._source.graph import GraphSubject
from naiad.export._source.module import ModuleSubject
from naiad.export._source.program import ProgramSubject
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export.errors import CaptureFailed

JOB = "job.pt"
PROGRAM = "program.pt2"


def capture(
    subject: Subject,
    samples: Samples,
    output_names: tuple[str, ...],
    *,
    opset: int,
    directory: Path,
    target: Path,
) -> Graph:
    """Make the graph of a bound subject in `target` (a directory) by way of `directory`, which is private.

    Raises:
        CaptureFailed: The model cannot travel, or PyTorch cannot export it.
    """
    directory.mkdir()
    if isinstance(subject, GraphSubject):
        return _copy.copy(subject, samples, target)
    job = {
        "inputs": samples.capture(),
        "dynamic": {name: dict(axes) for name, axes in samples.dynamic.items()},
        "outputs": output_names,
        "opset": opset,
        "target": str(target),
        **_what(subject, directory),
    }
    _save(job, directory / JOB)
    answer = _run(directory)
    if "error" in answer:
        raise _failure(answer["error"], subject.label)
    return _graph(answer, target)


def _what(subject: Subject, directory: Path) -> dict[str, Any]:
    """Return what the capture process exports."""
    if isinstance(subject, ProgramSubject):
        torch.export.save(subject.program, directory / PROGRAM)
        return {"model": None, "plain": False}
    assert isinstance(subject, ModuleSubject)
    if isinstance(subject.model, torch.jit.ScriptModule):
        raise CaptureFailed(
            f"{subject.label} is a ScriptModule, which the exporter cannot read; export the nn.Module that "
            "it was made from"
        )
    return {"model": subject.captured(), "plain": subject.arguments.plain}


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


def _run(directory: Path) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
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
    except ValueError as exc:
        end = " | ".join(log.decode(errors="replace").strip().splitlines()[-3:])
        raise CaptureFailed(f"the capture process ended with code {process.returncode} and no answer: {end}") from exc
    return answer


def _failure(error: dict[str, Any], label: str) -> Exception:
    if error["errno"] is not None:
        return OSError(error["errno"], error["message"])
    operator, source = error["operator"], error["source"]
    message = f"PyTorch cannot export {label}: {error['message']}"
    if source:
        message += f" (at {source})"
    return CaptureFailed(message, operator=operator, source=source)


def _graph(answer: dict[str, Any], target: Path) -> Graph:
    return Graph(
        path=target / "model.onnx",
        inputs={name: tuple(dims) for name, dims in answer["inputs"].items()},
        outputs={name: tuple(dims) for name, dims in answer["outputs"].items()},
        ranges={symbol: (low, high) for symbol, (low, high) in answer["ranges"].items()},
        unused=tuple(answer["unused"]),
        opset=answer["opset"],
        ir_version=answer["ir_version"],
        exporter=answer["exporter"],
        versions=answer["versions"],
    )
