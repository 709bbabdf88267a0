"""An existing ONNX file as the subject of an export, with or without external data."""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from naiad.export._source.datatypes import TRITON, as_array
from naiad.export._source.generate import Ranges
from naiad.export._source.lookups import lookups
from naiad.export._source.samples import Dynamic, Inputs
from naiad.export.errors import InvalidExport
from naiad.export.inputs import Input
from naiad.export.report import Finding

_TOO_NEW = re.compile(r"Unsupported model IR version|is under development and support for this is limited")


class GraphSubject:
    """A graph whose own answers, without any optimisation, are what the published one must give."""

    reference = "ONNX Runtime without optimisations"

    def __init__(self, path: str | os.PathLike[str], outputs: Sequence[str] | None = None) -> None:
        self.path = Path(path).absolute()
        self.label = self.path.name
        self.model = _read(self.path)
        self.tensors = _tensors(self.model.graph.input, "input", without=_initializers(self.model.graph))
        self.outputs = _tensors(self.model.graph.output, "output")
        self._session: Any = None
        if outputs is not None and list(outputs) != list(self.outputs):
            raise InvalidExport(f"the outputs of {self.label} are {list(self.outputs)}; found {list(outputs)}")

    def bind(self, samples: Sequence[Any]) -> tuple[Inputs, ...]:
        """Bind tuples and dicts to the graph's inputs."""
        return tuple(self._bind_one(sample, index) for index, sample in enumerate(samples))

    def batched(self) -> bool:
        """Whether the first dimension of every input is open."""
        return all(dims and not isinstance(dims[0], int) for _, dims in self.tensors.values())

    def inputs(self) -> dict[str, Input]:
        """Return what the graph declares, with the ranges that its lookups tell."""
        found = {}
        for name, (dtype, dims) in self.tensors.items():
            shape = [dim if isinstance(dim, int) else _open(name, axis, dim) for axis, dim in enumerate(dims)]
            low, high, words = lookups(self.model.graph, name)
            found[name] = Input(
                dtype="str" if dtype == "object" else dtype, shape=shape, low=low, high=high, words=words
            )
        return found

    def ranges(self) -> Ranges:
        """Return none: a graph says nothing of its sizes."""
        return {}

    def dynamic(self, rows: tuple[Inputs, ...], max_batch_size: int) -> Dynamic:
        """Return the dimensions that the graph leaves open; the first of all inputs is the batch."""
        del rows
        found: dict[str, dict[int, str]] = {}
        for name, (_, dims) in self.tensors.items():
            for axis, dim in enumerate(dims):
                if not isinstance(dim, int):
                    symbol = "batch" if axis == 0 and max_batch_size else _open(name, axis, dim)
                    found.setdefault(name, {})[axis] = symbol
        return found

    def evaluating(self) -> contextlib.AbstractContextManager[bool]:
        """Do nothing: a graph has no modes."""
        return contextlib.nullcontext(False)

    def run(self, inputs: Inputs) -> Inputs:
        """Run the graph as it is written."""
        if self._session is None:
            self._session = _plain_session(self.path)
        names = list(self.outputs)
        return dict(zip(names, map(as_array, self._session.run(names, inputs)), strict=True))

    def describe(self) -> dict[str, Any]:
        """Return the file's name, hash and producer."""
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        producer = f"{self.model.producer_name} {self.model.producer_version}".strip()
        return {"class": "onnx.ModelProto", "file": self.label, "sha256": digest, "producer": producer}

    def findings(self) -> tuple[Finding, ...]:
        """Return none: everything is bound by name."""
        return ()

    def _bind_one(self, sample: Any, index: int) -> Inputs:
        if isinstance(sample, Mapping):
            given = dict(sample)
        elif isinstance(sample, tuple | list):
            given = dict(zip(self.tensors, sample, strict=False))
            if len(sample) != len(self.tensors):
                raise InvalidExport(
                    f"sample {index} has {len(sample)} inputs; {self.label} has {', '.join(self.tensors)}"
                )
        else:
            raise InvalidExport(f"sample {index} is {type(sample).__name__}; expected a tuple or a dict by input name")
        if given.keys() != self.tensors.keys():
            raise InvalidExport(f"sample {index} has the inputs {list(given)}; {self.label} has {list(self.tensors)}")
        return {name: self._fitting(name, as_array(given[name]), index) for name in self.tensors}

    def _fitting(self, name: str, array: np.ndarray[Any, Any], index: int) -> np.ndarray[Any, Any]:
        dtype, dims = self.tensors[name]
        fits = array.ndim == len(dims) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(dims, array.shape, strict=True)
        )
        if not fits or array.dtype.name != dtype:
            shape = [dim if isinstance(dim, int) else dim or "any" for dim in dims]
            raise InvalidExport(
                f"input {name!r} of sample {index} is {array.dtype} {list(array.shape)}; {self.label} takes {dtype} "
                f"{shape}"
            )
        return array


def _read(path: Path) -> Any:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except OSError as exc:
        raise InvalidExport(f"cannot read {path}: {exc.strerror}") from exc
    except Exception as exc:  # protobuf's errors share no public base class
        raise InvalidExport(f"{path} is not an ONNX graph: {exc}") from exc
    if not model.graph.node:
        raise InvalidExport(f"{path} is not an ONNX graph: it has no nodes")
    return model


def _initializers(graph: Any) -> set[str]:
    return {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}


def _tensors(values: Any, kind: str, without: set[str] = frozenset()) -> dict[str, tuple[str, list[int | str]]]:  # type: ignore[assignment]
    """Return numpy's type and the dimensions by name; an open dimension is its name, or empty."""
    return {value.name: _tensor(value, kind) for value in values if value.name not in without}


def _tensor(value: Any, kind: str) -> tuple[str, list[int | str]]:
    if value.type.WhichOneof("value") != "tensor_type":
        raise InvalidExport(
            f"{kind} {value.name!r} is a {value.type.WhichOneof('value').removesuffix('_type')}; Triton knows tensors "
            "only: convert the model without it (skl2onnx: options={'zipmap': False})"
        )
    tensor = value.type.tensor_type
    name = _numpy_name(tensor.elem_type)
    if name not in TRITON:
        known = ", ".join(name for name in TRITON if name != "object")
        raise InvalidExport(
            f"{kind} {value.name!r} is {onnx.TensorProto.DataType.Name(tensor.elem_type)}; expected one of {known} or "
            "STRING: add a Cast to the graph"
        )
    if not tensor.HasField("shape"):
        raise InvalidExport(f"{kind} {value.name!r} declares no shape; infer it with onnx.shape_inference")
    return name, [
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else dim.dim_param for dim in tensor.shape.dim
    ]


def _numpy_name(element: int) -> str:
    if element == onnx.TensorProto.STRING:
        return "object"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element).name)
    except KeyError:
        return ""


def _open(name: str, axis: int, dim: str) -> str:
    return "batch" if axis == 0 else dim or f"{name}_{axis}"


def _plain_session(path: Path) -> Any:
    """Return what runs the graph as written: ONNX Runtime, or ONNX's own evaluator for a format too new for that."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # ONNX Runtime's errors share no public base class
        if _TOO_NEW.search(str(exc)):
            return ReferenceEvaluator(str(path))
        raise InvalidExport(f"ONNX Runtime cannot load {path.name}: {exc}") from exc
