"""The gRPC library as a wire: what other clients use, for comparison, and where our own HTTP/2 is in doubt."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc

from naiad.loadtest._wire.peer import Peer
from naiad.loadtest._wire.requests import MODEL_INFER, MODEL_STREAM_INFER
from naiad.loadtest._wire.seam import Event

__all__ = ["GrpcioWire"]

_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # a retried request would hide a failure
    ("grpc.use_local_subchannel_pool", 1),  # channels of one target would share a connection otherwise
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_CONNECT_S: Final = 5.0
_OK: Final = grpc.StatusCode.OK


class GrpcioWire:
    """One or more channels, used in turn. Callbacks of the library's thread hand the answers over in a queue."""

    def __init__(self, peer: Peer, connections: int) -> None:
        self._metadata = peer.headers or None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._calls: dict[int, Any] = {}
        self._streams: dict[int, _Stream] = {}
        self._channels = [_open_channel(peer) for _ in range(connections)]
        self._unary = [channel.unary_unary(MODEL_INFER).future for channel in self._channels]
        self._turn = 0
        for channel in self._channels:
            _wait_ready(channel)

    def prepare(self, message: bytes) -> bytes:
        """Return the message: the library frames it for every send."""
        return message

    def send(self, prepared: bytes, token: int, timeout_s: float, suffix: bytes = b"") -> int:
        """Send a unary request."""
        self._turn = turn = (self._turn + 1) % len(self._unary)
        sent_ns = time.perf_counter_ns()
        message = prepared + suffix if suffix else prepared
        call = self._unary[turn](message, timeout=timeout_s, metadata=self._metadata)
        self._calls[token] = call
        call.add_done_callback(lambda ended: self._ended(ended, token))
        return sent_ns

    def open_stream(self, token: int, timeout_s: float | None) -> None:
        """Open a stream, with a thread that reads its answers."""
        self._turn = turn = (self._turn + 1) % len(self._channels)
        method = self._channels[turn].stream_stream(MODEL_STREAM_INFER)
        stream = self._streams[token] = _Stream(token, self._events)
        self._calls[token] = stream.start(method, timeout_s, self._metadata)

    def write(self, prepared: bytes, token: int, suffix: bytes = b"") -> int:
        """Hand a message to the library's thread for the stream; nothing happens where the stream has ended."""
        sent_ns = time.perf_counter_ns()
        if (stream := self._streams.get(token)) is not None:
            stream.requests.put(prepared + suffix if suffix else prepared)
        return sent_ns

    def close_stream(self, token: int) -> None:
        """End the sending half."""
        if (stream := self._streams.get(token)) is not None:
            stream.requests.put(None)

    def cancel(self, token: int) -> None:
        """Give up a call."""
        if (call := self._calls.get(token)) is not None:
            call.cancel()

    def flush(self) -> None:
        """Do nothing: the library's thread has it already."""

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for the first event, and take what else is there."""
        get = self._events.get
        events: list[Event] = []
        with suppress(queue.Empty):
            events.append(get(timeout_s > 0, max(timeout_s, 0.0)))
            while True:
                events.append(get(False))
        for event in events:
            if event.ended:
                self._calls.pop(event.token, None)
                self._streams.pop(event.token, None)
        return events

    def close(self) -> None:
        """Close the channels; the library cancels what is in flight."""
        for stream in self._streams.values():
            stream.requests.put(None)
        for channel in self._channels:
            channel.close()

    def _ended(self, call: Any, token: int) -> None:
        at_ns = time.perf_counter_ns()
        code = call.code()
        if code is _OK:
            self._events.put(Event(token, at_ns, True, message=call.result()))
        else:
            self._events.put(Event(token, at_ns, True, code.value[0], call.details() or ""))


class _Stream:
    """A stream: its requests wait in a queue for the library's thread, its answers are read by a thread of its own."""

    def __init__(self, token: int, events: queue.SimpleQueue[Event]) -> None:
        self.requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._token, self._events = token, events

    def start(self, method: Any, timeout_s: float | None, metadata: Any) -> Any:
        """Open it; return the library's call."""
        call = method(iter(self.requests.get, None), timeout=timeout_s, metadata=metadata)
        threading.Thread(target=self._read, args=(call,), daemon=True).start()
        return call

    def _read(self, call: Any) -> None:
        code, details = _OK, ""
        try:
            for message in call:
                self._events.put(Event(self._token, time.perf_counter_ns(), False, message=message))
        except grpc.RpcError as exc:
            code, details = exc.code(), exc.details() or ""
        self.requests.put(None)  # lets the library's thread go
        self._events.put(Event(self._token, time.perf_counter_ns(), True, code.value[0], details))


def _open_channel(peer: Peer) -> grpc.Channel:
    if peer.tls is None:
        return grpc.insecure_channel(peer.authority, options=_OPTIONS)
    files = peer.connection
    credentials = grpc.ssl_channel_credentials(_read(files.ca), _read(files.key), _read(files.certificate))
    return grpc.secure_channel(peer.authority, credentials, options=_OPTIONS)


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _wait_ready(channel: grpc.Channel) -> None:
    """Let the channel connect, so that the first request is not timed with it; that it cannot shows in the events."""
    known = threading.Event()

    def look(state: grpc.ChannelConnectivity) -> None:
        if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
            known.set()

    channel.subscribe(look, try_to_connect=True)
    known.wait(_CONNECT_S)
    channel.unsubscribe(look)
