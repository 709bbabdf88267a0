"""Transports over grpcio. Messages pass as bytes: grpcio serialises nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from naiad.client._transport.memory import LARGE_BYTES, reuse_large_blocks
from naiad.client._transport.seam import Connection, Headers, RpcFailed, TransportClosed
from naiad.client.errors import InvalidInput
from naiad.client.options import TLS

_SERVICE = "/inference.GRPCInferenceService/"
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),  # retries are decided in _routing
    ("grpc.use_local_subchannel_pool", 1),  # a client's connection is its own
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # despite its name, how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 500),  # a server that came back is found soon
)


class GrpcioTransport:
    """One grpcio channel, for threads."""

    def __init__(self, connection: Connection) -> None:
        _cooperate_with_gevent()
        self._connection = connection
        self._channel = _channel(grpc, connection)
        self._methods: dict[str, Any] = {}
        self._closed = False

    def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> bytes:
        """Send one message, return one."""
        if len(message) >= LARGE_BYTES:
            reuse_large_blocks(len(message))
        try:
            answer = (self._methods.get(method) or self._method(method))(message, timeout=timeout_s, metadata=headers)
        except grpc.RpcError as exc:
            raise _failure(exc, self._closed) from exc
        except ValueError as exc:  # grpcio's word for a closed channel
            raise TransportClosed from exc
        return _received(answer)

    def begin(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> GrpcioCall:
        """Send one message without waiting for the answer."""
        if len(message) >= LARGE_BYTES:
            reuse_large_blocks(len(message))
        try:
            future = (self._methods.get(method) or self._method(method)).future(
                message, timeout=timeout_s, metadata=headers
            )
        except ValueError as exc:
            raise TransportClosed from exc
        return GrpcioCall(future, self)

    def stream(self, method: str, messages: Iterable[bytes], timeout_s: float | None, headers: Headers) -> GrpcioStream:
        """Open a stream; ``messages`` are sent, then the sending half is closed."""
        if self._closed:
            raise TransportClosed
        try:
            call = self._channel.stream_stream(_SERVICE + method)(iter(messages), timeout=timeout_s, metadata=headers)
        except ValueError as exc:
            raise TransportClosed from exc
        return GrpcioStream(call, self)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    def close(self) -> None:
        """Close the channel."""
        self._closed = True
        self._methods.clear()
        self._channel.close()

    def forget(self) -> None:
        """Drop the channel of another process, still open: closing it would talk to the server in its name."""
        self._closed = True
        self._methods.clear()
        _inherited.append(self._channel)

    def _method(self, name: str) -> Any:
        if self._closed:
            raise TransportClosed
        return self._methods.setdefault(name, self._channel.unary_unary(_SERVICE + name))


class GrpcioCall:
    """A call that is under way."""

    def __init__(self, future: Any, transport: GrpcioTransport) -> None:
        self._future = future
        self._transport = transport

    def result(self) -> bytes:
        """Wait for the answer."""
        try:
            answer = self._future.result()
        except grpc.FutureCancelledError as exc:
            if self._transport.closed:
                raise TransportClosed from exc
            raise RpcFailed("CANCELLED", "cancelled by the caller") from exc
        except grpc.RpcError as exc:
            raise _failure(exc, self._transport.closed) from exc
        return _received(answer)

    def done(self) -> bool:
        """Whether ``result()`` returns or raises at once."""
        return bool(self._future.done())

    def cancel(self) -> None:
        """End the call here and on the server."""
        self._future.cancel()

    def when_done(self, function: Callable[[], None]) -> None:
        """Call ``function`` when the call has ended."""
        self._future.add_done_callback(lambda _: function())


class GrpcioStream:
    """A stream that is open."""

    def __init__(self, call: Any, transport: GrpcioTransport) -> None:
        self._call = call
        self._transport = transport

    def __next__(self) -> bytes:
        try:
            message: bytes = next(self._call)
        except grpc.RpcError as exc:
            raise _failure(exc, self._transport.closed) from exc
        return message

    def cancel(self) -> None:
        """End the stream here and on the server."""
        self._call.cancel()

    def when_done(self, function: Callable[[], None]) -> None:
        """Call ``function`` when the stream has ended."""
        if not self._call.add_callback(function):
            function()


class AsyncGrpcioTransport:
    """One ``grpc.aio`` channel for the event loop that runs; another one if that loop was closed and a new one runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: Any = None
        self._methods: dict[str, Any] = {}
        self._closed = False

    async def call(self, method: str, message: bytes, timeout_s: float, headers: Headers) -> bytes:
        """Send one message, return one."""
        if len(message) >= LARGE_BYTES:
            reuse_large_blocks(len(message))
        if self._loop is not asyncio.get_running_loop():
            self._open()
        try:
            answer = await (self._methods.get(method) or self._method(method))(
                message, timeout=timeout_s, metadata=headers
            )
        except grpc.RpcError as exc:
            raise _failure(exc, self._closed) from exc
        except grpc.aio.UsageError as exc:  # grpc.aio's word for a closed channel
            raise TransportClosed from exc
        except asyncio.CancelledError as exc:
            if self._closed:  # closing cancels what is under way
                raise TransportClosed from exc
            raise
        return _received(answer)

    def stream(
        self, method: str, messages: Iterable[bytes], timeout_s: float | None, headers: Headers
    ) -> AsyncGrpcioStream:
        """Open a stream; ``messages`` are sent, then the sending half is closed."""
        if self._loop is not asyncio.get_running_loop():
            self._open()
        if self._closed:
            raise TransportClosed
        try:
            call = self._channel.stream_stream(_SERVICE + method)(iter(messages), timeout=timeout_s, metadata=headers)
        except grpc.aio.UsageError as exc:
            raise TransportClosed from exc
        return AsyncGrpcioStream(call, self)

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called."""
        return self._closed

    async def close(self) -> None:
        """Close the channel."""
        self._closed = True
        self._methods.clear()
        channel, self._channel = self._channel, None  # with the last one, grpcio's thread and its descriptors go
        if channel is not None and self._loop is asyncio.get_running_loop():
            await channel.close()

    def forget(self) -> None:
        """Drop the channel of another process, still open."""
        self._closed = True
        self._methods.clear()
        if self._channel is not None:
            _inherited.append(self._channel)

    def _open(self) -> None:
        if self._closed:
            raise TransportClosed
        if self._loop is not None and not self._loop.is_closed():
            raise InvalidInput("an AsyncClient belongs to the event loop of its first call: make one for each loop")
        self._methods.clear()
        self._loop = asyncio.get_running_loop()
        self._channel = _channel(grpc.aio, self._connection)

    def _method(self, name: str) -> Any:
        if self._closed:
            raise TransportClosed
        return self._methods.setdefault(name, self._channel.unary_unary(_SERVICE + name))


class AsyncGrpcioStream:
    """A stream that is open, in an event loop."""

    def __init__(self, call: Any, transport: AsyncGrpcioTransport) -> None:
        self._call = call
        self._transport = transport

    async def __anext__(self) -> bytes:
        try:
            message = await self._call.read()
            if message is grpc.aio.EOF:
                raise StopAsyncIteration
        except grpc.RpcError as exc:
            raise _failure(exc, self._transport.closed) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if self._transport.closed:  # closing cancels what is under way
                raise TransportClosed from exc
            raise RpcFailed("CANCELLED", "cancelled by the caller") from exc
        assert isinstance(message, bytes)
        return message

    def cancel(self) -> None:
        """End the stream here and on the server."""
        self._call.cancel()


_inherited: list[Any] = []  # channels of the process that this one was forked from; never closed, never collected


def _received(answer: Any) -> bytes:
    if not isinstance(answer, bytes):  # grpcio's word for a call that ended well, but without a whole message
        raise RpcFailed("DATA_LOSS", "the call ended without an answer")
    if len(answer) >= LARGE_BYTES:
        reuse_large_blocks(len(answer))
    return answer


def _cooperate_with_gevent() -> None:
    """Let other greenlets run while grpcio waits, where gevent has replaced the standard library's waiting."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        from grpc.experimental import gevent

        gevent.init_gevent()


def _channel(api: Any, connection: Connection) -> Any:
    endpoint = connection.endpoint
    options: list[tuple[str, int | str]] = [
        *_OPTIONS,
        ("grpc.max_receive_message_length", connection.max_response_bytes),
    ]
    tls = connection.tls or (TLS() if endpoint.secure else None)
    if endpoint.name is not None:
        options.append(("grpc.default_authority", endpoint.name))
    if tls is None:
        return api.insecure_channel(endpoint.target, options=options)
    name = tls.server_name or endpoint.name
    if name is not None:
        options.append(("grpc.ssl_target_name_override", name))
    return api.secure_channel(endpoint.target, _credentials(tls), options=options)


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


def _failure(error: grpc.RpcError, closed: bool) -> RpcFailed | TransportClosed:
    if closed:
        return TransportClosed()
    return RpcFailed(error.code().name, error.details() or "")
