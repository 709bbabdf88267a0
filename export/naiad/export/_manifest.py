"""What `manifest.json` says of a version that was made from one model."""

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._capture.graph import Graph
from naiad.export._order import Captured, Order
from naiad.export._provenance import describe
from naiad.export._source.datatypes import triton_name
from naiad.export.report import Report


def known(captured: Captured, order: Order) -> dict[str, Any]:
    """Return what the manifest would say, before there is a configuration."""
    answer, graph = captured.answers[0], captured.graph
    pairs = (("inputs", answer.case.inputs, graph.inputs), ("outputs", answer.outputs, graph.outputs))
    tensors = {
        kind: [
            {"name": name, "dtype": triton_name(array.dtype), "shape": list(shapes.get(name) or array.shape)}
            for name, array in arrays.items()
        ]
        for kind, arrays, shapes in pairs
    }
    return {
        **tensors,
        "max_batch_size": captured.samples.max_batch_size,
        "onnx": _onnx(graph),
        "samples": {"num_samples": len(captured.samples.rows), "generated": captured.samples.generated},
        **describe(captured.subject, graph, order.source),
    }


def manifest(order: Order, captured: Captured, report: Report, config: Any) -> dict[str, Any]:
    """Return the manifest of a version, without what publishing adds."""
    graph = captured.graph
    return {
        "inputs": _tensors(config.input, graph.inputs),
        "outputs": _tensors(config.output, graph.outputs),
        "max_batch_size": captured.samples.max_batch_size,
        "precision": captured.precision,
        "onnx": _onnx(graph),
        "samples": {"num_samples": len(captured.samples.rows), "generated": captured.samples.generated},
        "not_measured": list(report.not_measured),
        "report": report.to_dict(),
        **describe(captured.subject, graph, order.source),
    }


def _onnx(graph: Graph) -> dict[str, Any]:
    reason = {"reason": graph.reason} if graph.reason else {}
    return {"opset": graph.opset, "ir_version": graph.ir_version, "exporter": graph.exporter, **reason}


def _tensors(configured: Any, declared: Mapping[str, tuple[int | str, ...]]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "dtype": model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
            "shape": list(declared[tensor.name]),
        }
        for tensor in configured
    ]
