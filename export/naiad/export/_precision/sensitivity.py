"""Which nodes spoil a candidate: where the error of its tensors grows, against the graph that it was made from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._verify.graphs import Graph

Array = np.ndarray[Any, Any]

_CHUNK = 32
"""Tensors that are in memory at once, of each graph."""


def rank(prepared: Path, candidate: Path, feeds: Mapping[str, Array], ops: frozenset[str] | None) -> list[str]:
    """Return the nodes of the prepared graph by how much of the error each adds, the worst first.

    A node is charged with what rounding its inputs, its weights and its outputs adds to the error of its inputs. `ops`
    limits the nodes to these operators.
    """
    before, after = Graph(prepared), Graph(candidate)
    read_as = _read_as(after.model.graph)
    names = [name for name in before.tensors() if name in read_as]
    written: dict[str, float] = {}
    read: dict[str, float] = {}
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        expected = before.run(feeds, chunk)
        found = after.run(feeds, list(dict.fromkeys([*chunk, *(read_as[name] for name in chunk)])))
        for name in chunk:
            if name in expected and expected[name].dtype.kind == "f":
                written[name] = _error(found[name], expected[name])
                read[name] = _error(found[read_as[name]], expected[name])
    nodes = [node for node in before.model.graph.node if ops is None or node.op_type in ops]
    added = {node.name: _added(node, written, read) for node in nodes}
    return sorted((name for name, error in added.items() if error > 0), key=lambda name: -added[name])


def _read_as(graph: Any) -> dict[str, str]:
    """Return the name under which each tensor is read: its own, or that of what comes back from integers."""
    names = {name: name for node in graph.node for name in node.output if name}
    quantised = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and quantised.get(node.input[0]) in names:
            names[quantised[node.input[0]]] = node.output[0]
    return names


def _error(actual: Array, expected: Array) -> float:
    """Return the error's norm relative to the tensor's, infinite where a number is none any more."""
    if actual.shape != expected.shape or not expected.size:
        return 0.0
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    if not np.isfinite(a).all():
        return float("inf") if np.isfinite(b).all() else 0.0
    error = float(np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-12))
    return error if np.isfinite(error) else 0.0


def _added(node: Any, written: Mapping[str, float], read: Mapping[str, float]) -> float:
    before = max((written[name] for name in node.input if name in written), default=0.0)
    after = max((read[name] for name in node.output if name in read), default=0.0)
    return after - before if before < float("inf") else 0.0
