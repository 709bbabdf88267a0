"""The parts of config.pbtxt that this backend reads, as Triton hands them over in JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorConfig:
    """One configured input or output; ``shape`` is without the batch dimension, as the model sees it."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    optional: bool = False
    ragged: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """``reshape`` where there is one: Triton itself applies it between the client and the model."""
        return self.dims if self.reshape is None else self.reshape


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchTensor:
    """One ``batch_input`` or ``batch_output``: tensors made from, or cut by, the shapes in the batch."""

    kind: str
    targets: tuple[str, ...]
    sources: tuple[str, ...]
    data_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """One control tensor that Triton adds to every request of a sequence."""

    name: str
    kind: str
    data_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """One implicit state: an output that becomes an input of the sequence's next request."""

    input: TensorConfig
    output: TensorConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """One model's configuration."""

    name: str
    max_batch_size: int
    inputs: tuple[TensorConfig, ...] = ()
    outputs: tuple[TensorConfig, ...] = ()
    batch_inputs: tuple[BatchTensor, ...] = ()
    batch_outputs: tuple[BatchTensor, ...] = ()
    controls: tuple[Control, ...] = ()
    states: tuple[State, ...] = ()
    max_sequence_idle_s: float = 1.0
    scheduler: str | None = None
    decoupled: bool = False
    filename: str = "model.onnx"
    capability_filenames: Mapping[str, str]
    parameters: Mapping[str, str]
    optimization: Mapping[str, Any]
    op_libraries: tuple[str, ...] = ()


def parse(config: Mapping[str, Any]) -> ModelConfig:
    """The configuration in a JSON object as Triton writes it (every field checked by Triton already)."""
    sequence = config.get("sequence_batching") or {}
    return ModelConfig(
        name=config["name"],
        max_batch_size=int(config.get("max_batch_size", 0)),
        inputs=tuple(map(_tensor, config.get("input", ()))),
        outputs=tuple(map(_tensor, config.get("output", ()))),
        batch_inputs=tuple(map(_batch_tensor, config.get("batch_input", ()))),
        batch_outputs=tuple(map(_batch_tensor, config.get("batch_output", ()))),
        controls=tuple(_controls(sequence.get("control_input", ()))),
        states=tuple(map(_state, sequence.get("state", ()))),
        max_sequence_idle_s=int(sequence.get("max_sequence_idle_microseconds", 0) or 1_000_000) / 1e6,
        scheduler=next((key for key in ("sequence_batching", "dynamic_batching") if key in config), None),
        decoupled=bool((config.get("model_transaction_policy") or {}).get("decoupled", False)),
        filename=config.get("default_model_filename") or "model.onnx",
        capability_filenames=config.get("cc_model_filenames") or {},
        parameters=_parameters(config.get("parameters") or {}),
        optimization=config.get("optimization") or {},
        op_libraries=tuple((config.get("model_operations") or {}).get("op_library_filename", ())),
    )


def _ints(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _tensor(entry: Mapping[str, Any]) -> TensorConfig:
    reshape = entry.get("reshape")
    return TensorConfig(
        name=entry["name"],
        data_type=entry["data_type"],
        dims=_ints(entry.get("dims", ())),
        reshape=None if reshape is None else _ints(reshape.get("shape", ())),
        optional=bool(entry.get("optional", False)),
        ragged=bool(entry.get("allow_ragged_batch", False)),
    )


def _batch_tensor(entry: Mapping[str, Any]) -> BatchTensor:
    return BatchTensor(
        kind=entry["kind"],
        targets=tuple(entry.get("target_name", ())),
        sources=tuple(entry.get("source_input", ())),
        data_type=entry.get("data_type", "TYPE_INVALID"),
    )


def _controls(entries: Iterable[Mapping[str, Any]]) -> Iterable[Control]:
    for entry in entries:
        for control in entry.get("control", ()):
            yield Control(name=entry["name"], kind=control["kind"], data_type=_control_data_type(control))


def _state(entry: Mapping[str, Any]) -> State:
    data_type, dims = entry.get("data_type", "TYPE_INVALID"), _ints(entry.get("dims", ()))
    return State(
        input=TensorConfig(name=entry.get("input_name", ""), data_type=data_type, dims=dims),
        output=TensorConfig(name=entry.get("output_name", ""), data_type=data_type, dims=dims),
    )


def _control_data_type(control: Mapping[str, Any]) -> str:
    for field, data_type in (
        ("int32_false_true", "TYPE_INT32"),
        ("fp32_false_true", "TYPE_FP32"),
        ("bool_false_true", "TYPE_BOOL"),
    ):
        if control.get(field):
            return data_type
    return str(control.get("data_type", "TYPE_INVALID"))


def _parameters(entries: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value["string_value"] if isinstance(value, Mapping) else value) for key, value in entries.items()}
