"""What an ONNX graph takes and gives, read from an ONNX Runtime session."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from _ort_datatypes import BY_ONNX
from _ort_errors import ModelFileError, mismatch


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One tensor of the graph.

    ``shape`` has -1 for every dimension that is not fixed. It is empty for a scalar and, as ONNX Runtime
    cannot tell the two apart, for a tensor of unknown rank.
    """

    name: str
    data_type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """Inputs, outputs, and the initializers that a request may replace."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    initializers: tuple[TensorInfo, ...] = ()

    def input(self, name: str) -> TensorInfo | None:
        """The input or replaceable initializer of that name."""
        return next((each for each in (*self.inputs, *self.initializers) if each.name == name), None)

    def output(self, name: str) -> TensorInfo | None:
        """The output of that name."""
        return next((each for each in self.outputs if each.name == name), None)


def graph_of(session: Any) -> Graph:
    """The graph of an ``onnxruntime.InferenceSession``.

    Raises ``ModelFileError`` where an input or output is not a tensor of a type that Triton has.
    """
    return Graph(
        inputs=_infos("input", session.get_inputs()),
        outputs=_infos("output", session.get_outputs()),
        initializers=_infos("initializer", session.get_overridable_initializers()),
    )


def _infos(role: str, arguments: Iterable[Any]) -> tuple[TensorInfo, ...]:
    return tuple(_info(role, each) for each in arguments)


def _info(role: str, argument: Any) -> TensorInfo:
    data_type = BY_ONNX.get(argument.type)
    if data_type is None:
        message = mismatch(
            f"{role} '{argument.name}' of the ONNX model",
            expected=f"one of {', '.join(BY_ONNX)}",
            found=argument.type,
            advice="Triton cannot carry this type, export the model with a plain tensor in its place",
        )
        raise ModelFileError(message)
    # A named or unknown dimension is a string or None.
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in argument.shape)
    return TensorInfo(name=argument.name, data_type=data_type.triton, shape=shape)
