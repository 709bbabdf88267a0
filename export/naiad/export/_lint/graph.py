"""What an ONNX file takes and gives, and what it needs to be read."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

_DATA_TYPES = {
    1: "TYPE_FP32",
    2: "TYPE_UINT8",
    3: "TYPE_INT8",
    4: "TYPE_UINT16",
    5: "TYPE_INT16",
    6: "TYPE_INT32",
    7: "TYPE_INT64",
    8: "TYPE_STRING",
    9: "TYPE_BOOL",
    10: "TYPE_FP16",
    11: "TYPE_FP64",
    12: "TYPE_UINT32",
    13: "TYPE_UINT64",
    16: "TYPE_BF16",
}
"""ONNX's numbers (`TensorProto.DataType`) and Triton's names; the types that are missing cannot be in a request."""
_RUNTIME_TYPES = {
    f"tensor({name})": _DATA_TYPES[number]
    for name, number in {
        "float": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7,
        "string": 8, "bool": 9, "float16": 10, "double": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
    }.items()
}  # fmt: skip
RUNTIME_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "org.pytorch.aten",
    }
)
"""The domains whose operators ONNX Runtime has of its own."""
_DEFAULT_DOMAINS = ("", "ai.onnx")
_FIRST_IR_WITH_DEFAULTS = 4
"""Before it, every initializer had to be listed among the inputs, and none could be replaced by a request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One input or output; the shape has -1 for each dimension that is not fixed, and is empty for a scalar."""

    name: str
    data_type: str
    """Triton's name for it, or ONNX's where Triton has none."""
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalFile:
    """A file beside the graph that holds weights."""

    location: str
    size_bytes: int
    """How long it must be at least."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """Inputs, outputs and format of an ONNX file."""

    inputs: dict[str, Tensor]
    """Those that a request must give, or that Triton itself gives."""
    defaults: dict[str, Tensor]
    """Those that have a value in the file, which a request may replace."""
    outputs: dict[str, Tensor]
    opset: int
    ir_version: int
    external: tuple[ExternalFile, ...] = ()
    domains: frozenset[str] = field(default_factory=frozenset)
    """Of its operators, the functions defined in the file itself left out."""
    operators: frozenset[str] = field(default_factory=frozenset)
    """The types of its nodes, those of subgraphs left out."""
    lacks_cpu: str = ""
    """Why it cannot run on a CPU."""

    @property
    def every_input(self) -> dict[str, Tensor]:
        """All that a configuration may name as an input."""
        return {**self.defaults, **self.inputs}


class UnreadableGraph(Exception):
    """The file is not an ONNX graph, for the reason given."""


def read(path: Path, libraries: Sequence[str] = ()) -> Graph:
    """Read an ONNX file; `libraries` have operators that it needs.

    Shapes are those that ONNX Runtime infers, which is what Triton compares, and may be more than the file declares.

    Raises:
        UnreadableGraph: It is damaged, or no ONNX file at all.
    """
    import onnx

    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except Exception as exc:  # protobuf's and onnx's own errors have no common class
        raise UnreadableGraph(f"it is no ONNX file ({_first_line(exc)})") from exc
    if not model.ir_version or not model.graph.output:
        raise UnreadableGraph("it holds no ONNX graph")
    declared = _declared(model)
    return _inferred(path, declared, libraries) if _can_be_opened(path, declared, libraries) else declared


def _can_be_opened(path: Path, graph: Graph, libraries: Sequence[str]) -> bool:
    """Whether all that a graph needs is there; what is not is a finding of its own."""
    sizes = [(path.parent / each.location, each.size_bytes) for each in graph.external]
    whole = all(file.is_file() and file.stat().st_size >= size for file, size in sizes)
    operators = bool(libraries) or graph.domains <= RUNTIME_DOMAINS
    return whole and operators and all(Path(library).is_file() for library in libraries)


def _inferred(path: Path, declared: Graph, libraries: Sequence[str]) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        for library in libraries:
            options.register_custom_ops_library(library)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no common class
        if "NOT_IMPLEMENTED" in str(exc):
            return replace(declared, lacks_cpu=_first_line(exc))
        raise UnreadableGraph(f"ONNX Runtime cannot open it ({_first_line(exc)})") from exc
    return replace(
        declared,
        inputs=_infos(session.get_inputs()),
        defaults=_infos(session.get_overridable_initializers()),
        outputs=_infos(session.get_outputs()),
    )


def _infos(arguments: Iterable[Any]) -> dict[str, Tensor]:
    return {each.name: _info(each) for each in arguments}


def _info(argument: Any) -> Tensor:
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in argument.shape)
    return Tensor(name=argument.name, data_type=_RUNTIME_TYPES.get(argument.type, argument.type), shape=shape)


def _declared(model: Any) -> Graph:
    initializers = {each.name for each in model.graph.initializer}
    initializers |= {each.values.name for each in model.graph.sparse_initializer}
    inputs = {each.name: _tensor(each) for each in model.graph.input}
    defaults = {name: tensor for name, tensor in inputs.items() if name in initializers}
    return Graph(
        inputs={name: tensor for name, tensor in inputs.items() if name not in initializers},
        defaults=defaults if model.ir_version >= _FIRST_IR_WITH_DEFAULTS else {},
        outputs={each.name: _tensor(each) for each in model.graph.output},
        opset=max((each.version for each in model.opset_import if each.domain in _DEFAULT_DOMAINS), default=0),
        ir_version=model.ir_version,
        external=_external(_tensors(model.graph)),
        domains=_domains(model),
        operators=frozenset(node.op_type for node in model.graph.node),
    )


def _tensor(value: Any) -> Tensor:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Tensor(name=value.name, data_type=str(kind), shape=())
    number = value.type.tensor_type.elem_type
    dims = value.type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else -1 for dim in dims)
    return Tensor(name=value.name, data_type=_DATA_TYPES.get(number, f"ONNX type {number}"), shape=shape)


def _tensors(graph: Any) -> Iterable[Any]:
    """Give every stored tensor, those in branches and loops too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(inner)


def _external(tensors: Iterable[Any]) -> tuple[ExternalFile, ...]:
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.data_location != tensor.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
        location = entries.get("location", "")
        sizes[location] = max(end, sizes.get(location, 0))
    return tuple(ExternalFile(location=location, size_bytes=size) for location, size in sorted(sizes.items()))


def _domains(model: Any) -> frozenset[str]:
    own = {(each.domain, each.name) for each in model.functions}
    nodes = [*_nodes(model.graph), *(node for function in model.functions for node in function.node)]
    return frozenset(node.domain for node in nodes if (node.domain, node.op_type) not in own)


def _nodes(graph: Any) -> Iterable[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _nodes(inner)


def _first_line(exc: Exception) -> str:
    """Return an error without ONNX Runtime's code and the path, which the finding itself shows."""
    text = " ".join(str(exc).split("\n\n")[0].split())
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed: ?", "", text)[:300].rstrip(".")
