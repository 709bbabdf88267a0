"""Sessions whose tensors are bound in the memory of the device: copies are not part of a timed run."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

Array = np.ndarray[Any, Any]


class Bound:
    """A session that runs with bound tensors, and otherwise as `InferenceSession` does.

    Text has no place in a GPU's memory: a graph with text at its boundary is run without binding.
    """

    def __init__(self, session: Any, memory: str) -> None:
        self._session = session
        self._memory = memory
        tensors = [*session.get_inputs(), *session.get_outputs()]
        self._bindable = all(each.type != "tensor(string)" for each in tensors)

    def get_inputs(self) -> Any:
        """Return what the graph takes."""
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        """Return what the graph gives."""
        return self._session.get_outputs()

    def on_host(self) -> list[str]:
        """Return the inputs and outputs that ONNX Runtime keeps in the memory of the host."""
        inputs = zip(self.get_inputs(), self._session.get_input_memory_infos(), strict=True)
        outputs = zip(self.get_outputs(), self._session.get_output_memory_infos(), strict=True)
        return [tensor.name for tensor, info in (*inputs, *outputs) if info.name == "Cpu"]

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """Return outputs by name, all of them for None, in the memory of the host."""
        if not self._bindable:
            return list(self._session.run(names, dict(feeds)))
        values = self._on_device(feeds)
        binding = self._binding(values, names or self._names())
        self._run(binding, values)
        return list(binding.copy_outputs_to_cpu())

    def caller(self, feeds: Mapping[str, Array]) -> Callable[[], None]:
        """Return what runs the graph once on inputs that are copied now, and returns when the device is done."""
        if not self._bindable:
            return partial(self._session.run, None, dict(feeds))
        values = self._on_device(feeds)
        return partial(self._run, self._binding(values, self._names()), values)

    def _on_device(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        return {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"), self._memory, 0)
            for name, array in feeds.items()
        }

    def _binding(self, values: Mapping[str, Any], names: Sequence[str]) -> Any:
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in names:
            binding.bind_output(name, self._memory, 0)
        return binding

    def _names(self) -> list[str]:
        return [each.name for each in self.get_outputs()]

    def _run(self, binding: Any, values: Mapping[str, Any], options: Any = None) -> None:
        """Run on `values`, which the binding does not keep alive by itself."""
        del values
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()


class Replayed(Bound):
    """A session that keeps inputs and outputs of each set of shapes in place, as CUDA graphs need them.

    With `enable_cuda_graph` among its provider's options the first run at some shapes captures, later ones replay. What
    is returned is always what a replay gave.
    """

    def __init__(self, session: Any, memory: str) -> None:
        super().__init__(session, memory)
        self._kept: dict[tuple[tuple[str, tuple[int, ...]], ...], tuple[Any, dict[str, Any], Any]] = {}

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """Return outputs by name, in the memory of the host."""
        binding, values, options = self._at(feeds)
        for name, array in feeds.items():
            values[name].update_inplace(np.asarray(array, order="C"))
        self._run(binding, values, options)
        # Copied: what the host sees of tensors in its own memory would change with the next run.
        outputs = {name: value.copy() for name, value in zip(self._names(), binding.copy_outputs_to_cpu(), strict=True)}
        return [outputs[name] for name in names or self._names()]

    def caller(self, feeds: Mapping[str, Array]) -> Callable[[], None]:
        """Return what replays the run on these inputs."""
        self.run(None, feeds)
        binding, values, options = self._at(feeds)
        return partial(self._run, binding, values, options)

    def _at(self, feeds: Mapping[str, Array]) -> tuple[Any, dict[str, Any], Any]:
        shapes = tuple(sorted((name, array.shape) for name, array in feeds.items()))
        if shapes not in self._kept:
            self._kept[shapes] = self._captured(feeds, len(self._kept) + 1)
        return self._kept[shapes]

    def _captured(self, feeds: Mapping[str, Array], number: int) -> tuple[Any, dict[str, Any], Any]:
        values = self._on_device({name: array.copy() for name, array in feeds.items()})
        plain = onnxruntime.RunOptions()
        plain.add_run_config_entry("gpu_graph_id", "-1")  # runs without capturing: for the outputs' shapes
        probe = self._binding(values, self._names())
        self._run(probe, values, plain)
        binding = self._session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(self._names(), probe.get_outputs(), strict=True):
            binding.bind_ortvalue_output(name, value)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(number))
        self._run(binding, values, options)
        return binding, values, options


def caller(runtime: Any, feeds: Mapping[str, Array]) -> Callable[[], None]:
    """Return what runs a session once; inputs of a bound one are copied now."""
    return runtime.caller(feeds) if isinstance(runtime, Bound) else partial(runtime.run, None, feeds)
