"""A copy of an ONNX file, checked, in a format that the server reads; weights lie beside it where they are large."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter

from naiad.export._capture.graph import Graph, opset, read
from naiad.export._source.graph import GraphSubject
from naiad.export._source.samples import Samples
from naiad.export.errors import CaptureFailed

_SINGLE_FILE_BYTES = 1_500_000_000
_TYPES_SINCE = {11: ("FLOAT4E2M1",), 12: ("FLOAT8E8M0",), 13: ("UINT2", "INT2")}
"""Types of tensors by the version of the file format that brought them (onnx/onnx.in.proto, enum Version)."""


def copy(
    subject: GraphSubject,
    samples: Samples,
    target: Path,
    *,
    max_opset: int,
    max_ir_version: int,
) -> Graph:
    """Write the subject's graph into `target`, with all its weights.

    Raises:
        CaptureFailed: The file is not a valid graph, its external data is missing, or its format is too new and cannot
            be taken back.
    """
    try:
        onnx.checker.check_model(str(subject.path))
        model = onnx.load(str(subject.path))
    except OSError:
        raise
    except Exception as exc:  # the checker's errors, and protobuf's, share no public base class
        raise CaptureFailed(f"{subject.label} is not a valid ONNX graph: {_first_line(exc)}") from exc
    made_by = f"{model.producer_name} {model.producer_version}".strip() or "an unnamed producer"
    model, notes = _readable(model, subject.label, max_opset, max_ir_version)
    path = target / "model.onnx"
    _save(model, path)
    batch = {0: samples.batch} if samples.batch else {}
    names = {**samples.dynamic, **dict.fromkeys(subject.outputs, batch)}
    reason = f"the model is an ONNX file, written by {made_by}"
    return read(path, exporter="copy", reason=reason, notes=notes, names=names)


def _readable(model: Any, label: str, max_opset: int, max_ir_version: int) -> tuple[Any, tuple[str, ...]]:
    """Return the model in a format that the server reads, and what was changed for that."""
    notes = []
    before = opset(model)
    if before > max_opset:
        model = _converted(model, label, before, max_opset)
        notes.append(f"the graph was converted from opset {before} to {max_opset}, which the server reads")
    if model.ir_version > max_ir_version:
        _refuse_newer_types(model, label, max_ir_version)
        notes.append(
            f"the file is stamped with IR version {max_ir_version}, not {model.ir_version}; it uses nothing newer"
        )
        model.ir_version = max_ir_version
    return model, tuple(notes)


def _converted(model: Any, label: str, before: int, after: int) -> Any:
    try:
        converted = version_converter.convert_version(model, after)
        onnx.checker.check_model(converted)
    except Exception as exc:  # as above
        raise CaptureFailed(
            f"{label} has opset {before}, the server reads up to {after}, and it cannot be converted: "
            f"{_first_line(exc)}; have its converter write opset {after}"
        ) from exc
    return converted


def _refuse_newer_types(model: Any, label: str, max_ir_version: int) -> None:
    newer = {name for version, names in _TYPES_SINCE.items() if version > max_ir_version for name in names}
    for value, element in _elements(model.graph):
        name = onnx.TensorProto.DataType.Name(element)
        if name in newer:
            raise CaptureFailed(
                f"{label} has IR version {model.ir_version}, the server reads up to {max_ir_version}, and {value!r} is "
                f"{name}, which that does not know"
            )


def _elements(graph: Any) -> Iterator[tuple[str, int]]:
    yield from ((tensor.name, tensor.data_type) for tensor in graph.initializer)
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, value.type.tensor_type.elem_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to":
                yield node.output[0], attribute.i
            for body in (attribute.g, *attribute.graphs):
                yield from _elements(body)


def _save(model: Any, path: Path) -> None:
    size = sum(max(tensor.ByteSize(), math.prod(tensor.dims)) for tensor in model.graph.initializer)
    if size > _SINGLE_FILE_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
