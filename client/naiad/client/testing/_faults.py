"""What goes wrong on purpose, and for which requests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from naiad.client.errors import InvalidInput
from naiad.client.testing._requests import Request, checked_method

if TYPE_CHECKING:
    from types import TracebackType

Act = Callable[[Request], "bytes | None"]
"""Does what is wrong: returns nothing to go on, bytes to answer with, or raises a refusal."""
Spoil = Callable[[Request, bytes], bytes]
"""Returns what is answered instead, or raises a refusal."""


def check_count(name: str, value: int | None) -> None:
    """Raise :class:`InvalidInput` unless ``value`` is ``None`` or a whole number above 0."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidInput(f"{name} is a whole number above 0, or None, found {value!r}")


class Trouble:
    """Something that goes wrong on purpose until it has happened ``times``, is ended, or its ``with`` block is left."""

    def __init__(self, name: str, at_end: Callable[[], None] | None = None, *, times: int | None = None) -> None:
        check_count("times", times)
        self.name = name
        self._at_end = at_end
        self._times = times
        self._num_struck = 0
        self._ended = False
        self._lock = threading.Lock()

    @property
    def num_struck(self) -> int:
        """How often it happened so far; what lasts is not counted."""
        return self._num_struck

    @property
    def active(self) -> bool:
        """Whether it may happen again, or lasts."""
        return not self._ended and (self._times is None or self._num_struck < self._times)

    def end(self) -> None:
        """Let everything be well again. Ending twice does nothing."""
        with self._lock:
            ended, self._ended = self._ended, True
        if not ended and self._at_end is not None:
            self._at_end()

    def strike(self) -> bool:
        """Count it as happening once more, unless it is over."""
        with self._lock:
            active = self.active
            self._num_struck += active
            return active

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def __repr__(self) -> str:
        often = "" if self._times is None else f", {self._times} time{'s' * (self._times > 1)}"
        struck = f", struck {self._num_struck}" if self._num_struck else ""
        return f"<{type(self).__name__} {self.name}{often}{struck}{'' if self.active else ', over'}>"


class Fault(Trouble):
    """Something that goes wrong with the requests that match.

    ``every=n`` strikes the n-th matching request and each n-th after it.
    """

    def __init__(
        self,
        name: str,
        *,
        act: Act | None = None,
        spoil: Spoil | None = None,
        at_end: Callable[[], None] | None = None,
        times: int | None = None,
        every: int | None = None,
        method: str | None = "ModelInfer",
        model: str | None = None,
    ) -> None:
        super().__init__(name, at_end, times=times)
        check_count("every", every)
        self.acts_at = "arrival" if act is not None else "answer"
        self._act, self._spoil = act, spoil
        self._every = every
        self._method, self._model = checked_method(method), model
        self._num_matched = 0

    def strikes(self, request: Request) -> bool:
        """Whether this request is one that it strikes, counted as one if it is."""
        if self._method not in (None, request.method) or self._model not in (None, request.model) or not self.active:
            return False
        with self._lock:
            self._num_matched += 1
            if self._every is not None and self._num_matched % self._every:
                return False
        return self.strike()

    def act(self, request: Request) -> bytes | None:
        """Do it when a request has arrived."""
        assert self._act is not None
        return self._act(request)

    def spoil(self, request: Request, answer: bytes) -> bytes:
        """Do it to the answer."""
        assert self._spoil is not None
        return self._spoil(request, answer)

    def __repr__(self) -> str:
        where = f" at {self._method or 'any method'}{f' of {self._model}' if self._model else ''}"
        every = f", every={self._every}" if self._every else ""
        return super().__repr__().replace(self.name, self.name + where + every, 1)


class Faults:
    """The faults of a server, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Add one, and return it."""
        with self._lock:
            self._faults = [known for known in self._faults if known.active] + [fault]
        return fault

    def meet(self, request: Request) -> bytes | None:
        """Let a request meet the faults: the first that answers or refuses ends it."""
        for fault in self._faults:
            if fault.acts_at == "arrival" and fault.strikes(request):
                answer = fault.act(request)
                if answer is not None:
                    return answer
        return None

    def spoil(self, request: Request, answer: bytes) -> bytes:
        """Let an answer meet them: the first that strikes spoils it."""
        for fault in self._faults:
            if fault.acts_at == "answer" and fault.strikes(request):
                return fault.spoil(request, answer)
        return answer

    def clear(self) -> None:
        """End all of them."""
        with self._lock:
            for fault in self._faults:
                fault.end()
            self._faults = []
