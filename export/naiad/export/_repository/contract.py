"""What all versions of a model share: names, types, dims, labels, the largest batch, and what runs it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

_FILENAMES = {"onnxruntime": "model.onnx", "python": "model.py", "pytorch": "model.pt"}
_COMPARED = frozenset({"name", "data_type", "dims", "reshape", "optional", "label_filename"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """The class names of an output."""

    num: int
    sha256: str
    names: tuple[str, ...] = ()
    """Empty where only their hash is known."""

    def __str__(self) -> str:
        return f"{self.num} labels"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """One input or output as the configuration has it; without the batch dimension where there is one."""

    data_type: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    """The dims that the model itself has, where they are others."""
    optional: bool = False
    rest: str = ""
    """Everything else that the configuration says about it (`allow_ragged_batch`, `format`, …), as text."""
    labels: Labels | None = None

    def __str__(self) -> str:
        words = f"{self.data_type} [{', '.join('?' if dim < 0 else str(dim) for dim in self.dims)}]"
        return f"{words}, optional" if self.optional else words


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What all versions of a model share."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    max_batch_size: int
    scheduling: str = ""
    """What the sequence batcher wants of requests, or that there are steps, as text."""
    decoupled: bool = False
    engine: str = ""
    """What runs it, and the file: `onnxruntime model.onnx`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; of labels only their hash."""
        values = asdict(self)
        for tensor in (*values["inputs"].values(), *values["outputs"].values()):
            if tensor["labels"]:
                del tensor["labels"]["names"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Contract":
        """Build a contract from what `to_dict` gave, or from its JSON."""
        return cls(
            inputs={name: _tensor_from(tensor) for name, tensor in values["inputs"].items()},
            outputs={name: _tensor_from(tensor) for name, tensor in values["outputs"].items()},
            max_batch_size=values["max_batch_size"],
            scheduling=values.get("scheduling", ""),
            decoupled=values.get("decoupled", False),
            engine=values.get("engine", ""),
        )


def contract(config: Any, read: Callable[[str], bytes]) -> Contract:
    """Return the contract of a ModelConfig; `read` gives the bytes of a label file that it names."""
    engine = config.backend or config.platform.removesuffix("_onnx")
    return Contract(
        inputs={tensor.name: _tensor(tensor, None) for tensor in config.input},
        outputs={tensor.name: _tensor(tensor, _labels(tensor, read)) for tensor in config.output},
        max_batch_size=config.max_batch_size,
        scheduling=_scheduling(config),
        decoupled=config.model_transaction_policy.decoupled,
        engine=f"{engine} {config.default_model_filename or _FILENAMES.get(engine, '')}".strip(),
    )


def _tensor(tensor: Any, labels: Labels | None) -> Tensor:
    rest = type(tensor)()
    rest.CopyFrom(tensor)
    for field in _COMPARED:
        if field in tensor.DESCRIPTOR.fields_by_name:
            rest.ClearField(field)
    return Tensor(
        data_type=model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        optional=getattr(tensor, "optional", False),
        rest=text_format.MessageToString(rest, as_one_line=True),
        labels=labels,
    )


def _labels(tensor: Any, read: Callable[[str], bytes]) -> Labels | None:
    if not tensor.label_filename:
        return None
    names = tuple(read(tensor.label_filename).decode(errors="replace").splitlines())
    text = "".join(f"{name}\n" for name in names)
    return Labels(num=len(names), sha256=hashlib.sha256(text.encode()).hexdigest(), names=names)


def _scheduling(config: Any) -> str:
    """Return what a request must say, or is done with it; not how long it waits, which is the owner's to tune."""
    kind = config.WhichOneof("scheduling_choice")
    if kind == "ensemble_scheduling":
        return "steps of an ensemble"  # which ones is recorded by version, and wired when one is served
    if kind == "sequence_batching":
        batching = config.sequence_batching
        shared = type(batching)(control_input=batching.control_input, state=batching.state)
        return f"sequences {{ {text_format.MessageToString(shared, as_one_line=True)} }}"
    return ""


def _tensor_from(values: Mapping[str, Any]) -> Tensor:
    known = {name: values[name] for name in Tensor.__dataclass_fields__ if name in values}
    known["dims"] = tuple(known["dims"])
    if known.get("reshape") is not None:
        known["reshape"] = tuple(known["reshape"])
    if known.get("labels"):
        known["labels"] = Labels(num=known["labels"]["num"], sha256=known["labels"]["sha256"])
    return Tensor(**known)
