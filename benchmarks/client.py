"""naiad.client against tritonclient, on one embedded Triton, in one run.

    make bench-client        or: python benchmarks/client.py [--rounds 7] [--json results.json]

The digits recipe is trained, exported and served as for anybody; the large input goes to a model that returns its first
value, so that what is compared is the way there. Each side runs in a process of its own, as a service would.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import tritonclient.grpc as peer_sync
import tritonclient.grpc.aio as peer_aio
from measure import Comparison, compare, report
from numpy.typing import NDArray

from naiad.client import AsyncClient, Client

IN_FLIGHT = 64
Array = NDArray[np.float32]


def main() -> None:
    """Publish both models, serve them, compare, print."""
    from naiad.server import EmbeddedTriton

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        digit = publish(Path(folder) / "repository")
        with EmbeddedTriton(Path(folder) / "repository") as triton:
            address = triton.grpc_address
            cases = [
                small(address, digit, options.rounds),
                *(large(address, size, options.rounds) for size in (12_000_000, 2**24)),
            ]
    report(cases, options.json)


def publish(repository: Path) -> Array:
    """Export both models; return one digit."""
    import torch

    from naiad.export import export, export_recipe, load_recipe

    class First(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1]

    recipe = load_recipe("digits")
    export_recipe(recipe, repository=repository)
    export(
        First(),
        "first",
        samples=[(torch.zeros(2, 64),)],
        dynamic={"x": {0: "batch", 1: "length"}},
        max_batch_size=4,
        repository=repository,
    )
    return recipe.held_out()[0]["image"][:1]


def small(address: str, digit: Array, rounds: int) -> Comparison:
    """Many requests of one digit at a time."""
    return compare(
        f"digits, {IN_FLIGHT} in flight, asyncio",
        ours=partial(ours_small, address, digit),
        peer=partial(peer_small, address, digit),
        repetitions=6000,
        rounds=rounds,
        goal=1.05,
    )


def ours_small(address: str, digit: Array, count: int) -> None:
    async def run() -> None:
        async with AsyncClient(address) as client:
            digits = client.model("digits")
            await in_flight(count, lambda: digits(image=digit))

    asyncio.run(run())


def peer_small(address: str, digit: Array, count: int) -> None:
    async def run() -> None:
        async with peer_aio.InferenceServerClient(address) as client:

            async def once() -> object:
                tensor = peer_sync.InferInput("image", list(digit.shape), "FP32")
                tensor.set_data_from_numpy(digit)
                return (await client.infer("digits", [tensor])).as_numpy("probabilities")

            await in_flight(count, once)

    asyncio.run(run())


async def in_flight(count: int, once: Callable[[], Awaitable[object]]) -> None:
    """Keep as many requests in flight as long as there are any left."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await once()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def large(address: str, size_bytes: int, rounds: int) -> Comparison:
    """One request at a time with a large input."""
    return compare(
        f"{size_bytes:,} bytes in, blocking",
        ours=partial(ours_large, address, size_bytes),
        peer=partial(peer_large, address, size_bytes),
        repetitions=60,
        rounds=rounds,
        goal=2.5,
    )


@cache  # made once in each process, not timed
def large_input(size_bytes: int) -> Array:
    return np.random.default_rng(0).random((1, size_bytes // 4), np.float32)


def ours_large(address: str, size_bytes: int, count: int) -> None:
    x = large_input(size_bytes)
    with Client(address) as client:
        first = client.model("first")
        for _ in range(count):
            first(x=x)


def peer_large(address: str, size_bytes: int, count: int) -> None:
    x = large_input(size_bytes)
    with peer_sync.InferenceServerClient(address) as client:
        for _ in range(count):
            tensor = peer_sync.InferInput("x", list(x.shape), "FP32")
            tensor.set_data_from_numpy(x)
            client.infer("first", [tensor]).as_numpy("output")


if __name__ == "__main__":
    main()
