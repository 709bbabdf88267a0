"""How much of what Locust measures is Locust: its process's CPU time, and how late its greenlets get to run."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import gevent

from naiad.loadtest.latencies import Latencies

__all__ = ["OwnShare"]

_logger = logging.getLogger("naiad.loadtest")
_NAP_S: Final = 0.02
_BUSY: Final = 0.7
_LATE_SHARE: Final = 0.1


class OwnShare:
    """Watches one process from a test's start to its end.

    A greenlet that sleeps wakes up late by as long as the others kept the processor. An answer that arrived meanwhile
    waited just as long, and Locust counts that as the server's.
    """

    def __init__(self) -> None:
        self._lags = Latencies()
        self._began_s, self._began_cpu_s = time.perf_counter(), time.process_time()
        self._watching = gevent.spawn(self._watch)

    def _watch(self) -> None:
        while True:
            due_ns = time.perf_counter_ns() + round(_NAP_S * 1e9)
            gevent.sleep(_NAP_S)
            self._lags.record_ns([max(1000, time.perf_counter_ns() - due_ns)])

    def finish(self) -> dict[str, Any]:
        """Stop watching; return ``cpu_share`` (of one core) and how late greenlets ran, in µs."""
        self._watching.kill(block=False)
        wall_s = time.perf_counter() - self._began_s
        return {
            "cpu_share": (time.process_time() - self._began_cpu_s) / wall_s if wall_s else 0.0,
            "lag_mean_us": self._lags.mean_us or 0.0,
            "lag_p99_us": self._lags.percentile_us(99) or 0.0,
        }


def tell(share: dict[str, Any], mean_ms: float) -> None:
    """Log what the load generator's own part was, as a warning where it was large."""
    cpu, lag_ms, tail_ms = share["cpu_share"], share["lag_mean_us"] / 1000, share["lag_p99_us"] / 1000
    text = f"the load generator itself used {cpu:.0%} of a core; answers waited {lag_ms:.2f} ms for it on average, "
    text += f"{tail_ms:.2f} ms at p99, of {mean_ms:.2f} ms measured"
    if cpu > _BUSY or lag_ms > mean_ms * _LATE_SHARE:
        _logger.warning("%s: it measured itself. TritonUser sends from a process of its own", text)
    else:
        _logger.info("%s", text)
