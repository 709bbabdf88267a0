"""Sizes that have to agree between the inputs of a request, and that the package is valid for.

Compiled code believes what it was compiled for: with three rows in one input and two in another it reads beyond the
end of memory. Triton compares each input with its own dims only, so the names of the dimensions are taken from the
``manifest.json`` that Naiad publishes beside the package; without one nothing more can be compared.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from _pt2_errors import RequestError

Dims = tuple[int | str, ...]


class Shapes:
    """The dimensions of a package's inputs, by name where they vary, and the largest sizes that it is valid for."""

    def __init__(self, inputs: Mapping[str, Dims], largest: Mapping[str, int]) -> None:
        self._inputs = inputs
        self._largest = largest

    def check(self, model: str, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise ``RequestError`` where a dimension has another size in one input than in another."""
        sizes: dict[str, tuple[int, str]] = {}
        for name, dims in self._inputs.items():
            for dim, size in zip(dims, shapes.get(name, ()), strict=False):
                if not isinstance(dim, str):
                    continue
                expected, first = sizes.setdefault(dim, (size, name))
                if size > self._largest.get(dim, size):
                    message = f"expected {dim} up to {self._largest[dim]}, found {size}; send less at once"
                    raise RequestError(f"model '{model}', input '{name}': {message}", "INVALID_ARG")
                if size != expected:
                    message = f"expected {dim} {expected} as in input '{first}', found {size}; send equal sizes"
                    raise RequestError(f"model '{model}', input '{name}': {message}", "INVALID_ARG")


def shapes_beside(package: Path) -> Shapes:
    """What the manifest in the package's directory says."""
    try:
        manifest = json.loads((package.parent / "manifest.json").read_text(encoding="utf-8"))
        inputs = {tensor["name"]: tuple(tensor["shape"]) for tensor in manifest["inputs"]}
        return Shapes(inputs, dict(manifest.get("largest_sizes", {})))
    except (OSError, ValueError, KeyError, TypeError):
        return Shapes({}, {})
