"""Conversions to 16-bit floats, inputs and outputs left as they are, so that clients see no difference."""

from collections.abc import Collection
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_LARGEST_FOR_INFERENCE_BYTES = 1_900_000_000
"""Shape inference serialises the model, which protobuf limits to 2 GB."""


def to_fp16(model: Any, excluded: Collection[str]) -> Any:
    """Return the model with weights and arithmetic in fp16.

    By ONNX Runtime's own converter: that of onnxconverter-common makes invalid graphs of transformers.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    large = model.ByteSize() > _LARGEST_FOR_INFERENCE_BYTES
    return convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=large, node_block_list=sorted(excluded)
    )


def to_bf16(model: Any, excluded: Collection[str]) -> Any:
    """Return the model with weights and arithmetic in bf16: what fp16 would be, with the weights rounded once."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    converted = to_fp16(model, excluded)
    for tensor in converted.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            exact = weights.get(tensor.name, numpy_helper.to_array(tensor))
            tensor.CopyFrom(_tensor(tensor.name, exact))
    for value in (*converted.graph.value_info, *converted.graph.input, *converted.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in converted.graph.node:
        _retype(node)
    return converted


def _retype(node: Any) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.BFLOAT16
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
            attribute.t.CopyFrom(_tensor(attribute.t.name, numpy_helper.to_array(attribute.t)))
        elif attribute.type == onnx.AttributeProto.GRAPH:
            raise ValueError(f"{node.op_type} has a graph inside, which is not converted to bf16")


def _tensor(name: str, values: np.ndarray[Any, Any]) -> Any:
    rounded = np.asarray(values).astype(ml_dtypes.bfloat16)
    return onnx.helper.make_tensor(name, TensorProto.BFLOAT16, rounded.shape, rounded.tobytes(), raw=True)
