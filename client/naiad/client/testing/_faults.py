"""What goes wrong on purpose, and for which requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from naiad.client.errors import InvalidInput
from naiad.client.testing._requests import Request, checked_method

if TYPE_CHECKING:
    from types import TracebackType

Act = Callable[[Request], "bytes | None"]
"""Does what is wrong: returns nothing to go on, bytes to answer with, or raises a refusal."""


class Fault:
    """Something that goes wrong with the requests that match, until it has struck ``times``, or is ended.

    As a context manager it ends with the block. ``every=n`` strikes the n-th matching request and each n-th after it.
    """

    def __init__(
        self,
        name: str,
        act: Act,
        *,
        times: int | None = None,
        every: int | None = None,
        method: str | None = "ModelInfer",
        model: str | None = None,
    ) -> None:
        for label, value in (("times", times), ("every", every)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InvalidInput(f"{label} is a whole number above 0, or None, found {value!r}")
        self.name = name
        self._act = act
        self._times, self._every = times, every
        self._method, self._model = checked_method(method), model
        self._num_matched = self._num_struck = 0
        self._ended = False
        self._lock = threading.Lock()

    @property
    def num_struck(self) -> int:
        """How often it struck so far."""
        return self._num_struck

    @property
    def active(self) -> bool:
        """Whether it may strike again."""
        return not self._ended and (self._times is None or self._num_struck < self._times)

    def end(self) -> None:
        """Strike no more. Ending twice does nothing."""
        self._ended = True

    def strikes(self, request: Request) -> bool:
        """Whether this request is one that it strikes, counted as one if it is."""
        if self._method not in (None, request.method) or self._model not in (None, request.model):
            return False
        with self._lock:
            if not self.active:
                return False
            self._num_matched += 1
            if self._every is not None and self._num_matched % self._every:
                return False
            self._num_struck += 1
            return True

    def act(self, request: Request) -> bytes | None:
        """Do it."""
        return self._act(request)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        where = f"{self._method or 'any method'}{f' of {self._model}' if self._model else ''}"
        often = "always" if self._times is None else f"{self._times} time{'s' * (self._times > 1)}"
        every = f", every {self._every}th" if self._every else ""
        state = "" if self.active else ", over"
        return f"<Fault {self.name} at {where}, {often}{every}, struck {self._num_struck}{state}>"


class Faults:
    """The faults of a server, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, name: str, act: Act, **which: Any) -> Fault:
        """Add one; ``which`` are the keywords of :class:`Fault`."""
        fault = Fault(name, act, **which)
        with self._lock:
            self._faults = [known for known in self._faults if known.active] + [fault]
        return fault

    def meet(self, request: Request) -> bytes | None:
        """Let a request meet the faults: the first that answers or refuses ends it."""
        for fault in self._faults:
            if fault.strikes(request):
                answer = fault.act(request)
                if answer is not None:
                    return answer
        return None

    def clear(self) -> None:
        """End all of them."""
        with self._lock:
            for fault in self._faults:
                fault.end()
            self._faults = []
