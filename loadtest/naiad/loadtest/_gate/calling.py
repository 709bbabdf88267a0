"""Calls a model with whichever ``naiad.client`` is first on the path: a program of its own, started for every run.

Only the client's public interface is used, so that any release of it can be measured. The plan comes as JSON on
standard input, the result goes as JSON to standard output; nothing of the load test is imported.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any

import numpy as np

import naiad.client
from naiad.client import AsyncClient, Client


class Recording:
    """What the callers of one kind measured: latencies within the window, CPU time over it."""

    def __init__(self, settle_s: float, window_s: float) -> None:
        self.latencies_ns: list[int] = []
        self.errors: dict[str, int] = {}
        self.example = ""
        self.opens_ns = time.perf_counter_ns() + round(settle_s * 1e9)
        self.closes_ns = self.opens_ns + round(window_s * 1e9)
        self._cpu_s: list[float] = []

    def going(self) -> bool:
        """Whether another call is to be made."""
        return time.perf_counter_ns() < self.closes_ns

    def edges_s(self) -> Iterator[float]:
        """Yield how long to wait until the window opens, then until it closes; notes the CPU time after each."""
        for edge_ns in (self.opens_ns, self.closes_ns):
            yield max(0.0, (edge_ns - time.perf_counter_ns()) / 1e9)
            self._cpu_s.append(time.process_time())

    def call(self, began_ns: int) -> None:
        """Note a call that succeeded."""
        ended_ns = time.perf_counter_ns()
        if self.opens_ns <= ended_ns < self.closes_ns:
            self.latencies_ns.append(ended_ns - began_ns)

    def fail(self, error: Exception) -> None:
        """Note a call that failed."""
        name = type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + 1
        self.example = self.example or f"{name}: {error}"

    def result(self) -> dict[str, Any]:
        """Return the window's figures."""
        latencies_us = np.asarray(self.latencies_ns) / 1e3
        completed, window_s = len(self.latencies_ns), (self.closes_ns - self.opens_ns) / 1e9
        found: dict[str, Any] = {"completed": completed, "errors": self.errors, "example": self.example}
        if completed:
            p50, p90, p99 = np.percentile(latencies_us, (50, 90, 99)).tolist()
            cpu_us = (self._cpu_s[-1] - self._cpu_s[0]) / completed * 1e6
            found["values"] = {
                "p50": p50,
                "p90": p90,
                "p99": p99,
                "mean": float(latencies_us.mean()),
                "throughput": completed / window_s,
                "cpu": cpu_us,
            }
        return found


def call_sync(plan: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Call from as many threads as requests are to be in flight."""
    numbers = count()
    with Client(plan["url"]) as triton:
        model = triton.model(plan["model"], plan["version"])
        model.infer(samples[0])
        recording = Recording(plan["settle_s"], plan["window_s"])

        def caller() -> None:
            while recording.going():
                began_ns = time.perf_counter_ns()
                try:
                    model.infer(samples[next(numbers) % len(samples)])
                    recording.call(began_ns)
                except Exception as exc:  # noqa: BLE001  (counted, whatever it is)
                    recording.fail(exc)

        threads = [threading.Thread(target=caller) for _ in range(plan["in_flight"])]
        for thread in threads:
            thread.start()
        for wait_s in recording.edges_s():
            time.sleep(wait_s)
        for thread in threads:
            thread.join()
    return recording.result()


async def call_async(plan: dict[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Call from as many tasks as requests are to be in flight."""
    numbers = count()
    async with AsyncClient(plan["url"]) as triton:
        model = triton.model(plan["model"], plan["version"])
        await model.infer(samples[0])
        recording = Recording(plan["settle_s"], plan["window_s"])

        async def caller() -> None:
            while recording.going():
                began_ns = time.perf_counter_ns()
                try:
                    await model.infer(samples[next(numbers) % len(samples)])
                    recording.call(began_ns)
                except Exception as exc:  # noqa: BLE001  (counted, whatever it is)
                    recording.fail(exc)

        callers = [asyncio.create_task(caller()) for _ in range(plan["in_flight"])]
        for wait_s in recording.edges_s():
            await asyncio.sleep(wait_s)
        await asyncio.gather(*callers)
    return recording.result()


def load_samples(path: str) -> list[dict[str, Any]]:
    """Read the requests' inputs: arrays named ``<request>/<input>``."""
    samples: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=True) as arrays:
        for name in arrays.files:
            index, _, tensor = name.partition("/")
            samples.setdefault(int(index), {})[tensor] = arrays[name]
    return [samples[index] for index in sorted(samples)]


def client_version() -> str:
    """Return the version of the distribution that the client comes from, where it says one."""
    try:
        return version("naiad")
    except PackageNotFoundError:
        return ""


def main() -> None:
    """Do what the plan says, once."""
    plan = json.load(sys.stdin)
    samples = load_samples(plan["samples"])
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        "sync": lambda: call_sync(plan, samples),
        "asyncio": lambda: asyncio.run(call_async(plan, samples)),
    }
    json.dump(
        {
            "file": naiad.client.__file__,
            "version": client_version(),
            "runs": {kind: kinds[kind]() for kind in plan["callers"]},
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
