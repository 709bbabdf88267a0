"""One inference: the checks of Triton's core in its order and words, the model's function, the answer."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client.testing._models import FakeSequence
from naiad.client.testing._repository import Served, datatype_of
from naiad.client.testing._status import Refusal, invalid
from naiad.client.testing._tensors import as_output, decode, encode, num_elements, split_strings, typed_contents

if TYPE_CHECKING:
    from naiad.client.testing._requests import Request
    from naiad.client.testing._shared_memory import SharedMemory

Arrays = dict[str, NDArray[Any]]
_BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)
_PARAMETERS = {  # those that Triton understands, and the field that each must be in
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param",),
}


class Inference:
    """One request to one version of a model."""

    def __init__(self, request: Request, served: Served, version: str, regions: SharedMemory) -> None:
        self.request, self.message = request, request.message
        self.served, self.version = served, version
        self.regions = regions
        self.name = served.name
        self.rows = 1
        self.accepted = False
        """Whether the request passed its checks."""
        self.answered = False
        """Whether the function was called."""

    def run(self) -> Iterator[Any]:
        """Check the request, call the function, give its answers; one, or any number from a decoupled model.

        Raises:
            Refusal: Triton would refuse the request, or the function did.
        """
        self._check_parameters()
        inputs = self._inputs()
        outputs = self._wanted()
        self.accepted = True
        counters, queue_ns, started = self.served.counters[self.version], 0, time.perf_counter_ns()
        try:
            with self.served.queues[self.version].turn(self.request) as queue_ns:
                started = time.perf_counter_ns()
                for answer in self._answers(inputs):
                    yield self._response(answer, outputs)
        except Refusal as refusal:
            # Triton counts an error that the model answered with as a success, an exception as a failure.
            failed = not self.answered or isinstance(refusal.__cause__, Exception)
            counters.count(self.rows, queue_ns, time.perf_counter_ns() - started, ran=self.answered, failed=failed)
            raise
        counters.count(self.rows, queue_ns, time.perf_counter_ns() - started)

    def _invalid(self, text: str) -> Refusal:
        return invalid(text, self.message.id)

    def _check_parameters(self) -> None:
        for key, entry in self.message.parameters.items():
            expected = _PARAMETERS.get(key)
            if expected is not None and entry.WhichOneof("parameter_choice") not in expected:
                raise invalid(f"invalid value type for '{key}' parameter, expected {' or '.join(expected)}.")
            if key.startswith("triton_") and key != "triton_enable_empty_final_response":
                raise invalid(
                    "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys "
                    "starting with 'triton_' are allowed: triton_enable_empty_final_response"
                )

    def _inputs(self) -> Arrays:
        contents: dict[str, bytes] = {}
        raws = iter(self.message.raw_input_contents)
        for tensor in self.message.inputs:
            if tensor.name in contents:
                raise self._invalid(f"input '{tensor.name}' already exists in request")
            contents[tensor.name] = self._contents(tensor, raws)
        self._check_outputs()
        self._check_names(set(contents))
        self._check_rows()
        for tensor in self.message.inputs:
            self._check_input(tensor)
        for tensor in self.message.inputs:
            self._check_size(tensor, contents[tensor.name])
        arrays = {
            tensor.name: decode(contents[tensor.name], tensor.datatype, tuple(tensor.shape), tensor.name)
            for tensor in self.message.inputs
        }
        self.request.keep(arrays)
        return arrays

    def _contents(self, tensor: Any, raws: Iterator[bytes]) -> bytes:
        shared = self.regions.place(tensor)
        if shared is not None:
            return self.regions.read(*shared)
        if self.message.raw_input_contents:
            if tensor.HasField("contents"):
                raise invalid(
                    f"contents field must not be specified when using raw_input_contents for '{tensor.name}' for model "
                    f"'{self.name}'"
                )
            found = next(raws, None)
        else:
            found = typed_contents(tensor, self.name)
        if found is None:
            raise invalid(f"unable to find data for input tensor '{tensor.name}' for model '{self.name}' in request.")
        return found

    def _check_outputs(self) -> None:
        known = {tensor.name for tensor in self.served.config.output}
        for output in self.message.outputs:
            if known and output.name not in known:
                raise invalid(f"unexpected inference output '{output.name}' for model '{self.name}'")

    def _check_names(self, given: set[str]) -> None:
        config = self.served.config
        if self.served.model.open:
            return
        total = len(config.input)
        required = [tensor.name for tensor in config.input if not tensor.optional]
        if len(required) <= len(given) <= total:
            return
        expected = (
            f"expected {total} inputs but got {len(given)} inputs"
            if len(required) == total
            else f"expected number of inputs between {len(required)} and {total} but got {len(given)} inputs"
        )
        # Triton's own text lacks the opening bracket where nothing is missing.
        missing = [name for name in required if name not in given]
        names = "[" + ",".join(f"'{name}'" for name in missing) if missing else " "
        raise self._invalid(
            f"{expected} for model '{self.name}'. Got input(s) [{','.join(repr(name) for name in sorted(given))}], but "
            f"missing required input(s) {names.strip()}]. Please provide all required input(s)."
        )

    def _check_rows(self) -> None:
        config = self.served.config
        if not self.served.batched:
            return
        rows: int | None = None
        for tensor in self.message.inputs:
            if not tensor.shape:
                raise self._invalid(
                    f"input '{tensor.name}' has no shape but model requires batch dimension for '{self.name}'"
                )
            if rows is not None and tensor.shape[0] != rows:
                raise self._invalid(f"input '{tensor.name}' batch size does not match other inputs for '{self.name}'")
            rows = tensor.shape[0]
        self.rows = 1 if rows is None else rows
        if self.rows > config.max_batch_size:
            raise self._invalid(f"inference request batch-size must be <= {config.max_batch_size} for '{self.name}'")
        if self.served.model.stateful and self.rows != 1:
            raise invalid(
                f"inference request to model '{self.name}' must specify batch-size 1 due to requirements of sequence "
                "batcher"
            )

    def _check_input(self, tensor: Any) -> None:
        served = self.served
        expected = next((known for known in served.config.input if known.name == tensor.name), None)
        if expected is None:
            if served.model.open:
                return
            raise invalid(f"unexpected inference input '{tensor.name}' for model '{self.name}'")
        if not served.model.declared:
            if numpy_dtype(tensor.datatype) is None:
                raise self._invalid(f"inference input '{tensor.name}' data-type is '<invalid>'")
            return
        datatype = datatype_of(expected)
        if tensor.datatype != datatype:
            found = tensor.datatype if numpy_dtype(tensor.datatype) is not None else "<invalid>"
            raise self._invalid(
                f"inference input '{tensor.name}' data-type is '{found}', but model '{self.name}' expects '{datatype}'"
            )
        shape = served.shape(expected)
        if len(shape) != len(tensor.shape) or any(
            dim not in (-1, found) for dim, found in zip(shape, tensor.shape, strict=True)
        ):
            raise self._invalid(
                f"unexpected shape for input '{tensor.name}' for model '{self.name}'. Expected {_dims(shape)}, got "
                f"{_dims(tensor.shape)}. {_BATCH_NOTE if served.batched else ''}"
            )

    def _check_size(self, tensor: Any, data: bytes) -> None:
        where = f"'{tensor.name}' for model '{self.name}'"
        number = num_elements(tuple(tensor.shape))
        if tensor.datatype == "BYTES":
            found = len(split_strings(data, tensor.name, self.name, self.message.id))
            if found < number:
                raise self._invalid(
                    f"expected {number} string elements for inference input '{tensor.name}' for model '{self.name}', "
                    f"got {found}"
                )
            if found > number:
                raise self._invalid(
                    f"unexpected number of string elements {found} for inference input {where}, expecting {number}"
                )
            return
        dtype = numpy_dtype(tensor.datatype)
        assert dtype is not None
        if len(data) != number * dtype.itemsize or any(dim < 0 for dim in tensor.shape):
            raise self._invalid(
                f"input byte size mismatch for input {where}. Expected {number * dtype.itemsize}, got {len(data)}"
            )

    def _answers(self, inputs: Arrays) -> Iterator[Mapping[str, Any]]:
        model = self.served.model
        passed: dict[str, Any] = {"request": self.request} if "request" in model.passed else {}
        if model.stateful:
            passed["sequence"] = self._sequence()
        self.answered = True
        try:
            answer = model.functions[self.version](**inputs, **passed)
            if model.decoupled:
                yield from _mappings(answer)
            else:
                yield answer if isinstance(answer, Mapping) else next(_mappings(answer))
        except Refusal:
            raise
        except Exception as exc:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            raise Refusal(
                f"Failed to process the request(s) for model '{self.name}_0_0', message: {type(exc).__name__}: {exc}"
                f"\n\nAt:\n  {where.filename}({where.lineno}): {where.name}\n",
                "INTERNAL",
            ) from exc

    def _sequence(self) -> FakeSequence:
        parameters = self.request.parameters
        key = parameters.get("sequence_id", 0)
        if not key:
            raise invalid(
                f"inference request to model '{self.name}' must specify a non-zero or non-empty correlation ID"
            )
        start, end = parameters.get("sequence_start", False), parameters.get("sequence_end", False)
        with self.served.lock:
            known = None if start else self.served.sequences.get(key)
            if known is None and not start:
                raise invalid(
                    f"inference request for sequence {key} to model '{self.name}' must specify the START flag on the "
                    "first request of the sequence"
                )
            sequence = FakeSequence(key, start, end, known.state if known else {})
            self.served.sequences[key] = sequence
            if end:
                del self.served.sequences[key]
        return sequence

    def _wanted(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {}
        for output in self.message.outputs:
            classes = output.parameters.get("classification") if "classification" in output.parameters else None
            if classes is not None and classes.WhichOneof("parameter_choice") != "int64_param":
                raise invalid("invalid value type for 'classification' parameter, expected int64_param")
            if classes is not None and classes.int64_param < 1:
                raise invalid("invalid value for 'classification' parameter, expected >= 0")
            wanted[output.name] = (classes.int64_param if classes else 0, self.regions.place(output))
        return wanted

    def _response(self, answer: Mapping[str, Any], wanted: dict[str, Any]) -> Any:
        from tritonclient.grpc import service_pb2

        response = service_pb2.ModelInferResponse(model_name=self.name, model_version=self.version, id=self.message.id)
        declared = {tensor.name: tensor for tensor in self.served.config.output}
        names = [name for name in (declared or answer) if not wanted or name in wanted]
        for name in names or wanted:
            if name not in answer:
                raise Refusal(
                    f"model '{self.name}' has the output '{name}', its function gave {', '.join(answer) or 'none'}",
                    "INTERNAL",
                )
            num_classes, place = wanted.get(name, (0, None))
            expected = declared.get(name)
            array, datatype = as_output(answer[name], datatype_of(expected) if expected else None, name, self.name)
            if num_classes:
                array, datatype = self._classes(array, num_classes, name), "BYTES"
            data = encode(array, datatype)
            response.outputs.add(name=name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(data if place is None else self.regions.write(name, data, *place))
        return response

    def _classes(self, array: NDArray[Any], number: int, name: str) -> NDArray[Any]:
        labels = self.served.model.labels.get(name, ())
        rows = array.reshape(array.shape[0], -1) if self.served.batched else array.reshape(1, -1)
        lines = [
            [
                f"{row[at]:f}:{at}{':' + labels[at] if at < len(labels) else ''}".encode()
                for at in np.argsort(-row, kind="stable")[:number]
            ]
            for row in rows
        ]
        best = np.array(lines, np.object_)
        return best if self.served.batched else best[0]


def _mappings(answer: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(answer, Mapping):
        yield answer
        return
    if not hasattr(answer, "__iter__") or isinstance(answer, (str, bytes, np.ndarray)):
        raise TypeError(f"a model's function returns arrays by output name, found {type(answer).__name__}")
    for part in answer:
        if not isinstance(part, Mapping):
            raise TypeError(f"a model's function yields arrays by output name, found {type(part).__name__}")
        yield part


def _dims(shape: Any) -> str:
    return f"[{','.join(map(str, shape))}]"
