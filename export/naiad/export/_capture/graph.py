"""An ONNX file as it was declared when it was made."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """An ONNX file as the exporter declared it."""

    path: Path
    inputs: dict[str, tuple[int | str, ...]]
    """Dimensions by input; a name for each dynamic one."""
    outputs: dict[str, tuple[int | str, ...]]
    ranges: dict[str, tuple[int, int | None]]
    """By dynamic dimension, the sizes for which the graph is valid; None for no upper end."""
    unused: tuple[str, ...]
    """Inputs that no node reads."""
    opset: int
    ir_version: int
    exporter: str
    versions: dict[str, str]


def size_bytes(graph: Graph) -> int:
    """Return the size of the graph and its external weights."""
    return sum(path.stat().st_size for path in graph.path.parent.glob("model.onnx*"))
