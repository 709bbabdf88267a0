"""Every remote procedure as a plain value: the method, the bytes to send, and how to read the answer.

Nothing here waits or knows a transport, so that the sync and the async client share all of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from naiad.client._device.model import DeviceModel
from naiad.client._protocol.codec import Codec
from naiad.client._protocol.placing import Placing, UncheckedPlacing
from naiad.client._protocol.request import (
    NO_OPTIONS,
    InferOptions,
    Inputs,
    buffers_of,
    check_on_host,
    decode_infer,
    encode_infer,
)
from naiad.client.config import ModelConfig
from naiad.client.control import LogSettings, TraceSettings, log_request, trace_request
from naiad.client.errors import InvalidInput, InvalidResponse
from naiad.client.metadata import ModelMetadata, ModelState, ServerMetadata
from naiad.client.result import Result
from naiad.client.statistics import ModelStatistics

T = TypeVar("T")


class Operation(NamedTuple, Generic[T]):
    """One call: ``method`` is the name in ``inference.GRPCInferenceService``."""

    method: str
    request: bytes
    decode: Callable[[bytes], T]
    model: str | None = None
    version: str | None = None
    request_id: str | None = None
    idempotent: bool = True
    """Whether a server may run it twice without harm."""
    sequence: bool = False
    """Whether it belongs to a sequence, which one server must see in order and once."""
    loads: bool = False
    """Whether it takes as long as loading a model."""
    encode_s: float = 0.0
    """How long its request took to build, in seconds."""


def _messages() -> Any:
    from tritonclient.grpc import service_pb2  # 20 ms that inference alone never needs

    return service_pb2


def _reader(message_type: Any, convert: Callable[[Any], T]) -> Callable[[bytes], T]:
    def read(data: bytes) -> T:
        try:
            return convert(message_type.FromString(data))
        except DecodeError as exc:
            raise InvalidResponse(
                f"expected a {message_type.DESCRIPTOR.name}, found {len(data)} bytes that are none"
            ) from exc

    return read


def _call(
    method: str,
    convert: Callable[[Any], T],
    fields: Mapping[str, Any] | None = None,
    *,
    model: str | None = None,
    version: str | None = None,
    loads: bool = False,
) -> Operation[T]:
    """Build the operation of a method whose messages are named after it; ``fields`` are the request's."""
    pb = _messages()
    request: Message = getattr(pb, f"{method}Request")(**(fields or {}))
    return Operation(
        method=method,
        request=request.SerializeToString(),
        decode=_reader(getattr(pb, f"{method}Response"), convert),
        model=model,
        version=version,
        loads=loads,
    )


def infer(
    model: str,
    version: str | None,
    inputs: Inputs,
    options: InferOptions,
    codec: Codec | None = None,
    *,
    idempotent: bool = False,
    placing: Placing | UncheckedPlacing | None = None,
    on_gpu: DeviceModel | None = None,
    queue_timeout_us: int = 0,
) -> Operation[Result]:
    """ModelInfer; with ``codec``, the inputs are checked before; with ``placing``, they may leave in shared memory.

    ``on_gpu`` says what becomes of tensors on a GPU.
    """
    began = time.monotonic()
    if on_gpu is None:
        if options is not NO_OPTIONS and options.outputs_on is not None:
            check_on_host(options)
    elif on_gpu.concerns(inputs, options):
        by_host = partial(
            infer,
            model,
            version,
            codec=codec,
            idempotent=idempotent,
            placing=placing,
            queue_timeout_us=queue_timeout_us,
        )
        placed_there, read = on_gpu.request(
            inputs, options, by_host, queue_timeout_us=queue_timeout_us, repeatable=idempotent
        )
        return Operation(
            "ModelInfer",
            placed_there,
            read,
            model,
            version,
            options.request_id or None,
            idempotent,
            bool(options.sequence_id),
            encode_s=time.monotonic() - began,
        )
    buffers = buffers_of(options, None if codec is None else codec.contract) if options.out else None
    placed = None
    if placing is not None and (buffers is not None or placing.concerns(inputs)):
        limited = replace(options, queue_timeout_us=queue_timeout_us) if queue_timeout_us else options
        placed = placing.request(inputs, limited, buffers, repeatable=idempotent)
    if placed is not None:
        request, decode = cast("bytes", placed), placed.read
    elif codec is None:
        request, decode = encode_infer(model, version or "", inputs, options, None), decode_infer
    else:
        request, decode = codec.encode(inputs, options, queue_timeout_us), codec.decode
        if idempotent and isinstance(placing, Placing):
            decode = placing.reader(inputs, repeatable=True)
    if buffers is not None and placed is None:
        decode = partial(decode_infer, out=buffers)
    return Operation(
        "ModelInfer",
        request,
        decode,
        model,
        version,
        options.request_id or None,
        idempotent,
        bool(options.sequence_id),
        encode_s=time.monotonic() - began,
    )


def live() -> Operation[bool]:
    """ServerLive."""
    return _call("ServerLive", lambda message: bool(message.live))


def ready(model: str | None, version: str | None) -> Operation[bool]:
    """ServerReady, or ModelReady where a model is named."""
    if model is None:
        return _call("ServerReady", lambda message: bool(message.ready))
    return _call(
        "ModelReady", lambda message: bool(message.ready), _named(model, version), model=model, version=version
    )


def server_metadata() -> Operation[ServerMetadata]:
    """ServerMetadata."""
    return _call("ServerMetadata", ServerMetadata.from_message)


def model_metadata(model: str, version: str | None) -> Operation[ModelMetadata]:
    """ModelMetadata."""
    return _call("ModelMetadata", ModelMetadata.from_message, _named(model, version), model=model, version=version)


def model_config(model: str, version: str | None) -> Operation[ModelConfig]:
    """ModelConfig."""
    return _call("ModelConfig", lambda message: message.config, _named(model, version), model=model, version=version)


def statistics(model: str | None, version: str | None) -> Operation[tuple[ModelStatistics, ...]]:
    """ModelStatistics."""

    def convert(message: Any) -> tuple[ModelStatistics, ...]:
        return tuple(ModelStatistics.from_message(entry) for entry in message.model_stats)

    return _call("ModelStatistics", convert, _named(model or "", version), model=model, version=version)


def repository_index() -> Operation[tuple[ModelState, ...]]:
    """RepositoryIndex."""
    return _call("RepositoryIndex", lambda message: tuple(ModelState.from_message(entry) for entry in message.models))


def load(
    model: str, config: ModelConfig | Mapping[str, Any] | None, files: Mapping[str, bytes] | None
) -> Operation[None]:
    """RepositoryModelLoad; ``files`` maps paths within the model's folder to their content, and needs a ``config``."""
    pb = _messages()
    if files and config is None:
        raise InvalidInput("loading from files needs a config with them, found none", model=model)
    parameters: dict[str, Any] = {}
    if config is not None:
        parameters["config"] = pb.ModelRepositoryParameter(string_param=_config_json(config))
    for path, content in (files or {}).items():
        if not isinstance(content, bytes):
            raise InvalidInput(
                f"files has the content of '{path}' as bytes, found {type(content).__name__}", model=model
            )
        parameters[f"file:{path}"] = pb.ModelRepositoryParameter(bytes_param=content)
    return _call(
        "RepositoryModelLoad", lambda _: None, {"model_name": model, "parameters": parameters}, model=model, loads=True
    )


def unload(model: str, unload_dependents: bool) -> Operation[None]:
    """RepositoryModelUnload."""
    parameter = _messages().ModelRepositoryParameter(bool_param=unload_dependents)
    return _call(
        "RepositoryModelUnload",
        lambda _: None,
        {"model_name": model, "parameters": {"unload_dependents": parameter}},
        model=model,
        loads=True,
    )


def trace_settings(model: str | None, changes: Mapping[str, Any]) -> Operation[TraceSettings]:
    """TraceSetting; without changes it only asks."""
    return _call("TraceSetting", TraceSettings.from_message, trace_request(model, changes), model=model)


def log_settings(changes: Mapping[str, Any]) -> Operation[LogSettings]:
    """LogSettings; without changes it only asks."""
    return _call("LogSettings", LogSettings.from_message, log_request(changes))


def _config_json(config: ModelConfig | Mapping[str, Any]) -> str:
    if isinstance(config, Message):
        return str(json_format.MessageToJson(config, preserving_proto_field_name=True))
    if not isinstance(config, Mapping):
        raise InvalidInput(f"config is a ModelConfig or a mapping, found {type(config).__name__}")
    try:
        return json.dumps(dict(config))
    except (TypeError, ValueError) as exc:
        raise InvalidInput(f"config has only what JSON has, found otherwise: {exc}") from exc


def _named(model: str, version: str | None) -> dict[str, Any]:
    return {"name": model, "version": version or ""}
