"""A gRPC server whose answers are programmed by the requests, for the wires of the load test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from naiad.loadtest._wire.opening import open_wire
from naiad.loadtest._wire.seam import Event, Wire
from naiad.loadtest.plan import Connection

UNLIMITED = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
LONG_S = 50.0


@dataclass
class Seen:
    """What the server saw of a call."""

    metadata: dict[str, str]
    time_remaining_s: float | None
    peer: str
    size_bytes: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass
class Programmed(grpc.GenericRpcHandler):
    """Does what the JSON of a request says; spaces after it only make it larger."""

    calls: list[Seen] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    port: int = 0

    def service(self, details: Any) -> Any:
        if details.method.endswith("/ModelStreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    def _unary(self, request: bytes, context: Any) -> bytes:
        seen = self._see(context)
        seen.size_bytes = len(request)
        return self._obey(json.loads(request), context, seen)

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        seen = self._see(context)
        for request in requests:
            command = json.loads(request)
            for _ in range(command.pop("times", 1)):
                yield self._obey(command, context, seen)

    def _see(self, context: Any) -> Seen:
        seen = Seen(dict(context.invocation_metadata()), context.time_remaining(), context.peer())
        context.add_callback(seen.cancelled.set)
        self.calls.append(seen)
        return seen

    def _obey(self, command: dict[str, Any], context: Any, seen: Seen) -> bytes:
        if command.get("wait"):
            while not self.release.wait(0.01) and not seen.cancelled.is_set():
                pass
        if "status" in command:
            code = next(code for code in grpc.StatusCode if code.value[0] == command["status"])
            context.abort(code, command.get("details", ""))
        return content(command.get("size", 0)) if "size" in command else command.get("echo", "").encode()


def content(size: int) -> bytes:
    """Bytes that are wrong if a piece is missing or moved."""
    pattern = b"".join(number.to_bytes(4, "big") for number in range(25_000))
    return (pattern * (size // len(pattern) + 1))[:size]


def command(padding: int = 0, **what: Any) -> bytes:
    """A request that the programmed server understands."""
    return json.dumps(what).encode() + b" " * padding


@contextmanager
def programmed_server(
    *, options: Sequence[tuple[str, Any]] = (), credentials: Any = None, port: int = 0
) -> Iterator[Programmed]:
    """Run a server on loopback until the end of the block."""
    handler = Programmed()
    with ThreadPoolExecutor(32) as pool:
        server = grpc.server(pool, options=(*UNLIMITED, ("grpc.so_reuseport", 0), *options))
        server.add_generic_rpc_handlers((handler,))
        address = f"127.0.0.1:{port}"
        handler.port = (
            server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        )
        assert handler.port
        handler.url = f"grpc{'s' if credentials else ''}://127.0.0.1:{handler.port}"
        server.start()
        try:
            yield handler
        finally:
            handler.release.set()
            server.stop(0).wait()


@contextmanager
def wire_to(url: str, transport: Any = "http2", connections: int = 1, **settings: Any) -> Iterator[Wire]:
    """A wire, closed at the end of the block."""
    wire = open_wire(Connection(url=url, **settings), transport=transport, connections=connections)
    try:
        yield wire
    finally:
        wire.close()


def events_until(wire: Wire, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """Poll until what came back is enough."""
    events: list[Event] = []
    for _ in range(2_000):
        if enough(events):
            return events
        events += wire.poll(0.05)
    raise AssertionError(f"not enough came back: {events[-5:]}")


def ends_of(wire: Wire, number: int) -> dict[int, Event]:
    """Poll until so many calls have ended; their last events, by token."""
    events = events_until(wire, lambda events: sum(event.ended for event in events) >= number)
    return {event.token: event for event in events if event.ended}


def answer_to(wire: Wire, request: bytes, timeout_s: float = LONG_S) -> Event:
    """Send one request and wait for its end."""
    wire.send(wire.prepare(request), 1, timeout_s)
    return ends_of(wire, 1)[1]
