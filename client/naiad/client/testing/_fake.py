"""A Triton made of Python functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict, Unpack
from urllib.parse import quote

from naiad.client import Client
from naiad.client.errors import InvalidInput
from naiad.client.testing import http2
from naiad.client.testing._faults import Act, Fault, Faults, Spoil
from naiad.client.testing._frames import Marks
from naiad.client.testing._line import Line
from naiad.client.testing._listener import ServerTLS
from naiad.client.testing._models import FakeModel, Function
from naiad.client.testing._repository import Repository
from naiad.client.testing._requests import Request, RequestLog, checked_method
from naiad.client.testing._server import FakeServer
from naiad.client.testing._service import Service
from naiad.client.testing._status import Refusal, checked_status

if TYPE_CHECKING:
    from types import TracebackType

_DRAINING: Final = ("waiting", "unloading")
_LONG_S: Final = 1e6
_LOOK_S: Final = 0.02  # how often a request that is held back looks whether its caller is still there


class Which(TypedDict, total=False):
    """Which requests a fault strikes; see :meth:`FakeTriton.fail`."""

    every: int | None
    method: str | None
    model: str | None


class FakeTriton:
    """A real gRPC server in this process that speaks KServe v2 as Triton does, with functions as models.

    ::

        with FakeTriton({"double": lambda x: {"y": 2 * x}}) as fake, Client(fake.url) as triton:
            triton.infer("double", {"x": np.ones((1, 3), np.float32)})["y"]
            fake.calls()[0].inputs["x"]

    It runs from construction until :meth:`stop`. What :class:`naiad.server.EmbeddedTriton` has under the same name
    (``grpc_url``, ``grpc_address``, ``admin_url``, ``admin_secret``, ``client()``) means the same, so that a test can
    take either. It may be used by threads.

    Args:
        models: functions, or :class:`FakeModel`, by name.
        port: the port to listen on at 127.0.0.1; 0 for a free one.
        admin_secret: opens the repository, shared memory, trace and log methods; ``None`` leaves them open.
        tls: the certificate to present; without it, connections are plain.
        keep_requests: how many of the latest requests are kept.

    Raises:
        InvalidInput: an argument is wrong.
        OSError: the port is taken.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel | Function] | None = None,
        *,
        port: int = 0,
        admin_secret: str | None = None,
        tls: ServerTLS | None = None,
        keep_requests: int = 10_000,
    ) -> None:
        self._faults = Faults()
        self._log = RequestLog(keep_requests)
        self._repository = Repository(models or {})
        self._service = Service(self._repository, admin_secret)
        self.admin_secret = admin_secret
        self._tls = tls
        self._marks = Marks()
        self._server: FakeServer | None = FakeServer(self._service, self._faults, self._log)
        address = self._server.start(tls)
        try:
            self._line = Line._replacing(address, port, self._marks)
        except OSError:
            self._server.stop(None)
            raise

    @property
    def url(self) -> str:
        """The address for :class:`naiad.client.Client`, without the admin secret."""
        return f"grpc{'s' if self._tls else ''}://{self.grpc_address}"

    @property
    def grpc_url(self) -> str:
        """The same as ``url``."""
        return self.url

    @property
    def grpc_address(self) -> str:
        """Host and port, as tritonclient takes them."""
        return self._line.address

    @property
    def admin_url(self) -> str:
        """The address with the admin secret."""
        return self.url.replace("//", f"//:{quote(self.admin_secret, safe='')}@") if self.admin_secret else self.url

    def client(self, **options: Any) -> Client:
        """Return a client of it that may do everything; ``options`` are those of :class:`naiad.client.Client`."""
        return Client(self.url, admin_secret=self.admin_secret, **options)

    def serve(self, name: str, model: FakeModel | Function) -> None:
        """Add a model, or replace the one of that name by another."""
        self._repository.put(name, model)

    def remove(self, name: str) -> None:
        """Remove a model as if it had never been there; without effect if there is none."""
        self._repository.discard(name)

    @property
    def requests(self) -> tuple[Request, ...]:
        """Everything it was asked, in the order of arrival."""
        return self._log.find(None, None)

    def calls(self, method: str | None = "ModelInfer", *, model: str | None = None) -> tuple[Request, ...]:
        """Return the requests of a method (``None``: any), of a model."""
        return self._log.find(checked_method(method), model)

    def wait_for(
        self,
        number: int = 1,
        *,
        method: str | None = "ModelInfer",
        model: str | None = None,
        timeout_s: float = 10.0,
    ) -> tuple[Request, ...]:
        """Return :meth:`calls` as soon as there are ``number`` of them: a request is then known to be in the server.

        Raises:
            TimeoutError: there are not in time.
        """
        return self._log.wait(number, checked_method(method), model, timeout_s)

    def forget(self) -> None:
        """Forget the requests so far."""
        self._log.clear()

    def fail(
        self,
        times: int | None = None,
        *,
        status: str = "UNAVAILABLE",
        details: str = "failed on purpose",
        **which: Unpack[Which],
    ) -> Fault:
        """Answer with an error.

        All faults of requests strike the next ``times`` that match, or every one until the fault is ended: by leaving
        its ``with`` block, by :meth:`Fault.end` or by :meth:`heal`. Those that match are of ``method``
        ("ModelInfer"; ``None`` for any) and of ``model`` (any), with ``every=n`` each n-th of them. Faults strike in
        the order in which they were made; the first that answers is the last.
        """
        refusal = checked_status(status), details

        def act(_: Request) -> None:
            raise Refusal(refusal[1], refusal[0])

        return self._add(f"fail {status}", times, which, act=act)

    def delay(self, seconds: float, times: int | None = None, **which: Unpack[Which]) -> Fault:
        """Answer later, or not at all if the caller goes away before."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < _LONG_S:
            raise InvalidInput(f"a delay is a number of seconds, 0 or more, found {seconds!r}")

        def act(request: Request) -> None:
            if request.wait(seconds):
                raise Refusal("the caller went away", "CANCELLED")

        return self._add(f"delay {seconds:g} s", times, which, act=act)

    def hang(self, times: int | None = None, **which: Unpack[Which]) -> Fault:
        """Hold requests back; those whose callers are still there when the fault ends are answered then."""
        released = threading.Event()

        def act(request: Request) -> None:
            while not released.wait(_LOOK_S):
                if request.ended.is_set():
                    raise Refusal("the caller went away", "CANCELLED")

        return self._add("hang", times, which, act=act, at_end=released.set)

    def answer_bytes(self, message: bytes, times: int | None = None, **which: Unpack[Which]) -> Fault:
        """Answer with these bytes where a protobuf message is expected."""
        return self._add(f"answer {len(message)} bytes", times, which, act=lambda _: message)

    def truncate(self, times: int | None = None, **which: Unpack[Which]) -> Fault:
        """Answer with the first half of the protobuf message, properly framed."""
        return self._add("truncate", times, which, spoil=lambda _, answer: answer[: len(answer) // 2])

    def oversize(self, size_bytes: int, times: int | None = None, **which: Unpack[Which]) -> Fault:
        """Answer with a message of that size: the right one, and a field that nobody knows."""
        if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or not 0 < size_bytes < 2**31:
            raise InvalidInput(f"size_bytes is a whole number below 2**31, found {size_bytes!r}")
        return self._add(
            f"oversize {size_bytes} bytes", times, which, spoil=lambda _, answer: _padded(answer, size_bytes)
        )

    def drop(
        self, times: int | None = None, *, when: Literal["arrival", "answer"] = "arrival", **which: Unpack[Which]
    ) -> Fault:
        """Break the connection with the request in flight.

        On ``"arrival"`` no model has run; with ``"answer"`` it has, but nobody hears of it. Other calls on the same
        connection break too.
        """
        if when not in ("arrival", "answer"):
            raise InvalidInput(f"a connection is dropped at 'arrival' or 'answer', found {when!r}")

        def drop(request: Request, _answer: bytes = b"") -> bytes:
            connection = self._line._connection_from(request.peer)
            if connection is not None:
                connection.cut()
            request.wait(_LONG_S)
            raise Refusal("the connection was dropped on purpose", "UNAVAILABLE")

        if when == "answer":
            return self._add("drop at the answer", times, which, spoil=drop)
        return self._add("drop on arrival", times, which, act=drop)

    def half_answer(
        self,
        times: int | None = None,
        *,
        ending: Literal["cut", "reset", "trailers", "silence"] = "cut",
        **which: Unpack[Which],
    ) -> Fault:
        """Answer with half of the bytes that were announced, then break off.

        ``"cut"`` breaks the connection, ``"reset"`` the HTTP/2 stream; ``"trailers"`` ends it as if all were well, and
        after ``"silence"`` nothing more comes.
        """
        endings = ("cut", "reset", "trailers", "silence")
        if ending not in endings:
            raise InvalidInput(f"expected one of the endings {', '.join(endings)}, found {ending!r}")

        def script(stream: int, answer: bytes) -> bytes:
            half = http2.message(answer[: len(answer) // 2], announced=len(answer))
            after = {"reset": http2.rst_stream(stream), "trailers": http2.headers(stream, http2.OK, end=True)}
            return http2.data(stream, half) + after.get(ending, b"")

        name = f"half an answer, then {ending}"
        return self._scripted(name, script, times, which, headers=True, cut=ending == "cut")

    def no_trailers(self, times: int | None = None, **which: Unpack[Which]) -> Fault:
        """Answer with the whole message, and end the stream without a status."""

        def script(stream: int, answer: bytes) -> bytes:
            return http2.data(stream, http2.message(answer), end=True)

        return self._scripted("no trailers", script, times, which, headers=True)

    def endless_headers(self, times: int | None = None, *, size_bytes: int = 16 << 20, **which: Unpack[Which]) -> Fault:
        """Answer with header fields of that size, which is more than any client should take."""
        field = "x-endless", "x" * 1000

        def script(stream: int, _: bytes) -> bytes:
            return http2.headers(stream, [*http2.RESPONSE, *[field] * (size_bytes // len(field[1]))])

        return self._scripted(f"{size_bytes} bytes of headers", script, times, which)

    def answer_frames(
        self, script: Callable[[int, bytes], bytes], times: int | None = None, **which: Unpack[Which]
    ) -> Fault:
        """Answer with HTTP/2 frames of one's own, instead of everything that the server would send.

        ``script`` gets the number of the stream and the message that would have been the answer, and returns frames;
        :mod:`naiad.client.testing.http2` builds them::

            fake.answer_frames(lambda stream, _: http2.headers(stream, [(":status", "503")], end=True))
        """
        return self._scripted("frames of one's own", script, times, which)

    def goaway(self, *, graceful: bool = True) -> None:
        """Send a GOAWAY on every open connection; see :meth:`Line.goaway`.

        Raises:
            InvalidInput: there is no connection, or they are all encrypted.
        """
        self._line.goaway(graceful=graceful)

    def draining(self, stage: Literal["waiting", "unloading"] = "unloading") -> Fault:
        """Behave as a Triton that got SIGTERM, as release 2.51 does; all is well when the fault ends.

        Requests in flight are answered, and it says that it is neither live nor ready ("Server exiting"). New
        inference is NOT_FOUND, "has no available versions", or UNAVAILABLE where a version was named. Before that, as
        long as the queue of a model is not empty (``"waiting"``), it is UNAVAILABLE: "Server is stopping".
        """
        if stage not in _DRAINING:
            raise InvalidInput(f"expected one of the stages {', '.join(_DRAINING)}, found {stage!r}")

        def act(request: Request) -> None:
            self._service.check_draining(request, stage)

        return self._faults.add(Fault(f"draining ({stage})", act=act, method=None))

    @property
    def line(self) -> Line:
        """The line to this server: its connections can be cut, stalled, throttled, refused and counted."""
        return self._line

    def heal(self) -> None:
        """End everything that goes wrong."""
        self._faults.clear()
        self._line.resume()

    def _add(
        self,
        name: str,
        times: int | None,
        which: Which,
        *,
        act: Act | None = None,
        spoil: Spoil | None = None,
        at_end: Callable[[], None] | None = None,
    ) -> Fault:
        unknown = set(which) - Which.__optional_keys__
        if unknown:
            raise InvalidInput(f"a fault takes times, every, method and model, found {', '.join(sorted(unknown))}")
        return self._faults.add(Fault(name, act=act, spoil=spoil, at_end=at_end, times=times, **which))

    def _scripted(
        self,
        name: str,
        script: Callable[[int, bytes], bytes],
        times: int | None,
        which: Which,
        *,
        headers: bool = False,
        cut: bool = False,
    ) -> Fault:
        if self._tls is not None:
            raise InvalidInput("frames can be replaced on a connection without TLS only")

        def spoil(_: Request, answer: bytes) -> bytes:
            def frames(stream: int, first: bool) -> bytes:
                head = http2.headers(stream, http2.RESPONSE) if headers and first else b""
                return head + script(stream, answer)

            return self._marks.add(frames, cut=cut)

        return self._add(name, times, which, spoil=spoil)

    def stop(self, grace_s: float | None = 5.0) -> None:
        """Refuse new connections, let requests in flight finish for ``grace_s``, then cancel them.

        Stopping twice does nothing.
        """
        self._line.stop_listening()
        server, self._server = self._server, None
        if server is not None:
            server.stop(grace_s)
        self._line.close()
        self._service.regions.unregister("")

    def kill(self) -> None:
        """Be gone at once, as a process that was killed: connections break, new ones are refused."""
        self._line.close()
        self.stop(None)

    def restart(self) -> None:
        """Kill it, if it runs, and start it on the same port with the same models.

        Sequences and registered shared memory are forgotten, as by any server that starts; the rest stays.
        """
        self.kill()
        self._repository.forget_sequences()
        self._server = FakeServer(self._service, self._faults, self._log)
        self._line.lead_to(self._server.start(self._tls))
        self._line.listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(None)

    def __repr__(self) -> str:
        state = "" if self._server is not None else ", stopped"
        return f"<FakeTriton at {self.grpc_address}{state}>"


def _padded(answer: bytes, size_bytes: int) -> bytes:
    """Return a message with an unknown field behind it that brings it to ``size_bytes``."""
    head = b"\xfa\x7f"  # field 2047, bytes
    fill = max(size_bytes - len(answer) - len(head) - 5, 0)
    length = bytes((fill >> 7 * step & 0x7F) | (0x80 if step < 4 else 0) for step in range(5))
    return answer + head + length + bytes(fill)
