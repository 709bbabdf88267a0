"""A copy of an ONNX file, checked: one graph file, with its weights beside it where they are large."""

from pathlib import Path
from typing import Any

import onnx

from naiad.export._capture.graph import Graph
from naiad.export._source.graph import GraphSubject
from naiad.export._source.samples import Samples
from naiad.export.errors import CaptureFailed

_SINGLE_FILE_BYTES = 1_500_000_000


def copy(subject: GraphSubject, samples: Samples, target: Path) -> Graph:
    """Write the subject's graph into `target`, with all its weights.

    Raises:
        CaptureFailed: The file is not a valid graph, or its external data is missing.
    """
    path = target / "model.onnx"
    try:
        model = onnx.load(str(subject.path))
        onnx.checker.check_model(str(subject.path))
    except OSError:
        raise
    except Exception as exc:  # the checker's errors, and protobuf's, share no public base class
        raise CaptureFailed(f"{subject.label} is not a valid ONNX graph: {_first_line(exc)}") from exc
    _save(model, path)
    return _describe(subject, model, samples, path)


def _save(model: Any, path: Path) -> None:
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > _SINGLE_FILE_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def _describe(subject: GraphSubject, model: Any, samples: Samples, path: Path) -> Graph:
    read = {name for node in model.graph.node for name in node.input} | {out.name for out in model.graph.output}
    inputs = {name: dims for name, (_, dims) in subject.inputs.items()}
    return Graph(
        path=path,
        inputs={name: _named(dims, samples.dynamic.get(name, {}), name) for name, dims in inputs.items()},
        outputs={name: _named(dims, _batch(samples), name) for name, (_, dims) in subject.outputs.items()},
        ranges={},
        unused=tuple(name for name in inputs if name not in read),
        opset=next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        ir_version=model.ir_version,
        exporter=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        versions={"onnx": onnx.__version__},
    )


def _batch(samples: Samples) -> dict[int, str]:
    return {0: samples.batch} if samples.batch else {}


def _named(dims: list[int | str], names: Any, tensor: str) -> tuple[int | str, ...]:
    """Return the dimensions, each open one with a name."""
    return tuple(
        dim if isinstance(dim, int) else names.get(axis) or dim or f"{tensor}_{axis}" for axis, dim in enumerate(dims)
    )


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
