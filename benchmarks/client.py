"""naiad.client against tritonclient, on one embedded Triton, in one run.

    make bench-client        or: python benchmarks/client.py [--only "asyncio|16 MiB"] [--json results.json]

Each side runs in a process of its own, as a service would, both send the same requests to the same server, and rounds
alternate: what counts is the ratio of neighbouring rounds. Sizes are exact powers of two (4 KiB, 16 MiB) and not (4 kB,
12 MB): protobuf copies the former once more.

Most cases call models that leave the server as little to do as it can have (``minimal_models.py`` says how), because it
is the client that is to be timed. The last ones call real models, trained or exported here and run by ONNX Runtime: it
is what a user would see, with the server's share in it.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import minimal_models
from client_sides import (
    Kind,
    Request,
    Tensor,
    ours_asyncio,
    ours_blocking,
    ours_encoding,
    peer_asyncio_calls,
    peer_blocking_calls,
    peer_encoding,
)
from measure import Case, compare, report

SMALL: Final = {"4 KiB": 4096, "4 kB": 4000, "64 KiB": 65536, "64 kB": 64000}
LARGE_IN: Final = {"12 MB": 12_000_000, "16 MiB": 16 << 20, "32 MiB": 32 << 20, "48 MB": 48_000_000}
LARGE_OUT: Final = {"16 MB": 16_000_000, "16 MiB": 16 << 20, "64 MB": 64_000_000, "64 MiB": 64 << 20}
ARENA: Final = {"16 MB": 16_000_000, "16 MiB": 16 << 20, "64 MB": 64_000_000, "64 MiB": 64 << 20}
NUM_WORDS: Final = 100_000
REAL: Final = ", real model"
WIRE: Final = {"shared_memory": False}  # what our side is given where grpcio is compared with grpcio


def main() -> None:
    """Serve what the chosen cases need, compare, print."""
    from naiad.server import EmbeddedTriton

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="PATTERN", default="", help="regular expression: the cases to run")
    parser.add_argument("--list", action="store_true", help="name the cases and run none")
    parser.add_argument("--rounds", type=int, default=7, help="of each side, in each case, at least")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a case takes, about")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all samples")
    options = parser.parse_args()
    names = {case.name for case in cases("") if re.search(options.only, case.name)}
    if not names:
        parser.error(f"--only: expected a part of a case's name, found {options.only!r}; --list names them")
    if options.list:
        print("\n".join(case.name for case in cases("") if case.name in names))
        return
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        minimal_models.write(repository)
        if any(name.endswith(REAL) for name in names):
            publish(repository)
        with EmbeddedTriton(repository, response_cache_bytes=minimal_models.CACHE_BYTES) as triton:
            chosen = [case for case in cases(triton.grpc_address, triton.admin_secret) if case.name in names]
            compared = [compare(case, rounds=options.rounds, seconds=options.seconds) for case in chosen]
    report(compared, options.json)
    print(f"{time.monotonic() - started:.0f} s in all")


def publish(repository: Path) -> None:
    """Train and export the digits recipe, and export a model that returns its first value."""
    import torch

    from naiad.export import export, export_recipe, load_recipe

    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    export_recipe(load_recipe("digits"), repository=repository)
    export(
        First(),
        "first",
        samples=[(torch.zeros(2, 64),)],
        dynamic={"x": {0: "batch", 1: "length"}},
        max_batch_size=4,
        repository=repository,
    )


def cases(address: str, secret: str = "") -> Iterator[Case]:
    """Everything that is compared; the embedded server wants the secret for shared memory."""
    for size, size_bytes in SMALL.items():
        sent, received = small_in(size_bytes), kept(size_bytes)
        yield blocking(address, f"{size} in", sent, goal=1.15)
        yield blocking(address, f"{size} out", received, goal=1.15)
        yield blocking(address, f"{size} in, 16 threads", sent, num_threads=16, goal=1.15)
        yield in_flight(address, f"{size} in, asyncio, 16 in flight", sent, 16, goal=1.15)
        yield in_flight(address, f"{size} in, asyncio, 64 in flight", sent, 64, goal=1.15)
    for size, size_bytes in LARGE_IN.items():
        yield blocking(address, f"{size} in", unread(size_bytes), goal=2.5)
    for size, size_bytes in LARGE_OUT.items():
        yield blocking(address, f"{size} out", kept(size_bytes), goal=1.5)
    for size in ("4 KiB", "4 kB"):
        row = Request(model="seen_rows", inputs=(Tensor(name="x", shape=(1, SMALL[size] // 4)),))
        for callers, goal in ((16, 6.0), (64, None)):
            yield in_flight(
                address, f"{size} in, asyncio, {callers} callers batched", row, callers, goal=goal, batched=True
            )
    yield from arena(address, secret)
    yield from words(address)
    yield from real(address)


def arena(address: str, secret: str) -> Iterator[Case]:
    """Large tensors through shared memory on our side, copied in and out as ever; over the connection on the other."""
    options = {"admin_secret": secret, "shared_memory": True}
    for size, size_bytes in ARENA.items():
        yield blocking(address, f"{size} in, arena", unread(size_bytes), goal=25.0, options=options)
        received = replace(kept(size_bytes), idempotent=True)
        yield blocking(address, f"{size} out, arena", received, goal=25.0, options=options)


def small_in(size_bytes: int) -> Request:
    """A small input, which the server looks up in its cache."""
    return Request(model="seen", inputs=(Tensor(name="x", shape=(size_bytes // 4,)),))


def kept(size_bytes: int) -> Request:
    """An output of that size, from the server's cache."""
    return Request(model="kept", inputs=(count(size_bytes // 4),))


def unread(size_bytes: int) -> Request:
    """A large input, which the server does not look at."""
    tensors = (Tensor(name="x", shape=(size_bytes // 4,)), count(1))
    return Request(model="unread", inputs=tensors, only=True)


def count(value: int) -> Tensor:
    """An input that is one number."""
    return Tensor(name="n", shape=(1,), kind="count", value=value)


def words(address: str) -> Iterator[Case]:
    """BYTES tensors: 100,000 words of 16 bytes, as objects and of a fixed width."""
    kinds: tuple[tuple[Kind, str, float], ...] = (("objects", "objects", 1.8), ("fixed", "S16", 100.0))
    for kind, described, goal in kinds:
        tensor = Tensor(name="x", shape=(NUM_WORDS,), kind=kind)
        name = f"BYTES 100k × 16 B, {described}"
        yield Case(f"{name}, encoding alone", partial(ours_encoding, tensor), partial(peer_encoding, tensor), goal)
        request = Request(model="unread_words", inputs=(tensor, count(1)), only=True)
        yield blocking(address, f"{name}, in", request)
    yield blocking(address, "BYTES 100k × 16 B, out", Request(model="kept_words", inputs=(count(NUM_WORDS),)))


def real(address: str) -> Iterator[Case]:
    """Models that ONNX Runtime runs."""
    digit = Request(model="digits", inputs=(Tensor(name="image", shape=(1, 1, 8, 8)),), output="probabilities")
    yield in_flight(address, f"one digit, asyncio, 64 in flight{REAL}", digit, 64)
    for size in ("12 MB", "16 MiB"):
        tensor = Tensor(name="x", shape=(1, LARGE_IN[size] // 4))
        yield blocking(address, f"{size} in{REAL}", Request(model="first", inputs=(tensor,), output="output"))


def blocking(
    address: str,
    name: str,
    request: Request,
    *,
    num_threads: int = 1,
    goal: float | None = None,
    options: Mapping[str, Any] = WIRE,
) -> Case:
    """Blocking calls from one thread or several; ``options`` are those of naiad.client.Client."""
    ours = partial(ours_blocking, address, request, num_threads, options)
    return Case(name, ours, partial(peer_blocking_calls, address, request, num_threads), goal)


def in_flight(
    address: str, name: str, request: Request, calls: int, *, goal: float | None = None, batched: bool = False
) -> Case:
    """So many calls at a time in one event loop; ``batched`` has naiad.client send them together."""
    ours = partial(ours_asyncio, address, request, calls, WIRE, batched)
    return Case(name, ours, partial(peer_asyncio_calls, address, request, calls), goal)


if __name__ == "__main__":
    main()
