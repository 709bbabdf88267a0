"""What watches a client: observers see each call, each attempt and how both ended, and may add headers.

:mod:`naiad.client.telemetry` has one for OpenTelemetry and one for Prometheus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from naiad.client.errors import ClientError
from naiad.client.result import Timing


@dataclass(frozen=True, kw_only=True, slots=True)
class CallInfo:
    """A call as it begins: ``method`` is the name in ``inference.GRPCInferenceService``."""

    method: str
    model: str | None
    version: str | None
    request_id: str | None
    request_bytes: int
    timeout_s: float


class Observation(Protocol):
    """What an observer keeps about one call; used by one thread or task at a time."""

    def attempt(self, endpoint: str, number: int) -> Mapping[str, str]:
        """Attempt ``number`` (from 1) leaves for ``endpoint``; return headers to send with it."""
        ...

    def attempt_failed(self, error: ClientError) -> None:
        """The attempt ended with ``error``; another may follow."""
        ...

    def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
        """The call ended; ``error`` is what its caller gets, ``None`` for an answer."""
        ...


class Observer(Protocol):
    """Sees every call of a client; called from the thread that calls, so it should be quick and must not raise."""

    def call(self, info: CallInfo) -> Observation:
        """Begin to observe a call."""
        ...


class Observations:
    """One call as all observers see it."""

    __slots__ = ("_all",)

    def __init__(self, observers: Sequence[Observer], info: CallInfo) -> None:
        self._all = [observer.call(info) for observer in observers]

    def attempt(self, endpoint: str, number: int) -> tuple[tuple[str, str], ...]:
        """Tell all; return the headers of all."""
        return tuple(item for one in self._all for item in one.attempt(endpoint, number).items())

    def attempt_failed(self, error: ClientError) -> None:
        """Tell all."""
        for one in self._all:
            one.attempt_failed(error)

    def done(self, timing: Timing, response_bytes: int, error: BaseException | None) -> None:
        """Tell all."""
        for one in self._all:
            one.done(timing, response_bytes, error)
