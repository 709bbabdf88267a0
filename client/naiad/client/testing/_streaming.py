"""ModelStreamInfer: requests as they come, answers as they are ready."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final

from naiad.client.testing._requests import Request
from naiad.client.testing._status import Refusal

if TYPE_CHECKING:
    from naiad.client.testing._faults import Faults
    from naiad.client.testing._inference import Inference
    from naiad.client.testing._service import Service

_FINAL: Final = "triton_final_response"
_WANTS_EMPTY_FINAL: Final = "triton_enable_empty_final_response"
_QUEUED: Final = 64
_LOOK_S: Final = 0.1


class StreamAnswers:
    """The answers of one stream. Decoupled requests are answered side by side, others in the order they came in.

    With ``raises``, an error ends the stream with its status; otherwise it is an answer like others.
    """

    def __init__(self, service: Service, faults: Faults, arrived: Callable[[bytes], Request], *, raises: bool) -> None:
        self._service, self._faults, self._arrived, self._raises = service, faults, arrived, raises
        # Bounded, so that an endless model waits for a slow reader. None ends the stream.
        self._answers: queue.Queue[bytes | Refusal | None] = queue.Queue(_QUEUED)
        self._ended = threading.Event()
        self._num_working = 1
        self._lock = threading.Lock()

    def end(self) -> None:
        """Let go of those who wait: nobody reads any more."""
        self._ended.set()

    def of(self, messages: Iterator[bytes], threads: Executor) -> Iterator[bytes]:
        """Read requests in a thread of ``threads`` and give the answers.

        Raises:
            Refusal: the stream ends with this status.
        """
        threads.submit(self._read, messages, threads)
        while not self._ended.is_set():
            try:
                answer = self._answers.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if answer is None:
                return
            if isinstance(answer, Refusal):
                raise answer
            yield answer

    def _read(self, messages: Iterator[bytes], threads: Executor) -> None:
        try:
            for data in messages:
                self._take(data, threads)
        except Refusal as refusal:
            self._give(refusal)
        except Exception:  # noqa: BLE001, S110  (grpcio's word for a call that is over)
            pass
        finally:
            self._done()

    def _take(self, data: bytes, threads: Executor) -> None:
        request = self._arrived(data)
        try:
            raw = self._faults.meet(request)
        except Refusal as refusal:
            request.answered(refusal.status)
            raise
        if raw is not None:
            request.answered("OK")
            self._give(raw)
            return
        try:
            inference = self._service.infer(request)
        except Refusal as refusal:
            self._refuse(request, refusal)
            return
        if not inference.served.model.decoupled:
            self._run(request, inference)
            return
        with self._lock:
            self._num_working += 1
        threads.submit(self._run_beside, request, inference)

    def _run_beside(self, request: Request, inference: Inference) -> None:
        try:
            self._run(request, inference)
        finally:
            self._done()

    def _run(self, request: Request, inference: Inference) -> None:
        decoupled = inference.served.model.decoupled
        try:
            for response in inference.run():
                response.parameters[_FINAL].bool_param = not decoupled
                self._give(self._faults.spoil(request, _answer(response)))
                if self._ended.is_set():
                    return
        except Refusal as refusal:
            self._refuse(request, refusal, inference.name if inference.accepted else None)
            return
        request.answered("OK")
        if decoupled and request.parameters.get(_WANTS_EMPTY_FINAL):
            self._give(_answer(_last(request, inference.name)))

    def _refuse(self, request: Request, refusal: Refusal, model: str | None = None) -> None:
        request.answered(refusal.status)
        if self._raises:
            self._give(refusal)
            return
        self._give(_answer(_last(request, model), refusal.message))

    def _give(self, answer: bytes | Refusal | None) -> None:
        while not self._ended.is_set():
            try:
                self._answers.put(answer, timeout=_LOOK_S)
            except queue.Full:
                continue
            return

    def _done(self) -> None:
        with self._lock:
            self._num_working -= 1
            last = self._num_working == 0
        if last:
            self._give(None)


def _answer(response: Any, error_message: str = "") -> bytes:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelStreamInferResponse(error_message=error_message, infer_response=response)
    return bytes(message.SerializeToString())


def _last(request: Request, model: str | None) -> Any:
    """Build what an error and the end of a decoupled request come with."""
    from tritonclient.grpc import service_pb2

    response = service_pb2.ModelInferResponse(id=request.request_id)
    if model is not None:
        response.model_name = model
        response.parameters[_FINAL].bool_param = True
    return response
