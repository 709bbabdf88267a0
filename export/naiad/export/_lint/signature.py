"""Rules that compare the configured tensors with those of the ONNX graph.

Source: `ValidateInputs`, `ValidateOutputs` and `CompareDimsSupported` of NVIDIA's onnxruntime backend.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from naiad.export._lint.entry import Entry
from naiad.export._lint.graph import Graph, Tensor
from naiad.export._lint.problem import Problem, fails, wrong
from naiad.export._lint.sequence import controls
from naiad.export._lint.tensors import BATCH_INPUT_TYPES, data_type_name

_TRITON_TYPES = "TYPE_"
_BF16 = "TYPE_BF16"


def known_inputs(entry: Entry) -> Iterator[Problem]:
    """Every configured input is one of the graph's."""
    for _, graph in entry.graphs():
        for tensor in entry.config.input:
            if tensor.name not in graph.every_input:
                yield fails(f"input.{tensor.name}", _no_such("input", graph.every_input), "use the graph's name")
        for control in controls(entry.config):
            if control.name not in graph.inputs:
                message = _no_such("input", graph.inputs)
                yield fails(f"sequence_batching.control_input.{control.name}", message, "use the graph's name")


def number_of_inputs(entry: Entry) -> Iterator[Problem]:
    """Each input of the graph is given exactly once: by requests, or by Triton itself."""
    if not (entry.config.input or entry.config.batch_input or entry.config.sequence_batching.ByteSize()):
        return  # said by complete_tensors
    for _, graph in entry.graphs():
        given = _given(entry.config)
        missing = [name for name in graph.inputs if name not in given]
        if missing:
            message = f"the graph needs {_listed(graph.inputs)}, and {_listed(missing)} is not configured"
            yield fails("input", message, "add it, or give it a default in the model")
        twice = sorted({name for name in given if given.count(name) > 1 and name in graph.inputs})
        for name in twice:
            if [tensor.name for tensor in entry.config.input].count(name) < 2:  # said by unique_names
                message = "it is both an input of requests and one that Triton makes itself"
                yield fails(f"input.{name}", message, "leave one of the two out")


def _given(config: Any) -> list[str]:
    made = [name for each in config.batch_input for name in each.target_name]
    states = [state.input_name for state in config.sequence_batching.state]
    return [*(tensor.name for tensor in config.input), *made, *(control.name for control in controls(config)), *states]


def optional_inputs(entry: Entry) -> Iterator[Problem]:
    """Only an input with a default in the graph is optional, without batching and not ragged; such a one must be so."""
    for _, graph in entry.graphs():
        for tensor in entry.config.input:
            field = f"input.{tensor.name}.optional"
            if tensor.optional and entry.batched:
                message = "inputs are optional only with max_batch_size 0"
                yield fails(field, message, "make it required, or export without a batch dimension")
            if tensor.optional and tensor.allow_ragged_batch:
                yield fails(field, "an input is either optional or ragged, not both", "leave one out")
            if tensor.optional and tensor.name in graph.inputs:
                message = "the graph has no default for it"
                yield fails(field, message, "make it required, or give it a default in the model")
            if not tensor.optional and tensor.name in graph.defaults:
                message = "the graph has a default for it, so it counts as one input too many"
                yield fails(field, message, "set it to true")


def known_outputs(entry: Entry) -> Iterator[Problem]:
    """Every configured output is one of the graph's; the graph may have more."""
    for _, graph in entry.graphs():
        for tensor in entry.config.output:
            if tensor.name not in graph.outputs:
                yield fails(f"output.{tensor.name}", _no_such("output", graph.outputs), "use the graph's name")


def data_types(entry: Entry) -> Iterator[Problem]:
    """Types are the graph's own, and ones that the target carries."""
    for _, graph in entry.graphs():
        for field, tensor, found in _pairs(entry, graph):
            word = data_type_name(tensor.data_type)
            if not found.data_type.startswith(_TRITON_TYPES):
                message = f"the graph has {found.data_type}, which no request can carry"
                yield fails(f"{field}.data_type", message, "cast it inside the model to a plain tensor")
            elif word not in (found.data_type, "TYPE_INVALID"):
                yield fails(f"{field}.data_type", f"the graph has {found.data_type}, found {word}", "use the graph's")
            elif word == _BF16 and not entry.target.supports("bf16_tensors"):
                message = f"the onnxruntime backend of {entry.target} has no TYPE_BF16"
                yield fails(
                    f"{field}.data_type", message, "cast to TYPE_FP32 in the model, or serve with 26.03 or later"
                )


def shapes(entry: Entry) -> Iterator[Problem]:
    """Dims are the graph's: an input may narrow a dimension of any size, an output must repeat it."""
    cut = {name for each in entry.config.batch_output for name in each.target_name}
    for _, graph in entry.graphs():
        for field, tensor, found in _pairs(entry, graph):
            is_input = field.startswith("input")
            if is_input and tensor.allow_ragged_batch:
                yield from _ragged(field, tensor, found)
            elif is_input or tensor.name not in cut:
                yield from _shape(entry, field, tensor, found, exact=not is_input)


def _ragged(field: str, tensor: Any, found: Tensor) -> Iterator[Problem]:
    if found.shape != (-1,) and not tensor.optional:
        message = f"a ragged batch arrives as one flat tensor, and the graph has {list(found.shape)}"
        yield fails(f"{field}.allow_ragged_batch", message, "give the graph's input the shape [-1]")


def _shape(entry: Entry, field: str, tensor: Any, found: Tensor, *, exact: bool) -> Iterator[Problem]:
    configured = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    if not tensor.dims or any(size < 1 and size != -1 for size in configured) or entry.config.max_batch_size < 0:
        return  # said by other rules
    field = f"{field}.reshape.shape" if tensor.HasField("reshape") else f"{field}.dims"
    if not found.shape:
        if any(size != 1 for size in configured):
            message = f"the graph has a scalar, found {configured}"
            yield fails(field, message, "use [1]")
        elif entry.batched:
            message = f"max_batch_size is {entry.config.max_batch_size}, and the graph has a scalar for the whole batch"
            yield wrong(field, message, "export one number a row, or set max_batch_size to 0")
        return
    if entry.batched and found.shape[0] != -1:
        message = (
            f"max_batch_size is {entry.config.max_batch_size}, and the graph's first dimension is {found.shape[0]}"
        )
        yield fails(field, message, "export with a dynamic batch dimension, or set max_batch_size to 0")
        return
    wanted = list(found.shape[1:] if entry.batched else found.shape)
    if not _fits(configured, wanted, exact=exact):
        apart = " after the batch" if entry.batched else ""
        yield fails(field, f"the graph has {wanted}{apart}, found {configured}", f"use {wanted}")


def _fits(configured: Sequence[int], wanted: Sequence[int], *, exact: bool) -> bool:
    if len(configured) != len(wanted):
        return False
    return all(ours == theirs or (theirs == -1 and not exact) for ours, theirs in zip(configured, wanted, strict=True))


def control_tensors(entry: Entry) -> Iterator[Problem]:
    """A control of a sequence has the graph's type, and one number for each row."""
    for _, graph in entry.graphs():
        for control in controls(entry.config):
            found = graph.inputs.get(control.name)
            field = f"sequence_batching.control_input.{control.name}"
            if found is None:
                continue
            wanted = found.shape[1:] if entry.batched else found.shape
            if wanted != (1,):
                yield fails(field, f"the graph must take [1], found {list(wanted)}", "change it in the model")
            if found.data_type != control.data_type:
                yield fails(
                    field, f"the graph has {found.data_type}, found {control.data_type}", "use the graph's type"
                )


def batch_input_tensors(entry: Entry) -> Iterator[Problem]:
    """A tensor that Triton makes has the graph's name and type."""
    for _, graph in entry.graphs():
        for index, made in enumerate(entry.config.batch_input):
            for name in made.target_name:
                found, word = graph.inputs.get(name), data_type_name(made.data_type)
                if made.data_type not in BATCH_INPUT_TYPES:
                    continue  # said by batch_inputs
                if found is None:
                    message = _no_such("input", graph.inputs)
                    yield fails(f"batch_input[{index}].target_name", message, "use the graph's name")
                elif found.data_type != word:
                    message = f"the graph has {found.data_type} for {name!r}, found {word}"
                    yield fails(f"batch_input[{index}].data_type", message, "use the graph's type")


def states(entry: Entry) -> Iterator[Problem]:
    """A state is an input and an output of the graph; Triton finds out at the first request only."""
    for _, graph in entry.graphs():
        for state in entry.config.sequence_batching.state:
            field, word = f"sequence_batching.state.{state.input_name}", data_type_name(state.data_type)
            pairs = (
                ("input_name", state.input_name, graph.inputs),
                ("output_name", state.output_name, graph.outputs),
            )
            for part, name, known in pairs:
                if name not in known:
                    message = f"{name!r} is not in the graph, which has {_listed(known)}"
                    yield wrong(f"{field}.{part}", message, "use the graph's name")
                elif known[name].data_type != word:
                    message = f"the graph has {known[name].data_type} for {name!r}, found {word}"
                    yield wrong(f"{field}.data_type", message, "use the graph's type")


def _pairs(entry: Entry, graph: Graph) -> Iterator[tuple[str, Any, Tensor]]:
    """Give each configured tensor that the graph has, with its field."""
    for tensor in entry.config.input:
        if tensor.name in graph.every_input:
            yield f"input.{tensor.name}", tensor, graph.every_input[tensor.name]
    for tensor in entry.config.output:
        if tensor.name in graph.outputs:
            yield f"output.{tensor.name}", tensor, graph.outputs[tensor.name]


def _no_such(kind: str, known: Iterable[str]) -> str:
    return f"the graph has no such {kind}; it has {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


RULES = (
    known_inputs,
    number_of_inputs,
    optional_inputs,
    known_outputs,
    data_types,
    shapes,
    control_tensors,
    batch_input_tensors,
    states,
)
