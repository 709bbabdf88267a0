"""The client's codec, as the engine uses it: requests encoded once, answers left as bytes until one is checked.

This is the only module of the load test that knows the inside of :mod:`naiad.client`: both belong to one distribution,
and what is measured has to be what a service would send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from numpy.typing import NDArray

from naiad.client._protocol.datatypes import numpy_dtype
from naiad.client._protocol.request import NO_OPTIONS, decode_infer, encode_infer
from naiad.client._routing.endpoint import Endpoint, parse_endpoint
from naiad.client.errors import CallContext, ClientError, from_status

__all__ = ["decode_answer", "encode_inputs", "error_of", "numpy_dtype", "open_channel", "without_secret"]

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_CHANNEL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


def open_channel(url: str) -> tuple[grpc.Channel, grpc.UnaryUnaryMultiCallable]:
    """Connect to ``url``; return the channel and its inference call, which takes and gives bytes."""
    endpoint: Endpoint = parse_endpoint(url)
    if endpoint.secure:
        channel = grpc.secure_channel(endpoint.target, grpc.ssl_channel_credentials(), options=_CHANNEL_OPTIONS)
    else:
        channel = grpc.insecure_channel(endpoint.target, options=_CHANNEL_OPTIONS)
    return channel, channel.unary_unary(_METHOD)


def encode_inputs(model: str, version: str | None, inputs: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode a request."""
    return encode_infer(model, version or "", inputs, NO_OPTIONS, None)


def decode_answer(answer: bytes) -> Mapping[str, NDArray[Any]]:
    """Decode the outputs of an answer.

    Raises:
        naiad.client.InvalidResponse: it is none.
    """
    return decode_infer(answer)


def error_of(status: str, details: str, *, url: str, model: str, timeout_s: float) -> ClientError:
    """Translate a gRPC status as the client does."""
    context = CallContext(endpoint=parse_endpoint(url).target, method="ModelInfer", model=model, timeout_s=timeout_s)
    return from_status(status, details, context)


def without_secret(url: str) -> str:
    """Return ``url`` as it may be shown: scheme, host and port only."""
    endpoint = parse_endpoint(url)
    return f"{'grpcs' if endpoint.secure else 'grpc'}://{endpoint.target}"
