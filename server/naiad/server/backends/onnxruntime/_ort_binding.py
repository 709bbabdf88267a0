"""What ONNX Runtime's I/O binding takes and gives."""

from collections.abc import Mapping
from typing import Any, Final

from _ort_datatypes import ONNX_NUMBERS
from _ort_device import Device
from _ort_memory import DeviceArray
from _ort_session import runtime

_GRAPH_ID: Final = "gpu_graph_id"
NO_GRAPH: Final = -1
"""The ``gpu_graph_id`` of a run that is neither recorded nor replayed."""


def bind_array(binding: Any, device: Device, name: str, array: DeviceArray) -> None:
    """Bind an input to the memory of an array."""
    number = ONNX_NUMBERS[array.data_type.triton]
    binding.bind_input(name, device.name, device.index, number, list(array.shape), array.pointer)


def bind_output_array(binding: Any, device: Device, name: str, array: DeviceArray) -> None:
    """Bind an output to the memory of an array."""
    number = ONNX_NUMBERS[array.data_type.triton]
    binding.bind_output(name, device.name, device.index, number, list(array.shape), array.pointer)


def options_for_graph(number: int, entries: Mapping[str, str]) -> Any:
    """Options of a run that is recorded under a number, or replayed if it was."""
    options = runtime().RunOptions()
    for key, value in {**entries, _GRAPH_ID: str(number)}.items():
        options.add_run_config_entry(key, value)
    return options


def tensors_on_host(session: Any) -> frozenset[str]:
    """The inputs and outputs that a session on a GPU reads and writes in CPU memory, such as shapes."""
    inputs = zip(session.get_inputs(), session.get_input_memory_infos(), strict=True)
    outputs = zip(session.get_outputs(), session.get_output_memory_infos(), strict=True)
    return frozenset(tensor.name for tensor, info in (*inputs, *outputs) if _is_host(info))


def _is_host(info: Any) -> bool:
    pinned = runtime().capi.onnxruntime_pybind11_state.OrtDeviceMemoryType.HOST_ACCESSIBLE
    return bool(info.name == "Cpu" or info.device_mem_type == pinned)
