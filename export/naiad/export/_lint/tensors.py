"""Rules about inputs and outputs by themselves, whatever the model's file says.

Source: `ValidateIOShape`, `ValidateModelInput`, `ValidateModelOutput` and `ValidateBatchIO` in `model_config_utils.cc`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2

from naiad.export._lint.entry import Entry
from naiad.export._lint.problem import Problem, fails, not_embedded, wrong

BATCH_INPUT_TYPES = (model_config_pb2.TYPE_INT32, model_config_pb2.TYPE_FP32)


def tensors(entry: Entry) -> Iterator[tuple[str, Any]]:
    """Give every input and output with its field."""
    for kind, entries in (("input", entry.config.input), ("output", entry.config.output)):
        for index, tensor in enumerate(entries):
            yield f"{kind}.{tensor.name}" if tensor.name else f"{kind}[{index}]", tensor


def data_type_name(number: int) -> str:
    """Return the word for a data type."""
    return str(model_config_pb2.DataType.Name(number))


def names_and_types(entry: Entry) -> Iterator[Problem]:
    """Every tensor has a name and a type."""
    for field, tensor in tensors(entry):
        if not tensor.name:
            yield fails(f"{field}.name", "the tensor has no name", "give it the name that the model uses")
        if tensor.data_type == model_config_pb2.TYPE_INVALID:
            yield fails(f"{field}.data_type", "the tensor has no data type", "add it, for example TYPE_FP32")


def unique_names(entry: Entry) -> Iterator[Problem]:
    """No input, and no output, is there twice."""
    for kind, entries in (("input", entry.config.input), ("output", entry.config.output)):
        names = [tensor.name for tensor in entries]
        for name in sorted({name for name in names if names.count(name) > 1}):
            broken = fails if entry.is_onnx else wrong
            yield broken(f"{kind}.{name}", f"the {kind} is configured {names.count(name)} times", "keep one of them")


def dims(entry: Entry) -> Iterator[Problem]:
    """There are dims, each a size or -1."""
    for field, tensor in tensors(entry):
        if not tensor.dims:
            fix = "add them without the batch dimension; [1] with an empty reshape stands for none"
            yield fails(f"{field}.dims", "the tensor has no dims", fix)
        yield from _sizes(f"{field}.dims", tensor.dims)


def reshape(entry: Entry) -> Iterator[Problem]:
    """A reshape keeps the number of elements, on each side of every dimension of variable size."""
    for field, tensor in tensors(entry):
        if not tensor.HasField("reshape") or any(bad for bad in _sizes(field, tensor.dims)):
            continue
        shape = list(tensor.reshape.shape)
        yield from _sizes(f"{field}.reshape.shape", shape)
        if not shape and entry.config.max_batch_size == 0:
            message = "with max_batch_size 0 a reshape to nothing is a scalar, which Triton does not have"
            yield fails(f"{field}.reshape", message, "leave the reshape out: a scalar of the model is dims [1]")
        elif _pieces(tensor.dims) != _pieces(shape):
            message = f"dims {list(tensor.dims)} and reshape {shape} hold different numbers of elements"
            yield fails(f"{field}.reshape", message, "give both the same number, and -1 in the same order")


def _sizes(field: str, values: Iterable[int]) -> Iterator[Problem]:
    for value in values:
        if value < 1 and value != -1:
            yield fails(field, f"expected sizes of 1 or more, or -1 for any; found {value}", "correct the size")


def _pieces(shape: Sequence[int]) -> list[int]:
    """Return the number of elements before, between and after the dimensions of variable size."""
    pieces = [1]
    for size in shape:
        if size == -1:
            pieces.append(1)
        else:
            pieces[-1] *= size
    return pieces


def formats(entry: Entry) -> Iterator[Problem]:
    """An image format needs three dims; shape tensors and other layouts are TensorRT's."""
    for field, tensor in tensors(entry):
        if getattr(tensor, "format", 0) and len(tensor.dims) != 3:
            message = f"an image format needs 3 dims, found {len(tensor.dims)}"
            yield fails(f"{field}.format", message, "remove the format: it changes nothing in an ONNX model")
        if entry.config.platform == "tensorrt_plan":
            continue
        for flag in ("is_shape_tensor", "is_non_linear_format_io"):
            if getattr(tensor, flag):
                yield fails(f"{field}.{flag}", "only TensorRT's own backend has such tensors", "remove the field")


def batch_inputs(entry: Entry) -> Iterator[Problem]:
    """Tensors that Triton makes from the shapes in a batch name one configured input and are INT32 or FP32."""
    inputs = {tensor.name for tensor in entry.config.input}
    for index, made in enumerate(entry.config.batch_input):
        field = f"batch_input[{index}]"
        yield from _source(f"{field}.source_input", made.source_input, inputs)
        if made.data_type not in BATCH_INPUT_TYPES:
            message = f"expected TYPE_INT32 or TYPE_FP32, found {data_type_name(made.data_type)}"
            yield fails(f"{field}.data_type", message, "use one of them, and cast in the model")
        if len(made.target_name) != 1:
            message = f"expected the one input of the model that takes the tensor, found {len(made.target_name)}"
            yield fails(f"{field}.target_name", message, "name one; another input needs a batch_input of its own")


def batch_outputs(entry: Entry) -> Iterator[Problem]:
    """Outputs that Triton cuts by the shapes in a batch are configured, each once."""
    inputs = {tensor.name for tensor in entry.config.input}
    outputs = {tensor.name for tensor in entry.config.output}
    for index, cut in enumerate(entry.config.batch_output):
        field = f"batch_output[{index}]"
        yield from _source(f"{field}.source_input", cut.source_input, inputs)
        targets = list(cut.target_name)
        for name in sorted(set(targets) - outputs):
            message = f"{name!r} is no configured output"
            yield fails(f"{field}.target_name", message, "name one of the outputs")
        if len(set(targets)) < len(targets):
            yield fails(f"{field}.target_name", "an output is named twice", "name each output once")


def _source(field: str, names: Sequence[str], inputs: set[str]) -> Iterator[Problem]:
    if len(names) != 1:
        yield fails(field, f"expected one input, found {len(names)}", "name the input whose shapes count")
    for name in names:
        if name not in inputs:
            yield fails(field, f"{name!r} is no configured input", "name one of the inputs")


def labels(entry: Entry) -> Iterator[Problem]:
    """Label files are there, inside the model's directory."""
    for tensor in entry.config.output:
        if not tensor.label_filename:
            continue
        field, path = f"output.{tensor.name}.label_filename", entry.directory / tensor.label_filename
        if not path.resolve().is_relative_to(entry.directory.resolve()):
            yield fails(field, f"{tensor.label_filename!r} is outside the model's directory", "move it there")
        elif not path.is_file():
            yield fails(field, f"{tensor.label_filename!r} is not there", "add the file, or leave the field out")


def bfloat16_beside_strings(entry: Entry) -> Iterator[Problem]:
    """The one pair of types that ONNX Runtime's Python API cannot carry together."""
    given = {tensor.data_type for tensor in entry.config.input}
    made = {tensor.data_type for tensor in entry.config.output}
    if entry.is_onnx and model_config_pb2.TYPE_STRING in given and model_config_pb2.TYPE_BF16 in made:
        message = "a TYPE_BF16 output beside a TYPE_STRING input needs the C++ backend"
        yield not_embedded("output", message, "cast the output to TYPE_FP32 in the model")


RULES = (
    names_and_types,
    unique_names,
    dims,
    reshape,
    formats,
    batch_inputs,
    batch_outputs,
    labels,
    bfloat16_beside_strings,
)
