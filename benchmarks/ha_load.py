"""Callers that never try again: every failure of the service is one that they see, and every answer is checked."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from multiprocessing.connection import Connection
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
DEADLINE_S: Final = 60.0
WARM_UP: Final = 100
ANEW_EVERY: Final = 250  # requests after which a caller connects anew, where connections matter
SIZES: Final = {"4KiB": ("small", 1_024), "600KB": ("large", 150_000)}
"""Name of the model and its number of values of four bytes, by the size of a request."""
FACTORS: Final = (1.0, 2.0)
"""What the first value is multiplied by, in the models' two versions."""
_MESSAGES: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Whom to call, and how."""

    address: str
    key: str = ""
    authority: bytes | None = None
    """PEM of the authority of its certificate; None for plaintext."""
    anew: bool = False
    """Whether callers connect anew now and then."""

    def channel(self) -> grpc.Channel:
        """A connection of its own, without a retry policy."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.initial_reconnect_backoff_ms", 50),
        ]
        if self.authority is None:
            return grpc.insecure_channel(self.address, options)
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(self.authority), options)

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What identifies the caller."""
        return [("x-api-key", self.key)] if self.key else []


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What the callers saw."""

    num_requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """How many, by status and message."""
    num_wrong: int = 0
    factors: Counter[float] = field(default_factory=Counter)
    """How many answers each version gave."""
    worst_s: float = 0.0
    p99_s: float = 0.0
    seconds: float = 0.0

    @property
    def num_failed(self) -> int:
        """All that did not get the right answer."""
        return self.failures.total() + self.num_wrong

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"num_failed": self.num_failed, **told}


def load(target: Target, size: str, num_requests: int, in_flight: int, act: Callable[[], object]) -> Outcome:
    """Send at least that many requests from a process of its own; `act` when a third is through, and wait for both."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, target, size, num_requests, in_flight), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.recv() == "a third"
        act()
        ours.send("enough")
        outcome: Outcome = ours.recv()
    finally:
        process.join(timeout=5.0)
        process.kill()
        process.join()
        ours.close()
    return outcome


def _main(pipe: Connection, target: Target, size: str, num_requests: int, in_flight: int) -> None:
    callers = Callers(target, size)
    callers.run(lambda sent: sent >= WARM_UP, in_flight)
    callers.outcome, callers.latencies = Outcome(), []
    told, enough = threading.Event(), threading.Event()

    def stop(sent: int) -> bool:
        if sent >= num_requests // 3 and not told.is_set():
            told.set()
            pipe.send("a third")
            threading.Thread(target=lambda: (pipe.recv(), enough.set()), daemon=True).start()
        return sent >= num_requests and enough.is_set()

    started = time.monotonic()
    callers.run(stop, in_flight)
    callers.outcome.seconds = time.monotonic() - started
    callers.outcome.worst_s = max(callers.latencies)
    callers.outcome.p99_s = float(np.quantile(callers.latencies, 0.99))
    pipe.send(callers.outcome)


class Callers:
    """Threads that each ask, check, and ask again."""

    def __init__(self, target: Target, size: str) -> None:
        self._target = target
        self._model, self._num_values = SIZES[size]
        self._lock = threading.Lock()
        self.outcome = Outcome()
        self.latencies: list[float] = []

    def run(self, stop: Callable[[int], bool], in_flight: int) -> None:
        """Ask from so many threads until `stop`, which is told the number of requests, says so."""
        threads = [threading.Thread(target=self._call, args=(stop, number)) for number in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _call(self, stop: Callable[[int], bool], seed: int) -> None:
        messages = self._messages(seed)
        channel = self._target.channel()
        try:
            for number in itertools.count(1):
                if self._target.anew and number % ANEW_EVERY == 0:
                    channel.close()
                    channel = self._target.channel()
                message, ends = messages[number % len(messages)]
                started = time.monotonic()
                error, answer = self._ask(channel, message)
                with self._lock:
                    self.latencies.append(time.monotonic() - started)
                    self._count(error, answer, ends)
                    if stop(self.outcome.num_requests):
                        return
        finally:
            channel.close()

    def _messages(self, seed: int) -> list[tuple[bytes, tuple[float, float]]]:
        random = np.random.default_rng(seed)
        found = []
        for _ in range(_MESSAGES):
            x = random.random(self._num_values, np.float32) + 0.5
            request = service_pb2.ModelInferRequest(model_name=self._model)
            request.inputs.add(name="x", datatype="FP32", shape=[1, self._num_values])
            request.raw_input_contents.append(x.tobytes())
            found.append((request.SerializeToString(), (float(x[0]), float(x[-1]))))
        return found

    def _ask(self, channel: grpc.Channel, message: bytes) -> tuple[str, Sequence[float]]:
        call: Any = channel.unary_unary(METHOD)
        try:
            answer = call(message, timeout=DEADLINE_S, metadata=self._target.metadata)
        except grpc.RpcError as exc:
            return f"{exc.code().name}: {exc.details()}", ()
        return "", np.frombuffer(service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0], np.float32)

    def _count(self, error: str, answer: Sequence[float], ends: tuple[float, float]) -> None:
        outcome = self.outcome
        outcome.num_requests += 1
        if error:
            outcome.failures[error] += 1
        elif (factor := _factor(answer, ends)) is None:
            outcome.num_wrong += 1
        else:
            outcome.factors[factor] += 1


def _factor(answer: Sequence[float], ends: tuple[float, float]) -> float | None:
    """Which version gave this answer; None if none could."""
    if len(answer) != 2 or answer[1] != ends[1]:
        return None
    return next((factor for factor in FACTORS if answer[0] == np.float32(ends[0]) * np.float32(factor)), None)
