"""What a loaded model takes and gives, compiled once from a configuration that fits its graph."""

from collections.abc import Mapping
from dataclasses import dataclass

from _ort_config import BatchTensor, ModelConfig, TensorConfig
from _ort_datatypes import BY_TRITON, DataType
from _ort_graph import Graph


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSpec:
    """One input of a request; a scalar arrives with dims of 1, a ragged one is flattened for the whole batch."""

    name: str
    data_type: DataType
    scalar: bool = False
    ragged: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputSpec:
    """One configured output.

    ``shape`` is what the model must give, with -1 for any size and for the batch. A scalar of the model is
    sent with ``scalar_dims``. ``scatter_source`` names the input whose shapes cut a flat output into requests.
    """

    name: str
    data_type: DataType
    shape: tuple[int, ...]
    scalar_dims: tuple[int, ...] | None = None
    scatter_source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """Inputs and outputs by name."""

    model: str
    batched: bool
    inputs: Mapping[str, InputSpec]
    outputs: Mapping[str, OutputSpec]
    """Those of the configuration, and states that are not among them."""
    answered: frozenset[str]
    """The outputs that a client gets who asks for none by name."""
    states: Mapping[str, str]
    """Outputs by the inputs that they become in the sequence's next request."""
    batch_inputs: tuple[BatchTensor, ...]


def signature_of(config: ModelConfig, graph: Graph) -> Signature:
    """The signature of a validated configuration; control tensors are inputs like the others."""
    inputs = [_input(tensor, graph) for tensor in config.inputs]
    inputs += [InputSpec(name=each.name, data_type=BY_TRITON[each.data_type]) for each in config.controls]
    inputs += [_input(state.input, graph) for state in config.states]
    sources = {name: each.sources[0] for each in config.batch_outputs for name in each.targets}
    outputs = [_output(state.output, graph, config, None) for state in config.states]
    outputs += [_output(tensor, graph, config, sources.get(tensor.name)) for tensor in config.outputs]
    return Signature(
        model=config.name,
        batched=config.max_batch_size > 0,
        inputs={each.name: each for each in inputs},
        outputs={each.name: each for each in outputs},
        answered=frozenset(each.name for each in config.outputs),
        states={state.input.name: state.output.name for state in config.states},
        batch_inputs=config.batch_inputs,
    )


def _input(tensor: TensorConfig, graph: Graph) -> InputSpec:
    info = graph.input(tensor.name)
    assert info is not None
    return InputSpec(
        name=tensor.name, data_type=BY_TRITON[tensor.data_type], scalar=not info.shape, ragged=tensor.ragged
    )


def _output(tensor: TensorConfig, graph: Graph, config: ModelConfig, source: str | None) -> OutputSpec:
    info = graph.output(tensor.name)
    assert info is not None
    return OutputSpec(
        name=tensor.name,
        data_type=BY_TRITON[tensor.data_type],
        shape=(-1, *tensor.shape) if config.max_batch_size > 0 else tensor.shape,
        scalar_dims=tensor.shape if not info.shape and source is None else None,
        scatter_source=source,
    )
