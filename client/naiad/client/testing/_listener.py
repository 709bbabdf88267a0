"""A gRPC server on the loopback interface: real HTTP/2 on a real socket, one thread for each call."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Final

import grpc

from naiad.client.testing._requests import METHODS
from naiad.client.testing._status import Refusal

SERVICE: Final = "/inference.GRPCInferenceService/"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_FOR_EVER_S: Final = 1e9
_SERVING: Final = b"\x08\x01"
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.hpack_table_size.encoder", 0),  # so that header blocks can be left out without harm to the next
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTLS:
    """What a fake presents to its callers, and what it wants of them; all of it PEM."""

    certificate_chain: bytes
    """Its certificate, and those up to the authority."""
    private_key: bytes
    """The key of its certificate."""
    client_authorities: bytes | None = None
    """With these, callers need a certificate of one of them (mutual TLS)."""

    def credentials(self) -> Any:
        """Return it as grpcio takes it."""
        pairs = [(self.private_key, self.certificate_chain)]
        return grpc.ssl_server_credentials(pairs, self.client_authorities, self.client_authorities is not None)


class Threads(Executor):
    """As many daemon threads as there are calls: none waits for another, and none keeps the process alive."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` in a thread that is free, or a new one."""
        future: Future[Any] = Future()
        self._work.put((future, lambda: fn(*args, **kwargs)))
        if not self._idle.acquire(blocking=False):
            thread = threading.Thread(target=self._run, name="fake-triton", daemon=True)
            with self._lock:
                self._threads.append(thread)
            thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads as they become free."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._work.put(None)
        for thread in threads if wait else ():
            thread.join(5.0)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function = work
            try:
                future.set_result(function())
            except BaseException as exc:  # noqa: BLE001  (whoever waits gets it)
                future.set_exception(exc)
            self._idle.release()


class Listener(ABC):
    """Serves the methods of Triton's gRPC service, messages as bytes, until it is stopped."""

    def __init__(self) -> None:
        self.threads = Threads()
        self._server = grpc.server(self.threads, handlers=(_Handler(self),), options=_OPTIONS)

    def start(self, tls: ServerTLS | None = None, port: int = 0) -> str:
        """Listen on a port of 127.0.0.1, a free one with 0; return the address.

        Raises:
            RuntimeError: the port is taken.
        """
        address = f"127.0.0.1:{port}"
        if tls is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, tls.credentials())
        self._server.start()
        return f"127.0.0.1:{port}"

    def stop(self, grace_s: float | None) -> None:
        """Refuse new calls, wait for those in flight, cancel them after ``grace_s``."""
        self._server.stop(grace_s).wait()
        self.threads.shutdown()

    @abstractmethod
    def answer(self, method: str, data: bytes, context: Any) -> bytes:
        """Answer a call with one message; raise :class:`Refusal` to answer with an error."""

    @abstractmethod
    def stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Answer the messages of ModelStreamInfer; raise :class:`Refusal` to end it with an error."""


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def service(self, details: Any) -> Any:
        path: str = details.method
        if path == _HEALTH:
            return grpc.unary_unary_rpc_method_handler(lambda _message, _context: _SERVING)
        method = path.removeprefix(SERVICE)
        if method not in METHODS:
            return None
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(lambda data, context: self._unary(method, data, context))

    def _unary(self, method: str, data: bytes, context: Any) -> bytes:
        try:
            return self._listener.answer(method, data, context)
        except Refusal as refusal:
            raise _aborted(context, refusal) from refusal

    def _stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        try:
            yield from self._listener.stream(messages, context)
        except Refusal as refusal:
            raise _aborted(context, refusal) from refusal


def headers_of(context: Any) -> dict[str, str]:
    """Return the headers that came with a call, without binary ones."""
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def time_left_s(context: Any) -> float | None:
    """Return how long the caller of a call still waits; ``None`` for one without a deadline."""
    left_s = context.time_remaining()
    return None if left_s is None or left_s > _FOR_EVER_S else float(left_s)  # grpcio may say "until 2262"


def _aborted(context: Any, refusal: Refusal) -> Exception:
    """End the call with a refusal; grpcio knows the exception that is to be raised then."""
    try:
        context.abort(grpc.StatusCode[refusal.status], refusal.message)
    except Exception as exc:  # noqa: BLE001  (it is an Exception and nothing else)
        return exc
    raise AssertionError("abort() always raises")
