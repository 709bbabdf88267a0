"""The queue before a model's instances."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from naiad.client.testing._requests import Request
from naiad.client.testing._status import Refusal, invalid

_LOOK_S = 0.05  # how often a waiting request looks whether its caller is still there


class Queue:
    """Lets as many requests run at a time as there are instances, the first come first.

    ``policy`` is the ``ModelQueuePolicy`` of the model's configuration: how many may wait, and for how long.
    """

    def __init__(self, num_instances: int | None, policy: Any) -> None:
        self._num_free = num_instances
        self._policy = policy
        self._waiting: list[Request] = []
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, request: Request) -> Iterator[int]:
        """Wait for an instance and give the nanoseconds that took; the instance is free again after the block.

        Raises:
            Refusal: the queue is full, the request waited too long, or nobody waits for its answer any more.
        """
        if self._num_free is None:
            yield 0
            return
        began = time.monotonic()
        with self._changed:
            if self._num_free and not self._waiting:
                self._num_free -= 1
            else:
                self._wait(request, began)
        try:
            yield int((time.monotonic() - began) * 1e9)
        finally:
            with self._changed:
                self._num_free += 1
                self._changed.notify_all()

    def _wait(self, request: Request, began: float) -> None:
        assert self._num_free is not None
        if 0 < self._policy.max_queue_size <= len(self._waiting):
            raise Refusal(invalid("Exceeds maximum queue size", request.request_id).message, "UNAVAILABLE")
        limit_s = self._limit_s(request)
        self._waiting.append(request)
        try:
            while self._waiting[0] is not request or not self._num_free:
                if request.ended.is_set():
                    raise Refusal("the caller went away", "CANCELLED")
                if limit_s is not None and time.monotonic() > began + limit_s:
                    raise Refusal("Request timeout expired", "UNAVAILABLE")
                self._changed.wait(_LOOK_S)
            self._num_free -= 1
        finally:
            self._waiting.remove(request)
            self._changed.notify_all()

    def _limit_s(self, request: Request) -> float | None:
        limit_us = self._policy.default_timeout_microseconds
        own_us = request.parameters.get("timeout", 0)
        if self._policy.allow_timeout_override and own_us and own_us < (limit_us or own_us + 1):
            limit_us = own_us
        return limit_us / 1e6 if limit_us else None
