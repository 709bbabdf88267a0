"""naiad.client against tritonclient, on one embedded Triton, in one run.

    make bench-client        or: python benchmarks/client.py [--rounds 7] [--json results.json]

The digits recipe is trained, exported and served as it would be for anybody; the large input goes to a model that averages it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import torch
import tritonclient.grpc as peer_sync
import tritonclient.grpc.aio as peer_aio
from measure import Comparison, compare, report
from numpy.typing import NDArray

from naiad.client import AsyncClient, Client
from naiad.export import export, load_recipe
from naiad.server import EmbeddedTriton

IN_FLIGHT = 64
Array = NDArray[np.float32]


class Mean(torch.nn.Module):
    """As little work as a model can do with a large input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :16].mean(dim=1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sample = publish(Path(folder) / "repository")
        with EmbeddedTriton(Path(folder) / "repository") as triton:
            cases = [
                small(triton, sample, options.rounds),
                large(triton, 12_000_000, options.rounds),
                large(triton, 2**24, options.rounds),
            ]
    report(cases, options.json)


def publish(repository: Path) -> Array:
    """Export both models; return one digit."""
    recipe = load_recipe("digits")
    recipe.export(repository=repository)
    export(Mean(), "mean", samples=[(torch.zeros(2, 64),)], dynamic={"x": {0: "batch", 1: "length"}}, max_batch_size=4,
           repository=repository)  # fmt: skip
    (images, *_) = recipe.held_out()
    return np.ascontiguousarray(images[:1])


def small(triton: EmbeddedTriton, sample: Array, rounds: int) -> Comparison:
    async def ours(call: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
        async with AsyncClient(triton.grpc_url) as client:
            digits = client.model("digits")
            name = (await digits.metadata()).inputs[0].name
            await call(lambda: digits(**{name: sample}))

    with Client(triton.grpc_url) as client:
        metadata = client.model_metadata("digits")
    name, output = metadata.inputs[0].name, metadata.outputs[0].name

    async def peer(call: Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]) -> None:
        async with peer_aio.InferenceServerClient(triton.grpc_address) as client:

            async def once() -> object:
                tensor = peer_sync.InferInput(name, list(sample.shape), "FP32")
                tensor.set_data_from_numpy(sample)
                return (await client.infer("digits", [tensor])).as_numpy(output)

            await call(once)

    return compare(
        f"digits, {IN_FLIGHT} in flight, asyncio", "request",
        ours=lambda n: asyncio.run(ours(in_flight(n))), peer=lambda n: asyncio.run(peer(in_flight(n))),
        repetitions=6000, rounds=rounds, goal=1.05,
    )  # fmt: skip


def in_flight(total: int) -> Callable[[Callable[[], Awaitable[object]]], Awaitable[None]]:
    """Keep as many requests in flight as long as there are any left."""

    async def call(once: Callable[[], Awaitable[object]]) -> None:
        left = iter(range(total))

        async def worker() -> None:
            for _ in left:
                await once()

        await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))

    return call


def large(triton: EmbeddedTriton, size_bytes: int, rounds: int) -> Comparison:
    x = np.random.default_rng(0).random((1, size_bytes // 4), np.float32)

    def ours(count: int) -> None:
        with Client(triton.grpc_url) as client:
            mean = client.model("mean")
            for _ in range(count):
                mean(x=x)

    def peer(count: int) -> None:
        with peer_sync.InferenceServerClient(triton.grpc_address) as client:
            for _ in range(count):
                tensor = peer_sync.InferInput("x", list(x.shape), "FP32")
                tensor.set_data_from_numpy(x)
                client.infer("mean", [tensor]).as_numpy("output")

    return compare(
        f"{size_bytes:,} bytes in, blocking", "request", ours=ours, peer=peer, repetitions=20, rounds=rounds, goal=2.5
    )


if __name__ == "__main__":
    main()
