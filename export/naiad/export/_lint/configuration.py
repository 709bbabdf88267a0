"""Reading `config.pbtxt`, and filling in what Triton's core fills in before it looks at it.

Source: `AutoCompleteBackendFields` in `model_config_utils.cc` of Triton's core.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from naiad.export._lint.graph import Graph, Tensor

ONNXRUNTIME, PYTORCH, PYTHON = "onnxruntime", "pytorch", "python"
PLATFORMS = {
    "tensorrt": ("tensorrt_plan",),
    ONNXRUNTIME: ("onnxruntime_onnx",),
    PYTORCH: ("pytorch_libtorch", "torch_aoti"),
    "tensorflow": ("tensorflow_graphdef", "tensorflow_savedmodel"),
}
"""The platforms that belong to a backend; the first is filled in where none is given."""
FILENAMES = {
    "tensorrt": "model.plan",
    ONNXRUNTIME: "model.onnx",
    "openvino": "model.xml",
    PYTORCH: "model.pt",
    PYTHON: "model.py",
}
_AOTI_FILENAME = "model.pt2"
_DEFAULT_MAX_BATCH_SIZE = 4
"""Triton's own, for a model that can batch."""
_TYPES = frozenset(value.name for value in model_config_pb2.DataType.DESCRIPTOR.values)
_LIBTORCH_ALIAS = "libtorch"
_ORDER = ("tensorrt", ONNXRUNTIME, "openvino", PYTORCH, PYTHON)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A ModelConfig, or why there is none; with unknown fields there are both."""

    config: Any | None
    error: str = ""


def parse(text: str) -> Parsed:
    """Read the text of a `config.pbtxt`; fields that Triton does not know are left out and named in the error."""
    try:
        return Parsed(config=text_format.Parse(text, model_config_pb2.ModelConfig()))
    except text_format.ParseError as exc:
        error = _in_plain_words(str(exc))
    try:
        lenient = text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError:
        lenient = None
    return Parsed(config=lenient, error=error)


def complete(config: Any, model: Path, names: tuple[str, ...]) -> Any:
    """Return a copy of a configuration with name, backend, platform and file name as Triton's core completes them.

    `names` are the names of the directories in the model's directory, sorted.
    """
    config = model_config_pb2.ModelConfig.FromString(config.SerializeToString())
    config.name = config.name or model.name
    backend = config.backend or _backend_of(config, model / names[0] if names else None)
    config.backend = backend
    if not config.platform and backend in PLATFORMS and backend != "tensorflow":
        aoti = backend == PYTORCH and config.default_model_filename == _AOTI_FILENAME
        config.platform = "torch_aoti" if aoti else PLATFORMS[backend][0]
    if not config.default_model_filename and backend in FILENAMES:
        aoti = config.platform == "torch_aoti"
        config.default_model_filename = _AOTI_FILENAME if aoti else FILENAMES[backend]
    return config


def _backend_of(config: Any, version: Path | None) -> str:
    """Return the backend that platform, file name or, where neither is given, the first directory's files speak for."""
    nothing_said = not config.platform and not config.default_model_filename
    for backend in _ORDER:
        platforms = (*PLATFORMS.get(backend, ()), *((_LIBTORCH_ALIAS,) if backend == PYTORCH else ()))
        filenames = (FILENAMES[backend], *((_AOTI_FILENAME,) if backend == PYTORCH else ()))
        if config.platform in platforms or config.default_model_filename in filenames:
            return backend
        if nothing_said and version and any((version / name).exists() for name in filenames):
            return backend
    return ""


def complete_tensors(config: Any, graph: Graph) -> None:
    """Add what the onnxruntime backend completes from the graph, where inputs or outputs are left out.

    Source: `AutoCompleteConfig` in `onnxruntime.cc`.
    """
    inputs_given = bool(config.input or config.batch_input)
    if inputs_given and config.output:
        return
    tensors = (*graph.inputs.values(), *graph.outputs.values())
    if all(tensor.shape[:1] == (-1,) for tensor in tensors):
        config.max_batch_size = config.max_batch_size or _DEFAULT_MAX_BATCH_SIZE
    if not inputs_given:
        _add(config, config.input, graph.inputs)
    if not config.output:
        _add(config, config.output, graph.outputs)


def _add(config: Any, entries: Any, found: Mapping[str, Tensor]) -> None:
    for tensor in found.values():
        dims = list(tensor.shape[1:] if config.max_batch_size > 0 else tensor.shape)
        entry = entries.add(name=tensor.name, dims=dims or [1])
        entry.data_type = model_config_pb2.DataType.Value(tensor.data_type) if tensor.data_type in _TYPES else 0
        if not dims and config.max_batch_size > 0:
            entry.reshape.SetInParent()


def _in_plain_words(error: str) -> str:
    """Turn protobuf's `1:3 : '…': Message type "inference.ModelConfig" has no field named "x".` into a sentence."""
    line, unknown = (
        re.match(r"(\d+):\d+", error),
        re.search(r'type "inference\.(\w+)" has no field named "(\w+)"', error),
    )
    where = f"line {line[1]}: " if line else ""
    if unknown:
        return f"{where}{_spaced(unknown[1])} has no field {unknown[2]!r}"
    words = re.search(r'Enum type "inference\.([\w.]+)" has no value named (\w+)', error)
    if words:
        return f"{where}{words[1].split('.')[-1]} has no value {words[2]}"
    return where + re.sub(r"^\d+:\d+ ?:? ?", "", error).rstrip(".")


def _spaced(name: str) -> str:
    return "a model configuration" if name == "ModelConfig" else name
