"""A copy of an ONNX file, checked: one graph file, with its weights beside it where they are large."""

from pathlib import Path
from typing import Any

import onnx

from naiad.export._capture.graph import Graph, read
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
    batch = {0: samples.batch} if samples.batch else {}
    names = {**samples.dynamic, **dict.fromkeys(subject.outputs, batch)}
    made_by = f"{model.producer_name} {model.producer_version}".strip()
    return read(
        path,
        exporter="copy",
        reason=f"the model is an ONNX file, written by {made_by or 'an unnamed producer'}",
        names=names,
    )


def _save(model: Any, path: Path) -> None:
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > _SINGLE_FILE_BYTES:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]
