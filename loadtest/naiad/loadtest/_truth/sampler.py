"""The server, asked once a second while it is under load: Triton's counters, and what its processes use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, Self

from naiad.client import Client, ClientError, ModelNotFound
from naiad.loadtest._data.pipeline import Key
from naiad.loadtest._data.target import connect
from naiad.loadtest._truth.gpu_use import GpuSample
from naiad.loadtest._truth.gpus import Gpus, open_gpus
from naiad.loadtest._truth.processes import ServerProcesses, find_server
from naiad.loadtest._truth.resources import ServerSample
from naiad.loadtest._truth.server_times import ServerSnapshot
from naiad.loadtest.plan import Connection, Traffic

__all__ = ["ServerSampler"]

_ASK_TIMEOUT_S: Final = 2.0
_SETTLE_S: Final = 0.5  # Triton counts a request a moment after its answer left
_SETTLE_PAUSE_S: Final = 0.02


class ServerSampler:
    """Takes samples of the server in a thread. A context manager: the first sample is taken on entering it.

    ``pid`` is the server's process, where it is known; else the process on this machine that listens on the port of
    the address is looked for, and nothing is said of processes where there is none. ``steps`` are the models that
    those of the mix call.
    """

    def __init__(
        self,
        connection: Connection,
        mix: Sequence[Traffic],
        *,
        steps: Iterable[Key] = (),
        pid: int | None = None,
        every_s: float = 1.0,
    ) -> None:
        self._connection, self._mix, self._pid, self._every_s = connection, tuple(mix), pid, every_s
        self._steps = dict.fromkeys(steps)
        self._taken: list[tuple[int, ServerSample]] = []  # with the moment by time.perf_counter_ns()
        self._notes: list[str] = []
        self._started_ns = 0
        self._asking = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._resources = ExitStack()
        self._client: Client
        self._processes: ServerProcesses | None = None
        self._gpus: Gpus | None = None

    def __enter__(self) -> Self:
        servers = self._connection.statistics_url
        asked = self._connection if servers is None else Connection(url=servers)
        self._client = self._resources.enter_context(connect(asked, _ASK_TIMEOUT_S))
        # A gateway is not what is measured.
        self._processes = find_server(self._connection.url, self._pid) if servers is None else None
        self._gpus = open_gpus(self._processes, metrics_url=self._connection.metrics_url)
        if self._gpus is not None:
            self._resources.callback(self._gpus.close)
        self._started_ns = time.perf_counter_ns()
        self.mark()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_thread()
        self._resources.close()

    def start(self, at_ns: int) -> None:
        """Take a sample every second from the run's start, which is at ``at_ns`` by ``time.perf_counter_ns()``."""
        assert self._thread is None
        self._started_ns = at_ns
        self._thread = threading.Thread(target=self._run, name="naiad-loadtest-sampler", daemon=True)
        self._thread.start()

    def mark(self) -> None:
        """Take a sample now, such as at the edge of a window that lies between two whole seconds."""
        with self._asking:
            self._taken.append(self._sample())

    def stop(self) -> None:
        """Take the last sample, when the server's counters no longer change; to be called when nothing is in flight."""
        self._end_thread()
        deadline = time.monotonic() + _SETTLE_S
        self.mark()
        while time.monotonic() < deadline and self._taken[-1][1].snapshots:
            time.sleep(_SETTLE_PAUSE_S)
            with self._asking:  # the GPUs' figures take longer to ask for, and are not what is waited for
                self._taken.append(self._sample(self._taken[-1][1].gpus))
            (_, before), (_, after) = self._taken[-2:]
            del self._taken[-2]
            if before.snapshots == after.snapshots:
                return

    @property
    def samples(self) -> list[ServerSample]:
        """The samples so far, in the order of time."""
        return [
            ServerSample(
                at_s=(at_ns - self._started_ns) / 1e9,
                snapshots=sample.snapshots,
                cpu_s=sample.cpu_s,
                rss_bytes=sample.rss_bytes,
                num_threads=sample.num_threads,
                gpus=sample.gpus,
            )
            for at_ns, sample in list(self._taken)
        ]

    @property
    def notes(self) -> list[str]:
        """Why statistics are missing, where they are."""
        return list(self._notes)

    def _end_thread(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._until_next_s()):
            self.mark()

    def _until_next_s(self) -> float:
        """Return how long it is to the next multiple of the period since the run's start."""
        since_s = (time.perf_counter_ns() - self._started_ns) / 1e9
        return -since_s if since_s < 0 else self._every_s - since_s % self._every_s

    def _sample(self, gpus: Sequence[GpuSample] | None = None) -> tuple[int, ServerSample]:
        asked_ns = time.perf_counter_ns()
        snapshots = self._snapshots()
        at_ns = (asked_ns + time.perf_counter_ns()) // 2
        used = None if self._processes is None else self._processes.read()
        return at_ns, ServerSample(
            at_s=0.0,  # known when the run has started
            snapshots=snapshots,
            cpu_s=None if used is None else used.cpu_s,
            rss_bytes=None if used is None else used.rss_bytes,
            num_threads=None if used is None else used.num_threads,
            gpus=gpus if gpus is not None else () if self._gpus is None else self._gpus.read(),
        )

    def _snapshots(self) -> dict[int | Key, ServerSnapshot]:
        found: dict[Key, ServerSnapshot] = {}
        try:
            for traffic in self._mix:
                key = (traffic.model, traffic.version)
                if key not in found:
                    found[key] = ServerSnapshot.of(self._client.statistics(*key))
        except ClientError as exc:
            if not self._notes:
                self._notes.append(f"the server's statistics could not be had: {exc}")
            return {}
        taken: dict[int | Key, ServerSnapshot] = dict(self._of_steps(found))
        taken.update((index, found[traffic.model, traffic.version]) for index, traffic in enumerate(self._mix))
        return taken

    def _of_steps(self, found: Mapping[Key, ServerSnapshot]) -> Iterator[tuple[Key, ServerSnapshot]]:
        """Return the counters of the steps right after those of the models that call them."""
        for key in list(self._steps):
            try:
                yield key, found[key] if key in found else ServerSnapshot.of(self._client.statistics(*key))
            except ModelNotFound as exc:  # unloaded, or no model's name
                del self._steps[key]
                self._notes.append(f"the times of the step '{key[0]}' could not be had: {exc}")
            except ClientError as exc:
                note = f"the times of the step '{key[0]}' could not be had: {exc}"
                self._notes += [] if self._notes else [note]
                return
