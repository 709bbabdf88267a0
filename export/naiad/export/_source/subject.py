"""The subject of an export: something that answers, and becomes a graph that must answer as it does.

There are three: an `nn.Module`, an `ExportedProgram` (a `.pt2` file) and an ONNX graph (an `.onnx` file).
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from naiad.export._source import generate as _generate
from naiad.export._source.generate import Ranges
from naiad.export._source.samples import Dynamic, Inputs, Samples, arrange
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.report import Finding

DEFAULT_MAX_BATCH_SIZE = 64

_UNBATCHED = Finding(
    check="no batch",
    message="an input's first dimension is fixed, so max_batch_size is 0: the server forms no batches of this model; "
    "make the model again with an open first dimension",
)


class Subject(Protocol):
    """What every subject of an export can do."""

    label: str
    """Its name in messages: a class, or a file."""
    reference: str
    """What gives its answers: `PyTorch` or `ONNX Runtime`."""

    def bind(self, samples: Sequence[Any]) -> tuple[Inputs, ...]:
        """Return the samples as arrays by input name; the first call fixes which inputs there are.

        Raises:
            InvalidExport: A sample does not fit.
        """

    def inputs(self) -> dict[str, Input]:
        """Return what is known of the inputs, for samples that are made up; empty where only samples can tell."""

    def ranges(self) -> Ranges:
        """Return the sizes that it takes, by dynamic dimension of `inputs`, where these are limited."""

    def batched(self) -> bool:
        """Whether the first dimension of every input can be the batch, as far as is known before any sample."""

    def dynamic(self, rows: tuple[Inputs, ...], max_batch_size: int) -> Dynamic:
        """Return the dimensions that vary where the user named none."""

    def evaluating(self) -> AbstractContextManager[bool]:
        """Run the subject as it will be served while the block lasts; whether that changes its answers."""

    def run(self, inputs: Inputs) -> Inputs:
        """Return the subject's own answer by output name; called after `bind`.

        Raises:
            InvalidExport: An output is nothing that Triton returns, or the names given for them do not fit.
        """

    def describe(self) -> dict[str, Any]:
        """Return what it is, for the manifest."""

    def findings(self) -> tuple[Finding, ...]:
        """Return what is worth knowing about how the samples were bound."""


def bind(
    subject: Subject,
    samples: Sequence[Any] | None,
    dynamic: Dynamic | None,
    max_batch_size: int | None,
    inputs: Mapping[str, Input] | None = None,
) -> Samples:
    """Bind samples to the inputs of a subject and check that they fit together; make some up where there are none.

    Raises:
        InvalidExport: A sample does not fit the subject, or contradicts another or `dynamic`.
    """
    if max_batch_size is not None and max_batch_size < 0:
        raise InvalidExport(f"max_batch_size must be at least 0; found {max_batch_size}")
    notes = []
    if max_batch_size is None:
        max_batch_size = DEFAULT_MAX_BATCH_SIZE if subject.batched() else 0
        notes += [] if max_batch_size else [_UNBATCHED]
    if max_batch_size and not subject.batched():
        raise InvalidExport(
            f"{subject.label} fixes the first dimension of an input, so the server cannot form batches of it; make it "
            "again with an open first dimension, or use max_batch_size=0"
        )
    made_up = samples is None
    if samples is None:
        declared = subject.inputs()
        known = declared | dict(inputs or {})
        samples = _made_up(subject, known)
        notes.append(_generate.finding(known))
        if dynamic is None and not declared:
            dynamic = _generate.dynamic(known)
    elif not isinstance(samples, list | tuple) or not samples:
        raise InvalidExport("samples must be a list with at least one tuple or dict, one for each call of the model")
    rows = subject.bind(samples)
    dynamic = subject.dynamic(rows, max_batch_size) if dynamic is None else dynamic
    return replace(arrange(rows, dynamic, max_batch_size), generated=made_up, notes=tuple(notes))


def _made_up(subject: Subject, known: Mapping[str, Input]) -> list[Inputs]:
    if not known:
        raise InvalidExport(
            f"{subject.label} needs samples, a list of tuples or dicts of real inputs; or say what its inputs are "
            "(inputs={'x': Input(shape=['batch', 4])}, or INPUTS in a recipe) to have some made up"
        )
    return _generate.generate(known, subject.ranges())


def open_subject(model: Any, outputs: Sequence[str] | None = None, *, trust_pickle: bool = False) -> Subject:
    """Return the subject that a model, a program or a file is; `outputs` names its outputs.

    Raises:
        InvalidExport: It is none of these, or reading it would run code and it is not trusted.
    """
    import torch

    from naiad.export._source import files, module, program

    if isinstance(model, torch.nn.Module):
        return module.ModuleSubject(model, outputs)
    if isinstance(model, torch.export.ExportedProgram):
        return program.ProgramSubject(model, outputs)
    if isinstance(model, str | os.PathLike):
        return files.open_file(Path(model), outputs, trust_pickle=trust_pickle)
    raise InvalidExport(
        f"a model is a torch.nn.Module, an ExportedProgram, or the path of a .onnx, .pt2 or .pt file; found "
        f"{type(model).__name__}"
    )
