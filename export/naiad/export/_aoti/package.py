"""A model becomes a package of machine code that answers as it does."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._aoti.toolchain import CXX
from naiad.export._capture.aoti import ANSWERS, PACKAGE, RECORDED
from naiad.export._capture.capture import failure_of, what_travels
from naiad.export._capture.process import run_job
from naiad.export._source.graph import GraphSubject
from naiad.export._source.program import ProgramSubject
from naiad.export._source.reference import Answer, Arrays
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export.errors import CaptureFailed, InvalidExport
from naiad.export.report import BatchLatency

_DTYPES = {"fp32": "", "fp16": "float16", "bf16": "bfloat16"}

PRECISIONS = tuple(_DTYPES)
"""Of a package: fp32 keeps the model's own types."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a package is compiled and run, and in what it computes."""

    device: str = "cpu"
    """"cpu" or "cuda"."""
    precision: str = "fp32"
    """One of `PRECISIONS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A compiled model with its own answers."""

    path: Path
    answers: tuple[Arrays, ...]
    """By case, with the names of the reference's outputs."""
    latency: tuple[BatchLatency, ...]
    ranges: dict[str, tuple[int, int | None]]
    """By dynamic dimension, the sizes it is valid for; None for no upper end."""
    metadata: dict[str, str]
    """What it was compiled for: operating system, processor, instruction sets, device."""
    versions: dict[str, str]
    place: Place
    recorded: tuple[Arrays, ...] = ()
    """The answers of its CUDA graphs, where its shapes are fixed but for the batch and it could be recorded."""
    not_recorded: str = ""
    """Why it could not."""


def require_compiler() -> None:
    """Refuse a machine that cannot compile, before any work.

    Raises:
        CaptureFailed: There is no C++ compiler.
    """
    compiler = os.environ.get("CXX", CXX)
    if shutil.which(compiler) is None:
        raise CaptureFailed(
            f"the accelerator aoti compiles the model and needs a C++ compiler: expected {compiler} in PATH, found "
            "none; install g++ (Debian, Ubuntu: apt-get install g++), or name another compiler in CXX"
        )


def make(
    subject: Subject, samples: Samples, answers: Sequence[Answer], *, place: Place, directory: Path, target: Path
) -> Package:
    """Compile a bound subject into `target` (a directory) by way of `directory`, which is private.

    Raises:
        InvalidExport: The subject is an ONNX graph or one that keeps its types, or a tensor has no dimension.
        CaptureFailed: PyTorch cannot export or compile it, or the package does not run.
    """
    _require_servable(subject, answers[0])
    if place.precision != "fp32" and isinstance(subject, ProgramSubject):
        raise InvalidExport(
            f"{subject.label} is an exported program, which keeps the types that it was exported with; found precision="
            f"{place.precision!r}: give the model itself, or cast it before torch.export"
        )
    directory.mkdir()
    job = {
        "exporter": "aoti",
        "inputs": samples.capture(),
        "dynamic": {name: dict(axes) for name, axes in samples.dynamic.items()},
        "cases": [[answer.case.feeds()[name] for name in samples.names] for answer in answers],
        "num_threads": 1,
        "device": place.device,
        "dtype": _DTYPES[place.precision],
        "output_types": [array.dtype.name for array in answers[0].outputs.values()],
        "fixed_shapes": set(samples.symbols()) <= {samples.batch},
        "target": str(target),
        **what_travels(subject, directory, "dynamo"),
    }
    if job["model"] is not None:
        job |= {"model": subject.flat(), "plain": False}  # type: ignore[attr-defined]
    found = run_job(job, directory)
    if "error" in found:
        raise failure_of(found["error"], samples.names, subject.label)
    return Package(
        path=target / PACKAGE,
        answers=_answers(directory / ANSWERS, answers, subject),
        latency=_latency(samples, answers, found["times_ms"]),
        ranges={symbol: (low, high) for symbol, (low, high) in found["ranges"].items()},
        metadata=found["metadata"],
        versions=found["versions"],
        place=place,
        recorded=_answers(recorded, answers, subject) if (recorded := directory / RECORDED).is_file() else (),
        not_recorded=found["not_recorded"],
    )


def _require_servable(subject: Subject, answer: Answer) -> None:
    if isinstance(subject, GraphSubject):
        raise InvalidExport("the accelerator aoti compiles PyTorch models; this one is an ONNX graph: choose another")
    for kind, arrays in (("input", answer.case.feeds()), ("output", answer.outputs)):
        for name, array in arrays.items():
            if array.ndim == 0 or array.dtype.kind in "OUS":
                what = "text" if array.dtype.kind in "OUS" else "a scalar without a dimension"
                raise InvalidExport(f"{kind} {name!r} is {what}, which Triton's pytorch backend does not serve")


def _answers(path: Path, expected: Sequence[Answer], subject: Subject) -> tuple[Arrays, ...]:
    names = tuple(expected[0].outputs)
    found: list[Arrays] = []
    with np.load(path) as stored:
        for case in range(len(expected)):
            arrays: list[np.ndarray[Any, Any]] = [stored[key] for key in stored.files if key.startswith(f"{case}/")]
            if len(arrays) != len(names):
                raise CaptureFailed(f"{subject.label} has the outputs {list(names)}; its package gives {len(arrays)}")
            found.append(dict(zip(names, arrays, strict=True)))
    return tuple(found)


def _latency(samples: Samples, answers: Sequence[Answer], times_ms: Sequence[float]) -> tuple[BatchLatency, ...]:
    """Return one time for each batch size: that of its first case."""
    times: dict[int, float] = {}
    for answer, time_ms in zip(answers, times_ms, strict=True):
        times.setdefault(answer.case.sizes.get(str(samples.batch), 0), time_ms)
    return tuple(BatchLatency(batch=batch, median_ms=time_ms) for batch, time_ms in sorted(times.items()))
