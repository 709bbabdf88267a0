"""Which nodes of a graph a conversion has changed: a converter that changes none still reports success."""

from collections.abc import Iterator
from typing import Any

from onnx import TensorProto

_HALF = {TensorProto.FLOAT16, TensorProto.BFLOAT16}
_QUANTISED = {
    "ConvInteger",
    "MatMulInteger",
    "MatMulNBits",
    "DynamicQuantizeLSTM",
    "QAttention",
    "Attention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "BiasGelu",
    "FastGelu",
}
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "Attention"}
"""Operators whose weights can be made smaller."""


def changed(graph: Any, before: Any) -> int:
    """Return the number of nodes that compute in another type than before, or were fused."""
    return len(_replaced(graph, before)) + len(_dequantised(graph)) + len(list(_in_half(graph)))


def _replaced(graph: Any, before: Any) -> list[str]:
    known = {(node.name, node.op_type) for node in before.node}
    return [node.name for node in graph.node if node.op_type in _QUANTISED and (node.name, node.op_type) not in known]


def _dequantised(graph: Any) -> list[str]:
    """Return nodes with weights whose data and weights both come from integers: a fused kernel runs in int8."""
    integers = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [node.name for node in graph.node if node.op_type in WEIGHTED and integers.issuperset(node.input[:2])]


def _in_half(graph: Any) -> Iterator[str]:
    """Yield nodes that read a tensor in half precision, from its weights or from a cast, through the graph."""
    half = {tensor.name for tensor in graph.initializer if tensor.data_type in _HALF}
    for node in graph.node:
        if node.op_type == "Cast":
            if any(attribute.name == "to" and attribute.i in _HALF for attribute in node.attribute):
                half.update(node.output)
        elif half.intersection(node.input):
            half.update(node.output)
            yield node.name
