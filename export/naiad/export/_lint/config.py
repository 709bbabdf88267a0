"""Rules about `config.pbtxt` as a whole: syntax, name, backend and platform, and fields that a release does not know.

Source: `ValidateModelConfig` in `model_config_utils.cc` of Triton's core, and `model_config.proto` of each release.
"""

import difflib
import re
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._lint import configuration
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails, not_embedded

_EMBEDDED_BACKENDS = frozenset({configuration.ONNXRUNTIME, configuration.PYTHON})
_CONTAINER_BACKENDS = frozenset(
    {
        *configuration.PLATFORMS,
        *configuration.FILENAMES,
        "dali",
        "fil",
        "identity",
        "repeat",
        "square",
        "tensorrtllm",
        "vllm",
    }
)
_NEWER_FIELDS = {
    "runtime": "24.01",
    "iterative_sequence": "24.01",
    "use_same_buffer_for_input_output": "24.01",
    "use_growable_memory": "24.01",
    "is_non_linear_format_io": "24.08",
    "model_metrics": "24.11",
    "max_inflight_requests": "25.11",
}
"""Fields that are younger than the table of targets, and the release that brought each."""


def syntax(entry: Entry) -> Iterator[Problem]:
    """The file is a model configuration; one unknown field or word is enough that nothing loads."""
    if entry.parsed.error and (entry.has_config or entry.parsed.config is not None):
        yield fails("", entry.parsed.error, _nearest(entry.parsed.error) or "correct the line")


def _nearest(error: str) -> str:
    unknown = re.search(r"(\w+) has no (field|value) '?(\w+)", error)
    if not unknown:
        return ""
    if unknown[1] == "DataType":
        return f"use one of {', '.join(model_config_pb2.DataType.keys()[1:])}"
    near = difflib.get_close_matches(unknown[3], _words(model_config_pb2.DESCRIPTOR), n=1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else "remove it"


def _words(file: Any) -> list[str]:
    messages, names = list(file.message_types_by_name.values()), list[str]()
    names += [value.name for kind in file.enum_types_by_name.values() for value in kind.values]
    while messages:
        message = messages.pop()
        messages += message.nested_types
        names += [each.name for each in message.fields]
        names += [value.name for kind in message.enum_types for value in kind.values]
    return names


def younger_fields(entry: Entry) -> Iterator[Problem]:
    """Fields that the target does not know yet."""
    for path, name in _set_fields(entry.config):
        since = _NEWER_FIELDS.get(name, "")
        if since > entry.target.release:
            message = f"{entry.target} does not know this field, which Triton {since} brought"
            yield fails(path, message, f"remove it, or lint for {since} or later")


def _set_fields(message: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        yield prefix + field.name, field.name
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            values = list(value.values())
        else:
            values = list(value) if field.is_repeated else [value]
        for each in values:
            if hasattr(each, "ListFields"):
                yield from _set_fields(each, f"{prefix}{field.name}.")


def model_name(entry: Entry) -> Iterator[Problem]:
    """The configuration may leave the name out, and may not give another one."""
    if entry.config.name != entry.name:
        message = f"the name is {entry.config.name!r} and the directory {entry.name!r}; the two must be equal"
        yield fails("name", message, f"set it to {entry.name!r}, or rename the directory")


def backend(entry: Entry) -> Iterator[Problem]:
    """There is a backend, and the platform is one of its own."""
    config = entry.config
    if config.platform == "ensemble":
        if config.backend:
            message = f"an ensemble has no backend, found {config.backend!r}"
            yield fails("backend", message, "remove the field; its steps have backends")
        return
    if not config.backend:
        message = "there is no backend, and no file that says which one it would be"
        yield fails("backend", message, 'name one, for example backend: "onnxruntime"')
    elif config.platform not in configuration.PLATFORMS.get(config.backend, (config.platform,)):
        expected = " or ".join(configuration.PLATFORMS[config.backend])
        message = f"backend {config.backend!r} goes with the platform {expected}, found {config.platform!r}"
        yield fails("platform", message, "remove the field")
    else:
        yield from _known_backend(entry)


def _known_backend(entry: Entry) -> Iterator[Problem]:
    name = entry.config.backend
    if name in _EMBEDDED_BACKENDS or (name == configuration.PYTORCH and entry.config.platform == "torch_aoti"):
        return
    if name in _CONTAINER_BACKENDS:
        message = f"backend {name!r} is only in NVIDIA's containers"
        yield not_embedded("backend", message, "serve it there")
    elif not (entry.directory / f"libtriton_{name}.so").exists():
        near = difflib.get_close_matches(name, sorted(_CONTAINER_BACKENDS), n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"install it, or put libtriton_{name}.so into the directory"
        yield fails("backend", f"no server has a backend {name!r} of its own", fix)


def runtime(entry: Entry) -> Iterator[Problem]:
    """The library that runs the backend is better not named: it is another one in each server."""
    if entry.config.runtime and entry.config.backend == configuration.ONNXRUNTIME:
        message = (
            f"{entry.config.runtime!r} is in some servers only: the backend is C++ in containers, Python elsewhere"
        )
        if entry.config.runtime == "libtriton_onnxruntime.so":
            yield not_embedded("runtime", message, "remove the field")
        else:
            yield fails("runtime", message, "remove the field")


def batch_size(entry: Entry) -> Iterator[Problem]:
    """The largest batch is no negative number."""
    if entry.config.max_batch_size < 0:
        message = f"expected 0 or more, found {entry.config.max_batch_size}"
        yield fails("max_batch_size", message, "use 0 for a model without a batch dimension")


def complete_tensors(entry: Entry) -> Iterator[Problem]:
    """Without auto-complete, inputs and outputs must be there."""
    if entry.auto_complete or entry.is_ensemble or entry.config.backend not in _EMBEDDED_BACKENDS:
        return
    given = {
        "input": entry.config.input or entry.config.batch_input or entry.config.sequence_batching.state,
        "output": entry.config.output or entry.config.sequence_batching.state,
    }
    for field, values in given.items():
        if not values:
            message = f"no {field} is configured, and the server does not complete configurations"
            yield fails(field, message, f"write the model's {field}s, or start the server with auto-complete")


def ignored_by_onnxruntime(entry: Entry) -> Iterator[Problem]:
    """Fields of other backends, which the C++ backend passes over in silence."""
    if not entry.is_onnx:
        return
    if entry.config.optimization.cuda.graphs:
        fix = "use the parameter enable_cuda_graph of the accelerator 'cuda'"
        yield not_embedded("optimization.cuda.graphs", "the onnxruntime backend ignores it", fix)
    if entry.config.model_transaction_policy.decoupled:
        message = "an ONNX model answers each request once, and Triton then refuses plain requests"
        yield not_embedded("model_transaction_policy.decoupled", message, "remove it")
    if entry.config.optimization.priority:
        yield advice("optimization.priority", "only TensorRT's own backend has priorities", "remove it")


def model_metrics(entry: Entry) -> Iterator[Problem]:
    """Each metric names its family and its buckets."""
    for index, control in enumerate(entry.config.model_metrics.metric_control):
        field = f"model_metrics.metric_control[{index}]"
        if not control.metric_identifier.family:
            yield fails(f"{field}.metric_identifier.family", "expected a metric's name, found none", "name the metric")
        if not control.histogram_options.buckets:
            message = "expected the upper ends of the buckets, found none"
            yield fails(f"{field}.histogram_options.buckets", message, "list them in ascending order")


def agents(entry: Entry) -> Iterator[Problem]:
    """Repository agents are plug-ins that a server may lack."""
    for agent in entry.config.model_repository_agents.agents:
        message = f"the agent {agent.name!r} must be installed on every server"
        yield not_embedded("model_repository_agents", message, "remove it where the server has no such agent")


RULES = (
    younger_fields,
    model_name,
    backend,
    runtime,
    batch_size,
    complete_tensors,
    ignored_by_onnxruntime,
    model_metrics,
    agents,
)
SYNTAX_RULES = (syntax,)
