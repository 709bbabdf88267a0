"""The gRPC side of the fake: a request is noted, meets the faults, and is answered by the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from naiad.client.testing._listener import Listener, headers_of, time_left_s
from naiad.client.testing._requests import Request, RequestLog
from naiad.client.testing._service import Service, request_types
from naiad.client.testing._status import Refusal
from naiad.client.testing._streaming import StreamAnswers

if TYPE_CHECKING:
    from naiad.client.testing._faults import Faults


class FakeServer(Listener):
    """Serves a :class:`Service` until it is stopped."""

    def __init__(self, service: Service, faults: Faults, log: RequestLog) -> None:
        super().__init__()
        self._service, self._faults, self._log = service, faults, log
        self._types = request_types()

    def answer(self, method: str, data: bytes, context: Any) -> bytes:
        """Answer one request."""
        request = self._arrived(method, data, context)
        try:
            answer = self._faults.meet(request)
            if answer is None:
                answer = bytes(self._service.answer(request).SerializeToString())
                answer = self._faults.spoil(request, answer)
        except Refusal as refusal:
            request.answered(refusal.status)
            raise
        request.answered("OK")
        return answer

    def stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Answer the requests of a stream."""

        def arrived(data: bytes) -> Request:
            return self._arrived("ModelStreamInfer", data, context)

        raises = headers_of(context).get("triton_grpc_error") == "true"
        answers = StreamAnswers(self._service, self._faults, arrived, raises=raises)
        context.add_callback(answers.end)
        yield from answers.of(messages, self.threads)

    def _arrived(self, method: str, data: bytes, context: Any) -> Request:
        try:
            message = self._types[method].FromString(data)
        except DecodeError as exc:
            raise Refusal("Unable to parse request", "INTERNAL") from exc
        request = Request(method, message, headers_of(context), time_left_s(context), context.peer())
        if not context.add_callback(request.call_ended):
            request.call_ended()
        self._log.add(request)
        return request
