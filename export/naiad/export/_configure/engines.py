"""Graphs whose TensorRT engines cannot be taken for each other's.

ONNX Runtime finds an engine in its cache by names (of the file, inputs, initializers and outputs of nodes), not by the
weights. Two versions of one model would share an engine, and the second would answer as the first. So the names inside
a graph carry a hash of it.
"""

import hashlib
from pathlib import Path
from typing import Any

import onnx_ir

_DIGITS = 12


def mark(path: Path) -> str:
    """Rename what is inside the graph in a file, inputs and outputs apart, and return the mark."""
    digest = hashlib.sha256()
    for part in sorted(path.parent.glob(f"{path.name}*")):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    mark = digest.hexdigest()[:_DIGITS]
    model = onnx_ir.load(path)
    fixed = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in {id(value): value for value in _values(model.graph)}.values():
        if value.name and value.name not in fixed:
            value.name = f"{value.name}.{mark}"
    marked = path.with_name(f"marked.{path.name}")
    onnx_ir.save(model, marked)
    marked.replace(path)
    return mark


def _values(graph: Any) -> Any:
    """Yield the initializers and the outputs of all nodes, those of subgraphs too."""
    yield from list(graph.initializers.values())
    for node in graph:
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type == onnx_ir.AttributeType.GRAPH:
                yield from _values(attribute.as_graph())
            elif attribute.type == onnx_ir.AttributeType.GRAPHS:
                for subgraph in attribute.as_graphs():
                    yield from _values(subgraph)
