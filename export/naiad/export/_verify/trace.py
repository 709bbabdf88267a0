"""The right values inside a graph that PyTorch's exporter made, from a fresh process that runs the exported program."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from naiad.export._capture import capture as _capture
from naiad.export._capture.graph import Graph
from naiad.export._source.graph import GraphSubject
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export._verify.diverge import Reference, source_line
from naiad.export._verify.graphs import Array
from naiad.export._verify.parity import Failure
from naiad.export.report import Divergence


def of_program(
    subject: Subject, graph: Graph, samples: Samples, failure: Failure, directory: Path
) -> tuple[Reference | None, Divergence | None]:
    """Return the values of PyTorch's exported program in the failing case, or where that program leaves the model.

    Neither is known of an ONNX file, nor of a graph that the legacy exporter made.
    """
    if isinstance(subject, GraphSubject) or graph.exporter != "dynamo":
        return None, None
    directory.mkdir()
    job = {
        "exporter": "trace",
        "inputs": samples.capture(),
        "case": failure.answer.case.feeds(),
        "dynamic": {name: dict(axes) for name, axes in samples.dynamic.items()},
        "outputs": tuple(failure.answer.outputs),
        "opset": graph.opset,
        **_capture.what_travels(subject, directory, "dynamo"),
    }
    with subject.evaluating():
        answer = _capture.run_job(job, directory)
    if "error" in answer:
        return None, None
    if answer["capture"]:
        return None, _departure(answer["capture"])
    return _values(directory, answer["tensors"]), None


def _values(directory: Path, files: Mapping[str, str]) -> Reference:
    def values(names: Sequence[str]) -> dict[str, Array]:
        return {name: np.load(directory / files[name], mmap_mode="r") for name in names if name in files}

    return values


def _departure(found: Mapping[str, str]) -> Divergence:
    operator = found["operator"].rpartition(".")[0] or found["operator"]
    return Divergence(
        cause="capture",
        tensor=found["tensor"],
        node=found["tensor"],
        operator=operator,
        module=found["module"].removeprefix("model."),
        source=source_line(found["stack_trace"]),
        detail="PyTorch's exported program already differs from the model there: a Python if, a loop or a number was "
        "decided by the sample or by the export; express it with torch.where, torch.cond or tensor operations",
    )
