"""What a graph is made of, for the report."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx

from naiad.export._capture.graph import Graph
from naiad.export.report import GraphSummary, WeightsSummary


def summarise(graph: Graph) -> GraphSummary:
    """Count the nodes and the weights of a graph, those inside of loops and branches too."""
    model = onnx.load(str(graph.path), load_external_data=False)
    graphs = list(_graphs(model.graph))
    operators = Counter(node.op_type for each in graphs for node in each.node)
    weights = _weights(tensor for each in graphs for tensor in each.initializer)
    return GraphSummary(
        exporter=graph.exporter,
        reason=graph.reason,
        opset=graph.opset,
        ir_version=graph.ir_version,
        inputs=_tensors(model.graph.input, graph.inputs),
        outputs=_tensors(model.graph.output, graph.outputs),
        dynamic=tuple(dict.fromkeys(dim for dims in graph.inputs.values() for dim in dims if isinstance(dim, str))),
        num_nodes=sum(operators.values()),
        operators=dict(operators.most_common()),
        num_parameters=sum(each.num_elements for each in weights),
        weights=weights,
    )


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(body)


def _weights(tensors: Iterator[Any]) -> tuple[WeightsSummary, ...]:
    found: dict[str, list[int]] = {}
    for tensor in tensors:
        found.setdefault(_dtype(tensor.data_type), []).append(math.prod(tensor.dims))
    summaries = [
        WeightsSummary(
            dtype=dtype,
            num_tensors=len(sizes),
            num_elements=sum(sizes),
            size_bytes=math.ceil(sum(sizes) * _bits(dtype) / 8),
        )
        for dtype, sizes in found.items()
    ]
    return tuple(sorted(summaries, key=lambda each: -each.size_bytes))


def _tensors(values: Any, dims: dict[str, tuple[int | str, ...]]) -> dict[str, str]:
    return {
        value.name: f"{_dtype(value.type.tensor_type.elem_type)} [{', '.join(map(str, dims[value.name]))}]"
        for value in values
        if value.name in dims
    }


def _dtype(element: int) -> str:
    return str(onnx.TensorProto.DataType.Name(element))


def _bits(dtype: str) -> int:
    """Return the width of a type by its name; text is counted as nothing."""
    known = {"FLOAT": 32, "DOUBLE": 64, "BFLOAT16": 16, "BOOL": 8, "STRING": 0, "COMPLEX64": 64, "COMPLEX128": 128}
    if dtype in known:
        return known[dtype]
    digits = dtype.partition("E")[0] if dtype.startswith(("FLOAT4", "FLOAT8")) else dtype
    return int("".join(filter(str.isdigit, digits)) or 8)
