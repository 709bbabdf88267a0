"""Near ties: an index or a flag may differ where two scores, or a value and its threshold, are nearly equal.

The scores are read from the graph itself: the output is followed back to the operator that chose. Both scores may each
be off by what the tolerance allows, so a choice between two that are nearer than twice that is no error.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from naiad.export._runtime.place import CPU, Place
from naiad.export._verify.graphs import Array, Graph
from naiad.export._verify.measures import scale_of
from naiad.export.report import Tolerance

_KEEPS_ORDER = {"Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Identity", "Not"}
_CHOOSES = {"ArgMax", "ArgMin", "TopK"}
_COMPARES = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


def explained(
    path: Path,
    feeds: Mapping[str, Array],
    output: str,
    expected: Array,
    tolerance: Tolerance,
    *,
    level: int,
    place: Place = CPU,
) -> int:
    """Return how many values differ when all of them are near ties, and 0 when one is not."""
    graph = Graph(path, place)
    chooser, name = _chooser(graph, output)
    if chooser is None:
        return 0
    read = chooser.input[: 2 if chooser.op_type in _COMPARES else 1]
    scores = [each for each in read if each in graph.producers or each in feeds]
    inner = [output, name, *(each for each in scores if each in graph.producers)]
    values = {**feeds, **graph.run(feeds, list(dict.fromkeys(inner)), level=level)}
    found, wanted = values[output], expected
    differs = (found != wanted).reshape(values[name].shape) if found.size == values[name].size else None
    if differs is None or found.shape != wanted.shape:
        return 0
    if chooser.op_type in _COMPARES:
        gaps, scale = _margins(graph, chooser, values)
    else:
        gaps, scale = _gaps(chooser, values[scores[0]], values[name], wanted) if scores else (None, 0.0)
    if gaps is None:
        return 0
    allowed = 2 * (tolerance.atol + tolerance.rtol) * scale
    return int(differs.sum()) if bool((np.broadcast_to(gaps, differs.shape)[differs] <= allowed).all()) else 0


def _chooser(graph: Graph, output: str) -> tuple[Any, str]:
    """Return the node that chose an output's values, and the name of what it gave."""
    name = output
    while name in graph.producers:
        node = graph.producers[name]
        if node.op_type in _COMPARES or (node.op_type in _CHOOSES and name == node.output[-1]):
            return node, name
        if node.op_type not in _KEEPS_ORDER:
            return None, name
        name = node.input[0]
    return None, name


def _gaps(chooser: Any, scores: Array, chosen: Array, expected: Array) -> tuple[Array | None, float]:
    """Return by how much the score of what was chosen differs from that of what should have been."""
    attributes = {attribute.name: attribute.i for attribute in chooser.attribute}
    axis = attributes.get("axis", -1 if chooser.op_type == "TopK" else 0)
    keeps = chooser.op_type == "TopK" or attributes.get("keepdims", 1)
    ours, theirs = (_along(each, chosen.shape, axis, keeps=bool(keeps)) for each in (chosen, expected))
    if theirs.min(initial=0) < -scores.shape[axis] or theirs.max(initial=0) >= scores.shape[axis]:
        return None, 0.0
    values = scores.astype(np.float64)
    gaps = np.take_along_axis(values, ours, axis) - np.take_along_axis(values, theirs, axis)
    return np.abs(gaps).reshape(chosen.shape), scale_of(scores)


def _along(indices: Array, shape: tuple[int, ...], axis: int, *, keeps: bool) -> Array:
    shaped = indices.reshape(shape).astype(np.int64)
    return shaped if keeps else np.expand_dims(shaped, axis)


def _margins(graph: Graph, chooser: Any, values: Mapping[str, Array]) -> tuple[Array | None, float]:
    """Return how far each compared value is from its threshold."""
    from onnx import numpy_helper

    constants = {each.name: each for each in graph.model.graph.initializer}
    sides = []
    for name in chooser.input:
        if name in values:
            sides.append(values[name].astype(np.float64))
        elif name in constants and not constants[name].external_data:
            sides.append(numpy_helper.to_array(constants[name]).astype(np.float64))
        else:
            return None, 0.0
    return np.abs(sides[0] - sides[1]), max(scale_of(side) for side in sides)
