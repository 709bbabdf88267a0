"""The inputs and outputs of a configuration, from the graph and from the arrays that went through it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2

from naiad.export._capture.graph import Graph
from naiad.export._source.datatypes import triton_name
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples


def inputs(graph: Graph, samples: Samples, answers: Sequence[Answer]) -> list[Any]:
    """Return the ModelInputs, in the order of the samples' names."""
    feeds = answers[0].case.feeds()
    return [
        _tensor(model_config_pb2.ModelInput, name, feeds[name], graph.inputs[name], samples) for name in samples.names
    ]


def outputs(graph: Graph, samples: Samples, answers: Sequence[Answer]) -> list[Any]:
    """Return the ModelOutputs, in the model's order."""
    return [
        _tensor(model_config_pb2.ModelOutput, name, value, graph.outputs[name], samples)
        for name, value in answers[0].outputs.items()
    ]


def data_type(dtype: np.dtype[Any]) -> int:
    """Return Triton's number of a numpy type; text travels as STRING."""
    return int(model_config_pb2.DataType.Value(f"TYPE_{triton_name(dtype)}"))


def _tensor(
    kind: Any, name: str, array: np.ndarray[Any, Any], declared: tuple[int | str, ...], samples: Samples
) -> Any:
    dims, scalar = _dims(declared, samples)
    tensor = kind(name=name, data_type=data_type(array.dtype), dims=dims)
    if scalar and samples.batch:
        tensor.reshape.SetInParent()
    return tensor


def _dims(declared: tuple[int | str, ...], samples: Samples) -> tuple[list[int], bool]:
    """Return Triton's dims and whether they stand for none: it knows no empty ones, so a scalar is [1].

    With a batch it is reshaped to []; without one Triton refuses that, and its backends reshape it themselves.
    """
    dims = [dim if isinstance(dim, int) else -1 for dim in (declared[1:] if samples.batch else declared)]
    return (dims, False) if dims else ([1], True)
