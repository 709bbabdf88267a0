"""Which values an input of a graph may have, as far as the tables tell that it is looked up in."""

from collections.abc import Iterator
from typing import Any

_PASSES_ON = ("Cast", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Identity", "Transpose")
_WORDS = ("keys_strings", "cats_strings", "classlabels_strings", "string_vocabulary")


def lookups(graph: Any, name: str) -> tuple[float | None, float | None, tuple[str, ...]]:
    """Return the smallest and the largest index, and the words, that the graph knows for an input."""
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    highs, words = [], []
    for node, place in _readers(graph, name):
        if node.op_type == "Gather" and place == 1 and node.input[0] in sizes:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            highs.append(sizes[node.input[0]][axis] - 1)
        for attribute in node.attribute:
            if attribute.name in _WORDS:
                words += [word.decode() for word in attribute.strings]
    return (0, min(highs), tuple(words)) if highs else (None, None, tuple(words))


def _readers(graph: Any, name: str) -> Iterator[tuple[Any, int]]:
    """Yield the nodes that read a value, also after it was reshaped or cast, and at which place."""
    names = {name}
    for node in graph.node:  # in the order of the computation
        for place, read in enumerate(node.input):
            if read in names:
                yield node, place
                if node.op_type in _PASSES_ON and place == 0:
                    names.update(node.output)
