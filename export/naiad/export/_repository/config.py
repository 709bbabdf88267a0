"""`config.pbtxt` through its protobuf definition: reading, writing, the versions it serves."""

import re
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
            return existing[::-1][: policy.latest.num_versions][::-1]  # `latest {}` serves none
        case _:
            return existing[-1:]
