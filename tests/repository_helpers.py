"""Builds small ONNX models and model repositories for tests.

    repository = tmp_path / "repository"
    shape = "FP32[batch,3]"
    model = graph([node("Mul", "x", "two", to="y")], {"x": shape}, {"y": shape}, constants={"two": 2.0})
    write_model(repository, "double", model, max_batch_size=8, inputs={"x": "FP32[3]"}, outputs={"y": "FP32[3]"})

A tensor is written as Triton's type and its dimensions: ``"FP32[batch,3]"``, ``"BF16[-1]"``, ``"INT64[]"`` for a
scalar. In a graph a name is a dynamic dimension; in a configuration it is -1, as Triton wants it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf import json_format, text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2

ONNX_TYPES: Mapping[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "STRING": TensorProto.STRING,
}


def parse_tensor(text: str) -> tuple[str, list[int | str]]:
    """``"FP32[batch,3]"`` as ``("FP32", ["batch", 3])``."""
    match = re.fullmatch(r"(\w+)\[(.*)\]", text)
    assert match, f"expected TYPE[dim,...], found {text!r}"
    dims = [dim.strip() for dim in match[2].split(",") if dim.strip()]
    return match[1], [int(dim) if re.fullmatch(r"-?\d+", dim) else dim for dim in dims]


def node(operator: str, *inputs: str, to: str | Iterable[str], **attributes: Any) -> onnx.NodeProto:
    """One node; ``to`` names its output or outputs."""
    return helper.make_node(operator, list(inputs), [to] if isinstance(to, str) else list(to), **attributes)


def graph(
    nodes: Iterable[onnx.NodeProto],
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    *,
    constants: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    """A model; ``constants`` are initializers, ``defaults`` are initializers that a request may replace.

    Python numbers become float32 and whatever else numpy makes of them keeps its type.
    """
    initial = {**(constants or {}), **(defaults or {})}
    tensors = [numpy_helper.from_array(_array(value), name) for name, value in initial.items()]
    replaceable = {name: _described(_array(value)) for name, value in (defaults or {}).items()}
    made = helper.make_graph(
        list(nodes), "test", _values({**inputs, **replaceable}), _values(outputs), initializer=tensors
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def identity(tensors: Mapping[str, str]) -> onnx.ModelProto:
    """A model that gives every input ``x`` back as the output ``x_out``."""
    nodes = [node("Identity", name, to=f"{name}_out") for name in tensors]
    return graph(nodes, tensors, {f"{name}_out": text for name, text in tensors.items()})


def affine(*, scale: float = 2.0, width: int = 3) -> onnx.ModelProto:
    """``y = scale * x`` on ``FP32[batch,width]``: the plainest model that batches."""
    shape = f"FP32[batch,{width}]"
    return graph([node("Mul", "x", "scale", to="y")], {"x": shape}, {"y": shape}, constants={"scale": scale})


def write_model(
    repository: Path,
    name: str,
    model: onnx.ModelProto | bytes,
    *,
    version: int = 1,
    filename: str = "model.onnx",
    external_data: bool = False,
    configured: bool = True,
    max_batch_size: int = 0,
    inputs: Mapping[str, str | Mapping[str, Any]] | None = None,
    outputs: Mapping[str, str | Mapping[str, Any]] | None = None,
    **fields: Any,
) -> Path:
    """Write one version of a model, and its config.pbtxt unless ``configured`` is false; gives the model's directory.

    ``inputs`` and ``outputs`` map a name to ``"FP32[3]"`` or to a mapping with that text as ``tensor`` and further
    fields (``reshape``, ``optional``, ``label_filename``); ``fields`` are further fields of the configuration in
    protobuf's JSON form. One instance on the CPU is the default.
    """
    directory = repository / name
    (directory / str(version)).mkdir(parents=True, exist_ok=True)
    path = directory / str(version) / filename
    if isinstance(model, bytes):
        path.write_bytes(model)
    elif external_data:
        location = f"{filename}.data"
        onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    else:
        onnx.save(model, path)
    if configured:
        text = config_text(name, max_batch_size=max_batch_size, inputs=inputs, outputs=outputs, **fields)
        (directory / "config.pbtxt").write_text(text)
    return directory


def config_text(name: str, **fields: Any) -> str:
    """A config.pbtxt; see ``write_model``."""
    return str(text_format.MessageToString(config_message(name, **fields)))


def config_message(
    name: str,
    *,
    max_batch_size: int = 0,
    inputs: Mapping[str, str | Mapping[str, Any]] | None = None,
    outputs: Mapping[str, str | Mapping[str, Any]] | None = None,
    parameters: Mapping[str, str] | None = None,
    **fields: Any,
) -> Any:
    """A ``ModelConfig`` message; see ``write_model``."""
    described = {
        "name": name,
        "backend": "onnxruntime",
        "max_batch_size": max_batch_size,
        "input": [_configured(key, value) for key, value in (inputs or {}).items()],
        "output": [_configured(key, value) for key, value in (outputs or {}).items()],
        "parameters": {key: {"string_value": value} for key, value in (parameters or {}).items()},
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        **fields,
    }
    return json_format.ParseDict(described, model_config_pb2.ModelConfig())


def _configured(name: str, value: str | Mapping[str, Any]) -> dict[str, Any]:
    further = {} if isinstance(value, str) else {key: item for key, item in value.items() if key != "tensor"}
    data_type, dims = parse_tensor(value if isinstance(value, str) else value["tensor"])
    sizes = [dim if isinstance(dim, int) else -1 for dim in dims]
    return {"name": name, "data_type": f"TYPE_{data_type}", "dims": sizes, **further}


def _values(tensors: Mapping[str, str]) -> list[onnx.ValueInfoProto]:
    return [_value(name, *parse_tensor(text)) for name, text in tensors.items()]


def _value(name: str, data_type: str, dims: Iterable[int | str]) -> onnx.ValueInfoProto:
    shape = [None if dim == -1 else dim for dim in dims]
    return helper.make_tensor_value_info(name, ONNX_TYPES[data_type], shape)


def _array(value: Any) -> np.ndarray[Any, Any]:
    return np.asarray(value, dtype=np.float32 if isinstance(value, float) else None)


def _described(array: np.ndarray[Any, Any]) -> str:
    data_type = {"float32": "FP32", "float64": "FP64"}.get(array.dtype.name, array.dtype.name.upper())
    return f"{data_type}[{','.join(map(str, array.shape))}]"
