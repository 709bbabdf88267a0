"""A million requests, every hundredth of which fails: nothing may grow, nothing may stay behind.

    make soak          or: python tests/soak/client.py [--requests 1000000]

The real embedded server, a blocking client for eight threads and an asyncio client for sixteen tasks; every tenth
request goes through shared memory, and every tenth of the requests through clients that are made for it and closed
again. A million takes about ten minutes on two cores. The exit status is 1 if an answer is wrong, an error is another
than the expected one, memory grows by 5 % or more after the first 50,000, or a thread, a descriptor, a segment of
shared memory or its registration is left.
"""

import argparse
import gc
import multiprocessing
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import models
from calls import EVERY, FAILURES, Tasks, Threads

MAX_GROWTH = 0.05
SETTLED_AFTER = 50_000
LAP = 5_000
WARM_UP = 1_200
SETTLE_S = 30.0
SEGMENTS = Path("/dev/shm")


def main() -> int:
    """Serve the models, soak in a process that does nothing else, report."""
    from naiad.server import EmbeddedTriton

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000, metavar="N")
    num_requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        models.write(repository)
        with EmbeddedTriton(repository) as triton:
            process = multiprocessing.get_context("spawn").Process(target=soak, args=(triton.admin_url, num_requests))
            process.start()
            process.join()
            left = registered(triton.grpc_address, triton.admin_secret)
    print(f"regions left at the server  {len(left)}")
    return 1 if process.exitcode or left else 0


def soak(url: str, num_requests: int) -> None:
    """Send the requests, look at this process before and after; exit with 1 if something is wrong."""
    send(url, range(WARM_UP))  # what grpcio makes once for the life of a process is there from here on
    before, seen = Traces.of_this_process(), set[str]()
    threads, tasks, memory = Threads(url), Tasks(url), dict[int, int]()
    started = time.monotonic()
    print(f"{'requests':>10} {'seconds':>8} {'MiB':>7} {'threads':>8} {'descriptors':>12}")
    for start in range(0, num_requests, LAP):
        end = min(start + LAP, num_requests)
        half, tenth = (end - start) // 2, (end - start) // 10
        threads.run(range(start, start + half))
        tasks.run(range(start + half, end - tenth))
        send(url, range(end - tenth, end))
        seen |= mapped_segments()
        memory[end] = resident_bytes()
        if end % max(LAP, num_requests // 20) == 0 or end == num_requests:
            now = Traces.of_this_process()
            seconds = time.monotonic() - started
            print(
                f"{end:>10,} {seconds:>8.0f} {memory[end] / 2**20:>7.1f} {now.num_threads:>8} {now.num_descriptors:>12}"
            )
    threads.close()
    tasks.close()
    outcome = report(num_requests, memory, before, seen)  # with both still there: closed is closed
    Tasks.runner.close()
    sys.exit(outcome)


def send(url: str, numbers: range) -> None:
    """Send these requests, half of them each way, with clients of their own."""
    half = len(numbers) // 2
    for make, part in ((Threads, numbers[:half]), (Tasks, numbers[half:])):
        sender = make(url)
        try:
            sender.run(part)
        finally:
            sender.close()


class Traces:
    """What a process has at one moment."""

    def __init__(self, num_threads: int, num_native_threads: int, num_descriptors: int) -> None:
        self.num_threads = num_threads
        self.num_native_threads = num_native_threads
        self.num_descriptors = num_descriptors

    @classmethod
    def of_this_process(cls) -> "Traces":
        """Look now, without what only waits for the collector."""
        gc.collect()
        return cls(threading.active_count(), len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")))


def report(num_requests: int, memory: dict[int, int], before: Traces, seen: set[str]) -> int:
    """Print the table of what is left; return 1 if something is that should not be."""
    settled_at = min(SETTLED_AFTER, num_requests // 2 // LAP * LAP or LAP)
    growth = max(memory[end] for end in memory if end >= settled_at) / memory[settled_at] - 1
    left = [
        ("threads", before.num_threads, lambda: Traces.of_this_process().num_threads),
        ("threads of the system", before.num_native_threads, lambda: Traces.of_this_process().num_native_threads),
        ("descriptors", before.num_descriptors, lambda: Traces.of_this_process().num_descriptors),
        ("segments of shared memory", 0, lambda: sum((SEGMENTS / name).exists() for name in seen)),
    ]
    print(
        f"\n{num_requests:,} requests, {num_requests // EVERY:,} of them wrong in {len(FAILURES)} ways, as they had to"
    )
    print(f"{'':<28}{'before':>8}{'after':>8}")
    failed = growth >= MAX_GROWTH or not seen
    for name, was, count in left:
        now = settled(count, was)
        failed |= now > was
        print(f"{name:<28}{was:>8}{now:>8}{'  LEFT BEHIND' * (now > was)}")
    print(f"memory after {settled_at:,} requests: {memory[settled_at] / 2**20:.1f} MiB, at most {growth:+.1%} later")
    print(f"segments of shared memory used: {len(seen)}")
    return int(failed)


def settled(count: Callable[[], int], expected: int) -> int:
    """Count until it is what it was before; grpcio ends its threads and closes its sockets a moment later."""
    deadline = time.monotonic() + SETTLE_S
    while (now := count()) > expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return now


def resident_bytes() -> int:
    """This process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def mapped_segments() -> set[str]:
    """Names of the client's segments that this process has open now."""
    return set(re.findall(r"/dev/shm/(naiad-client-[\w.-]+)", Path("/proc/self/maps").read_text()))


def registered(address: str, secret: str) -> list[str]:
    """Names of the regions that the server knows."""
    import tritonclient.grpc as reference

    with reference.InferenceServerClient(address) as client:
        answer = client.get_system_shared_memory_status(headers={"triton-grpc-protocol-admin-key": secret})
    return list(answer.regions)


if __name__ == "__main__":
    sys.exit(main())
