"""Capture: the model becomes an ONNX graph, by the dynamo exporter, or by the legacy one where that cannot."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from naiad.export._capture import copy as _copy
from naiad.export._capture.graph import Graph, read
from naiad.export._capture.process import run_job as run_job
from naiad.export._check.targets import Target
from naiad.export._runtime.session import session
from naiad.export._source.graph import GraphSubject
from naiad.export._source.module import ModuleSubject
from naiad.export._source.program import ProgramSubject
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export.errors import CaptureFailed, InvalidExport

PROGRAM = "program.pt2"
SCRIPT = "script.pt"


def capture(
    subject: Subject,
    samples: Samples,
    answers: Sequence[Answer],
    *,
    opset: int,
    exporter: str = "auto",
    release: Target,
    directory: Path,
    target: Path,
) -> Graph:
    """Make the graph of a bound subject in `target` (a directory) by way of `directory`, which is private.

    A file is rewritten where `release` could not read it.

    Raises:
        CaptureFailed: The model cannot travel, or neither exporter can read it.
        InvalidExport: The exporter that was asked for does not take this kind of model.
    """
    directory.mkdir()
    if isinstance(subject, GraphSubject):
        return _copy.copy(subject, samples, target, max_opset=release.max_opset, max_ir_version=release.max_ir_version)
    first, reason = _first_choice(subject, exporter)
    work = _Work(subject=subject, samples=samples, answers=answers, opset=opset, directory=directory, target=target)
    made = _attempt(work, first, reason)
    if isinstance(made, Graph):
        return made
    if exporter != "auto" or first == "legacy" or not isinstance(subject, ModuleSubject):
        raise _failure(made, subject.label)
    for path in target.iterdir():
        path.unlink()
    second = _attempt(work, "legacy", _reason(made))
    if isinstance(second, Graph) and (not made.fixed or _follows(second, answers)):
        return second
    raise _failure(made, subject.label, legacy=None if isinstance(second, Graph) else second)


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


def _follows(graph: Graph, answers: Sequence[Answer]) -> bool:
    """Whether a recorded graph answers at all sizes: a loop over a dimension would be fixed without a word.

    Only roughly: whether the answers are near enough is for the parity gate to say.
    """
    runtime = session(graph.path)
    for answer in answers:
        try:
            found = dict(zip(graph.outputs, runtime.run(list(graph.outputs), answer.case.feeds()), strict=True))
        except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no public base class
            return False
        if not all(_alike(found[name], expected) for name, expected in answer.outputs.items()):
            return False
    return True


def _alike(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    if actual.shape != expected.shape:
        return False
    if expected.dtype.kind != "f":
        return True
    scale = float(np.abs(expected).max(initial=0.0))
    return bool(np.allclose(actual, expected, rtol=0, atol=0.05 * scale + 1e-6, equal_nan=True))


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
        **what_travels(work.subject, directory, exporter),
    }
    answer = run_job(job, directory)
    if "error" in answer:
        return _failed(answer["error"], tuple(job["inputs"]))
    ranges = {symbol: (low, high) for symbol, (low, high) in answer["ranges"].items()}
    path = work.target / "model.onnx"
    return read(path, exporter=exporter, reason=reason, ranges=ranges, versions=answer["versions"])


def what_travels(subject: Subject, directory: Path, exporter: str) -> dict[str, Any]:
    """Return what the capture process exports: a model that travels in the job, or a file beside it."""
    job = {"model": None, "program": "", "script": "", "plain": False}
    if isinstance(subject, ProgramSubject):
        torch.export.save(subject.program, directory / PROGRAM)
        return job | {"program": PROGRAM}
    assert isinstance(subject, ModuleSubject)
    if isinstance(subject.model, torch.jit.ScriptModule):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as a whole
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


def failure_of(error: dict[str, Any], names: tuple[str, ...], label: str) -> CaptureFailed:
    """Return the error for what the capture process answered; `names` are those of the inputs."""
    return _failure(_failed(error, names), label)


def _reason(failed: _Failed) -> str:
    return failed.message + (f" (at {failed.source})" if failed.source else "")


def _failure(failed: _Failed, label: str, *, legacy: _Failed | None = None) -> CaptureFailed:
    message = f"PyTorch cannot export {label}: {_reason(failed)}"
    if legacy and not (legacy.operator and failed.operator):
        message += f". The legacy exporter fails too: {_reason(legacy)}"
    return CaptureFailed(message, operator=failed.operator, source=failed.source)
