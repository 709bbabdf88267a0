"""Rules about sequence batching: controls, states, and what does not go together with it.

Source: `GetBooleanSequenceControlProperties`, `GetTypedSequenceControlProperties` and `ValidateModelConfig` in
`model_config_utils.cc`, `GenerateInitialStateData` in `sequence_batch_scheduler.cc` of Triton's core.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tritonclient.grpc import model_config_pb2

from naiad.export._lint import configuration
from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, fails, wrong

_BOOLEAN: Final = {"int32_false_true": "TYPE_INT32", "fp32_false_true": "TYPE_FP32", "bool_false_true": "TYPE_BOOL"}
_CORRELATION_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
_KINDS = model_config_pb2.ModelSequenceBatching.Control.Kind
SIZES: Final = {
    "TYPE_BOOL": 1,
    "TYPE_UINT8": 1,
    "TYPE_UINT16": 2,
    "TYPE_UINT32": 4,
    "TYPE_UINT64": 8,
    "TYPE_INT8": 1,
    "TYPE_INT16": 2,
    "TYPE_INT32": 4,
    "TYPE_INT64": 8,
    "TYPE_FP16": 2,
    "TYPE_BF16": 2,
    "TYPE_FP32": 4,
    "TYPE_FP64": 8,
    "TYPE_STRING": 4,
}
"""Bytes of one element; an empty string is its length alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """One tensor that Triton adds to each request of a sequence."""

    name: str
    kind: str
    data_type: str


def controls(config: Any) -> tuple[Control, ...]:
    """Return the control tensors of a configuration."""
    return tuple(
        Control(name=entry.name, kind=_KINDS.Name(control.kind), data_type=_data_type(control))
        for entry in config.sequence_batching.control_input
        for control in entry.control
    )


def _data_type(control: Any) -> str:
    given = [data_type for field, data_type in _BOOLEAN.items() if getattr(control, field)]
    return given[0] if given else str(model_config_pb2.DataType.Name(control.data_type))


def control_names(entry: Entry) -> Iterator[Problem]:
    """Each control tensor has a name of its own, and each kind of control one tensor."""
    field = "sequence_batching.control_input"
    names = [each.name for each in entry.config.sequence_batching.control_input]
    if "" in names:
        yield fails(field, "a control tensor has no name", "give it the name of the graph's input")
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        yield fails(field, f"{name!r} is there {names.count(name)} times", "give each control a tensor of its own")
    kinds = [each.kind for each in controls(entry.config)]
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        yield fails(field, f"{kind} is there {kinds.count(kind)} times", "keep one of them")


def control_values(entry: Entry) -> Iterator[Problem]:
    """START, END and READY have one pair of values, for false and true; CORRID has a type."""
    for each in entry.config.sequence_batching.control_input:
        for control in each.control:
            kind, field = _KINDS.Name(control.kind), f"sequence_batching.control_input.{each.name}"
            given = [name for name in _BOOLEAN if getattr(control, name)]
            if kind == "CONTROL_SEQUENCE_CORRID":
                yield from _correlation(field, given, _data_type(control))
            elif len(given) != 1:
                message = f"{kind} needs exactly one of {', '.join(_BOOLEAN)}; found {' and '.join(given) or 'none'}"
                yield fails(field, message, "give the values for false and for true, as in fp32_false_true: [0, 1]")
            elif len(getattr(control, given[0])) != 2:
                message = f"{given[0]} needs two values, found {len(getattr(control, given[0]))}"
                yield fails(field, message, "give the values for false and for true, as in [0, 1]")


def _correlation(field: str, given: list[str], data_type: str) -> Iterator[Problem]:
    if given:
        message = f"CONTROL_SEQUENCE_CORRID is a number, and has no {given[0]}"
        yield fails(field, message, "set data_type: TYPE_UINT64 in its place")
    elif data_type not in _CORRELATION_TYPES:
        message = f"CONTROL_SEQUENCE_CORRID is one of {', '.join(_CORRELATION_TYPES)}; found {data_type}"
        yield fails(field, message, "use TYPE_UINT64")


def oldest(entry: Entry) -> Iterator[Problem]:
    """Preferred batches are at most the largest one."""
    for size in entry.config.sequence_batching.oldest.preferred_batch_size:
        if not 0 < size <= entry.config.max_batch_size:
            message = f"expected 1 to max_batch_size, which is {entry.config.max_batch_size}; found {size}"
            yield fails("sequence_batching.oldest.preferred_batch_size", message, "lower it, or leave it out")


def direct(entry: Entry) -> Iterator[Problem]:
    """The least use of slots is a share."""
    share = entry.config.sequence_batching.direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        message = f"expected 0 to 1, found {share:g}"
        yield fails("sequence_batching.direct.minimum_slot_utilization", message, "correct it")


def response_cache(entry: Entry) -> Iterator[Problem]:
    """The cache knows neither sequences nor several responses."""
    config = entry.config
    if not config.response_cache.enable:
        return
    if config.HasField("sequence_batching"):
        yield fails("response_cache", "the cache does not go with sequence batching", "leave one of them out")
    if config.model_transaction_policy.decoupled:
        yield fails("response_cache", "the cache does not go with decoupled models", "leave one of them out")


def batching_strategy(entry: Entry) -> Iterator[Problem]:
    """A library of one's own for forming batches is for the dynamic batcher, and lies in the model's directory."""
    config, key = entry.config, "TRITON_BATCH_STRATEGY_PATH"
    if key not in config.parameters:
        return
    field = f"parameters.{key}"
    if config.HasField("sequence_batching"):
        yield fails(field, "it does not go with sequence batching", "leave one of them out")
    elif not (entry.directory / config.parameters[key].string_value).is_file():
        yield fails(field, f"{config.parameters[key].string_value!r} is not there", "add the library")


def python_states(entry: Entry) -> Iterator[Problem]:
    """Implicit states do not work in the Python backend."""
    if entry.config.sequence_batching.state and entry.config.backend == configuration.PYTHON:
        message = "the Python backend is given zeros as its state at every step"
        yield wrong("sequence_batching.state", message, "pass the state as ordinary inputs and outputs")


def initial_states(entry: Entry) -> Iterator[Problem]:
    """A first value of a state has its type and shape, and data."""
    for state in entry.config.sequence_batching.state:
        field = f"sequence_batching.state.{state.input_name}.initial_state"
        if len(state.initial_state) > 1:
            yield fails(field, f"expected at most one, found {len(state.initial_state)}", "keep one of them")
        for first in state.initial_state[:1]:
            for part, message, fix in _initial_state(entry, state, first):
                yield fails(f"{field}.{part}", message, fix)


def _initial_state(entry: Entry, state: Any, first: Any) -> Iterator[tuple[str, str, str]]:
    if not first.name:
        yield "name", "it has no name", "give it one"
    if first.data_type != state.data_type:
        yield "data_type", "it differs from the state's", "use the state's type"
    fits = len(first.dims) == len(state.dims) and all(
        ours > 0 and theirs in (-1, ours) for ours, theirs in zip(first.dims, state.dims, strict=True)
    )
    if not fits:
        message = f"expected fixed sizes that fit the state's {list(state.dims)}, found {list(first.dims)}"
        yield "dims", message, "correct them"
    kind = first.WhichOneof("state_data")
    if kind is None:
        yield "zero_data", "it has neither zero_data nor data_file", "give one of them"
    if kind == "data_file" and fits:
        path = entry.directory / "initial_state" / first.data_file
        needed = data_size(first)
        if not path.is_file():
            yield "data_file", f"initial_state/{first.data_file} is not there", "add the file"
        elif path.stat().st_size < needed:
            yield "data_file", f"expected {needed} bytes, found {path.stat().st_size}", "write the whole tensor"


def data_size(tensor: Any) -> int:
    """Return the bytes that a tensor with fixed dims needs; 0 for strings, whose length only their data says."""
    word = str(model_config_pb2.DataType.Name(tensor.data_type))
    return 0 if word == "TYPE_STRING" else SIZES.get(word, 0) * math.prod(tensor.dims)


RULES = (
    control_names,
    control_values,
    oldest,
    direct,
    response_cache,
    batching_strategy,
    python_states,
    initial_states,
)
