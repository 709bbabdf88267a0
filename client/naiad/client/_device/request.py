"""A request with tensors on a GPU: checked once, placed in slices for each server that gets it, or sent by the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from naiad.client._device.devices import Devices, Stream
from naiad.client._device.driver import DeviceError
from naiad.client._device.region import Slice
from naiad.client._device.result import CudaResult
from naiad.client._protocol import shared
from naiad.client._protocol.buffers import Buffers, check_promise
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.datatypes import triton_datatype
from naiad.client._protocol.dlpack import DeviceArray, is_on_cuda
from naiad.client._protocol.placing import Landed
from naiad.client._protocol.request import InferOptions, Inputs, array_of, check_received, result_of, wire_input
from naiad.client._protocol.tensors import as_array, described, encode
from naiad.client._protocol.wire import WireOutput, decode_response
from naiad.client.errors import ClientError, InvalidInput, InvalidResponse, Unsupported
from naiad.client.result import Result

_MAX_KEPT: Final = 256


class ByHost(Protocol):
    """The same request with its tensors in the host's memory."""

    @property
    def request(self) -> bytes:
        """What to send."""
        ...

    @property
    def decode(self) -> Callable[[bytes], Result]:
        """What reads the answer."""
        ...


class Target(NamedTuple):
    """Which model a request is for, and what is known of it."""

    model: str
    version: str
    contract: Contract | None
    seen: dict[Any, Mapping[str, int]]
    """How large outputs were, by the names, types and shapes of inputs; learnt from requests that may run twice."""


class OnDevice(Landed):
    """What came of an answer whose tensors are on a GPU."""

    __slots__ = ()


class DeviceRequest:
    """A request to one model; may be sent several times, also at once.

    The producers of its tensors are asked for them once, where the request is made: in their thread, and in the order
    of their streams. From then on its own streams know when the tensors are ready.
    """

    def __init__(
        self,
        devices: Devices,
        target: Target,
        inputs: Inputs,
        options: InferOptions,
        by_host: Callable[[Inputs, InferOptions], ByHost],
        *,
        queue_timeout_us: int,
        repeatable: bool,
    ) -> None:
        """Check everything.

        Raises:
            InvalidInput: a tensor has an unknown name, or another type, shape or layout than expected.
            DeviceError: CUDA cannot be used.
        """
        self.devices = devices
        self._target, self._options, self._by_host = target, options, by_host
        self._queue_timeout_us = queue_timeout_us
        self.repeatable = repeatable
        self._streams: dict[int, Stream] = {}
        self._host: ByHost | None = None
        check_received(options)
        if options.cast is not None:
            raise InvalidInput("cast='safe' is for arrays in the host's memory: convert tensors on a GPU yourself")
        self._arrays = self._checked(inputs)
        self._receivers, self._buffers = self._checked_out()
        given = [array for array in self._arrays.values() if isinstance(array, DeviceArray)]
        self._outputs_on = devices.wanted(options.outputs_on, given)
        if self._outputs_on is not None:
            self._stream(self._outputs_on)
        home = next(iter(self._streams))  # something is on a GPU, or is to be there
        self._inputs = {
            name: (array.device if isinstance(array, DeviceArray) else home, nbytes_of(array))
            for name, array in self._arrays.items()
            if nbytes_of(array) and (isinstance(array, DeviceArray) or self._goes_along(array))
        }
        self._outputs = self._placed_outputs()

    def __len__(self) -> int:
        """How many bytes its tensors have."""
        return sum(map(nbytes_of, self._arrays.values()))

    @property
    def wanted(self) -> list[tuple[int, int]]:
        """The GPU and the size in bytes of each slice that it needs."""
        return [*self._inputs.values(), *self._outputs.values()]

    @property
    def num_bytes_copied_out(self) -> int:
        """How much there is to copy into tensors of the caller's."""
        return sum(map(len, self._receivers.values()))

    def place(self, parts: Sequence[Slice]) -> bytes:
        """Begin to copy the inputs into the slices that are :attr:`wanted`; return the message that refers to them.

        Raises:
            DeviceError: CUDA refused.
        """
        driver = self.devices.driver
        for name, part in zip(self._inputs, parts, strict=False):
            array, device = self._arrays[name], part.region.device
            source = array.address if isinstance(array, DeviceArray) else array.ctypes.data
            with driver.using(device):
                driver.copy(part.address, source, nbytes_of(array), self._stream(device).number)
        contract = self._target.contract
        inputs, outputs = self._places(parts)
        tensors = [
            wire_input(name, array, contract, lambda array, _: array)
            if name in inputs
            else wire_input(name, array, contract, encode)
            for name, array in self._arrays.items()
        ]
        model, version = self._target.model, self._target.version
        return shared.encode_shared(
            model, version, tensors, self._options, contract, inputs, outputs, self._queue_timeout_us
        )

    @property
    def ready(self) -> bool:
        """Whether what :meth:`place` began is done."""
        return all(self.devices.driver.finished(stream.number) for stream in self._streams.values())

    def wait(self) -> None:
        """Return when it is."""
        for device, stream in self._streams.items():
            with self.devices.driver.using(device):
                self.devices.driver.wait(stream.number)

    def land(self, answer: bytes, parts: Sequence[Slice]) -> tuple[OnDevice, set[Slice]]:
        """Read an answer; return what came of it, and the slices that its tensors have now."""
        kept = set[Slice]()
        try:
            try:
                outcome: Result | ClientError = self._read_placed(answer, parts, kept)
            finally:
                if self._receivers:
                    self.wait()
        except ClientError as error:
            outcome = error
        except DeviceError as error:
            outcome = Unsupported(f"copying outputs on the GPU failed: {error}")
        return OnDevice(outcome, len(answer) + sum(size for _, size in self._outputs.values())), kept

    def wire(self) -> bytes:
        """Return the request with its tensors in the host's memory."""
        return self._by_host_now().request

    def read(self, answer: bytes) -> Result:
        """Read an answer, however it came."""
        result = answer.result() if isinstance(answer, OnDevice) else self._moved(self._by_host_now().decode(answer))
        if self.repeatable and self._outputs_on is not None and len(self._outputs) < len(result):
            self._learn({name: tensor.nbytes for name, tensor in result.cuda.items()})
        return result

    def distrust(self) -> None:
        """Note that an output was larger than its place."""
        self._target.seen.pop(self._signature(), None)

    def _checked(self, inputs: Inputs) -> dict[str, NDArray[Any] | DeviceArray]:
        contract = self._target.contract
        arrays = dict[str, Any]()
        for name, value in inputs.items():
            datatype = None if contract is None else contract.datatype_of_input(name)
            array: Any = self._export(f"input '{name}'", value) if is_on_cuda(value) else as_array(value, datatype)
            if isinstance(array, DeviceArray) and not len(array):
                array = np.empty(array.shape, array.dtype)
            arrays[name] = array
        if contract is not None:
            contract.check_inputs(arrays)
        return arrays

    def _checked_out(self) -> tuple[dict[str, DeviceArray], Buffers | None]:
        given, contract = self._options.out or {}, self._target.contract
        receivers = {name: self._export(f"out['{name}']", value) for name, value in given.items() if is_on_cuda(value)}
        if contract is not None:
            for name, array in receivers.items():
                check_promise(name, array.dtype, array.shape, contract)
        rest = {name: value for name, value in given.items() if name not in receivers}
        return receivers, Buffers(rest, contract) if rest else None

    def _export(self, what: str, tensor: Any) -> DeviceArray:
        device = int(tensor.__dlpack_device__()[1])
        return self.devices.export(what, tensor, self._stream(device))

    def _stream(self, device: int) -> Stream:
        stream = self._streams.get(device)
        if stream is None:
            stream = self._streams[device] = self.devices.stream(device)
        return stream

    def _goes_along(self, array: NDArray[Any]) -> bool:
        if not self.devices.options.host_inputs or (
            array.dtype.kind not in "biuf" and triton_datatype(array.dtype) != "BF16"
        ):
            return False
        return bool(array.flags.c_contiguous and array.dtype.isnative)

    def _placed_outputs(self) -> dict[str, tuple[int, int]]:
        contract, asked = self._target.contract, self._options.outputs
        if asked is None and contract is None:
            return {}  # who places an output names all of them
        seen = self._target.seen.get(self._signature(), {}) if self.repeatable and self._target.seen else {}
        rows = next((array.shape[0] for array in self._arrays.values() if array.shape), 1)
        placed = dict[str, tuple[int, int]]()
        for output in asked if asked is not None else contract.outputs if contract is not None else ():
            name = output if isinstance(output, str) else output.name
            receiver = self._receivers.get(name)
            if receiver is not None:
                placed[name] = receiver.device, len(receiver)
            elif self._outputs_on is not None and (isinstance(output, str) or not output.class_count):
                known = None if contract is None else contract.output_size_bytes(name, rows)
                placed[name] = self._outputs_on, known or seen.get(name, 0)
        if self._buffers is not None:
            placed = {name: place for name, place in placed.items() if name not in self._buffers}
        return {name: place for name, place in placed.items() if place[1]}

    def _places(self, parts: Sequence[Slice]) -> tuple[dict[str, shared.Place], dict[str, shared.Place]]:
        inputs, outputs = parts[: len(self._inputs)], parts[len(self._inputs) :]
        return _places(self._inputs, inputs), _places(self._outputs, outputs)

    def _read_placed(self, answer: bytes, parts: Sequence[Slice], kept: set[Slice]) -> Result:
        response = decode_response(answer)
        if response.typed_contents:
            raise InvalidResponse("expected outputs in shared memory or raw contents, found typed contents")
        _, places = self._places(parts)
        slices = dict(zip(self._outputs, parts[len(self._inputs) :], strict=True))
        values = list[Any]()
        for output, raw in zip(response.outputs, response.raw, strict=True):
            if output.name in places and not len(raw):
                dtype, size = _sized(output)
                if size > shared.written_bytes(output, places[output.name]):
                    raise InvalidResponse(
                        f"output '{output.name}': expected at most {places[output.name].size_bytes} bytes in CUDA "
                        f"memory, found {output.datatype} {list(output.shape)}"
                    )
                values.append(self._from_slice(output, dtype, size, slices[output.name], kept))
            elif self._buffers is not None and output.name in self._buffers:
                values.append(self._buffers.receive(output, raw))
            else:
                values.append(self._on_gpu(output.name, array_of(output, raw)))
        return _cuda_result(result_of(response, values))

    def _from_slice(
        self, output: WireOutput, dtype: np.dtype[Any], size_bytes: int, part: Slice, kept: set[Slice]
    ) -> Any:
        receiver = self._receivers.get(output.name)
        if receiver is None:
            kept.add(part)
            return self.devices.tensor(part, dtype, output.shape)
        self._check_fits(output.name, receiver, dtype, output.shape)
        driver, stream = self.devices.driver, self._stream(receiver.device)
        with driver.using(receiver.device):
            driver.copy(receiver.address, part.address, size_bytes, stream.number)
        return (self._options.out or {})[output.name]

    def _on_gpu(self, name: str, array: NDArray[Any]) -> Any:
        """Return an output that came through the host as the caller wants it."""
        receiver = self._receivers.get(name)
        if receiver is not None:
            self._check_fits(name, receiver, array.dtype, array.shape)
            self.devices.upload(receiver.device, receiver.address, array, self._stream(receiver.device))
            return (self._options.out or {})[name]
        if self._outputs_on is None or array.dtype.hasobject or (self._buffers is not None and name in self._buffers):
            return array
        return self.devices.uploaded(self._outputs_on, array)

    def _moved(self, result: Result) -> Result:
        outputs = {name: self._on_gpu(name, array) for name, array in result.items()}
        return _cuda_result(result, outputs)

    def _check_fits(self, name: str, receiver: DeviceArray, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        if receiver.dtype != dtype or receiver.shape != shape:
            raise InvalidInput(
                f"out['{name}'] is {receiver.dtype} {list(receiver.shape)}, the answer has {dtype} {list(shape)}: "
                "give a buffer of that type and shape"
            )

    def _by_host_now(self) -> ByHost:
        if self._host is None:
            arrays = {
                name: self._downloaded(array) if isinstance(array, DeviceArray) else array
                for name, array in self._arrays.items()
            }
            rest = {name: value for name, value in (self._options.out or {}).items() if name not in self._receivers}
            self._host = self._by_host(arrays, replace(self._options, out=rest or None, outputs_on=None))
        return self._host

    def _downloaded(self, array: DeviceArray) -> NDArray[Any]:
        host: NDArray[Any] = np.empty(array.shape, array.dtype)
        self.devices.download(array.device, array.address, host, self._stream(array.device))
        return host

    def _signature(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        return tuple((name, str(array.dtype), array.shape) for name, array in self._arrays.items())

    def _learn(self, sizes: Mapping[str, int]) -> None:
        if len(self._target.seen) >= _MAX_KEPT:
            self._target.seen.clear()
        self._target.seen[self._signature()] = sizes


def nbytes_of(array: NDArray[Any] | DeviceArray) -> int:
    """Return how many bytes an array's elements have, wherever they are."""
    return len(array) if isinstance(array, DeviceArray) else int(array.nbytes)


def _places(placed: Mapping[str, tuple[int, int]], parts: Sequence[Slice]) -> dict[str, shared.Place]:
    return {
        name: shared.Place(part.region.name, part.offset, size)
        for (name, (_, size)), part in zip(placed.items(), parts, strict=True)
    }


def _sized(output: WireOutput) -> tuple[np.dtype[Any], int]:
    try:
        dtype, num_elements = described(output.datatype, output.shape)
    except InvalidResponse as exc:
        raise InvalidResponse(f"output '{output.name}': {exc}") from exc
    if dtype.hasobject:
        raise InvalidResponse(f"output '{output.name}': expected numbers in CUDA memory, found {output.datatype}")
    return dtype, num_elements * dtype.itemsize


def _cuda_result(result: Result, outputs: Mapping[str, Any] | None = None) -> CudaResult:
    return CudaResult(
        result._outputs if outputs is None else outputs,
        model_name=result.model_name,
        model_version=result.model_version,
        request_id=result.request_id,
        parameters=result.parameters,
    )
