"""Rules about warm-up requests, which are run before a model is ready: one that fails keeps it from loading.

Source: `GenerateWarmupData` and `WarmUp` in `backend_model_instance.cc`, `Normalize` in `infer_request.cc`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, advice, fails
from naiad.export._lint.sequence import controls, data_size
from naiad.export._lint.tensors import data_type_name


def warmup_batches(entry: Entry) -> Iterator[Problem]:
    """A warm-up has at least one request, and not more than a batch."""
    for index, warmup in enumerate(entry.config.model_warmup):
        field = f"{_field(index, warmup)}.batch_size"
        if warmup.batch_size == 0:
            fix = "set it to 1, which is right without a batch dimension too"
            yield advice(field, "a batch size of 0 means that Triton skips it", fix)
        elif entry.is_onnx and warmup.batch_size > max(1, entry.config.max_batch_size):
            message = (
                f"expected at most max_batch_size, which is {entry.config.max_batch_size}; found {warmup.batch_size}"
            )
            yield fails(field, message, "lower it")


def warmup_inputs(entry: Entry) -> Iterator[Problem]:
    """A warm-up gives every input that a request must give, and no other."""
    inputs = {tensor.name: tensor for tensor in entry.config.input}
    made = {control.name for control in controls(entry.config)}
    made |= {state.input_name for state in entry.config.sequence_batching.state}
    for index, warmup in _active(entry):
        field = f"{_field(index, warmup)}.inputs"
        missing = sorted(name for name, tensor in inputs.items() if not tensor.optional and name not in warmup.inputs)
        if missing:
            yield fails(field, f"the input {', '.join(missing)} is missing", "add it")
        for name in sorted(set(warmup.inputs) - set(inputs) - made):
            if entry.is_onnx:
                message = f"there is no such input, on which Triton may crash; the model has {sorted(inputs)}"
                yield Problem(effect="stops the server", field=f"{field}.{name}", message=message, fix="remove it")


def warmup_tensors(entry: Entry) -> Iterator[Problem]:
    """Types and sizes are those of the inputs."""
    inputs = {tensor.name: tensor for tensor in entry.config.input}
    for index, warmup in _active(entry):
        for name, given in sorted(warmup.inputs.items()):
            field = f"{_field(index, warmup)}.inputs.{name}"
            if any(size < 1 for size in given.dims):
                message = f"expected a size for each dimension, found {list(given.dims)}"
                yield fails(f"{field}.dims", message, "write the sizes of one request, without the batch dimension")
            if name not in inputs:
                continue
            tensor = inputs[name]
            if given.data_type != tensor.data_type:
                words = data_type_name(tensor.data_type), data_type_name(given.data_type)
                yield fails(f"{field}.data_type", f"expected {words[0]}, found {words[1]}", "use the input's type")
            if all(size > 0 for size in given.dims) and not _fits(given.dims, tensor.dims):
                message = f"expected {list(tensor.dims)}, found {list(given.dims)}"
                yield fails(f"{field}.dims", message, "write the sizes of one request, without the batch dimension")


def warmup_data(entry: Entry) -> Iterator[Problem]:
    """Each input says where its data comes from, and a file is long enough."""
    for index, warmup in _active(entry):
        for name, given in sorted(warmup.inputs.items()):
            field = f"{_field(index, warmup)}.inputs.{name}"
            kind = given.WhichOneof("input_data_type")
            if kind is None:
                message = "expected zero_data, random_data or input_data_file, found none"
                yield fails(field, message, "set zero_data: true")
            elif kind == "input_data_file":
                yield from _file(entry, f"{field}.input_data_file", given)


def _file(entry: Entry, field: str, given: Any) -> Iterator[Problem]:
    path, needed = entry.directory / "warmup" / given.input_data_file, data_size(given)
    if not path.is_file():
        yield fails(field, f"warmup/{given.input_data_file} is not there", "add the file to the model's directory")
    elif path.stat().st_size < needed:
        message = f"expected {needed} bytes, found {path.stat().st_size}"
        yield fails(field, message, "write the whole tensor of one request, raw and little-endian")


def _active(entry: Entry) -> Iterator[tuple[int, Any]]:
    for index, warmup in enumerate(entry.config.model_warmup):
        if warmup.batch_size:
            yield index, warmup


def _fits(given: Sequence[int], configured: Sequence[int]) -> bool:
    return len(given) == len(configured) and all(
        theirs in (-1, ours) for ours, theirs in zip(given, configured, strict=True)
    )


def _field(index: int, warmup: Any) -> str:
    return f"model_warmup.{warmup.name}" if warmup.name else f"model_warmup[{index}]"


RULES = (warmup_batches, warmup_inputs, warmup_tensors, warmup_data)
