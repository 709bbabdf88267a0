"""A run from start to report: look at the server, start the conductor, collect what it hands over, judge."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Final, Self

from naiad.loadtest.baseline import DEFAULT_MARGIN, Baseline
from naiad.loadtest.data import make_samples
from naiad.loadtest.errors import EngineFailed
from naiad.loadtest.measurement import Interval, Measurement, Phase
from naiad.loadtest.messages import Closed, EngineMessage, Failed, Lost, decode_message
from naiad.loadtest.plan import LoadTest
from naiad.loadtest.report import Report
from naiad.loadtest.server_times import ServerTimes
from naiad.loadtest.target import Target, connect, describe
from naiad.loadtest.validity import is_of_this_run

__all__ = ["Progress", "run"]

_BEGAN_ANEW: Final = (
    "the server's counters do not cover the window: the server began anew within it, or served another version"
)
_SILENCE_S: Final = 30.0  # the engine speaks four times a second: after this long it is stuck
_EXIT_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a run is; the latest interval's figures."""

    phase: Phase
    elapsed_s: float
    """Since the phase began."""
    users: int
    throughput: float
    p50_us: float | None
    p99_us: float | None
    errors: int
    """Since the run began."""


def run(
    test: LoadTest,
    *,
    baseline: Baseline | None = None,
    margin: float = DEFAULT_MARGIN,
    any_machine: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Run a load test and return its report, also when the server died on the way or Ctrl-C ended it.

    Raises:
        naiad.client.ClientError: the server does not answer, or does not serve the model.
        InvalidData: the samples do not fit the model.
        InvalidBaseline: the baseline is of another model, load or machine.
        EngineFailed: the processes that send the requests could not start.
    """
    if baseline is not None:
        baseline.check_comparable(test, any_machine=any_machine)
    with connect(test.traffic) as client:
        target = describe(client, test.traffic)
    make_samples(test.traffic, target.signature)
    log = _Log(test, on_progress)
    with _Conductor(test) as conductor:
        log.follow(conductor)
    return log.report(target, baseline, margin)


class _Log:
    """Everything that was said during a run."""

    def __init__(self, test: LoadTest, on_progress: Callable[[Progress], None] | None) -> None:
        self._test, self._on_progress = test, on_progress
        self._intervals: list[Interval] = []
        self._closed: Closed | None = None
        self._incidents: list[str] = []
        self._interrupted = False

    def follow(self, conductor: _Conductor) -> None:
        """Collect messages until the conductor ends; Ctrl-C ends the run early, a second one at once."""
        while True:
            try:
                message = conductor.next_message()
                if message is None:
                    break
                self._add(message)
                if isinstance(message, Failed):
                    break
            except KeyboardInterrupt:
                if self._interrupted:
                    break
                self._interrupted = True
                conductor.stop()
        if self._closed is None and not self._incidents:
            self._incidents.append(conductor.last_words())
        if not self._intervals and not self._interrupted:
            raise EngineFailed(self._incidents[0], model=self._test.model)

    def _add(self, message: EngineMessage) -> None:
        if isinstance(message, Interval):
            self._intervals.append(message)
            if self._on_progress is not None:
                self._on_progress(self._progress(message))
        elif isinstance(message, Closed):
            self._closed = message
        elif isinstance(message, Lost | Failed):
            self._incidents.append(message.message)

    def _progress(self, latest: Interval) -> Progress:
        began_s = next(interval.start_s for interval in self._intervals if interval.phase == latest.phase)
        length_s = latest.end_s - latest.start_s
        return Progress(
            phase=latest.phase,
            elapsed_s=latest.end_s - began_s,
            users=latest.users,
            throughput=latest.latencies.count / length_s if length_s else 0.0,
            p50_us=latest.latencies.percentile_us(50),
            p99_us=latest.latencies.percentile_us(99),
            errors=sum(sum(interval.errors.values()) for interval in self._intervals),
        )

    def report(self, target: Target, baseline: Baseline | None, margin: float) -> Report:
        """Sum up and judge."""
        rows = self._test.batch if target.signature.batching else 1
        window = Measurement.of(self._intervals, rows_per_request=rows, server=None)
        server, note = self._server_times(window)
        measurement = replace(window, server=server)
        incidents = list(self._incidents)
        if note is _BEGAN_ANEW and measurement.failed:
            incidents.append(note)
        if self._interrupted:
            incidents.append(
                f"the run was interrupted: {measurement.window_s:.1f} s of {self._test.duration_s:g} s were measured"
            )
        return Report(
            test=self._test,
            target=target,
            measurement=measurement,
            slos=[slo.judge(measurement) for slo in self._test.slos],
            comparisons=None if baseline is None else baseline.compare(measurement, margin),
            incidents=incidents,
            notes=[note] if note and note not in incidents else [],
            interrupted=self._interrupted,
        )

    def _server_times(self, window: Measurement) -> tuple[ServerTimes | None, str]:
        """Return the server's times of the window; where there are none, the reason."""
        if self._closed is None or self._closed.before is None or self._closed.after is None:
            return None, self._closed.note if self._closed is not None else ""
        times = ServerTimes.between(self._closed.before, self._closed.after, window.window_s)
        if times is None or not is_of_this_run(times, window.completed, self._test.users):
            return None, _BEGAN_ANEW
        return times, ""


class _Conductor:
    """The process in which Locust runs. A context manager; leaving it ends the process and its engine."""

    def __init__(self, test: LoadTest) -> None:
        plan = {
            "traffic": test.traffic.to_json(),
            "users": test.users,
            "spawn_rate": test.spawn_rate,
            "warmup_s": test.warmup_s,
            "duration_s": test.duration_s,
        }
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process, in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "naiad.loadtest._conductor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C reaches us; we end the run, in order
        )
        self._messages: queue.Queue[EngineMessage | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="naiad-loadtest-reader", daemon=True)
        self._reader.start()
        self._order(json.dumps(plan))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_EXIT_TIMEOUT_S)
        self._process.stdout.close()
        self._errors.close()

    def next_message(self) -> EngineMessage | None:
        """Wait for a message; ``None`` when there will be no more."""
        try:
            return self._messages.get(timeout=_SILENCE_S)
        except queue.Empty:
            return Failed(message=f"the engine said nothing for {_SILENCE_S:g} s: it is stuck")

    def stop(self) -> None:
        """End the run early; what was measured still comes."""
        self._order("stop")

    def last_words(self) -> str:
        """Return what is known about an end that was not planned."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"the load generator ended before the run was over{': ' + lines[-1] if lines else ''}"

    def _order(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended; the messages end, too
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):  # else it was killed in the middle of it
                self._messages.put(decode_message(line))
        self._messages.put(None)
