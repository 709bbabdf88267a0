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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import torch

from naiad.export._capture import copy as _copy
from naiad.export._capture.graph import Graph, read
from naiad.export._source.graph import GraphSubject
from naiad.export._source.module import ModuleSubject
from naiad.export._source.program import ProgramSubject
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export.errors import CaptureFailed, InvalidExport

JOB = "job.pt"
PROGRAM = "program.pt2"
SCRIPT = "script.pt"


def capture(
    subject: Subject,
    samples: Samples,
    answers: Sequence[Answer],
    *,
    opset: int,
    exporter: str = "auto",
    directory: Path,
    target: Path,
) -> Graph:
    """Make the graph of a bound subject in `target` (a directory) by way of `directory`, which is private.

    Raises:
        CaptureFailed: The model cannot travel, or neither exporter can read it.
        InvalidExport: The exporter that was asked for does not take this kind of model.
    """
    directory.mkdir()
    if isinstance(subject, GraphSubject):
        return _copy.copy(subject, samples, target)
    first, reason = _first_choice(subject, exporter)
    work = _Work(subject=subject, samples=samples, answers=answers, opset=opset, directory=directory, target=target)
    made = _attempt(work, first, reason)
    if isinstance(made, Graph):
        return made
    if exporter != "auto" or first == "legacy" or not _may_fall_back(subject, made):
        raise _failure(made, subject.label)
    for path in target.iterdir():
        path.unlink()
    second = _attempt(work, "legacy", _reason(made))
    if isinstance(second, Graph):
        return second
    raise _failure(made, subject.label, legacy=second)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What both exporters are given."""

    subject: Subject
    samples: Samples
    answers: Sequence[Answer]
    opset: int
    directory: Path
    target: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failed:
    """Why an exporter gave no graph."""

    message: str
    operator: str | None = None
    source: str | None = None
    fixed: bool = False
    """Whether the model fixes a dimension that was declared dynamic."""


def _first_choice(subject: Subject, exporter: str) -> tuple[str, str]:
    """Return the exporter to begin with, and why where it is not the usual one."""
    script = isinstance(subject, ModuleSubject) and isinstance(subject.model, torch.jit.ScriptModule)
    if exporter == "dynamo" and script:
        raise InvalidExport(
            f"{subject.label} is a ScriptModule, which only the legacy exporter reads; use exporter='auto'"
        )
    if exporter == "legacy" and isinstance(subject, ProgramSubject):
        raise InvalidExport(f"{subject.label} is an exported program, which only the dynamo exporter reads")
    if script:
        return "legacy", "the model is a ScriptModule, which only the legacy exporter reads"
    return ("legacy", "it was asked for") if exporter == "legacy" else ("dynamo", "")


def _may_fall_back(subject: Subject, failed: _Failed) -> bool:
    """Whether the legacy exporter could do better; a dimension that the model fixes it would only fix silently."""
    return isinstance(subject, ModuleSubject) and not failed.fixed


def _attempt(work: _Work, exporter: str, reason: str) -> Graph | _Failed:
    directory = work.directory / exporter
    directory.mkdir()
    samples, names = work.samples, tuple(work.answers[0].outputs)
    job = {
        "exporter": exporter,
        "inputs": samples.capture(),
        "dynamic": {name: dict(axes) for name, axes in samples.dynamic.items()},
        "dynamic_outputs": _dynamic_outputs(samples, work.answers),
        "outputs": names,
        "opset": work.opset,
        "target": str(work.target),
        **_what(work.subject, directory, exporter),
    }
    _save(job, directory / JOB)
    answer = _run(directory)
    if "error" in answer:
        return _failed(answer["error"], tuple(job["inputs"]))
    ranges = {symbol: (low, high) for symbol, (low, high) in answer["ranges"].items()}
    path = work.target / "model.onnx"
    return read(path, exporter=exporter, reason=reason, ranges=ranges, versions=answer["versions"])


def _what(subject: Subject, directory: Path, exporter: str) -> dict[str, Any]:
    """Return what the capture process exports: a model that travels in the job, or a file beside it."""
    job = {"model": None, "program": "", "script": "", "plain": False}
    if isinstance(subject, ProgramSubject):
        torch.export.save(subject.program, directory / PROGRAM)
        return job | {"program": PROGRAM}
    assert isinstance(subject, ModuleSubject)
    if isinstance(subject.model, torch.jit.ScriptModule):
        torch.jit.save(subject.model, directory / SCRIPT)
        return job | {"script": SCRIPT}
    if exporter == "legacy":
        return job | {"model": subject.flat()}
    return job | {"model": subject.captured(), "plain": subject.arguments.plain}


def _dynamic_outputs(samples: Samples, answers: Sequence[Answer]) -> dict[str, dict[int, str]]:
    """Return the dimensions of the outputs that differed between the cases: the legacy exporter must be told."""
    found: dict[str, dict[int, str]] = {}
    for name, value in answers[0].outputs.items():
        for axis in range(value.ndim):
            sizes = [answer.outputs[name].shape[axis] for answer in answers if answer.outputs[name].ndim > axis]
            if len(set(sizes)) > 1:
                found.setdefault(name, {})[axis] = _symbol(sizes, answers) or f"{name}_{axis}"
    return found


def _symbol(sizes: list[int], answers: Sequence[Answer]) -> str | None:
    """Return the dynamic dimension of the inputs that a dimension of an output follows, if it follows one."""
    symbols = answers[0].case.sizes
    return next((s for s in symbols if [answer.case.sizes[s] for answer in answers] == sizes), None)


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
    except ValueError:
        end = " | ".join(log.decode(errors="replace").strip().splitlines()[-3:])
        message = f"the capture process ended with code {process.returncode} and no answer: {end}"
        return {"error": {"errno": None, "message": message, "operator": None, "source": None, "fixed": None}}
    return answer


def _failed(error: dict[str, Any], names: tuple[str, ...]) -> _Failed:
    if error["errno"] is not None:
        raise OSError(error["errno"], error["message"])
    fixed, message = error["fixed"], error["message"]
    if fixed:
        name = fixed["input"] if fixed["index"] is None else names[int(fixed["index"])]
        message = (
            f"dimension {fixed['axis']} of input {name!r} was declared dynamic and the model fixes it at "
            f"{fixed['size']}; look for a constant in view(), reshape() or expand(), and for a Python if or loop "
            "over it, or leave it out of dynamic"
        )
    return _Failed(message=message, operator=error["operator"], source=error["source"], fixed=bool(fixed))


def _reason(failed: _Failed) -> str:
    return failed.message + (f" (at {failed.source})" if failed.source else "")


def _failure(failed: _Failed, label: str, *, legacy: _Failed | None = None) -> CaptureFailed:
    message = f"PyTorch cannot export {label}: {_reason(failed)}"
    if legacy and not (legacy.operator and failed.operator):
        message += f". The legacy exporter fails too: {_reason(legacy)}"
    return CaptureFailed(message, operator=failed.operator, source=failed.source)
