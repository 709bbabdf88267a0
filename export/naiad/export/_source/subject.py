"""The subject of an export: something that answers, and becomes a graph that must answer as it does.

There are three: an `nn.Module`, an `ExportedProgram` (a `.pt2` file) and an ONNX graph (an `.onnx` file).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from naiad.export._source.samples import Dynamic, Inputs, Samples, arrange
from naiad.export.errors import InvalidExport
from naiad.export.report import Finding


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


def bind(subject: Subject, samples: Sequence[Any], dynamic: Dynamic | None, max_batch_size: int) -> Samples:
    """Bind samples to the inputs of a subject and check that they fit together.

    Raises:
        InvalidExport: A sample does not fit the subject, or contradicts another or `dynamic`.
    """
    if not isinstance(samples, list | tuple) or not samples:
        raise InvalidExport("samples must be a list with at least one tuple or dict, one for each call of the model")
    if max_batch_size < 0:
        raise InvalidExport(f"max_batch_size must be at least 0; found {max_batch_size}")
    rows = subject.bind(samples)
    return arrange(rows, subject.dynamic(rows, max_batch_size) if dynamic is None else dynamic, max_batch_size)


def open_subject(model: Any, outputs: Sequence[str] | None = None) -> Subject:
    """Return the subject that a model, a program or a file is; `outputs` names its outputs.

    Raises:
        InvalidExport: It is none of these.
    """
    import torch

    from naiad.export._source import graph, module, program

    if isinstance(model, torch.nn.Module):
        return module.ModuleSubject(model, outputs)
    if isinstance(model, torch.export.ExportedProgram):
        return program.ProgramSubject(model, outputs)
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        return graph.GraphSubject(model, outputs) if str(model).endswith(".onnx") else program.load(model, outputs)
    raise InvalidExport(
        f"a model is a torch.nn.Module, an ExportedProgram, or the path of a .pt2 or .onnx file; found "
        f"{type(model).__name__}"
    )
