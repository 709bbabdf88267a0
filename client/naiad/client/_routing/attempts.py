"""What to do after a failed attempt: decided here, for the sync and the async client alike."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

from naiad.client._protocol.operations import Operation
from naiad.client.errors import CallContext, ClientError
from naiad.client.options import NOT_GIVEN, NotGiven, Retry, Timeout, check_timeout


@dataclass(slots=True)
class Attempts:
    """The attempts of one call under one deadline."""

    operation: Operation[Any]
    endpoint: str
    timeout_s: float
    retry: Retry
    deadline: float
    num_attempts: int = 0

    @classmethod
    def begin(
        cls, operation: Operation[Any], endpoint: str, timeout_s: float | NotGiven, timeout: Timeout, retry: Retry
    ) -> Attempts:
        """Start the clock of a call."""
        limit_s = _limit(operation, timeout_s, timeout)
        return cls(operation, endpoint, limit_s, retry, time.monotonic() + limit_s)

    def remaining_s(self) -> float:
        """Count an attempt and return the time it has."""
        self.num_attempts += 1
        return max(self.deadline - time.monotonic(), 0.0)

    def pause_s(self, error: ClientError) -> float:
        """Return how long to wait before the next attempt.

        Raises:
            ClientError: ``error`` itself, if there is to be no other attempt.
        """
        if not (error.retryable and self.operation.repeatable) or self.num_attempts >= self.retry.attempts:
            raise error
        bound_s = min(self.retry.max_pause_s, self.retry.first_pause_s * 2 ** (self.num_attempts - 1))
        pause_s = random.uniform(0, bound_s)  # noqa: S311  (spreads the load, protects nothing)
        if time.monotonic() + pause_s >= self.deadline:
            raise error
        return pause_s

    def context(self) -> CallContext:
        """Return what an error should say about this call."""
        op = self.operation
        return CallContext(
            endpoint=self.endpoint,
            method=op.method,
            model=op.model,
            version=op.version,
            request_id=op.request_id,
            timeout_s=self.timeout_s,
        )


def _limit(operation: Operation[Any], timeout_s: float | NotGiven, timeout: Timeout) -> float:
    if timeout_s is NOT_GIVEN:
        return timeout.load_s if operation.loads else timeout.total_s
    assert not isinstance(timeout_s, NotGiven)
    return check_timeout(timeout_s)
