"""Callers that never pause, while versions change and servers die."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from threading import Event, Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from naiad.cli.demo.stage import Stage
    from naiad.client import Client
    from naiad.export import Version
    from naiad.server import EmbeddedTriton

__all__ = ["Traffic", "switch_versions"]

_CALLERS: Final = 4
_TIMEOUT_S: Final = 30.0
_STEADY: Final = 100


class Traffic:
    """Callers in threads, and what they were answered: how often by which version, and how often they were not."""

    def __init__(self, client: Client, model: str, inputs: Mapping[str, Any], *, callers: int = _CALLERS) -> None:
        self.answers: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self._model, self._inputs = client.model(model), inputs
        self._lock, self._stop = Lock(), Event()
        self._threads = [Thread(target=self._call, daemon=True) for _ in range(callers)]

    def _call(self) -> None:
        from naiad.client import ClientError

        while not self._stop.is_set():
            try:
                version = int(self._model.infer(self._inputs).model_version)
            except ClientError as exc:
                with self._lock:
                    self.errors[str(exc)] += 1
            else:
                with self._lock:
                    self.answers[version] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def sent(self) -> int:
        """Requests that were answered or failed."""
        return self.answers.total() + self.errors.total()

    def wait_for(self, version: int, more: int = _STEADY) -> None:
        """Return when ``version`` has answered ``more`` requests than now, or after half a minute."""
        wanted, deadline = self.answers[version] + more, time.monotonic() + _TIMEOUT_S
        while self.answers[version] < wanted and time.monotonic() < deadline:
            time.sleep(0.01)


def switch_versions(
    stage: Stage, triton: EmbeddedTriton, first: Version, second: Version, inputs: Mapping[str, Any]
) -> None:
    """Promote the second version of a model and roll back, while callers go on, and note what they met."""
    name = first.model
    with triton.client() as client, stage.step("promote the second version and roll back, under load") as done:
        with Traffic(client, name, inputs) as traffic:
            traffic.wait_for(first.number)
            stage.repository.promote(name, second.number)
            client.load(name)
            traffic.wait_for(second.number)
            stage.repository.rollback(name)
            client.load(name)
            traffic.wait_for(first.number)
        failed, sent = traffic.errors.total(), traffic.sent
        done(f"{sent:,} requests, {failed} failed")
    by_version = ", ".join(f"{count:,} by version {number}" for number, count in sorted(traffic.answers.items()))
    summary = stage.summary
    summary.row(
        "promote and roll back",
        f"{failed} of {sent:,} requests failed ({by_version})",
        switch_requests=sent,
        switch_failed=failed,
    )
    if failed:
        summary.failures.append(f"requests failed while versions changed: {traffic.errors.most_common(1)[0][0]}")
    summary.check(bool(traffic.answers[second.number]), f"version {second.number} never answered after it was promoted")
