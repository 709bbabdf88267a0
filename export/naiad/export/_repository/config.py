"""`config.pbtxt` through its protobuf definition: reading, writing, the versions it serves, the contract it states."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from naiad.export.errors import InvalidModel

FILE = "config.pbtxt"
_POLICY = re.compile(r"^version_policy\s*:?\s*\{[^{}]*(\{[^{}]*\}[^{}]*)?\}\n?", re.MULTILINE)


def parse(data: bytes, *, model: str, where: str) -> Any:
    """Return the ModelConfig in the bytes of the file at `where`.

    Raises:
        InvalidModel: It is not a model configuration; the message has Triton's field and line.
    """
    try:
        return text_format.Parse(data.decode(), model_config_pb2.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise InvalidModel(f"{where} is not a Triton model configuration: {exc}", model=model) from exc


def to_text(config: Any) -> str:
    """Return a ModelConfig as the text of `config.pbtxt`."""
    return str(text_format.MessageToString(config, as_utf8=True))


def rewritten(text: str, config: Any) -> str:
    """Return `config` as text: `text` with its version policy where only that differs, to keep its comments."""
    only_policy = model_config_pb2.ModelConfig(version_policy=config.version_policy)
    block = _POLICY.search(text)
    new = to_text(only_policy)
    candidate = text[: block.start()] + new + text[block.end() :] if block else f"{text.rstrip()}\n{new}"
    try:
        kept: Any = text_format.Parse(candidate, model_config_pb2.ModelConfig())
    except text_format.ParseError:
        return to_text(config)
    return candidate if kept == config else to_text(config)


def serve(config: Any, versions: tuple[int, ...]) -> None:
    """Make `config` serve exactly these versions."""
    config.version_policy.Clear()
    config.version_policy.specific.versions.extend(versions)


def served(config: Any, existing: tuple[int, ...]) -> tuple[int, ...]:
    """Return those of the existing versions that Triton would serve, ascending."""
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "specific":
            wanted = set(policy.specific.versions)
            return tuple(number for number in existing if number in wanted)
        case "all":
            return existing
        case "latest":
            return existing[-max(policy.latest.num_versions, 1) :]
        case _:
            return existing[-1:]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What clients rely on, and what all versions of a model therefore share."""

    tensors: dict[str, str]
    max_batch_size: int
    labels: dict[str, tuple[str, ...]]

    def differences(self, new: "Contract") -> tuple[str, ...]:
        """Return one phrase for each thing that `new` would change."""
        found = []
        for name in sorted(self.tensors.keys() | new.tensors.keys()):
            before, after = self.tensors.get(name, "absent"), new.tensors.get(name, "absent")
            if before != after:
                found.append(f"{name} is {before}, this export has {after}")
        if self.max_batch_size != new.max_batch_size:
            found.append(f"max_batch_size is {self.max_batch_size}, this export has {new.max_batch_size}")
        for output in sorted(self.labels.keys() | new.labels.keys()):
            if self.labels.get(output) != new.labels.get(output):
                found.append(f"the labels of {output} differ")
        return tuple(found)


def contract(config: Any, read: Callable[[str], bytes]) -> Contract:
    """Return the contract of a configuration; `read` gives the bytes of a label file that it names."""
    tensors = {f"input {tensor.name}": _describe(tensor) for tensor in config.input}
    tensors |= {f"output {tensor.name}": _describe(tensor) for tensor in config.output}
    labels = {
        tensor.name: tuple(read(tensor.label_filename).decode().splitlines())
        for tensor in config.output
        if tensor.label_filename
    }
    return Contract(tensors=tensors, max_batch_size=config.max_batch_size, labels=labels)


def _describe(tensor: Any) -> str:
    data_type = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    return f"{data_type} {list(tensor.dims)}"
