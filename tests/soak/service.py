"""A gateway and two replicas at 80 % of what they can do: no request fails, and no process grows.

    make soak-service MINUTES=30       or: python tests/soak/service.py [--minutes 30] [--json FILE]

The highest rate is measured first, in a closed loop (the median of three runs); then requests arrive at 80 % of it,
independently of each other (Poisson), from processes that do nothing else. Meanwhile the memory (PSS), the descriptors
and the threads of every process of the service are noted: Envoy, the Tritons, their Python stubs, and the process that
supervises them; and what lies in /dev/shm. The access log is renamed and begun anew every minute, as an operator does.

The rule for "flat", fixed before any run: the first fifth of the run is warm-up. Of the rest, the median of the second
half may be above the median of the first half by at most 2 % or 4 MiB, whichever is more; descriptors and threads by at
most 8; /dev/shm by at most 1 MiB. A process that ended, or that came in between, is not flat.

The exit status is 1 if a request failed, or something was not flat.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import models

MODEL: Final = "dense"
SHARE: Final = 0.8
USERS: Final = 16
WARM_UP: Final = 0.2
MAX_GROWTH: Final = 0.02
MAX_GROWTH_MIB: Final = 4.0
MAX_MORE: Final = 8
MAX_SHM_MIB: Final = 1.0
NUM_SAMPLES: Final = 600
ROTATE_S: Final = 60.0
CALIBRATE_S: Final = 4.0
MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One process at one moment."""

    pss_mib: float
    num_descriptors: int
    num_threads: int


@dataclass(kw_only=True, slots=True)
class Series:
    """What was noted: each process by name, and shared memory."""

    seconds: list[float] = field(default_factory=list)
    processes: dict[str, list[Sample | None]] = field(default_factory=dict)
    shm_mib: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether one thing stayed as it was."""

    name: str
    what: str
    first: float
    second: float
    """Medians of the two halves after the warm-up."""
    flat: bool


def main() -> int:
    """Serve, soak, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N")
    parser.add_argument("--share", type=float, default=SHARE, help="of the highest rate, by default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        series, load = soak(Path(folder), arguments.minutes * 60, arguments.share)
    verdicts = judge(series)
    ok = report(series, load, verdicts)
    if arguments.json:
        told = {"ok": ok, "load": load, "verdicts": [asdict(each) for each in verdicts], "series": asdict(series)}
        arguments.json.write_text(json.dumps(told, indent=1))
    return 0 if ok else 1


def soak(folder: Path, duration_s: float, share: float) -> tuple[Series, dict[str, Any]]:
    """Run the service under load; what was noted, and what the callers saw."""
    from naiad.deploy.gateway import Gateway
    from naiad.deploy.keys import KeyFile
    from naiad.deploy.place import Endpoint
    from naiad.deploy.service import Identity, Rights, Service
    from naiad.server import Replicas

    repository, secrets, access_log = folder / "repository", folder / "secrets", folder / "access log.jsonl"
    models.write_onnx(repository, MODEL)
    secrets.mkdir()
    key = KeyFile(secrets / "api-keys").add("soak")
    service = Service(tls=False, identities=(Identity(name="soak", rights=Rights(infer=("*",), observe=("*",))),))
    with Replicas(repository, num_replicas=2) as replicas:
        endpoints = [
            Endpoint(name=name, host="127.0.0.1", grpc_port=port(server.grpc_url), http_port=port(server.http_url))
            for name, server in replicas.servers.items()
        ]
        with Gateway(service, endpoints={"main": endpoints}, secrets=secrets, access_log=access_log) as gateway:
            replicas.attach(gateway)

            def pids() -> dict[str, int]:
                found = {"supervisor": os.getpid(), "envoy": gateway.pid}
                for name, server in replicas.servers.items():
                    found[f"{name} triton"] = server.pid
                    found |= {f"{name} stub {number}": pid for number, pid in enumerate(server.stub_pids())}
                return found

            series, load = observe(
                gateway.reopen_logs, pids, access_log, Load(gateway.grpc_url, key, duration_s, share)
            )
            load["restarts"] = gateway.restarts + sum(server.restarts for server in replicas.servers.values())
            load["refused"] = refusals(access_log)
            return series, load


def port(url: str) -> int:
    """The port of a URL."""
    return int(urlsplit(url).port or 0)


class Load:
    """The load generator, in a process of its own: first the highest rate, then a share of it."""

    def __init__(self, url: str, key: str, duration_s: float, share: float) -> None:
        self.duration_s, self.share = duration_s, share
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=generate, args=(theirs, url, key, duration_s, share))
        self._process.start()
        theirs.close()

    def await_start(self) -> float:
        """The highest rate, once requests arrive at a share of it."""
        return float(self._pipe.recv())

    def result(self) -> dict[str, Any] | None:
        """What the callers saw; None while it runs."""
        if not self._pipe.poll():
            return None
        told: dict[str, Any] = self._pipe.recv()
        self._process.join()
        return told

    def end(self) -> None:
        """Whatever it does."""
        self._process.terminate()
        self._process.join()


def generate(pipe: Connection, url: str, key: str, duration_s: float, share: float) -> None:
    """Measure the highest rate, tell it, send a share of it, tell the result."""
    from naiad.loadtest import Connection as Server
    from naiad.loadtest import LoadTest, Rate, Traffic, Users, run

    def measured(load: Any, seconds: float) -> Any:
        server = Server(url=url, headers={"x-api-key": key})
        test = LoadTest(traffic=Traffic(model=MODEL), load=load, connection=server, warmup_s=1.0, duration_s=seconds)
        return run(test, calibration=False).measurement

    rates = [
        found.completed / found.window_s for found in (measured(Users(users=USERS), CALIBRATE_S) for _ in range(3))
    ]
    highest_per_s = statistics.median(rates)
    pipe.send(highest_per_s)
    found = measured(Rate(per_s=share * highest_per_s), duration_s)
    pipe.send(
        {
            "highest_per_s": highest_per_s,
            "share": share,
            "per_s": found.completed / found.window_s,
            "num_requests": found.offered,
            "num_failed": found.failed,
            "errors": dict(found.errors),
            "examples": dict(found.examples),
            "p50_ms": found.latencies.percentile_us(50) / 1e3,
            "p99_ms": found.latencies.percentile_us(99) / 1e3,
            "window_s": found.window_s,
        }
    )


def observe(
    reopen: Callable[[], None], pids: Callable[[], Mapping[str, int]], access_log: Path, load: Load
) -> tuple[Series, dict[str, Any]]:
    """Note what there is until the load is over."""
    series = Series()
    try:
        rate = load.await_start()
        print(f"highest rate {rate:,.0f}/s; {load.duration_s:.0f} s at {load.share:.0%} of it", flush=True)
        started = rotated = told = time.monotonic()
        every_s = max(0.25, load.duration_s / NUM_SAMPLES)
        while (result := load.result()) is None:
            now = time.monotonic()
            note(series, now - started, pids())
            if now - rotated > ROTATE_S:
                rotated = now
                access_log.replace(access_log.with_suffix(".old"))
                reopen()
            if now - told > ROTATE_S:
                told = now
                print(f"{now - started:6.0f} s  {summary(series)}", flush=True)
            time.sleep(every_s)
    finally:
        load.end()
    return series, result


def note(series: Series, second: float, pids: Mapping[str, int]) -> None:
    """Add a moment to the series."""
    for name, pid in pids.items():
        samples = series.processes.setdefault(name, [None] * len(series.seconds))
        samples.append(look(pid))
    series.seconds.append(second)
    for samples in series.processes.values():
        samples.extend([None] * (len(series.seconds) - len(samples)))
    files = os.scandir("/dev/shm")
    series.shm_mib.append(sum(entry.stat().st_blocks * 512 for entry in files if entry.name.startswith("naiad")) / MIB)


def look(pid: int) -> Sample | None:
    """A process now; None if it is gone."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        pss_kib = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return Sample(
            pss_mib=pss_kib / 1024,
            num_descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            num_threads=len(os.listdir(f"/proc/{pid}/task")),
        )
    return None


def refusals(access_log: Path) -> dict[str, int]:
    """What the gateway's latest lines say of requests that did not get an answer from a replica."""
    found = Counter[str]()
    for path in (access_log.with_suffix(".old"), access_log):
        with suppress(OSError), open(path) as lines:
            for line in lines:
                told = json.loads(line) if line.endswith("}\n") else {}
                if told.get("details", "via_upstream") != "via_upstream":
                    found[f"{told['details']} (flags {told.get('flags')}, gRPC status {told.get('grpc_status')})"] += 1
    return dict(found.most_common(10))


def summary(series: Series) -> str:
    """The memory of each process now."""
    return ", ".join(
        f"{name} {last.pss_mib:.0f}" for name, samples in series.processes.items() if (last := samples[-1])
    )


def judge(series: Series) -> list[Verdict]:
    """Hold what was noted against the rule at the top."""
    settled = next(
        (number for number, second in enumerate(series.seconds) if second >= WARM_UP * series.seconds[-1]), 0
    )
    verdicts = []
    for name, samples in series.processes.items():
        rest = samples[settled:]
        if any(sample is None for sample in rest):
            verdicts.append(Verdict(name=name, what="gone, or new", first=0.0, second=0.0, flat=False))
            continue
        there = [sample for sample in rest if sample is not None]
        verdicts.append(halves(name, "MiB", [each.pss_mib for each in there], MAX_GROWTH_MIB, MAX_GROWTH))
        verdicts.append(halves(name, "descriptors", [each.num_descriptors for each in there], MAX_MORE))
        verdicts.append(halves(name, "threads", [each.num_threads for each in there], MAX_MORE))
    verdicts.append(halves("/dev/shm", "MiB", series.shm_mib[settled:], MAX_SHM_MIB))
    return verdicts


def halves(name: str, what: str, values: Sequence[float], more: float, growth: float = 0.0) -> Verdict:
    """Compare the medians of the two halves."""
    middle = max(1, len(values) // 2)
    first, second = statistics.median(values[:middle]), statistics.median(values[middle:] or values)
    flat = second - first <= max(more, growth * first)
    return Verdict(name=name, what=what, first=first, second=second, flat=flat)


def report(series: Series, load: Mapping[str, Any], verdicts: Sequence[Verdict]) -> bool:
    """Print everything; whether it is well."""
    print(
        f"\n{load['num_requests']:,} requests in {load['window_s']:.0f} s at {load['per_s']:,.0f}/s "
        f"({load['share']:.0%} of {load['highest_per_s']:,.0f}/s): {load['num_failed']:,} failed, "
        f"p50 {load['p50_ms']:.1f} ms, p99 {load['p99_ms']:.1f} ms, {len(series.seconds)} looks"
    )
    for kind, count in load["errors"].items():
        print(f"  {count:,} × {kind}: {load['examples'].get(kind, '')}")
    for reason, count in load["refused"].items():
        print(f"  access log, last minutes: {count:,} × {reason}")
    if load["restarts"]:
        print(f"  {load['restarts']} restarts")
    print(f"\n{'':<22}{'':<12}{'first half':>12}{'second half':>12}{'growth':>9}")
    for each in verdicts:
        grown = each.second / each.first - 1 if each.first else 0.0
        print(
            f"{each.name:<22}{each.what:<12}{each.first:>12.1f}{each.second:>12.1f}{grown:>+9.1%}  "
            f"{'flat' if each.flat else 'NOT FLAT'}"
        )
    return not load["num_failed"] and not load["restarts"] and all(each.flat for each in verdicts)


if __name__ == "__main__":
    sys.exit(main())
