"""The model's complete `config.pbtxt`, so that servers start with auto-complete off and warm."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import model_config_pb2

from naiad.export._capture.graph import Graph
from naiad.export._configure import settings as _settings
from naiad.export._runtime.session import session
from naiad.export._source.datatypes import triton_name
from naiad.export._source.reference import Answer
from naiad.export._source.samples import Samples
from naiad.export.errors import InvalidExport
from naiad.export.report import BatchLatency

_SINGLE_THREAD_MS = 5.0
"""Below this latency at the largest batch a second thread costs more than it gives (it spins between requests)."""

Labels = Mapping[str, Sequence[str]]


def configure(
    model: str,
    graph: Graph,
    samples: Samples,
    answers: Sequence[Answer],
    *,
    latency: Sequence[BatchLatency],
    labels: Labels,
    settings: Mapping[str, object],
) -> Any:
    """Return the ModelConfig for a verified graph; the version policy is left to the publishing."""
    config = model_config_pb2.ModelConfig(
        name=model, backend="onnxruntime", max_batch_size=samples.max_batch_size, default_model_filename=graph.path.name
    )
    config.input.extend(_input(graph, samples, name) for name in samples.names)
    config.output.extend(_output(graph, samples, name, value) for name, value in answers[0].outputs.items())
    # One instance: the server's default on a CPU is two, each with all cores. KIND_AUTO takes a GPU where there is one.
    config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    if samples.batch:
        config.dynamic_batching.SetInParent()  # without a queue policy: its batcher stalls for half a second at a time
    if latency[-1].median_ms < _SINGLE_THREAD_MS:
        config.parameters["intra_op_thread_count"].string_value = "1"
    config.model_warmup.extend(_warmup(config, graph, samples))
    _name_labels(config, labels)
    _settings.apply(config, settings)
    return config


def write_labels(directory: Path, config: Any, labels: Labels) -> None:
    """Write the label files that the configuration names."""
    directory.mkdir()
    for output in config.output:
        if output.label_filename:
            text = "".join(f"{label}\n" for label in labels[output.name])
            (directory / output.label_filename).write_text(text, encoding="utf-8")


def _input(graph: Graph, samples: Samples, name: str) -> Any:
    dims, scalar = _dims(graph.inputs[name], samples)
    data_type = _data_type(triton_name(samples.rows[0][name].dtype))
    tensor = model_config_pb2.ModelInput(name=name, data_type=data_type, dims=dims)
    if scalar and samples.batch:
        tensor.reshape.SetInParent()
    return tensor


def _output(graph: Graph, samples: Samples, name: str, value: np.ndarray[Any, Any]) -> Any:
    dims, scalar = _dims(graph.outputs[name], samples)
    tensor = model_config_pb2.ModelOutput(name=name, data_type=_data_type(triton_name(value.dtype)), dims=dims)
    if scalar and samples.batch:
        tensor.reshape.SetInParent()
    return tensor


def _dims(declared: tuple[int | str, ...], samples: Samples) -> tuple[list[int], bool]:
    """Return Triton's dims and whether they stand for none: it knows no empty ones, so a scalar is [1].

    With a batch it is reshaped to []; without one Triton refuses that, and its backends reshape it themselves.
    """
    dims = [dim if isinstance(dim, int) else -1 for dim in (declared[1:] if samples.batch else declared)]
    return (dims, False) if dims else ([1], True)


def _data_type(name: str) -> int:
    return int(model_config_pb2.DataType.Value(f"TYPE_{name}"))


def _warmup(config: Any, graph: Graph, samples: Samples) -> list[Any]:
    """Return zero-filled warm-up requests at batch 1 and the largest; none for a model that cannot take zeros."""
    batches = [1, samples.max_batch_size] if samples.batch else [1]
    return (
        [_warmup_one(config, samples, batch) for batch in dict.fromkeys(batches)]
        if _takes_zeros(graph, samples)
        else []
    )


def _warmup_one(config: Any, samples: Samples, batch: int) -> Any:
    warmup = model_config_pb2.ModelWarmup(name=f"zeros_{batch}", batch_size=batch if samples.batch else 0)
    for tensor in config.input:
        shape = samples.rows[0][tensor.name].shape
        entry = warmup.inputs[tensor.name]
        entry.data_type, entry.zero_data = tensor.data_type, True
        entry.dims.extend(list(shape[1:] if samples.batch else shape) or [1])
    return warmup


def _takes_zeros(graph: Graph, samples: Samples) -> bool:
    feeds = {
        name: np.full(array.shape, "", object) if array.dtype == object else np.zeros_like(array)
        for name, array in samples.rows[0].items()
    }
    try:
        session(graph.path).run(None, feeds)
    except Exception:  # noqa: BLE001 - a model may refuse zeros in any way; it is then not warmed up
        return False
    return True


def _name_labels(config: Any, labels: Labels) -> None:
    outputs = {output.name: output for output in config.output}
    for index, (name, names) in enumerate(labels.items()):
        if name not in outputs:
            raise InvalidExport(f"labels are given for the output {name!r}; the model has {list(outputs)}")
        if any(not label or "\n" in label for label in names):
            raise InvalidExport(f"a label of output {name!r} is empty or has a line break")
        size = outputs[name].dims[-1]
        if size not in (-1, len(names)):
            raise InvalidExport(f"output {name!r} has {size} classes; {len(names)} labels were given")
        suffix = "" if len(labels) == 1 else "_" + (re.sub(r"\W+", "_", name) or str(index))
        outputs[name].label_filename = f"labels{suffix}.txt"
