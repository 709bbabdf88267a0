"""ONNX graphs whose intermediate tensors can be read, and replaced."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from naiad.export._runtime.place import CPU, Place
from naiad.export._runtime.session import session

Array = np.ndarray[Any, Any]

UNOPTIMISED = 2
"""`optimization.graph.level` for none."""
_CHUNK_BYTES = 256_000_000
_FIRST_CHUNK = 16


class Graph:
    """An ONNX file, to be run on one case with other outputs or inputs than its own."""

    def __init__(self, path: Path, place: Place = CPU) -> None:
        self.path = path
        self.place = place
        self.model = onnx.load(path, load_external_data=False)
        self.outputs = tuple(output.name for output in self.model.graph.output)
        self.producers = {name: node for node in self.model.graph.node for name in node.output if name}

    def tensors(self) -> list[str]:
        """Return the names of what the nodes give, in the order of the nodes."""
        return [name for node in self.model.graph.node for name in node.output if name]

    def run(self, feeds: Mapping[str, Array], names: Sequence[str], *, level: int = UNOPTIMISED) -> dict[str, Array]:
        """Return some tensors of the graph, whether they are outputs or not; what is no tensor is left out."""
        exposed = self._exposing(names)
        runtime = session(exposed, level=level, folder=self.path.parent, place=self.place)
        values = dict(zip(names, runtime.run(list(names), dict(feeds)), strict=True))
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def stream(self, feeds: Mapping[str, Array], names: Sequence[str]) -> Iterator[dict[str, Array]]:
        """Yield all these tensors, in chunks that do not fill the memory."""
        position, count = 0, _FIRST_CHUNK
        while position < len(names):
            chunk = self.run(feeds, names[position : position + count])
            yield chunk
            position += count
            size = sum(value.nbytes for value in chunk.values()) / count
            count = max(1, min(8 * count, int(_CHUNK_BYTES / max(size, 1.0))))

    def substitute(self, feeds: Mapping[str, Array], name: str, value: Array) -> dict[str, Array]:
        """Return the graph's outputs when one of its tensors is replaced by `value`."""
        model = self._copy()
        for node in model.graph.node:
            for index, output in enumerate(node.output):
                if output == name:
                    node.output[index] = f"{name}__replaced"
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, [None] * value.ndim))
        runtime = session(model.SerializeToString(), level=UNOPTIMISED, folder=self.path.parent, place=self.place)
        names = [output for output in self.outputs if output != name]
        found = dict(zip(names, runtime.run(names, {**feeds, name: value}), strict=True))
        return {name: value, **found} if name in self.outputs else found

    def _exposing(self, names: Sequence[str]) -> bytes:
        known = set(self.outputs)
        added = [name for name in names if name not in known]
        self.model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in added)
        try:
            return bytes(self.model.SerializeToString())
        finally:
            if added:
                del self.model.graph.output[-len(added) :]

    def _copy(self) -> Any:
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        return model
