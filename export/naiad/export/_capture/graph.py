"""An ONNX file as it is declared: what it takes and gives, and how it was made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

Dims = tuple[int | str, ...]

_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """An ONNX file as its exporter declared it."""

    path: Path
    inputs: dict[str, Dims]
    """Dimensions by input; a name for each dynamic one."""
    outputs: dict[str, Dims]
    ranges: dict[str, tuple[int, int | None]]
    """By dynamic dimension, the sizes for which the graph is valid; None for no upper end."""
    unused: tuple[str, ...]
    """Inputs that no node reads."""
    opset: int
    ir_version: int
    exporter: str
    """What made it: `dynamo`, `legacy`, or `copy` of an existing file."""
    reason: str = ""
    """Why that one, where it was not the first choice."""
    notes: tuple[str, ...] = ()
    """What was changed on the way, one sentence each."""
    constant: tuple[str, ...] = ()
    """Outputs that depend on no input."""
    random: tuple[str, ...] = ()
    """Operators that give another answer each time."""
    versions: dict[str, str] = field(default_factory=dict)


def read(
    path: Path,
    *,
    exporter: str,
    reason: str = "",
    notes: tuple[str, ...] = (),
    ranges: Mapping[str, tuple[int, int | None]] | None = None,
    names: Mapping[str, Mapping[int, str]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Graph:
    """Describe an ONNX file; `names` are names for open dimensions, by tensor, which go before the file's own."""
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    initialized = initializers(graph)
    inputs = [value for value in graph.input if value.name not in initialized]
    used = set(names_read(graph)) | {value.name for value in graph.output}
    named = names or {}
    return Graph(
        path=path,
        inputs={value.name: dimensions(value, named.get(value.name, {})) for value in inputs},
        outputs={value.name: dimensions(value, named.get(value.name, {})) for value in inferred(model).output},
        ranges=dict(ranges or {}),
        unused=tuple(value.name for value in inputs if value.name not in used),
        opset=opset(model),
        ir_version=model.ir_version,
        exporter=exporter,
        reason=reason,
        notes=notes,
        constant=_constant(graph, {value.name for value in inputs}),
        random=tuple(sorted({node.op_type for node in graph.node if node.op_type in _RANDOM})),
        versions={"onnx": onnx.__version__, **(versions or {})},
    )


def inferred(model: Any) -> Any:
    """Return the graph with the sizes of outputs that follow from its operators: a server goes by these.

    The legacy exporter declares some of them as open.
    """
    try:
        return onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - operators of other domains, or too large; the server infers no more then either
        return model.graph


def opset(model: Any) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def initializers(graph: Any) -> set[str]:
    """Return the names of a graph's weights; an input of that name has a default and need not be given."""
    return {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}


def names_read(graph: Any) -> Iterator[str]:
    """Yield every name that a node reads, those inside of loops and branches too."""
    for node in graph.node:
        yield from node.input
        for body in _bodies(node):
            yield from names_read(body)
            yield from (value.name for value in body.output)


def _constant(graph: Any, inputs: set[str]) -> tuple[str, ...]:
    """Return the outputs that no path leads to from an input; the nodes are in the order of the computation."""
    reached = set(inputs)
    for node in graph.node:
        if reached.intersection(node.input) or any(reached.intersection(names_read(body)) for body in _bodies(node)):
            reached.update(node.output)
    return tuple(value.name for value in graph.output if value.name not in reached)


def _bodies(node: Any) -> list[Any]:
    return [body for attribute in node.attribute for body in (attribute.g, *attribute.graphs)]


def dimensions(value: Any, names: Mapping[int, str]) -> Dims:
    """Return the declared dimensions of an input or output, each open one with a name."""
    return tuple(
        dim.dim_value
        if dim.WhichOneof("value") == "dim_value"
        else names.get(axis) or dim.dim_param or f"{value.name}_{axis}"
        for axis, dim in enumerate(value.type.tensor_type.shape.dim)
    )


def size_bytes(graph: Graph) -> int:
    """Return the size of the graph and its external weights."""
    return sum(path.stat().st_size for path in graph.path.parent.glob("model.onnx*"))
