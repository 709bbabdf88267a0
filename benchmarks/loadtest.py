"""The load generator against Locust users with tritonclient and, where it is installed, perf_analyzer, in one run.

    make bench-loadtest      or: python benchmarks/loadtest.py [--rounds 5] [--perf-analyzer PATH]

All of them load one embedded Triton in turn, in every round in another order; what counts is the ratio within a round.
A small model with dynamic batching, one row per request. How far the client's p50 is from the server's own, which comes
from the summaries among its metrics, is measured with a server for each side and round.

Then the server is stopped (SIGSTOP) for one second of every ten, under a fixed rate. The truth is what an independent
asyncio client sees in the same seconds, counting from when each of its requests was due.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import numpy as np
import onnx
import psutil
from measure import busy, machine
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from naiad.client import ClientError
from naiad.loadtest import Connection, LoadTest, LoadTestError, Rate, Traffic, Users, run
from naiad.server import EmbeddedTriton

MODEL: Final = "mlp"
SIZES: Final = (784, 128, 10)
IN_FLIGHT: Final = (8, 32, 64)
WARMUP_S: Final = 1.5
SUMMARIES: Final = ("--metrics-config=summary_latencies=true", "--metrics-config=summary_quantiles=0.5:0.005")
GAP_USERS: Final = 64
PARTS: Final = ("rates", "gaps", "frozen")
RATE_PER_S: Final = 200.0
FROZEN_S, EVERY_S = 1.0, 10.0
GOALS: Final = {("locust", 64): 2.5, **{("perf_analyzer", number): 1.0 for number in IN_FLIGHT}}
GAP_GOAL: Final = 0.1
TRUTH_GOAL: Final = 0.05
CONFIG: Final = """\
backend: "onnxruntime"
max_batch_size: 64
input { name: "x" data_type: TYPE_FP32 dims: [ 784 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 10 ] }
instance_group { kind: KIND_CPU count: 1 }
dynamic_batching { }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What one side saw in one round; the server's figures are added from its traces."""

    side: str
    users: int
    round: int
    start_ns: int
    end_ns: int
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float | None
    note: str = ""


def main() -> None:
    """Measure, print, and fail if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each side is measured in a round")
    parser.add_argument("--frozen-rounds", type=int, default=3, help="of ten seconds, with the server stopped for one")
    parser.add_argument("--perf-analyzer", metavar="PATH", default=shutil.which("perf_analyzer"))
    parser.add_argument("--only", choices=PARTS, action="append", help="one part of it; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all samples")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    parts = options.only or PARTS
    samples: dict[str, Any] = {"machine": machine(), "others": busy()}
    console.print(f"{samples['machine']}; other work took {samples['others']:.0%} of it when this began")
    met = []
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        write_model(repository)
        if "rates" in parts:
            seen = rounds(repository, options, console)
            samples["rates"] = [vars_of(item) for item in seen]
            met.append(show_rates(console, seen))
        if "gaps" in parts:
            samples["gaps"] = gap_rounds(repository, options)
            met.append(show_gaps(console, samples["gaps"]))
        if "frozen" in parts:
            with EmbeddedTriton(repository, supervise=False) as triton:
                samples["frozen"] = [freeze_round(triton, number) for number in range(options.frozen_rounds)]
            met.append(show_frozen(console, samples["frozen"]))
    if not options.perf_analyzer:
        console.print("perf_analyzer is not installed here: it was not compared")
    if options.json:
        options.json.write_text(json.dumps(samples))
    sys.exit(0 if all(met) else 1)


def vars_of(item: Seen) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Seen.__slots__}


def write_model(repository: Path) -> None:
    generator = np.random.default_rng(0)
    names, nodes, weights = ["x", "hidden", "y"], [], []
    for index, shape in enumerate(itertools.pairwise(SIZES)):
        weights.append(
            helper.make_tensor(f"w{index}", TensorProto.FLOAT, shape, generator.random(shape, np.float32).ravel())
        )
        nodes.append(helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]]))
    tensors = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])]
        for name, size in (("x", SIZES[0]), ("y", SIZES[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", *tensors, weights)
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), version / "model.onnx"
    )
    (repository / MODEL / "config.pbtxt").write_text(f'name: "{MODEL}"\n{CONFIG}')


def all_sides(options: argparse.Namespace) -> dict[str, Callable[[str, int, int, float], Seen]]:
    """Return what can load a server here: called with address, users, round and seconds."""
    sides: dict[str, Callable[[str, int, int, float], Seen]] = {"naiad": naiad, "locust": locust}
    if options.perf_analyzer:
        sides["perf_analyzer"] = lambda *given: perf_analyzer(options.perf_analyzer, *given)
    return sides


def rounds(repository: Path, options: argparse.Namespace, console: Console) -> list[Seen]:
    """Return what every side saw; every round has a server of its own.

    A round that a side or the server did not survive is told and left out, for all sides.
    """
    sides, seen = all_sides(options), []
    for number, users in itertools.product(range(options.rounds), IN_FLIGHT):
        order = list(sides)
        random.Random(number * 100 + users).shuffle(order)
        found: list[Seen] = []
        try:
            with EmbeddedTriton(repository, supervise=False) as triton:
                for side in order:
                    found.append(sides[side](triton.grpc_address, users, number, options.seconds))
        except (subprocess.SubprocessError, LoadTestError, ClientError) as exc:
            console.print(f"round {number} with {users} in flight is left out: {order[len(found)]} failed: {exc}")
        else:
            seen += found
    return seen


def gap_rounds(repository: Path, options: argparse.Namespace) -> list[dict[str, float]]:
    """Return for each round by how much each side's p50 is above the server's, in µs."""
    found, sides = [], list(all_sides(options).items())
    for number in range(options.rounds):
        gaps = {}
        for side, send in sides[:: 1 - 2 * (number % 2)]:
            with EmbeddedTriton(repository, supervise=False, extra_args=SUMMARIES) as triton:
                p50_us = send(triton.grpc_address, GAP_USERS, number, options.seconds).p50_us
                gaps |= {side: p50_us, f"{side}_server": server_p50(triton.metrics_url)}
        found.append(gaps)
    return found


def server_p50(metrics_url: str) -> float:
    """Return the median time of a request in the server, in µs, by its metrics."""
    for line in httpx.get(metrics_url).text.splitlines():
        if line.startswith("nv_inference_request_summary_us{") and 'quantile="0.5"' in line:
            return float(line.rpartition(" ")[2])
    raise LookupError("the server has no summaries")


def naiad(address: str, users: int, number: int, seconds: float) -> Seen:
    start = time.perf_counter_ns()
    report = run(
        LoadTest(
            traffic=Traffic(model=MODEL),
            load=Users(users=users),
            connection=Connection(url=f"grpc://{address}"),
            warmup_s=WARMUP_S,
            duration_s=seconds,
        )
    )
    measured = report.measurement
    p50, p99 = measured.latencies.percentile_us(50), measured.latencies.percentile_us(99)
    assert p50 is not None
    assert p99 is not None
    return Seen(
        side="naiad",
        users=users,
        round=number,
        start_ns=start,
        end_ns=time.perf_counter_ns(),
        rate=measured.throughput,
        p50_us=p50,
        p99_us=p99,
        cpu_us=measured.cpu_share * 1e6 / measured.throughput,
        note=" ".join([report.verdict, *sorted({doubt.kind for doubt in report.doubts if doubt.invalid})]),
    )


def locust(address: str, users: int, number: int, seconds: float, rate: float | None = None) -> Seen:
    script = Path(__file__).with_name("locust_users.py")
    command = [sys.executable, str(script), address, f"--model={MODEL}", f"--size={SIZES[0]}", f"--users={users}"]
    command += [f"--warmup={WARMUP_S}", f"--seconds={seconds}", *([f"--rate={rate}"] if rate else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return Seen(side="locust", users=users, round=number, **json.loads(done.stdout.splitlines()[-1]))


def perf_analyzer(program: str, address: str, users: int, number: int, seconds: float) -> Seen:
    """As its documentation says for gRPC, in its fastest mode; three windows within 50 % are stable enough here."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        command = [program, "-m", MODEL, "-i", "grpc", "-u", address, "--async", f"--concurrency-range={users}"]
        command += [
            f"--measurement-interval={round(seconds * 1000 / 3)}",
            "--percentile=50",
            "-s",
            "50",
            "-f",
            str(table),
        ]
        start = time.perf_counter_ns()
        subprocess.run(command, capture_output=True, text=True, timeout=seconds * 5 + 20, check=True)
        names, values = (line.split(",") for line in table.read_text().strip().splitlines()[:2])
    found = dict(zip(names, values, strict=True))
    return Seen(
        side="perf_analyzer",
        users=users,
        round=number,
        start_ns=start,
        end_ns=time.perf_counter_ns(),
        rate=float(found["Inferences/Second"]),
        p50_us=float(found["p50 latency"]),
        p99_us=float(found["p99 latency"]),
        cpu_us=None,
    )


def freeze_round(triton: EmbeddedTriton, number: int) -> dict[str, float]:
    """Load the server for ten seconds at a fixed rate, stop it for one of them, and compare what each side says."""
    address = triton.grpc_address
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(naiad_at_rate, address, number)
        truth = pool.submit(lambda: asyncio.run(independent(address, number)))
        peer = pool.submit(locust, address, 4, number, EVERY_S, RATE_PER_S / 4)
        freezer = threading.Timer(WARMUP_S + EVERY_S / 2, freeze, (server_processes(address),))
        freezer.start()
        found = {"naiad": ours.result(), "truth": truth.result(), "locust": peer.result().p99_us}
        freezer.join()
    return found


def naiad_at_rate(address: str, number: int) -> float:
    test = LoadTest(
        traffic=Traffic(model=MODEL),
        load=Rate(per_s=RATE_PER_S),
        connection=Connection(url=f"grpc://{address}"),
        warmup_s=WARMUP_S,
        duration_s=EVERY_S,
        seed=number,
    )
    p99 = run(test, calibration=False).measurement.latencies.percentile_us(99)
    assert p99 is not None
    return p99


async def independent(address: str, number: int) -> float:
    """Return the p99 in µs of requests sent on a schedule of their own, each timed from when it was due."""
    from naiad.loadtest._data.codec import encode_inputs

    generator = random.Random(number + 1_000)
    message = encode_inputs(MODEL, None, {"x": np.zeros((1, SIZES[0]), np.float32)})
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def ask(due: float) -> None:
            await call(message)
            latencies.append(time.perf_counter() - due)

        await call(message)
        await asyncio.sleep(WARMUP_S)
        due, end, tasks = time.perf_counter(), time.perf_counter() + EVERY_S, []
        while due < end:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(ask(due)))
            due += generator.expovariate(RATE_PER_S)
        await asyncio.gather(*tasks)
    return float(np.percentile(latencies, 99, method="inverted_cdf") * 1e6)


def server_processes(address: str) -> list[int]:
    port = int(address.rpartition(":")[2])
    pid = next(
        entry.pid
        for entry in psutil.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr.port == port and entry.pid
    )
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def freeze(pids: Sequence[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def show_rates(console: Console, seen: Sequence[Seen]) -> bool:
    table = Table(caption="median of the rounds (lowest–highest)")
    for column in ("peer", "in flight", "naiad", "peer's", "ratio", "naiad p50", "peer's p50", "goal", ""):
        table.add_column(column, justify="left" if column == "peer" else "right", no_wrap=True)
    met = True
    for side in sorted({item.side for item in seen} - {"naiad"}):
        for users in IN_FLIGHT:
            ours, peer = of(seen, "naiad", users), of(seen, side, users)
            ratios = [mine.rate / theirs.rate for mine, theirs in zip(ours, peer, strict=True)]
            goal = GOALS.get((side, users))
            reached = goal is None or statistics.median(ratios) >= goal
            met &= reached
            table.add_row(
                side,
                str(users),
                f"{statistics.median(item.rate for item in ours):,.0f}/s",
                f"{statistics.median(item.rate for item in peer):,.0f}/s",
                spread(ratios),
                f"{statistics.median(item.p50_us for item in ours):,.0f} µs",
                f"{statistics.median(item.p50_us for item in peer):,.0f} µs",
                "" if goal is None else f"≥ {goal:g}×",
                "" if goal is None else "reached" if reached else "missed",
            )
    console.print(table)
    notes = [item.note for item in seen if item.side == "naiad"]
    counts = ", ".join(f"{count} {note}" for note, count in Counter(notes).most_common())
    console.print(f"naiad's own verdicts on its {len(notes)} runs: {counts}")
    return met


def show_gaps(console: Console, gaps: Sequence[dict[str, float]]) -> bool:
    """Print how far each side's p50 is from the server's own; ours is to be a tenth of Locust's."""
    table = Table(caption=f"{GAP_USERS} in flight, median of the rounds (lowest–highest)")
    for column in ("side", "its p50", "server's p50", "gap"):
        table.add_column(column, justify="left" if column == "side" else "right", no_wrap=True)
    sides = [name for name in gaps[0] if not name.endswith("_server")]
    found = {side: [entry[side] - entry[f"{side}_server"] for entry in gaps] for side in sorted(sides)}
    for side, values in found.items():
        cells = [spread([entry[name] for entry in gaps], " µs", 0) for name in (side, f"{side}_server")]
        table.add_row(side, *cells, spread(values, " µs", 0))
    console.print(table)
    ratios = [ours / theirs for ours, theirs in zip(found["naiad"], found["locust"], strict=True)]
    reached = statistics.median(ratios) <= GAP_GOAL
    console.print(
        f"gap, naiad over Locust: {spread(ratios, '', 3)}, goal ≤ {GAP_GOAL:g}: {'reached' if reached else 'missed'}"
    )
    return reached


def show_frozen(console: Console, frozen: Sequence[dict[str, float]]) -> bool:
    table = Table(caption=f"p99, {RATE_PER_S:g} requests/s, the server stopped for {FROZEN_S:g} s in {EVERY_S:g}")
    for column in ("round", "truth", "naiad", "off by", "Locust, constant_throughput"):
        table.add_column(column, justify="right", no_wrap=True)
    errors = [entry["naiad"] / entry["truth"] - 1 for entry in frozen]
    for number, (entry, error) in enumerate(zip(frozen, errors, strict=True)):
        cells = [f"{entry[name] / 1000:,.1f} ms" for name in ("truth", "naiad", "locust")]
        table.add_row(str(number), cells[0], cells[1], f"{error:+.1%}", cells[2])
    console.print(table)
    reached = statistics.median(map(abs, errors)) <= TRUTH_GOAL
    console.print(f"naiad's p99 within {TRUTH_GOAL:.0%} of the truth: {'reached' if reached else 'missed'}")
    return reached


def of(seen: Sequence[Seen], side: str, users: int) -> list[Seen]:
    return [item for item in seen if item.side == side and item.users == users]


def spread(values: Sequence[float], unit: str = "×", digits: int = 2) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f}{unit} ({low:,.{digits}f}–{high:,.{digits}f})"


if __name__ == "__main__":
    main()
