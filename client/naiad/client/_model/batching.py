"""Which callers' requests travel together, and in what order: shared by both kinds of batching. Nothing here waits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from naiad.client._protocol.codec import Codec
from naiad.client._protocol.contract import Contract
from naiad.client._protocol.request import InferKeywords, Inputs, check_on_host, encode_options, options_of
from naiad.client._protocol.rows import Arrays, arrays_of, check_arrays
from naiad.client.errors import ClientClosed, ClientError, DeadlineExceeded, InferenceFailed, InvalidInput, Overloaded
from naiad.client.result import Result, Timing

_MAX_KEPT = 256  # shapes that are known to be right; dynamic ones could make more without end
_AT_LEAST_S = 1e-3  # a request whose time is over fails by itself


class Lane:
    """Requests that may be joined: of the same options, inputs, data types and shapes but for their rows."""

    __slots__ = ("keywords", "max_rows", "num_rows", "waiting")

    def __init__(self, max_rows: int, keywords: InferKeywords) -> None:
        self.max_rows = max_rows
        self.keywords = keywords
        self.waiting: OrderedDict[Any, None] = OrderedDict()  # in the order of their arrival, any of them may leave
        self.num_rows = 0

    @property
    def since(self) -> float:
        """When the first of those that wait came."""
        first: Request = next(iter(self.waiting))
        return first.since


class Kind(NamedTuple):
    """What follows from a request's options and the types and shapes of its inputs."""

    lane: Lane
    num_rows: int


class Request:
    """What one caller wants; ``open`` until it has its answer or leaves."""

    __slots__ = ("arrays", "batch", "deadline", "lane", "num_rows", "open", "since", "timeout_s")

    def __init__(self, kind: Kind, arrays: Arrays, now: float, timeout_s: float) -> None:
        self.lane, self.num_rows = kind
        self.arrays = arrays
        self.since = now
        self.timeout_s = timeout_s
        self.deadline = now + timeout_s
        self.batch: Batch[Any] | None = None
        self.open = True

    def timed(self, answer: Result, now: float) -> Result:
        """Let an answer's timing say what this caller saw: the time it waited for others too."""
        timing, total_s = answer.timing, now - self.since
        waiting_s = max(total_s - timing.encode_s - timing.rpc_s - timing.decode_s, 0.0)
        answer.timing = Timing(total_s, timing.encode_s, waiting_s, *timing[3:])
        return answer


R = TypeVar("R", bound=Request)


class Batch(Generic[R]):
    """Requests that are sent as one; ``call`` is what its sender needs to cancel it."""

    __slots__ = ("call", "keywords", "num_open", "requests")

    def __init__(self, keywords: InferKeywords, requests: list[R]) -> None:
        self.keywords = keywords
        self.requests = requests
        self.num_open = len(requests)
        self.call: Any = None
        for request in requests:
            request.batch = self

    def still_open(self) -> list[R]:
        """Those whose callers still wait."""
        return [request for request in self.requests if request.open]

    def end(self) -> None:
        """Let go of everything: whatever still knows this batch, as frames of errors do, keeps no memory of callers."""
        for request in self.requests:
            request.batch = None
            request.arrays = {}
        self.requests.clear()
        self.call = None


class Queue(Generic[R]):
    """The requests that wait to be sent, first come, first served. One thread at a time, but for :meth:`kind_of`."""

    def __init__(self, model: str, *, max_rows: int | None, max_wait_s: float, max_waiting: int) -> None:
        if max_rows is not None and max_rows < 1:
            raise InvalidInput(f"max_rows is 1 or more, found {max_rows}")
        if not max_wait_s >= 0:
            raise InvalidInput(f"max_wait_s is 0 or more, found {max_wait_s}")
        if max_waiting < 1:
            raise InvalidInput(f"max_waiting is 1 or more, found {max_waiting}")
        self._model = model
        self._max_rows, self._max_wait_s, self._max_waiting = max_rows, max_wait_s, max_waiting
        self._kinds: dict[tuple[Any, ...], Kind] = {}
        self._lanes: dict[tuple[Any, ...], Lane] = {}
        self._occupied: dict[Lane, None] = {}
        self.closed = False
        self.num_waiting = self.num_requests = self.num_rows = self.num_batches = 0

    def kind_of(self, codec: Codec, inputs: Inputs, keywords: InferKeywords) -> tuple[Kind, Arrays]:
        """Return with whom a request may travel, and its inputs as arrays.

        Raises:
            InvalidInput: the model does not take it.
        """
        arrays = arrays_of(inputs, codec, keywords)
        options = encode_options(options_of(keywords), codec.contract) if keywords else b""
        signature = (codec, options, *[(name, array.dtype, array.shape) for name, array in arrays.items()])
        kind = self._kinds.get(signature)
        if kind is None:
            kind = self._learn(codec.contract, arrays, options, keywords)
            self._kinds[signature] = kind
        return kind, arrays

    def add(self, request: R) -> None:
        """Let a request wait.

        Raises:
            Overloaded: too many wait already.
            ClientClosed: nothing is accepted any more.
        """
        if self.closed:
            raise ClientClosed(f"this batching of model '{self._model}' is closed: make a new one", model=self._model)
        if self.num_waiting >= self._max_waiting:
            raise Overloaded(
                f"{self.num_waiting} requests to model '{self._model}' wait in this process to be sent, as many as "
                "max_waiting allows: send less, or allow more",
                model=self._model,
                unprocessed=True,
            )
        lane = request.lane
        if not lane.waiting:
            self._occupied[lane] = None
        lane.waiting[request] = None
        lane.num_rows += request.num_rows
        self.num_waiting += 1

    def leave(self, request: R) -> Batch[R] | None:
        """Forget a request whose caller waits no longer; return its batch if that was the last one who did."""
        request.open = False
        batch = request.batch
        if batch is None:
            self._remove(request)
            return None
        batch.num_open -= 1
        return None if batch.num_open else batch

    def due_at(self) -> float | None:
        """Return when a batch is to be sent (the past means now), ``None`` if nobody waits."""
        return min(map(self._due_at, self._occupied), default=None)

    def next(self, now: float) -> list[R]:
        """Return who goes next: the one that waits longest, and as many of its lane as fit, in their order."""
        due = [lane for lane in self._occupied if self._due_at(lane) <= now]
        if not due:
            return []
        lane = due[0] if len(due) == 1 else min(due, key=lambda lane: lane.since)
        if lane.num_rows <= lane.max_rows:
            return list(lane.waiting)
        chosen, num_rows = list[R](), 0
        for request in lane.waiting:
            num_rows += request.num_rows
            if num_rows > lane.max_rows and chosen:  # one with more rows than max_rows goes by itself
                break
            chosen.append(request)
        return chosen

    def take(self, now: float) -> Batch[R] | None:
        """Make a batch of those who go next, ``None`` if it is too early or nobody waits."""
        requests = self.next(now)
        if not requests:
            return None
        for request in requests:
            self._remove(request)
        self.num_batches += 1
        self.num_requests += len(requests)
        self.num_rows += sum([request.num_rows for request in requests])
        return Batch(requests[0].lane.keywords, requests)

    def clear(self) -> None:
        """Forget all who wait."""
        for lane in self._occupied:
            lane.waiting.clear()
            lane.num_rows = 0
        self._occupied.clear()
        self.num_waiting = 0

    def __iter__(self) -> Iterator[R]:
        """All who wait."""
        for lane in self._occupied:
            yield from lane.waiting

    def _due_at(self, lane: Lane) -> float:
        if self.closed or lane.num_rows >= lane.max_rows:
            return 0.0
        return lane.since + self._max_wait_s

    def _remove(self, request: R) -> None:
        lane = request.lane
        del lane.waiting[request]
        lane.num_rows -= request.num_rows
        self.num_waiting -= 1
        if not lane.waiting:
            del self._occupied[lane]

    def _learn(self, contract: Contract, arrays: Arrays, options: bytes, keywords: InferKeywords) -> Kind:
        self._check_joinable(contract, keywords)
        check_arrays(arrays, contract)
        contract.check_inputs(arrays)
        if len(self._kinds) >= _MAX_KEPT:
            self._kinds.clear()
            self._lanes.clear()
        max_rows = min(self._max_rows or contract.max_batch_size, contract.max_batch_size)
        tensors = sorted((name, _shown(array.dtype), array.shape[1:]) for name, array in arrays.items())
        lane = self._lanes.setdefault((max_rows, options, *tensors), Lane(max_rows, keywords))
        return Kind(lane, next(iter(arrays.values())).shape[0])

    def _check_joinable(self, contract: Contract, keywords: InferKeywords) -> None:
        if not contract.max_batch_size:
            raise InvalidInput(
                f"model '{self._model}' has no batch dimension (max_batch_size is 0), so that the requests of several "
                "callers cannot be joined: call the model itself",
                model=self._model,
            )
        if keywords.get("sequence_id"):
            raise InvalidInput(
                f"requests of a sequence cannot be joined with others, found sequence_id={keywords['sequence_id']!r}: "
                "call the model itself",
                model=self._model,
            )
        check_on_host(options_of(keywords))
        if keywords.get("out") is not None:
            raise InvalidInput(
                "out cannot receive what comes in one message with the answers of others: leave it out, or call the "
                "model itself",
                model=self._model,
            )


def _shown(dtype: np.dtype[Any]) -> str:
    """Return what must be equal for arrays to be joined unchanged: of strings, not the length of the longest."""
    return dtype.kind if dtype.kind in "SU" else repr(dtype)


def remaining_s(requests: list[R], now: float) -> float:
    """Return how long a request for all of them may take: as long as the most patient one waits."""
    return max(max([request.deadline for request in requests]) - now, _AT_LEAST_S)


def expired(request: Request, model: str, endpoint: str) -> DeadlineExceeded:
    """Return the error of a caller whose deadline passed."""
    where = "waited to be sent with others" if request.batch is None else "was sent with others"
    return DeadlineExceeded(
        f"model '{model}' gave no answer within {request.timeout_s:g} s (the request {where}): the server is slower "
        "than the deadline allows, or has more callers than it can serve",
        model=model,
        endpoint=endpoint,
    )


def may_be_one_of_them(error: Exception, *, idempotent: bool) -> bool:
    """Whether one request may have spoilt the batch, so that each is worth sending again by itself.

    What the server refused it has not run; what broke while it ran is run again only where that does no harm.
    """
    return isinstance(error, InvalidInput) or (idempotent and isinstance(error, InferenceFailed))


def own(error: BaseException) -> BaseException:
    """Return a copy of an error that several callers get: what one does with its own, the others do not see."""
    if not isinstance(error, ClientError):
        return error
    rebuild, arguments = error.__reduce__()[:2]
    copied = rebuild(*arguments)
    assert isinstance(copied, BaseException)
    copied.__cause__ = error
    if hasattr(error, "__notes__"):
        copied.__notes__ = [*error.__notes__]
    return copied
