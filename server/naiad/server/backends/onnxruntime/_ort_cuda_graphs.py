"""CUDA graphs: a run is recorded once for each set of shapes, and replayed afterwards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from _ort_binding import bind_array, bind_output_array, options_for_graph
from _ort_config import ModelConfig
from _ort_datatypes import STRING
from _ort_device import Copies, Device, Piece
from _ort_errors import UnsupportedError, mismatch
from _ort_memory import DeviceArray
from _ort_signature import Signature

MAX_GRAPHS: Final = 32
"""Each keeps the memory of its run; more sets of shapes than this run without."""

Arrays = dict[str, DeviceArray]
Pieces = Mapping[str, tuple[Sequence[Piece], tuple[int, ...]]]
"""For each input what it is joined of, and the shape of the whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graph:
    """One recorded run: it reads and writes these arrays and no others."""

    inputs: Arrays
    outputs: Arrays
    binding: Any
    options: Any


class Graphs:
    """The recorded runs of one session, which was opened for CUDA graphs."""

    def __init__(self, session: Any, device: Device, copies: Copies, run_entries: Mapping[str, str]) -> None:
        self._session = session
        self._device = device
        self._copies = copies
        self._run_entries = run_entries
        self._graphs: dict[object, _Graph | None] = {}

    def run(self, inputs: Pieces, names: Sequence[str], signature: Signature, plain: Callable[[], Arrays]) -> Arrays:
        """The outputs of those names, in memory of their own; by ``plain`` where there are too many sets of shapes.

        The first run of a set is a plain one, which tells the shapes of the outputs, and then a recorded one.
        """
        key = tuple(names), tuple(sorted((name, shape) for name, (_, shape) in inputs.items()))
        if key not in self._graphs:
            return self._first(key, inputs, signature, plain)
        graph = self._graphs[key]
        return plain() if graph is None else self._replayed(graph, inputs)

    def _first(self, key: object, inputs: Pieces, signature: Signature, plain: Callable[[], Arrays]) -> Arrays:
        outputs = plain()
        if len(self._graphs) >= MAX_GRAPHS:
            return outputs
        # If recording fails, the requests of this run hear why, and later ones run without.
        number = len(self._graphs) + 1
        self._graphs[key] = None
        graph = self._graph(number, inputs, outputs, signature)
        recorded = self._replayed(graph, inputs)
        self._graphs[key] = graph
        return recorded

    def _graph(self, number: int, inputs: Pieces, outputs: Arrays, signature: Signature) -> _Graph:
        binding = self._session.io_binding()
        fixed = {
            name: self._copies.array(shape, signature.inputs[name].data_type) for name, (_, shape) in inputs.items()
        }
        for name, array in fixed.items():
            bind_array(binding, self._device, name, array)
        results = {name: self._copies.array(array.shape, array.data_type) for name, array in outputs.items()}
        for name, array in results.items():
            bind_output_array(binding, self._device, name, array)
        options = options_for_graph(number, self._run_entries)
        return _Graph(inputs=fixed, outputs=results, binding=binding, options=options)

    def _replayed(self, graph: _Graph, inputs: Pieces) -> Arrays:
        for name, (pieces, _) in inputs.items():
            self._copies.fill(graph.inputs[name], pieces)
        self._session.run_with_iobinding(graph.binding, graph.options)
        # Copied: the next run writes into the same memory, and Triton may not have sent this one's answers.
        return {name: self._copies.copied(array) for name, array in graph.outputs.items()}


def check_graphs(config: ModelConfig, signature: Signature, on_host: frozenset[str]) -> None:
    """Refuse CUDA graphs where a replay could not give the right answer (``UnsupportedError``).

    ``on_host`` names the inputs and outputs that ONNX Runtime keeps in CPU memory.
    """
    types = {name: spec.data_type.triton for name, spec in signature.inputs.items()}
    types |= {name: spec.data_type.triton for name, spec in signature.outputs.items()}
    strings = [name for name, data_type in types.items() if data_type == STRING]
    host = sorted(on_host & types.keys())
    if config.states or config.controls:
        found = "a model with sequences, whose states stay in CPU memory"
    elif signature.batch_inputs:
        found = "batch_input, which is made in CPU memory"
    elif strings:
        found = f"TYPE_STRING in '{strings[0]}', which stays in CPU memory"
    elif host:
        found = f"'{host[0]}', which ONNX Runtime keeps in CPU memory"
    else:
        return
    message = mismatch(
        f"model '{config.name}', CUDA graphs",
        expected="a model whose inputs and outputs are all in the GPU's memory",
        found=found,
        advice="remove the parameter naiad.cuda_graph (and enable_cuda_graph of the accelerator 'cuda')",
    )
    raise UnsupportedError(message)
