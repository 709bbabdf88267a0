"""A server that answers what was recorded."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from naiad.client.testing._listener import Listener
from naiad.client.testing._matching import differences, fingerprint, named, parsed, with_id
from naiad.client.testing._recording import Record, read_recording
from naiad.client.testing._status import Refusal

if TYPE_CHECKING:
    from types import TracebackType

_ALWAYS: Final = {"ServerLive": b"\x08\x01", "ServerReady": b"\x08\x01"}
_INFER: Final = ("ModelInfer", "ModelStreamInfer")


class Replay:
    """Answers from a file that :class:`Recorder` wrote, bit for bit, without any model.

    ::

        with Replay("answers.naiad") as replay, Client(replay.url) as triton:
            triton.model("digits")(x=images)

    A request is the same as a recorded one if all of it is but its id and its ``timeout`` parameter, whatever client
    sent it. Where the same request was recorded several times, the answers come in that order, and the last one from
    then on. Anything else is refused with FAILED_PRECONDITION (:class:`naiad.client.InvalidInput`), and the text
    names the nearest recorded request and how it differs. Liveness and readiness are answered in any case.

    Args:
        path: the file.
        port: the port to listen on at 127.0.0.1; 0 for a free one.

    Raises:
        InvalidInput: there is no such file, or it is no recording.
    """

    def __init__(self, path: str | os.PathLike[str], *, port: int = 0) -> None:
        self.path: Path = Path(path)
        self._player = _Player(list(read_recording(self.path)), self.path)
        self._address = self._player.start(port=port)

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
        """How many calls the file has."""
        return len(self._player.records)

    @property
    def num_unused(self) -> int:
        """How many of them were not answered with so far."""
        return self._player.num_unused()

    def close(self) -> None:
        """Stop. Closing twice does nothing."""
        self._player.stop(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Replay of {self.num_records} calls in {str(self.path)!r} at {self._address}>"


@dataclass(slots=True)
class _Answers:
    """The records of one request, in the order of the file."""

    records: list[Record] = field(default_factory=list)
    num_used: int = 0


class _Player(Listener):
    def __init__(self, records: list[Record], path: Path) -> None:
        super().__init__()
        self.records = records
        self._path = path
        self._answers: dict[tuple[str, bytes], _Answers] = {}
        self._lock = threading.Lock()
        for record in records:
            if record.requests:
                key = record.method, fingerprint(record.method, record.requests[0])
                self._answers.setdefault(key, _Answers()).records.append(record)

    def num_unused(self) -> int:
        return sum(max(len(answers.records) - answers.num_used, 0) for answers in self._answers.values())

    def answer(self, method: str, data: bytes, context: Any) -> bytes:
        record = self._find(method, data)
        if record is None:
            if method in _ALWAYS:
                return _ALWAYS[method]
            raise self._unknown(method, data)
        if record.status != "OK":
            raise Refusal(record.details, record.status)
        return with_id(method, record.messages[-1][1], data)

    def stream(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        method = "ModelStreamInfer"
        first = next(messages, None)
        if first is None:
            return
        record = self._find(method, first)
        if record is None:
            raise self._unknown(method, first)
        ids = {parsed(method, record.requests[0]).id: first}
        for number, (kind, data) in enumerate(record.messages):
            if kind == "response":
                yield with_id(method, data, ids.get(_response_id(data), first))
            elif number > 0:
                asked = next(messages, None)
                if asked is None:
                    return
                if fingerprint(method, asked) != fingerprint(method, data):
                    raise self._unknown(method, asked)
                ids[parsed(method, data).id] = asked
        if record.status != "OK":
            raise Refusal(record.details, record.status)
        for asked in messages:
            raise self._unknown(method, asked)

    def _find(self, method: str, data: bytes) -> Record | None:
        answers = self._answers.get((method, fingerprint(method, data)))
        if answers is None:
            return None
        with self._lock:
            number = min(answers.num_used, len(answers.records) - 1)
            answers.num_used += 1
        return answers.records[number]

    def _unknown(self, method: str, data: bytes) -> Refusal:
        model, version = named(method, data)
        of = f" of model '{model}'{' version ' + version if version else ''}" if model else ""
        same = [record for record in self.records if record.method == method and record.model == model]
        return Refusal(
            f"{self._path.name} has no {method}{of} like this one: {self._nearest(method, data, same)}; record it with "
            "naiad.client.testing.Recorder",
            "FAILED_PRECONDITION",
        )

    def _nearest(self, method: str, data: bytes, same: list[Record]) -> str:
        if not same:
            known = sorted({record.model for record in self.records if record.method == method and record.model})
            return f"it has none of that model, but of {', '.join(known)}" if known else "it has none at all"
        asked = parsed(method, data)
        if method not in _INFER or asked is None:
            return f"the {len(same)} that it has differ"
        found = (differences(asked, parsed(method, request)) for record in same for request in record.requests)
        nearest = min(found, key=len)
        return (
            f"the nearest of {len(same)} has {'; '.join(nearest)}"
            if nearest
            else "it comes at another place of a stream"
        )


def _response_id(data: bytes) -> str:
    from tritonclient.grpc import service_pb2

    return str(service_pb2.ModelStreamInferResponse.FromString(data).infer_response.id)
