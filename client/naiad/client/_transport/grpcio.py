"""Transports over grpcio. Messages pass as bytes: grpcio serialises nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from naiad.client._routing.attempts import Attempts
from naiad.client._transport.memory import LARGE_BYTES, reuse_large_blocks
from naiad.client._transport.seam import Connection
from naiad.client.errors import ClientClosed, ClientError, InvalidInput, from_status
from naiad.client.options import TLS

_SERVICE = "/inference.GRPCInferenceService/"
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # retries are decided in _routing
    ("grpc.use_local_subchannel_pool", 1),  # a client's connection is its own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class GrpcioTransport:
    """One grpcio channel, for threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = _channel(grpc, connection)
        self._methods: dict[str, Any] = {}
        self._closed = False

    def call(self, attempts: Attempts, timeout_s: float) -> bytes:
        """Send one message, return one."""
        operation = attempts.operation
        method = self._methods.get(operation.method) or self._method(operation.method)
        if len(operation.request) >= LARGE_BYTES:
            reuse_large_blocks()
        try:
            answer: bytes = method(operation.request, timeout=timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as exc:
            raise _translated(exc, attempts, self._closed) from exc
        except ValueError as exc:  # grpcio's word for a closed channel
            raise _closed(attempts) from exc
        return answer

    def _method(self, name: str) -> Any:
        if self._closed:
            raise ClientClosed("this client is closed: make a new one")
        return self._methods.setdefault(name, self._channel.unary_unary(_SERVICE + name))

    def close(self) -> None:
        """Close the channel."""
        self._closed = True
        self._methods.clear()
        self._channel.close()


class AsyncGrpcioTransport:
    """One ``grpc.aio`` channel, for the event loop it is first used in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._closed = False

    async def call(self, attempts: Attempts, timeout_s: float) -> bytes:
        """Send one message, return one."""
        operation = attempts.operation
        method = self._methods.get(operation.method) or self._method(operation.method)
        if len(operation.request) >= LARGE_BYTES:
            reuse_large_blocks()
        try:
            answer: bytes = await method(operation.request, timeout=timeout_s, metadata=self._connection.metadata)
        except grpc.RpcError as exc:
            raise _translated(exc, attempts, self._closed) from exc
        except grpc.aio.UsageError as exc:  # grpc.aio's word for a closed channel
            raise _closed(attempts) from exc
        return answer

    def _method(self, name: str) -> Any:
        if self._closed:
            raise ClientClosed("this client is closed: make a new one")
        if self._channel is None:  # made late: a channel belongs to the loop it is made in
            self._channel = _channel(grpc.aio, self._connection)
        return self._methods.setdefault(name, self._channel.unary_unary(_SERVICE + name))

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        self._methods.clear()
        if self._channel is not None:
            await self._channel.close()


def _channel(api: Any, connection: Connection) -> Any:
    target, options = connection.endpoint.target, list[tuple[str, int | str]](_OPTIONS)
    tls = connection.tls or (TLS() if connection.endpoint.secure else None)
    if tls is None:
        return api.insecure_channel(target, options=options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return api.secure_channel(target, _credentials(tls), options=options)


def _credentials(tls: TLS) -> Any:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.root_certificates, "root_certificates"),
        private_key=_pem(tls.private_key, "private_key"),
        certificate_chain=_pem(tls.certificate_chain, "certificate_chain"),
    )


def _pem(path: Path | str | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise InvalidInput(f"TLS.{name}: expected a PEM file at {path}, found {exc.strerror}") from exc
    if b"-----BEGIN" not in data:
        raise InvalidInput(f"TLS.{name}: expected a PEM file at {path}, found no '-----BEGIN' in it")
    return data


def _translated(error: grpc.RpcError, attempts: Attempts, closed: bool) -> ClientError:
    if closed:
        return _closed(attempts)
    return from_status(error.code().name, error.details() or "", attempts.context())


def _closed(attempts: Attempts) -> ClientClosed:
    return ClientClosed(f"this client of {attempts.endpoint} is closed: make a new one", endpoint=attempts.endpoint)
