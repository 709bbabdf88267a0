"""Which nodes spoil a candidate: the error that each adds by itself, carried through the rest of the graph in fp32."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from naiad.export._runtime.session import session
from naiad.export._verify.graphs import UNOPTIMISED, Graph

Array = np.ndarray[Any, Any]
Values = dict[str, Array]

_MOST_NODES = 400
"""Each costs a run of the graph."""
_NAMES_AT_ONCE = 64


def rank(prepared: Path, candidate: Path, feeds: Mapping[str, Array], ops: Collection[str] | None) -> list[list[str]]:
    """Return the nodes of the prepared graph by what each does to the outputs when it alone is converted, worst first.

    Each node's counterpart in the candidate runs on the exact inputs; the difference of its result is added to the
    exact one, and the rest of the graph shows what becomes of it. `ops` limits the nodes to these operators. A node
    whose result the candidate does not have, such as a convolution fused with what follows, is in one list with that.
    """
    before, after = Graph(prepared), _Pieces(candidate)
    nodes = [node for node in before.model.graph.node if ops is None or node.op_type in ops]
    pieces = {
        node.name: piece for node in nodes if (piece := after.piece(node.output[0], before.producers)) is not None
    }
    kept = [node for node in nodes if node.name in pieces][:_MOST_NODES]
    names = {name for node in kept for name in (node.output[0], *pieces[node.name].inputs)} - feeds.keys()
    exact = dict(feeds) | before.run(feeds, sorted(names))
    types = after.types(feeds, sorted(names))
    errors: Values = {}
    for node in kept:
        found = pieces[node.name].run(exact, types)
        if found is not None and found.shape == exact[node.output[0]].shape:
            errors[node.output[0]] = found.astype(np.float32) - exact[node.output[0]]
    impact = _impacts(before, feeds, errors)
    felt = [node for node in kept if impact.get(node.output[0], 0.0) > 0]
    felt.sort(key=lambda node: -impact[node.output[0]])
    return [_between(before, pieces[node.name].inputs, node.output[0]) for node in felt]


def _between(graph: Graph, inputs: Collection[str], output: str) -> list[str]:
    """Return the names of the nodes that give `output` from `inputs`, the last one first."""
    names: list[str] = []
    todo = [output]
    while todo:
        name = todo.pop()
        node = graph.producers.get(name)
        if node is not None and name not in inputs and node.name not in names:
            names.append(node.name)
            todo.extend(node.input)
    return names


class _Pieces:
    """The candidate, from which the counterpart of a single node is cut out."""

    def __init__(self, path: Path) -> None:
        self._graph = Graph(path)
        self._weights = {item.name: item for item in onnx.load(path).graph.initializer}
        self._opsets = self._graph.model.opset_import
        self._ir_version = self._graph.model.ir_version

    def piece(self, output: str, known: Collection[str]) -> "_Piece | None":
        """Return the nodes that give `output` from tensors the exact graph has too; None if there is no such tensor."""
        nodes: list[Any] = []
        inputs: set[str] = set()
        todo, seen = [output], set()
        while todo:
            name = todo.pop()
            node = self._graph.producers.get(name)
            if name in seen or not name or name in self._weights:
                continue
            seen.add(name)
            if node is None or (name != output and name in known):
                inputs.add(name)
                continue
            if node not in nodes:
                nodes.append(node)
            todo.extend(node.input)
        return _Piece(self, nodes, inputs, output) if nodes and output in self._graph.producers else None

    def types(self, feeds: Mapping[str, Array], names: Sequence[str]) -> dict[str, Any]:
        """Return the types that tensors have in the candidate."""
        types: dict[str, Any] = {name: array.dtype for name, array in feeds.items()}
        present = [name for name in names if name in self._graph.producers]
        for start in range(0, len(present), _NAMES_AT_ONCE):
            chunk = present[start : start + _NAMES_AT_ONCE]
            types |= {name: value.dtype for name, value in self._graph.run(feeds, chunk).items()}
        return types

    def model(self, piece: "_Piece", arrays: Values) -> Any:
        """Return a piece as a model of its own."""
        order = {id(node): index for index, node in enumerate(self._graph.model.graph.node)}
        nodes = sorted(piece.nodes, key=lambda node: order[id(node)])
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "piece",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
                for name, array in arrays.items()
            ],
            [helper.make_empty_tensor_value_info(piece.output)],
            [self._weights[name] for name in used if name in self._weights],
        )
        return helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)


class _Piece:
    """A few nodes of the candidate between tensors that the exact graph has too."""

    def __init__(self, pieces: _Pieces, nodes: list[Any], inputs: set[str], output: str) -> None:
        self._pieces = pieces
        self.nodes = nodes
        self.inputs = inputs
        self.output = output

    def run(self, exact: Mapping[str, Array], types: Mapping[str, Any]) -> Array | None:
        """Return its result for the exact inputs; None where it cannot be run by itself."""
        if not self.inputs <= exact.keys():
            return None
        with np.errstate(over="ignore"):
            arrays = {name: exact[name].astype(types.get(name, exact[name].dtype)) for name in self.inputs}
        try:
            runtime = session(self._pieces.model(self, arrays).SerializeToString(), level=UNOPTIMISED)
            value = runtime.run([self.output], arrays)[0]
        except Exception:  # noqa: BLE001 - a piece that does not stand alone is not ranked
            return None
        return value if isinstance(value, np.ndarray) and value.dtype.kind == "f" else None


def _impacts(before: Graph, feeds: Mapping[str, Array], errors: Values) -> dict[str, float]:
    """Return the relative change of the outputs for each error, added where it arises."""
    finite = {name: error for name, error in errors.items() if np.isfinite(error).all()}
    impacts = dict.fromkeys(errors.keys() - finite.keys(), float("inf"))
    if not finite:
        return impacts
    runtime = session(_with_errors(before, list(finite)), level=UNOPTIMISED, folder=before.path.parent)
    none = {_error(name): np.zeros((1,) * error.ndim, np.float32) for name, error in finite.items()}
    exact = runtime.run(list(before.outputs), {**feeds, **none})
    for name, error in finite.items():
        outputs = runtime.run(list(before.outputs), {**feeds, **none, _error(name): error})
        impacts[name] = max(itertools.starmap(_change, zip(outputs, exact, strict=True)))
    return impacts


def _with_errors(before: Graph, names: Sequence[str]) -> bytes:
    """Return the graph with an input beside each of these tensors, which is added to it."""
    model = onnx.ModelProto()
    model.CopyFrom(before.model)
    del model.graph.node[:]
    model.graph.node.extend(_adding(before.model.graph.node, set(names)))
    model.graph.input.extend(
        helper.make_tensor_value_info(_error(name), onnx.TensorProto.FLOAT, None) for name in names
    )
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _adding(nodes: Any, names: Collection[str]) -> Iterator[Any]:
    for node in nodes:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for index, name in enumerate(node.output):
            if name in names:
                changed.output[index] = f"{name}__exact"
        yield changed
        for name in node.output:
            if name in names:
                yield helper.make_node("Add", [f"{name}__exact", _error(name)], [name])


def _error(name: str) -> str:
    return f"{name}__error"


def _change(actual: Any, expected: Any) -> float:
    if not isinstance(expected, np.ndarray) or not expected.size:
        return 0.0
    if expected.dtype.kind != "f":
        return float((actual != expected).mean())
    a, b = actual.astype(np.float64), expected.astype(np.float64)
    known = np.isfinite(b)
    if not np.isfinite(a[known]).all():
        return float("inf")
    return float(np.linalg.norm((a - b)[known]) / (np.linalg.norm(b[known]) + 1e-12))
