"""A gRPC server, in a process of its own, that holds every request for a time drawn from a known distribution.

It speaks as much of KServe v2 as a load test needs, and writes down how long it really held each request. It can be
slowed, frozen (the process is stopped: whatever arrives waits) and killed while it serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MODEL = "programmed"
_NUM_DRAWN = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Holds:
    """How long requests are held: a lognormal body within bounds, a share of slow ones, and one of very slow ones."""

    median_ms: float = 17.0
    sigma: float = 0.25
    low_ms: float = 10.0
    high_ms: float = 30.0
    tail_share: float = 0.01
    tail_ms: float = 200.0
    far_share: float = 0.0
    far_ms: float = 500.0

    def draw(self, number: int, seed: int) -> NDArray[np.float64]:
        """Return the times of the first ``number`` requests, in seconds."""
        generator = np.random.default_rng(seed)
        held_ms = self.median_ms * np.exp(self.sigma * generator.standard_normal(number))
        held_ms = np.clip(held_ms, self.low_ms, self.high_ms)
        held_ms[generator.random(number) < self.tail_share] = self.tail_ms
        held_ms[generator.random(number) < self.far_share] = self.far_ms
        return held_ms / 1e3


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the server did, in ns of ``time.perf_counter_ns()``, which all processes of a machine share."""

    arrived_ns: NDArray[np.int64]
    answered_ns: NDArray[np.int64]

    @property
    def held_ns(self) -> NDArray[np.int64]:
        """How long each request was really held."""
        return self.answered_ns - self.arrived_ns

    def between(self, start_ns: int, end_ns: int) -> Record:
        """Return the record of the requests that were answered then."""
        chosen = (self.answered_ns >= start_ns) & (self.answered_ns < end_ns)
        return Record(arrived_ns=self.arrived_ns[chosen], answered_ns=self.answered_ns[chosen])


class ProgrammedServer:
    """The server's process. A context manager; ``url`` is known inside.

    ``seed`` decides the times, in the order in which requests arrive; ``slow`` multiplies them; ``answer_bytes`` is the
    size of an answer's output; with ``concurrency`` only that many are served at a time, and the others queue.
    """

    def __init__(
        self,
        holds: Holds | None = None,
        *,
        seed: int = 0,
        slow: float = 1.0,
        fail_share: float = 0.0,
        concurrency: int = 0,
        port: int = 0,
    ) -> None:
        settings = {
            "holds": asdict(holds or Holds()),
            "seed": seed,
            "slow": slow,
            "fail_share": fail_share,
            "concurrency": concurrency,
            "port": port,
        }
        self._settings = json.dumps(settings)
        self._freezes: list[tuple[int, int]] = []
        self._freezer: threading.Thread | None = None

    def __enter__(self) -> ProgrammedServer:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), self._settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the programmed server did not start"
        self.url = f"grpc://127.0.0.1:{int(line)}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._freezer is not None:
            self._freezer.join()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def freezes(self) -> list[tuple[int, int]]:
        """When it was really frozen, from and until (ns)."""
        return self._freezes

    def slow(self, factor: float) -> None:
        """Hold requests ``factor`` times as long as programmed, from the next one on."""
        self._order("slow", factor)

    def freeze(self, at_ns: int, for_s: float) -> None:
        """Stop the process at a moment to come, for a time; returns at once."""
        self._freezer = threading.Thread(target=self._freeze, args=(at_ns, for_s))
        self._freezer.start()

    def kill(self) -> None:
        """Let it die now."""
        self._process.kill()
        self._process.wait()

    def record(self) -> Record:
        """Return what it did since the last time."""
        if self._freezer is not None:
            self._freezer.join()
        self._order("record", 0)
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())
        return Record(**{name: np.asarray(values, np.int64) for name, values in found.items()})

    def _order(self, name: str, value: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {value}\n".encode())
        self._process.stdin.flush()

    def _freeze(self, at_ns: int, for_s: float) -> None:
        time.sleep(max(0, at_ns - time.perf_counter_ns()) / 1e9)
        os.kill(self._process.pid, signal.SIGSTOP)
        began_ns = time.perf_counter_ns()
        time.sleep(for_s)
        ended_ns = time.perf_counter_ns()
        os.kill(self._process.pid, signal.SIGCONT)
        self._freezes.append((began_ns, ended_ns))


class _Service:
    """The server's side: answers, and writes down when."""

    def __init__(self, settings: dict) -> None:
        from tritonclient.grpc import service_pb2 as pb

        self.pb = pb
        self.held_s = Holds(**settings["holds"]).draw(_NUM_DRAWN, settings["seed"]).tolist()
        self.fails = np.random.default_rng(settings["seed"] + 1).random(_NUM_DRAWN) < settings["fail_share"]
        self.slow = settings["slow"]
        self.room = asyncio.Semaphore(settings["concurrency"]) if settings["concurrency"] else None
        self.answer = pb.ModelInferResponse(
            model_name=MODEL,
            model_version="1",
            outputs=[{"name": "y", "datatype": "FP32", "shape": [1, 2]}],
            raw_output_contents=[bytes(8)],
        ).SerializeToString()
        self.num_arrived = self.num_answered = self.num_failed = 0
        self.total_ns = self.queue_ns = 0
        self.arrived_ns: list[int] = []
        self.answered_ns: list[int] = []

    async def infer(self, _request: bytes, context) -> bytes:
        import grpc

        arrived_ns = time.perf_counter_ns()
        number = self.num_arrived
        self.num_arrived += 1
        if self.room is None:
            began_ns = arrived_ns
            await self._hold(number, arrived_ns)
        else:
            async with self.room:
                began_ns = time.perf_counter_ns()
                await self._hold(number, began_ns)
        if self.fails[number % _NUM_DRAWN]:
            self.num_failed += 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        answered_ns = time.perf_counter_ns()
        self.arrived_ns.append(arrived_ns)
        self.answered_ns.append(answered_ns)
        self.num_answered += 1
        self.total_ns += answered_ns - arrived_ns
        self.queue_ns += began_ns - arrived_ns
        return self.answer

    async def _hold(self, number: int, from_ns: int) -> None:
        held_s = self.held_s[number % _NUM_DRAWN] * self.slow
        await asyncio.sleep(held_s - (time.perf_counter_ns() - from_ns) / 1e9)

    async def live(self, _request: bytes, _context) -> bytes:
        return self.pb.ServerLiveResponse(live=True).SerializeToString()

    async def ready(self, _request: bytes, _context) -> bytes:
        return self.pb.ServerReadyResponse(ready=True).SerializeToString()

    async def model_ready(self, _request: bytes, _context) -> bytes:
        return self.pb.ModelReadyResponse(ready=True).SerializeToString()

    async def server_metadata(self, _request: bytes, _context) -> bytes:
        return self.pb.ServerMetadataResponse(name="programmed", version="2.51.0").SerializeToString()

    async def metadata(self, request: bytes, context) -> bytes:
        await self._known(self.pb.ModelMetadataRequest.FromString(request).name, context)
        found = self.pb.ModelMetadataResponse(name=MODEL, versions=["1"], platform="programmed")
        found.inputs.add(name="x", datatype="FP32", shape=[-1, 8])
        found.outputs.add(name="y", datatype="FP32", shape=[-1, 2])
        return found.SerializeToString()

    async def config(self, request: bytes, context) -> bytes:
        await self._known(self.pb.ModelConfigRequest.FromString(request).name, context)
        found = self.pb.ModelConfigResponse()
        found.config.name, found.config.backend, found.config.max_batch_size = MODEL, "programmed", 16
        found.config.input.add(name="x", data_type="TYPE_FP32", dims=[8])
        found.config.output.add(name="y", data_type="TYPE_FP32", dims=[2])
        found.config.instance_group.add(count=1, kind="KIND_CPU")
        return found.SerializeToString()

    async def statistics(self, _request: bytes, _context) -> bytes:
        number, total_ns, queue_ns = self.num_answered, self.total_ns, self.queue_ns
        found = self.pb.ModelStatisticsResponse()
        model = found.model_stats.add(name=MODEL, version="1", inference_count=number, execution_count=number)
        parts = {"success": total_ns, "queue": queue_ns, "compute_infer": total_ns - queue_ns}
        for name, value_ns in parts.items() | {"compute_input": 0, "compute_output": 0}.items():
            duration = getattr(model.inference_stats, name)
            duration.count, duration.ns = number, value_ns
        model.inference_stats.fail.count = self.num_failed
        batch = model.batch_stats.add(batch_size=1)
        batch.compute_infer.count, batch.compute_infer.ns = number, total_ns - queue_ns
        return found.SerializeToString()

    async def _known(self, name: str, context) -> None:
        import grpc

        if name != MODEL:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")

    def take_record(self) -> str:
        taken = json.dumps({"arrived_ns": self.arrived_ns, "answered_ns": self.answered_ns})
        self.arrived_ns, self.answered_ns = [], []
        return taken


async def _serve(settings: dict) -> None:
    import grpc.aio

    with suppress(PermissionError):  # the truth should not wait for a core on a busy machine
        os.nice(-15)
    service = _Service(settings)
    calls = {
        "ModelInfer": service.infer,
        "ServerLive": service.live,
        "ServerReady": service.ready,
        "ModelReady": service.model_ready,
        "ServerMetadata": service.server_metadata,
        "ModelMetadata": service.metadata,
        "ModelConfig": service.config,
        "ModelStatistics": service.statistics,
    }
    handlers = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in calls.items()}
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),))
    port = server.add_insecure_port(f"127.0.0.1:{settings['port']}")
    await server.start()
    print(port, flush=True)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        name, value = line.decode().split()
        if name == "slow":
            service.slow = float(value)
        else:
            print(service.take_record(), flush=True)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
