"""Small graphs published without PyTorch, with golden pairs of their own: for what is done with versions afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

from naiad.export import Repository, Version
from naiad.export.repository import Candidate

Array = np.ndarray[Any, Any]
Pairs = Sequence[tuple[Mapping[str, Array], Mapping[str, Array]]]

X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)


def weights(seed: int = 0) -> Array:
    """Return a matrix [4, 3]."""
    return np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)


def linear(matrix: Array, source: str = "x") -> onnx.ModelProto:
    """Return a graph that multiplies `x` [batch, 4] by a matrix [4, n] to `y`."""
    nodes = [helper.make_node("MatMul", [source, "matrix"], ["y"])]
    return _model(
        nodes,
        (source, TensorProto.FLOAT, ["batch", matrix.shape[0]]),
        ("y", TensorProto.FLOAT, ["batch", matrix.shape[1]]),
        [numpy_helper.from_array(matrix, "matrix")],
    )


def total(width: int | str) -> onnx.ModelProto:
    """Return a graph that sums `x` [batch, width] to `y` [batch, 1]."""
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)]
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    float32 = TensorProto.FLOAT
    return _model(nodes, ("x", float32, ["batch", width]), ("y", float32, ["batch", 1]), [axes])


def identity(element_type: int) -> onnx.ModelProto:
    """Return a graph that gives `x` [batch, 2] back as `y`, in any type."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return _model(nodes, ("x", element_type, ["batch", 2]), ("y", element_type, ["batch", 2]), [])


def pairs_of(matrix: Array, batches: Sequence[int] = (1, 2, 8)) -> Pairs:
    """Return requests of the batch sizes, with the answers that a matrix gives."""
    return [({"x": X[:batch]}, {"y": X[:batch] @ matrix}) for batch in batches]


def publish_graph(
    repository: Path | Repository,
    model: str = "linear",
    *,
    graph: onnx.ModelProto | None = None,
    pairs: Pairs | None = None,
    seed: int = 0,
    datatype: str = "FP32",
    labels: Sequence[str] = (),
    max_batch_size: int = 8,
    promote: bool = True,
    change: Any = None,
    **manifest: Any,
) -> Version:
    """Publish a graph from `x` to `y`, by default a linear one; `change` edits its configuration before that."""
    graph = graph or linear(weights(seed))
    repo = repository if isinstance(repository, Repository) else Repository(repository)
    config = _config(model, graph, datatype, max_batch_size)
    if labels:
        config.output[0].label_filename = "labels.txt"
    if change is not None:
        change(config)
    with repo.stage() as stage:
        files, label_files = stage / "files", stage / "labels"
        files.mkdir()
        label_files.mkdir()
        if labels:
            (label_files / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
        onnx.save(graph, files / "model.onnx")
        _write_golden(files / "golden.npz", pairs_of(weights(seed)) if pairs is None else pairs)
        about = {
            "inputs": _tensors(config.input),
            "outputs": _tensors(config.output),
            "max_batch_size": max_batch_size,
            "precision": "fp32",
            "created": "2026-05-04T03:02:01+00:00",
        }
        candidate = Candidate(
            model=model, config=config, files=files, labels=label_files, settings={}, manifest=about | manifest
        )
        return repo.publish(candidate, promote=promote)


def _model(nodes: list[Any], source: Any, target: Any, constants: list[Any]) -> onnx.ModelProto:
    inputs, outputs = [helper.make_tensor_value_info(*source)], [helper.make_tensor_value_info(*target)]
    graph = helper.make_graph(nodes, "small", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _config(model: str, graph: onnx.ModelProto, datatype: str, max_batch_size: int) -> Any:
    config = model_config_pb2.ModelConfig(
        name=model, backend="onnxruntime", max_batch_size=max_batch_size, default_model_filename="model.onnx"
    )
    data_type = model_config_pb2.DataType.Value(f"TYPE_{datatype}")
    for tensors, configured in ((graph.graph.input, config.input), (graph.graph.output, config.output)):
        for tensor in tensors:
            dims = [dim.dim_value or -1 for dim in tensor.type.tensor_type.shape.dim]
            configured.add(name=tensor.name, data_type=data_type, dims=dims[1:] if max_batch_size else dims)
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    return config


def _tensors(configured: Any) -> list[dict[str, Any]]:
    names = model_config_pb2.DataType.Name
    return [
        {
            "name": tensor.name,
            "dtype": names(tensor.data_type).removeprefix("TYPE_"),
            "shape": ["batch", *tensor.dims],
        }
        for tensor in configured
    ]


def _write_golden(path: Path, pairs: Pairs) -> None:
    arrays = {
        f"{kind}/{case}/{name}": array
        for case, pair in enumerate(pairs)
        for kind, side in zip(("input", "output"), pair, strict=True)
        for name, array in side.items()
    }
    with path.open("xb") as file:
        np.savez(file, allow_pickle=False, **arrays)
