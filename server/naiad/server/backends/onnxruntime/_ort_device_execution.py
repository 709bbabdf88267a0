"""Answers requests on a device: inputs and outputs stay in its memory, and cross to the host's once at the most."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from _ort_batch import Arrays, Job
from _ort_binding import bind_array
from _ort_cuda_graphs import Graphs
from _ort_datatypes import STRING, DataType
from _ort_device import Copies, Device, Piece
from _ort_dlpack import array_from, capsule_of
from _ort_errors import DeviceLostError, InferenceError, RunError
from _ort_execution import Executor
from _ort_memory import DeviceArray
from _ort_ragged import batch_inputs
from _ort_signature import Signature
from _ort_tensors import array_of_value, value_of
from numpy.typing import NDArray


class DeviceExecutor(Executor):
    """Runs one model instance on a device, by I/O binding.

    ``on_host`` names the inputs and outputs that ONNX Runtime keeps in CPU memory (shapes, as a rule). Strings, which
    no input may be, and the states of sequences stay there too; every other output is left on the device if
    ``outputs_on_device``.
    ``execute`` raises ``DeviceLostError``.
    """

    def __init__(
        self,
        session: Any,
        signature: Signature,
        device: Device,
        *,
        on_host: frozenset[str] = frozenset(),
        outputs_on_device: bool = True,
        graphs: bool = False,
        run_options: Any = None,
        run_entries: Mapping[str, str] | None = None,
        max_sequence_idle_s: float = 1.0,
    ) -> None:
        super().__init__(session, signature, run_options, max_sequence_idle_s)
        outputs = signature.outputs.values()
        self._on_host = on_host | {spec.name for spec in outputs if spec.data_type.triton == STRING}
        self._fetched = frozenset(signature.states.values()) if outputs_on_device else frozenset(signature.outputs)
        self._device = device
        self._copies = Copies(device)
        self._graphs = Graphs(session, device, self._copies, run_entries or {}) if graphs else None

    def _read(self, tensor: Any, data_type: DataType) -> Any:
        if tensor.is_cpu():
            return super()._read(tensor, data_type)
        return array_from(tensor.to_dlpack(), data_type, self._device.dlpack_type)

    def _part(self, group: Sequence[Job], error: InferenceError, answers: dict[int, Any]) -> None:
        self._copies.recover(error)
        super()._part(group, error, answers)

    def _compute(self, group: Sequence[Job], names: list[str]) -> Arrays:
        """The outputs of those names for the whole group, complete."""
        made = batch_inputs(self._signature.batch_inputs, [job.inputs for job in group])
        pieces: dict[str, Sequence[Piece]] = {name: [job.inputs[name] for job in group] for name in group[0].inputs}
        try:
            outputs = self._run_graphs(pieces, names) if self._graphs else self._run_bound(pieces, made, names)
            arrays: Arrays = {name: self._placed(name, output) for name, output in outputs.items()}
            self._copies.finish()
        except (DeviceLostError, InferenceError):
            raise
        except UnicodeDecodeError as exc:
            message = "an output holds a string that is not UTF-8, which ONNX Runtime cannot hand to Python"
            raise RunError(f"model '{self._signature.model}': {message} ({exc.reason})") from exc
        except Exception as exc:
            raise RunError(f"model '{self._signature.model}': {exc}") from exc
        return arrays

    def _placed(self, name: str, output: Any) -> Any:
        """Where Triton is to find an output: ``DeviceArray``, or numpy once the copies are finished."""
        fetch = name in self._fetched and isinstance(output, DeviceArray)
        return self._copies.fetched(output) if fetch else output

    def _run_graphs(self, pieces: Mapping[str, Sequence[Piece]], names: list[str]) -> dict[str, DeviceArray]:
        assert self._graphs is not None
        inputs = {name: (parts, self._joined_shape(name, parts)) for name, parts in pieces.items()}
        return self._graphs.run(inputs, names, self._signature, lambda: self._run_bound(pieces, {}, names))

    def _run_bound(
        self, pieces: Mapping[str, Sequence[Piece]], made: Mapping[str, NDArray[Any]], names: list[str]
    ) -> dict[str, Any]:
        """A run with inputs and outputs where ONNX Runtime wants them: ``DeviceArray``, or numpy for the host's."""
        binding = self._session.io_binding()
        inputs: list[Any] = []  # kept until the outputs are known
        for name, parts in pieces.items():
            inputs.append(self._bind(binding, name, parts))
        for name, array in made.items():
            inputs.append(self._bind_host(binding, name, array))
        for name in names:
            on_host = name in self._on_host
            binding.bind_output(name, "cpu" if on_host else self._device.name, 0 if on_host else self._device.index)
        self._session.run_with_iobinding(binding, self._run_options)
        lent = {array.pointer for array in inputs if isinstance(array, DeviceArray)}
        values = zip(names, binding.get_outputs(), strict=True)
        return {name: self._output(name, value, lent) for name, value in values}

    def _bind(self, binding: Any, name: str, parts: Sequence[Piece]) -> Any:
        spec = self._signature.inputs[name]
        shape = self._joined_shape(name, parts)
        if name not in self._on_host:
            array = self._copies.gathered(parts, shape, spec.data_type)
            bind_array(binding, self._device, name, array)
            return array
        host = [self._copies.fetched(part) if isinstance(part, DeviceArray) else part for part in parts]
        if any(isinstance(part, DeviceArray) for part in parts):
            self._copies.finish()
        return self._bind_host(binding, name, _joined(host, shape))

    def _bind_host(self, binding: Any, name: str, array: NDArray[Any]) -> Any:
        value = value_of(self._feed(name, array))
        binding.bind_ortvalue_input(name, value)
        return value

    def _joined_shape(self, name: str, parts: Sequence[Piece]) -> tuple[int, ...]:
        spec = self._signature.inputs[name]
        if spec.ragged:
            return (sum(part.size for part in parts),)
        if spec.scalar:
            return ()
        if len(parts) == 1:
            return tuple(parts[0].shape)
        return (sum(part.shape[0] for part in parts), *parts[0].shape[1:])

    def _output(self, name: str, value: Any, lent: set[int]) -> Any:
        data_type = self._signature.outputs[name].data_type
        if name in self._on_host:
            return array_of_value(value, data_type)
        shape = tuple(value.shape())
        found = DeviceArray(
            pointer=value.data_ptr(), shape=shape, data_type=data_type, index=self._device.index, owner=value
        )
        # An output that is an input passed on lies in memory which the next request, or Triton, writes into.
        return self._copies.copied(found) if found.pointer in lent else found

    def _tensor(self, name: str, array: Any, data_type: DataType) -> Any:
        if isinstance(array, DeviceArray):
            return pb_utils.Tensor.from_dlpack(name, capsule_of(array, self._device.dlpack_type))
        return super()._tensor(name, array, data_type)


def _joined(arrays: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> NDArray[Any]:
    if len(arrays) == 1:
        return arrays[0].reshape(shape)
    return np.concatenate([array.reshape(-1) for array in arrays]).reshape(shape)
