"""The right values inside a graph that PyTorch's exporter made, from a fresh process that runs the exported program."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from naiad.export._capture import capture as _capture
from naiad.export._capture.graph import Graph
from naiad.export._source.graph import GraphSubject
from naiad.export._source.samples import Samples
from naiad.export._source.subject import Subject
from naiad.export._verify.diverge import Reference, module_of, source_line
from naiad.export._verify.graphs import Array
from naiad.export._verify.parity import Failure
from naiad.export.report import Divergence


def of_program(
    subject: Subject, graph: Graph, samples: Samples, failure: Failure, directory: Path
) -> tuple[Reference | None, Divergence | None]:
    """Return the values of PyTorch's exported program in the failing case, or where that program leaves the model.

    Neither is known of an ONNX file. Of a graph that the legacy exporter made it is what the model's modules give.
    """
    if isinstance(subject, GraphSubject):
        return None, None
    legacy = graph.exporter == "legacy"
    directory.mkdir()
    job = {
        "exporter": "trace",
        "modules": legacy,
        "inputs": samples.capture(),
        "case": failure.answer.case.feeds(),
        "dynamic": {name: dict(axes) for name, axes in samples.dynamic.items()},
        "outputs": tuple(failure.answer.outputs),
        "opset": graph.opset,
        **_capture.what_travels(subject, directory, graph.exporter),
    }
    with subject.evaluating():
        answer = _capture.run_job(job, directory)
    if "error" in answer:
        return None, None
    if legacy:
        return _values(directory, _by_tensor(graph.path, answer["modules"])), None
    if answer["capture"]:
        return None, _departure(answer["capture"])
    return _values(directory, answer["tensors"]), None


def _values(directory: Path, files: Mapping[str, str]) -> Reference:
    def values(names: Sequence[str]) -> dict[str, Array]:
        return {name: np.load(directory / files[name], mmap_mode="r") for name in names if name in files}

    return values


def _by_tensor(path: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Return files by the last tensor of each module: the legacy exporter names nodes after them."""
    last: dict[str, str] = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        module = module_of(node.name)
        while module and node.output:
            last[module] = node.output[0]
            module = module.rpartition(".")[0]
    return {tensor: files[each] for module, tensor in reversed(last.items()) if (each := _called(module, files))}


def _called(module: str, files: Mapping[str, str]) -> str | None:
    """Return the path of a module; the containers on the way are not in the names of nodes."""
    if module in files:
        return module
    parts = module.split(".")
    found = [path for path in files if path.endswith(f".{parts[-1]}") and _within(parts, path.split("."))]
    return found[0] if len(found) == 1 else None


def _within(parts: list[str], path: list[str]) -> bool:
    rest = iter(path)
    return all(part in rest for part in parts)


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
