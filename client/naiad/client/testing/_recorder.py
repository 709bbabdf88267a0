"""A server that passes everything on to another, and writes down what was asked and answered."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import grpc

from naiad.client._routing.endpoint import parse_endpoint
from naiad.client._transport.grpcio import _channel
from naiad.client._transport.seam import Connection
from naiad.client.options import TLS
from naiad.client.testing._listener import SERVICE, Listener, headers_of, time_left_s
from naiad.client.testing._matching import named
from naiad.client.testing._recording import Kind, Record, RecordingWriter
from naiad.client.testing._status import Refusal

if TYPE_CHECKING:
    from types import TracebackType

_OWN_HEADERS: Final = frozenset({"user-agent", "content-type", "te"})  # every connection has its own
_ELSEWHERE: Final = ("SystemSharedMemoryRegister", "CudaSharedMemoryRegister")


class Recorder:
    """Stands before a real Triton and writes every call to a file, which :class:`Replay` answers from later.

    ::

        with Recorder("grpc://triton.example:8001", "answers.naiad") as recorder, Client(recorder.url) as triton:
            triton.model("digits")(x=images)

    Deadlines, headers and cancellations are passed on. A file that is there is continued. Headers are never written,
    so neither the admin secret nor credentials are; tensors and parameters are. Shared memory is refused as something
    that the server does not offer: what is not on the wire cannot be recorded.

    Args:
        target: the server's address; a secret in it is not used, callers bring their own.
        path: the file.
        port: the port to listen on at 127.0.0.1; 0 for a free one.
        tls: certificates for the connection to the server, where the system's are not the right ones.

    Raises:
        InvalidInput: the address is none, or the file is no recording.
    """

    def __init__(self, target: str, path: str | os.PathLike[str], *, port: int = 0, tls: TLS | None = None) -> None:
        connection = Connection(endpoint=parse_endpoint(target), tls=tls)
        self.path: Path = Path(path)
        self._writer = RecordingWriter(self.path)
        self._channel = _channel(grpc, connection)
        self._listener = _Forwarder(self._channel, self._writer)
        self._address = self._listener.start(port=port)
        self._target = connection.endpoint.shown

    @property
    def grpc_address(self) -> str:
        """Host and port, as tritonclient takes them."""
        return self._address

    @property
    def url(self) -> str:
        """The address for :class:`naiad.client.Client`."""
        return f"grpc://{self._address}"

    @property
    def num_records(self) -> int:
        """How many calls were written so far."""
        return self._writer.num_records

    def close(self) -> None:
        """Let calls in flight finish for a moment, then stop. Closing twice does nothing."""
        self._listener.stop(1.0)
        self._channel.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Recorder {self._address} → {self._target}, {self.num_records} calls in {str(self.path)!r}>"


class _Forwarder(Listener):
    def __init__(self, channel: Any, writer: RecordingWriter) -> None:
        super().__init__()
        self._channel, self._writer = channel, writer

    def answer(self, method: str, data: bytes, context: Any) -> bytes:
        if method in _ELSEWHERE:
            raise Refusal("a recording needs the tensors on the wire", "UNIMPLEMENTED")
        call = self._channel.unary_unary(SERVICE + method).future(data, **_passed_on(context))
        context.add_callback(call.cancel)
        try:
            answer = call.result()
        except grpc.FutureCancelledError as exc:
            raise Refusal("the caller went away", "CANCELLED") from exc
        except grpc.RpcError as error:
            self._note(method, [("request", data)], error.code().name, error.details() or "")
            raise Refusal(error.details() or "", error.code().name) from error
        if answer is None:  # grpcio's word for a stream that ended well, but without a message
            raise Refusal("the server ended the call without an answer", "INTERNAL")
        self._note(method, [("request", data), ("response", answer)])
        return bytes(answer)

    def stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        noted: list[tuple[Kind, bytes]] = []
        lock = threading.Lock()

        def requests() -> Iterator[bytes]:
            for data in messages:
                with lock:
                    noted.append(("request", data))
                yield data

        call = self._channel.stream_stream(SERVICE + "ModelStreamInfer")(requests(), **_passed_on(context))
        context.add_callback(call.cancel)
        status, details = "CANCELLED", "the caller went away"
        try:
            for answer in call:
                with lock:
                    noted.append(("response", bytes(answer)))
                yield answer
            status, details = "OK", ""
        except grpc.RpcError as error:
            status, details = error.code().name, error.details() or ""
            raise Refusal(details, status) from error
        finally:
            with lock:
                self._note("ModelStreamInfer", noted, status, details)

    def _note(self, method: str, messages: list[tuple[Kind, bytes]], status: str = "OK", details: str = "") -> None:
        model, version = named(method, messages[0][1]) if messages else ("", "")
        self._writer.add(
            Record(
                method=method, model=model, version=version, status=status, details=details, messages=tuple(messages)
            )
        )


def _passed_on(context: Any) -> dict[str, Any]:
    headers = [
        (key, value)
        for key, value in headers_of(context).items()
        if key not in _OWN_HEADERS and not key.startswith((":", "grpc-"))
    ]
    return {"timeout": time_left_s(context), "metadata": headers}
