"""A Triton made of Python functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from naiad.client import Client
from naiad.client.errors import InvalidInput
from naiad.client.testing._faults import Fault, Faults
from naiad.client.testing._models import FakeModel, Function
from naiad.client.testing._repository import Repository
from naiad.client.testing._requests import Request, RequestLog, checked_method
from naiad.client.testing._server import GrpcServer
from naiad.client.testing._service import Service
from naiad.client.testing._status import Refusal, checked_status

if TYPE_CHECKING:
    from types import TracebackType

_DRAINING: Final = ("waiting", "unloading")


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
        keep_requests: how many of the latest requests are kept.

    Raises:
        InvalidInput: an argument is wrong.
    """

    def __init__(
        self,
        models: Mapping[str, FakeModel | Function] | None = None,
        *,
        port: int = 0,
        admin_secret: str | None = None,
        keep_requests: int = 10_000,
    ) -> None:
        self._faults = Faults()
        self._log = RequestLog(keep_requests)
        self._repository = Repository(models or {})
        self._service = Service(self._repository, admin_secret)
        self.admin_secret = admin_secret
        self._server: GrpcServer | None = None
        self._port = port
        self.restart()

    # Where it is.

    @property
    def url(self) -> str:
        """The address for :class:`naiad.client.Client`, without the admin secret."""
        return f"grpc://{self.grpc_address}"

    @property
    def grpc_url(self) -> str:
        """The same as ``url``."""
        return self.url

    @property
    def grpc_address(self) -> str:
        """Host and port, as tritonclient takes them."""
        return f"127.0.0.1:{self._port}"

    @property
    def admin_url(self) -> str:
        """The address with the admin secret."""
        return f"grpc://:{self.admin_secret}@{self.grpc_address}" if self.admin_secret else self.url

    def client(self, **options: Any) -> Client:
        """Return a client of it that may do everything; ``options`` are those of :class:`naiad.client.Client`."""
        return Client(self.url, admin_secret=self.admin_secret, **options)

    # What it serves.

    def serve(self, name: str, model: FakeModel | Function) -> None:
        """Add a model, or replace the one of that name by another."""
        self._repository.put(name, model)

    def remove(self, name: str) -> None:
        """Remove a model as if it had never been there; without effect if there is none."""
        self._repository.discard(name)

    # What it was asked.

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

    # What goes wrong.

    def fail(
        self, times: int | None = None, *, status: str = "UNAVAILABLE", details: str = "failed on purpose", **which: Any
    ) -> Fault:
        """Answer with an error, the next ``times`` or until the fault is ended.

        All faults take ``times``, ``every`` (only each n-th matching request), ``method`` ("ModelInfer"; ``None`` for
        any) and ``model`` (any). They strike in the order in which they were made, and end with a ``with`` block, with
        :meth:`Fault.end` or with :meth:`heal`.
        """
        refusal = checked_status(status), details

        def act(_: Request) -> None:
            raise Refusal(refusal[1], refusal[0])

        return self._faults.add(f"fail {status}", act, times=times, **which)

    def delay(self, seconds: float, times: int | None = None, **which: Any) -> Fault:
        """Answer later, or not at all if the caller goes away before."""
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < 1e6:
            raise InvalidInput(f"a delay is a number of seconds, 0 or more, found {seconds!r}")

        def act(request: Request) -> None:
            if request.wait(seconds):
                raise Refusal("the caller went away", "CANCELLED")

        return self._faults.add(f"delay {seconds:g} s", act, times=times, **which)

    def hang(self, times: int | None = None, **which: Any) -> Fault:
        """Never answer; what waits is let go when the caller goes away, or the server stops."""

        def act(request: Request) -> None:
            request.wait(None)
            raise Refusal("the caller went away", "CANCELLED")

        return self._faults.add("hang", act, times=times, **which)

    def answer_bytes(self, message: bytes, times: int | None = None, **which: Any) -> Fault:
        """Answer with these bytes instead of a protobuf message."""
        return self._faults.add(f"answer {len(message)} bytes", lambda _: message, times=times, **which)

    def draining(self, stage: str = "waiting") -> Fault:
        """Behave as a Triton that got SIGTERM, as seen in release 2.51; healthy again when the fault ends.

        ``"waiting"`` for requests in flight: new ones are UNAVAILABLE ("Server is stopping"), and so are liveness and
        readiness ("Server exiting"). ``"unloading"``, after that: inference is NOT_FOUND, "no available versions".
        """
        if stage not in _DRAINING:
            raise InvalidInput(f"expected one of the stages {', '.join(_DRAINING)}, found {stage!r}")

        def act(request: Request) -> None:
            self._service.check_draining(request, stage)

        return self._faults.add(f"draining ({stage})", act, method=None)

    def heal(self) -> None:
        """End every fault."""
        self._faults.clear()

    # Its life.

    def stop(self, grace_s: float | None = 5.0) -> None:
        """Refuse new connections, let requests in flight finish for ``grace_s``, then cancel them.

        Stopping twice does nothing.
        """
        server, self._server = self._server, None
        if server is not None:
            server.stop(grace_s)

    def kill(self) -> None:
        """Be gone at once, as a process that was killed."""
        self.stop(None)

    def restart(self) -> None:
        """Stop, if it runs, and start on the same port, with the same models; sequences and statistics stay."""
        self.stop(None)
        self._server = GrpcServer(self._service, self._faults, self._log)
        self._port = self._server.start(self._port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(None)

    def __repr__(self) -> str:
        state = "" if self._server is not None else ", stopped"
        return f"<FakeTriton at {self.grpc_address}{state}>"
